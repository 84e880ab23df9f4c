"""The base of intermediate drivers: everything that each of them has to do, and hooks where one may differ.

A driver *has* upper edges (virtual miniports) and lower edges (bindings). The base keeps an offload entry for every
state object and a call entry for every call under way, turns handles, takes merged completions apart by upper edge and
receive-returns by lower edge, and answers a shortage of memory (documents: chapter 12; A24, A25). A driver that changes
nothing is ``IntermediateDriver(name)``; one that differs overrides the hooks:

    on_request, on_completion          a data request goes down, completions come up
    on_indication, on_event            received data, an event of a connection
    on_state_request, on_state_completion   the five state operations
    on_status, on_frames, on_offload_event  of an adapter below
    choose_lower                       behind which lower edge a new object goes
    prepare_initiate                   VLAN and priority of what is being offloaded
    hardware_capabilities, current_config   what the driver above is told
    allocate                           whether there is memory for a record

Each hook's own method does what must be done, and is called by the override to go on, at once or later.
"""

from __future__ import annotations

from typing import NoReturn

from chimney.intermediate.edges import DISCONNECT, FORWARD, RECEIVE, SEND, LowerEdge, OffloadEntry, UpperEdge
from chimney.intermediate.oids import OidCall, complete_oid, pass_oid_down
from chimney.intermediate.trees import CallEntry, ascend, call_up, descend, event_block
from chimney.ndis.buffers import NetBufferList, NetBufferListContext, net_buffer_list
from chimney.ndis.capabilities import OidRequest, TcpConnectionOffload
from chimney.ndis.errors import Misuse
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.state import MiniportOffloadBlockList, ProtocolOffloadBlockList
from chimney.ndis.status import Status, StatusIndication, TcpOffloadEvent, UploadReason

_SEND, _RECEIVE, _DISCONNECT, _FORWARD = SEND, RECEIVE, DISCONNECT, FORWARD
_SUCCESS = int(Status.SUCCESS)
_PENDING = int(Status.PENDING)
_REQUEST_UPLOAD = int(Status.REQUEST_UPLOAD)
_UPLOAD_REQUESTED = int(Status.UPLOAD_REQUESTED)
_UPLOAD_IN_PROGRESS = int(Status.UPLOAD_IN_PROGRESS)
_NOT_ACCEPTED = int(Status.OFFLOAD_DATA_NOT_ACCEPTED)

# Which requests of a connection are not passed down any more (OffloadEntry.refusing).
_NO_SENDS = 1
_NO_RECEIVES = 2
_STOPPED = 4

_DEFERRED_EVENT = 0
_DEFERRED_DATA = -1
_SPARE_RECORDS = 256


class IntermediateDriver:
    """An intermediate driver with ``uppers`` upper and ``lowers`` lower edges. Bind the lower edges first.

    ``upper`` and ``lower`` are the first of each. ``allows_offload`` False: it says to the driver above that there is
    no chimney here (im.cap.query). ``records``: whether it attaches a record to every data request that passes (always
    with several edges above, or if `allocate` is overridden); without, the way back is known anyway.

    ``call_entries`` counts the records of calls under way, ``offload_entries`` the state objects known: both are 0 at
    rest.
    """

    allows_offload = True

    def __init__(self, name: str, uppers: int = 1, lowers: int = 1, *, records: bool = False) -> None:
        self.name = name
        several_up, several_down = uppers > 1, lowers > 1
        self.uppers = [
            UpperEdge(f"{name} (upper edge{f' {n + 1}' * several_up})", self, n) for n in range(uppers)
        ]
        self.lowers = [
            LowerEdge(f"{name} (lower edge{f' {n + 1}' * several_down})", self, n) for n in range(lowers)
        ]
        self.upper = self.uppers[0]
        self.lower = self.lowers[0]
        # A dict for its order, which does not depend on where in memory the entries are.
        self.entries: dict[OffloadEntry, None] = {}
        self.calls: set[CallEntry] = set()
        self.oids: dict[OidRequest, OidCall] = {}
        self.data_entries = 0
        self.lent = 0
        # Receive completions and indications being executed above, and refused requests that wait for their end.
        self.receiving = 0
        self.late: list[OffloadEntry] = []
        self.asks = self._overrides("allocate")
        self.records = records or several_up or several_down or self.asks
        self.lends = several_down
        self.uploading = False
        self.direct_down = not (self.records or self._overrides("on_request", "pass_down"))
        self.direct_up = not (self.records or self._overrides("on_completion", "complete", "complete_up"))
        self.direct_in = not (self.records or self._overrides("on_indication", "indicate"))
        self._spare: NetBufferListContext | None = None
        self._spares = 0

    def _overrides(self, *names: str) -> bool:
        return any(getattr(type(self), name) is not getattr(IntermediateDriver, name) for name in names)

    @property
    def call_entries(self) -> int:
        """Records of calls under way: one for each state operation, and (if it keeps records) each request."""
        return self.data_entries + len(self.calls)

    @property
    def offload_entries(self) -> int:
        """State objects that have been passed down and are not back."""
        return len(self.entries)

    # Registration

    def lower_bound(self) -> None:
        """A lower edge has been bound: the levels of what is above follow from it."""
        level = 1 + max(lower.binding.miniport.level for lower in self.lowers if lower.binding is not None)
        for upper in self.uppers:
            upper.level = level

    def hardware_capabilities(self, upper: UpperEdge) -> TcpConnectionOffload | None:
        """What ``upper`` reports as hardware capabilities: those of the adapter below."""
        return self.lower.binding.hardware_capabilities

    def current_config(self, upper: UpperEdge) -> TcpConnectionOffload | None:
        """What ``upper`` reports as current configuration."""
        return self.lower.binding.current_config

    def on_oid_request(self, upper: UpperEdge, request: OidRequest) -> int:
        """MiniportOidRequest: sets and queries go down (im.cap.query)."""
        return pass_oid_down(self, upper, request)

    def oid_lowers(self, upper: UpperEdge, request: OidRequest) -> list[LowerEdge]:
        """The lower edges that an OID request goes to; their answers are put together."""
        return self.lowers

    def on_oid_completion(self, lower: LowerEdge, request: OidRequest, status: int) -> None:
        """ProtocolOidRequestComplete: a request that was PENDING below has ended."""
        complete_oid(self, request, status)

    # Data requests

    def on_request(self, entry: OffloadEntry, operation: int, net_buffer_list: NetBufferList, flags: int) -> int:
        """Hook: a data request comes from above. Pass it down by `pass_down`, now or later; returns PENDING."""
        return self.pass_down(entry, operation, net_buffer_list, flags)

    def pass_down(self, entry: OffloadEntry, operation: int, net_buffer_list: NetBufferList, flags: int) -> int:
        """Pass a request to the driver below, under our own handle (im.io.own-handle)."""
        if not self.records:
            return self.call_down(entry, operation, net_buffer_list, flags)
        if entry.refusing and self._refuses(entry, operation):
            return self.refuse(entry, operation, net_buffer_list)
        if not self.attach(entry, operation, net_buffer_list):
            return self.refuse(entry, operation, net_buffer_list)
        try:
            return self.call_down(entry, operation, net_buffer_list, flags)
        except BaseException:
            # Refused before anything has changed hands: the list is the upper driver's, as it was.
            self._detach_all(net_buffer_list, operation)
            raise

    def call_down(self, entry: OffloadEntry, operation: int, net_buffer_list: NetBufferList, flags: int) -> int:
        """NdisOffloadTcpXxx, the function of this operation (im.io.same-function)."""
        if operation == _SEND:
            return entry.lower.binding.offload_tcp_send(entry.handle, net_buffer_list)
        if operation == _RECEIVE:
            return entry.lower.binding.offload_tcp_receive(entry.handle, net_buffer_list)
        if operation == _DISCONNECT:
            return entry.lower.binding.offload_tcp_disconnect(entry.handle, net_buffer_list, flags)
        return entry.lower.binding.offload_tcp_forward(entry.handle, net_buffer_list)

    def attach(self, entry: OffloadEntry, operation: int, head: NetBufferList) -> bool:
        """Put a record on every list. False: there is no memory, and nothing has been attached."""
        count = 0
        nbl: NetBufferList | None = head
        try:
            while nbl is not None:
                if self.asks and not self.allocate("call entry"):
                    break
                self.push(nbl, entry)
                count += 1
                nbl = nbl.next
        except MemoryError:
            pass
        if nbl is not None:
            done: NetBufferList | None = head
            while done is not None and done is not nbl:
                self.pop(done)
                done = done.next
            return False
        self.data_entries += count
        if operation == _RECEIVE:
            entry.receives_below += count
        elif operation != _FORWARD:
            entry.sends_below += count
        return True

    def push(self, nbl: NetBufferList, data: object) -> None:
        """Put our record on top of a list's context stack. Raises MemoryError."""
        context = self._spare
        if context is None:
            nbl.context = NetBufferListContext(self, data, nbl.context)
            return
        self._spare = context.next
        self._spares -= 1
        context.data = data
        context.next = nbl.context
        nbl.context = context

    def pop(self, nbl: NetBufferList) -> object:
        """Take our record off a list's context stack and return what it holds. Raises Misuse if it is not on top."""
        context = nbl.context
        if context is None or context.owner is not self:
            self._refuse_record()
        assert context is not None
        data = context.data
        nbl.context = context.next
        context.data = None
        if self._spares < _SPARE_RECORDS:
            self._spares += 1
            context.next = self._spare
            self._spare = context
        return data

    def _refuse_record(self) -> NoReturn:
        raise Misuse(
            f"{self.name}: a list comes back",
            "its context stack does not have this driver's record on top",
            "complete or return a list once, and take your own record off before it leaves you",
            "general.complete-exactly-once",
        )

    def detach(self, nbl: NetBufferList, operation: int) -> OffloadEntry:
        """Take our record off a request that comes back; returns the entry of its connection."""
        entry: OffloadEntry = self.pop(nbl)  # type: ignore[assignment]
        if operation == _RECEIVE:
            entry.receives_below -= 1
        elif operation != _FORWARD:
            entry.sends_below -= 1
        return entry

    def _detach_all(self, head: NetBufferList, operation: int) -> None:
        nbl: NetBufferList | None = head
        while nbl is not None:
            self.detach(nbl, operation)
            self.data_entries -= 1
            nbl = nbl.next

    # Requests that are not passed down

    def allocate(self, what: str) -> bool:
        """Hook: asked before a record is made, "call entry" or "offload entry". False: there is no memory for it."""
        return True

    def stop(self, entry: OffloadEntry) -> None:
        """Pass no more requests of this connection down: they come back with UPLOAD_IN_PROGRESS, after all older ones
        (upload.sends). For a driver that has asked for the connection's upload. Raises ValueError without ``records``.
        """
        if not self.records:
            raise ValueError(f"{self.name} keeps no records, and so no order: make it with records=True")
        entry.refusing |= _STOPPED

    def _refuses(self, entry: OffloadEntry, operation: int) -> bool:
        if entry.refusing & _STOPPED:
            return True
        if operation == _FORWARD:
            return False
        return bool(entry.refusing & (_NO_RECEIVES if operation == _RECEIVE else _NO_SENDS))

    def refuse(self, entry: OffloadEntry, operation: int, head: NetBufferList) -> int:
        """Give a request back that cannot be passed down (im.send.no-memory.*, A24), in its order. Returns PENDING.

        Later requests of its kind are refused, too: below they would overtake this one.
        """
        first, rest = _REQUEST_UPLOAD, _UPLOAD_REQUESTED
        if operation == _FORWARD or entry.refusing & _STOPPED:
            first = rest = _UPLOAD_IN_PROGRESS
        elif operation == _RECEIVE:
            entry.refusing |= _NO_RECEIVES
        else:
            entry.refusing |= _NO_SENDS
        nbl: NetBufferList | None = head
        status = first
        while nbl is not None:
            nbl.status = status
            nbl.tcp_offload_bytes_transferred = 0
            status = rest
            nbl = nbl.next
        if operation == _FORWARD:
            self.complete_up(entry.upper, operation, head)
        else:
            entry.held.append((operation, head))
            if operation == _RECEIVE and self.receiving:
                # One receive completion at a time (10.2): it was posted from within another one.
                self.late.append(entry)
            else:
                self._give_back_held(entry)
        return _PENDING

    def _give_back_held(self, entry: OffloadEntry) -> None:
        """Complete the refused requests that have no older ones of their kind below any more."""
        waiting = entry.held
        entry.held = []
        for operation, head in waiting:
            if entry.receives_below if operation == _RECEIVE else entry.sends_below:
                entry.held.append((operation, head))
            else:
                self.complete_up(entry.upper, operation, head)

    def _give_back_late(self) -> None:
        while self.late and not self.receiving:
            self._give_back_held(self.late.pop(0))

    def take_held(self, entry: OffloadEntry) -> list[tuple[int, NetBufferList]]:
        """The refused requests of a connection whose offload ends."""
        waiting = entry.held
        entry.held = []
        return waiting

    # Completions

    def on_completion(self, lower: LowerEdge, operation: int, net_buffer_list: NetBufferList) -> None:
        """Hook: completed requests come from below; `complete` passes them up, in any number of lists, now or later.

        Order within a connection must be kept.
        """
        self.complete(operation, net_buffer_list)

    def complete(self, operation: int, net_buffer_list: NetBufferList) -> None:
        """Propagate a completion: the same list to the upper edge it came by, or its parts to theirs (12.4)."""
        if not self.records:
            self.complete_up(self.upper, operation, net_buffer_list)
            return
        head = net_buffer_list
        first: UpperEdge | None = None
        split = False
        held: list[OffloadEntry] | None = None
        count = 0
        previous: NetBufferList | None = None
        nbl: NetBufferList | None = head
        while nbl is not None:
            following = nbl.next
            entry = self.detach(nbl, operation)
            count += 1
            if entry.held:
                held = held or []
                if entry not in held:
                    held.append(entry)
            upper = entry.upper
            if first is None:
                first = upper
            special = entry.deferred is not None or nbl.protocol_reserved is self
            if not split and (special or upper is not first):
                split = True
                if previous is not None:
                    previous.next = None
                    first.head, first.tail = head, previous
            if split:
                nbl.next = None
                if not special:
                    self._append(upper, nbl)
                elif entry.deferred is not None:
                    entry.deferred.append((operation, nbl, 0))
            previous = nbl
            nbl = following
        if operation == _RECEIVE:
            self.receiving += 1
        try:
            if split:
                self._complete_parts(operation)
            elif first is not None:
                self.complete_up(first, operation, head)
        finally:
            # The record is freed when the completion has been propagated (im.complete.free-entry).
            self.data_entries -= count
            if operation == _RECEIVE:
                self.receiving -= 1
        for entry in held or ():
            self._give_back_held(entry)
        if self.late:
            self._give_back_late()

    def _append(self, upper: UpperEdge, nbl: NetBufferList) -> None:
        tail = upper.tail
        if tail is None:
            upper.head = nbl
        else:
            tail.next = nbl
        upper.tail = nbl

    def _complete_parts(self, operation: int) -> None:
        """Complete what has been collected at each upper edge. A handler may post requests and complete others."""
        parts = []
        for upper in self.uppers:
            head = upper.head
            if head is not None:
                parts.append((upper, head))
                upper.head = upper.tail = None
        for upper, head in parts:
            self.complete_up(upper, operation, head)

    def complete_up(self, upper: UpperEdge, operation: int, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadXxxComplete, the function of this operation, on the handle of ``upper`` (im.complete.*)."""
        if operation == _SEND:
            upper.handle.tcp_offload_send_complete(net_buffer_list)
        elif operation == _RECEIVE:
            upper.handle.tcp_offload_receive_complete(net_buffer_list)
        elif operation == _DISCONNECT:
            upper.handle.tcp_offload_disconnect_complete(net_buffer_list)
        else:
            upper.handle.tcp_offload_forward_complete(net_buffer_list)

    # Indications

    def on_indication(self, entry: OffloadEntry, net_buffer_list: NetBufferList, status: int) -> tuple[int, int]:
        """Hook: received data is indicated from below. Returns the verdict, and how many bytes were consumed."""
        return self.indicate(entry, net_buffer_list, status)

    def indicate(self, entry: OffloadEntry, net_buffer_list: NetBufferList, status: int) -> tuple[int, int]:
        """Indicate to the driver above under its own handle, and return its verdict (im.indicate.propagate)."""
        if entry.deferred is not None:
            # The driver above does not know yet that this connection is offloaded.
            entry.deferred.append((_DEFERRED_DATA, None, 0))
            return _NOT_ACCEPTED, 0
        if self.lends:
            self.lend(net_buffer_list, entry.lower)
        self.receiving += 1
        try:
            verdict, consumed = entry.upper.handle.tcp_offload_receive_handler(
                entry.upper_handle, net_buffer_list, status
            )
        finally:
            self.receiving -= 1
        if self.lends and verdict != _SUCCESS:
            self.pop(net_buffer_list)
            self.lent -= 1
        if self.late:
            self._give_back_late()
        return verdict, consumed

    def lend(self, head: NetBufferList, lower: LowerEdge) -> None:
        """Note on lists that go up to stay there for a while behind which lower edge they belong."""
        nbl: NetBufferList | None = head
        while nbl is not None:
            self.push(nbl, lower)
            self.lent += 1
            nbl = nbl.next

    def on_receive_return(self, net_buffer_list: NetBufferList) -> int:
        """Hook: the driver above gives indicated lists back; each goes to the binding that lent it."""
        if not self.lends:
            return self.lower.binding.offload_tcp_receive_return(net_buffer_list)
        nbl: NetBufferList | None = net_buffer_list
        while nbl is not None:
            if nbl.context is None or nbl.context.owner is not self:
                self._refuse_record()
            nbl = nbl.next
        nbl = net_buffer_list
        while nbl is not None:
            following = nbl.next
            nbl.next = None
            lower: LowerEdge = self.pop(nbl)  # type: ignore[assignment]
            self.lent -= 1
            if lower.tail is None:
                lower.head = nbl
            else:
                lower.tail.next = nbl
            lower.tail = nbl
            nbl = following
        parts = [(lower, lower.head) for lower in self.lowers if lower.head is not None]
        for lower, _ in parts:
            lower.head = lower.tail = None
        for lower, head in parts:
            lower.binding.offload_tcp_receive_return(head)
        return _SUCCESS

    def on_event(self, entry: OffloadEntry, event_type: int, information: int) -> None:
        """Hook: an event of a connection comes from below."""
        self.indicate_event(entry, event_type, information)

    def indicate_event(self, entry: OffloadEntry, event_type: int, information: int) -> None:
        """Raise an event at the driver above, under its own handle (im.event.propagate)."""
        if entry.deferred is not None:
            entry.deferred.append((_DEFERRED_EVENT, event_type, information))
        else:
            entry.upper.handle.tcp_offload_event_handler(entry.upper_handle, event_type, information)

    def release_deferred(self, entry: OffloadEntry) -> None:
        """The driver above knows that this connection is offloaded: tell what has come up for it meanwhile."""
        waiting = entry.deferred
        entry.deferred = None
        refused = False
        for operation, what, information in waiting or ():
            if operation == _DEFERRED_DATA:
                refused = True
            elif operation == _DEFERRED_EVENT:
                assert isinstance(what, int)
                self.indicate_event(entry, what, information)
            else:
                assert isinstance(what, NetBufferList)
                self.complete_up(entry.upper, operation, what)
        if refused and entry in self.entries:
            self._ask_again(entry)

    def _ask_again(self, entry: OffloadEntry) -> None:
        """Let the target indicate what we had to refuse: a zero-length request of our own does that (10.3)."""
        request = net_buffer_list()
        request.protocol_reserved = self
        if self.attach(entry, _RECEIVE, request):
            self.call_down(entry, _RECEIVE, request, 0)

    def on_offload_event(self, lower: LowerEdge, block: ProtocolOffloadBlockList | None, code: int) -> None:
        """Hook: a generic event, such as the question whether a neighbor is reachable; what the host writes into the
        cached state is below at once (A18).
        """
        if block is None:
            for upper in self.uppers:
                upper.handle.offload_event_indicate(None, code)
            return
        assert block.offload_handle is not None
        entry: OffloadEntry = block.offload_handle.protocol_context  # type: ignore[assignment]
        entry.upper.handle.offload_event_indicate(event_block(block, entry), code)

    def on_status(self, lower: LowerEdge, code: int, buffer: object) -> None:
        """Hook: a status indication of an adapter below."""
        self.indicate_status(code, buffer)

    def indicate_status(self, code: int, buffer: object = None) -> None:
        """NdisMIndicateStatusEx at every upper edge."""
        for upper in self.uppers:
            upper.handle.indicate_status_ex(code, buffer)

    def on_frames(self, lower: LowerEdge, net_buffer_list: NetBufferList) -> None:
        """Hook: frames on the ordinary path; every upper edge sees them."""
        for upper in self.uppers:
            upper.handle.indicate_receive_net_buffer_lists(net_buffer_list)

    # State operations

    def on_state_request(self, upper: UpperEdge, operation: str, tree: MiniportOffloadBlockList) -> None:
        """Hook: a state operation comes from above: "initiate", "terminate", "update", "invalidate" or "query"."""
        descend(self, upper, operation, tree)

    def on_state_completion(self, lower: LowerEdge, operation: str, tree: ProtocolOffloadBlockList) -> None:
        """Hook: a state operation has completed below; `ascend` passes it up, now or later."""
        ascend(self, lower, operation, tree)

    def choose_lower(self, upper: UpperEdge, block: MiniportOffloadBlockList) -> LowerEdge:
        """Hook: the lower edge for a new object that stands on no offloaded one; its dependents follow it."""
        return self.lower

    def prepare_initiate(self, entry: OffloadEntry, block: ProtocolOffloadBlockList) -> None:
        """Hook: a block with an object's new state goes down. VlanId and UserPriority may be set, in a copy of the
        state structure: the structure itself is the host's (im.initiate.vlan).
        """

    def new_entry(self, upper_handle: OffloadHandle, upper: UpperEdge, lower: LowerEdge) -> OffloadEntry:
        """The entry, with our own handle, of an object that is passed down (handle.im.own-handle). Raises MemoryError
        if `allocate` says so.
        """
        if not self.allocate("offload entry"):
            raise MemoryError
        entry = OffloadEntry(upper_handle, upper, lower)
        self.entries[entry] = None
        return entry

    def publish(self, above: MiniportOffloadBlockList, entry: OffloadEntry) -> None:
        """An object is offloaded: write our context into the cell of the driver above (handle.im.context-up)."""
        above.miniport_offload_context = entry

    def remove(self, entry: OffloadEntry) -> None:
        """An object's offload has ended, or failed: its entry goes (handle.im.entry-lifetime)."""
        self.entries.pop(entry, None)

    def save(self, call: CallEntry, below: ProtocolOffloadBlockList) -> None:
        """Keep the words of the tree from above, and leave a way to find the entry in the one for below
        (im.state.save).
        """
        call.im_reserved = call.tree.im_reserved
        call.source_handle = call.tree.source_handle
        below.im_reserved = call

    def restore(self, call: CallEntry) -> None:
        """Put the saved words back into the tree that goes up (im.state.restore)."""
        call.tree.im_reserved = call.im_reserved
        call.tree.source_handle = call.source_handle

    def complete_tree(self, call: CallEntry) -> None:
        """NdisMXxxOffloadComplete, with the tree that was received (im.state.complete)."""
        call_up(call)

    # The driver's own doing

    @property
    def pending(self) -> int:
        """How much waits for `poll`."""
        return 0

    def poll(self) -> None:
        """Hook: the event loop has come round. A driver that keeps things back lets them go here."""

    def pause(self) -> None:
        """Ask the drivers above to offload nothing for the time being."""
        self.indicate_status(StatusIndication.OFFLOAD_PAUSE)

    def upload_all(self) -> None:
        """Ask for everything back, what is on its way down included; requests that still come are not performed (A29).
        Raises ValueError without ``records``.
        """
        self.uploading = True
        for entry in self.entries:
            self.stop(entry)
        self.indicate_status(StatusIndication.UPLOAD_ALL)

    def upload(self, entry: OffloadEntry, reason: UploadReason) -> None:
        """Ask for one connection's upload. For a mandatory reason its requests are not performed any more (A29)."""
        if reason.mandatory:
            self.stop(entry)
        self.indicate_event(entry, TcpOffloadEvent.INDICATE_RETRIEVE, reason)

    def resume(self) -> None:
        """Take offloads again; the drivers above learn the capabilities."""
        self.uploading = False
        for upper in self.uppers:
            upper.handle.indicate_status_ex(StatusIndication.OFFLOAD_RESUME, upper.hardware_capabilities())
