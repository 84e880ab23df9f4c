"""State operations through an intermediate driver: down with our own handles, up with the saved words (9.1, 12.3).

A tree whose objects belong to several lower edges is taken apart: each lower driver gets the tree with its own objects,
and placeholders where another one's stand in between. Its parts come back one by one; the whole goes up when the last
one is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.intermediate.edges import SEND, LowerEdge, OffloadEntry, UpperEdge
from chimney.ndis.buffers import NetBufferList, iterate
from chimney.ndis.errors import Misuse
from chimney.ndis.state import MiniportOffloadBlockList, ProtocolOffloadBlockList, TcpDelegated, walk
from chimney.ndis.status import Status, UploadReason

if TYPE_CHECKING:
    from chimney.intermediate.base import IntermediateDriver

Pair = tuple[MiniportOffloadBlockList, ProtocolOffloadBlockList]

_OFFLOADED = (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS)


class CallEntry:
    """IM call entry of one state operation: the tree from above with its saved words, and its parts below.

    ``owners`` has the offload entry of every object of the tree, ``created`` those made for this initiate; ``pairs``
    what became of each block, ``waiting`` the roots that have not come back, with their lower edges.
    """

    def __init__(self, upper: UpperEdge, operation: str, tree: MiniportOffloadBlockList) -> None:
        self.upper = upper
        self.operation = operation
        self.tree = tree
        self.im_reserved: object = None
        self.source_handle: object = None
        self.owners: dict[MiniportOffloadBlockList, OffloadEntry] = {}
        self.created: list[OffloadEntry] = []
        self.misplaced: set[MiniportOffloadBlockList] = set()
        self.charged: list[tuple[MiniportOffloadBlockList, OffloadEntry]] = []
        self.pairs: list[Pair] = []
        self.waiting: dict[ProtocolOffloadBlockList, LowerEdge] = {}


def descend(driver: IntermediateDriver, upper: UpperEdge, operation: str, tree: MiniportOffloadBlockList) -> None:
    """Pass a state operation down, in as many parts as lower edges are concerned.

    Without memory for the records it fails at once, nothing having been passed down (A24).
    """
    call = CallEntry(upper, operation, tree)
    driver.calls.add(call)
    try:
        if not driver.allocate("call entry"):
            raise MemoryError
        parts = _prepare(driver, call)
    except MemoryError:
        _undo(driver, call)
        driver.calls.discard(call)
        refuse(driver, upper, operation, tree)
        return
    except BaseException:
        _undo(driver, call)
        driver.calls.discard(call)
        raise
    if not parts:
        # Nothing but placeholders, and blocks that fail here.
        _finish(driver, call)
        return
    several = len(parts) > 1
    if several and operation == "initiate":
        for entry in call.created:
            entry.deferred = []
    for root, lower in parts:
        try:
            getattr(lower.binding, _DOWN[operation])(root)
        except BaseException:
            if several and root is not parts[0][0]:
                _fail_part(driver, call, lower, root)
                continue
            _undo(driver, call)
            driver.calls.discard(call)
            raise


def ascend(driver: IntermediateDriver, lower: LowerEdge, operation: str, root: ProtocolOffloadBlockList) -> None:
    """A part of a state operation has come back; with the last one the whole goes up.

    Raises Misuse if it is not under way.
    """
    call = root.im_reserved
    if not isinstance(call, CallEntry) or call.waiting.pop(root, None) is not lower or call.operation != operation:
        raise Misuse(
            f"Protocol{operation.capitalize()}OffloadComplete",
            f"{lower.name} has no such operation under way",
            "complete each tree once, by the function of its operation",
            "general.complete-exactly-once",
        )
    root.im_reserved = None
    if not call.waiting:
        _finish(driver, call)


def refuse(
    driver: IntermediateDriver,
    upper: UpperEdge,
    operation: str,
    tree: MiniportOffloadBlockList,
    shortage: Status = Status.RESOURCES,
) -> None:
    """Complete a tree that is not passed down: new objects fail with ``shortage``, everything else with FAILURE (A24).
    """
    for block in walk(tree):
        if block.placeholder:
            block.status = Status.SUCCESS
        elif block.miniport_offload_context is None:
            block.status = shortage
        else:
            # A linker, none of whose dependents was offloaded; or an object in an operation that failed.
            block.status = Status.FAILURE
    call_up(CallEntry(upper, operation, tree))


def call_up(call: CallEntry) -> None:
    """NdisMXxxOffloadComplete on the handle of the edge that the tree came by."""
    getattr(call.upper.handle, _UP[call.operation])(call.tree)


def event_block(block: ProtocolOffloadBlockList, entry: OffloadEntry) -> MiniportOffloadBlockList:
    """The block of a generic event for the driver above, with its own handle and the same state."""
    return MiniportOffloadBlockList(
        type=block.type,
        const=block.const,
        cached=block.cached,
        delegated=block.delegated,
        status=block.status,
        ndis_offload_handle=entry.upper_handle,
    )


_DOWN = {
    "initiate": "initiate_offload",
    "terminate": "terminate_offload",
    "update": "update_offload",
    "invalidate": "invalidate_offload",
    "query": "query_offload_state",
}
_UP = {
    "initiate": "initiate_offload_complete",
    "terminate": "terminate_offload_complete",
    "update": "update_offload_complete",
    "invalidate": "invalidate_offload_complete",
    "query": "query_offload_state_complete",
}


def _prepare(driver: IntermediateDriver, call: CallEntry) -> list[tuple[ProtocolOffloadBlockList, LowerEdge]]:
    """Find every object's owner, attach records to handed-over sends, and make the trees for below."""
    _assign(driver, call, call.tree, None)
    if driver.records and call.operation == "initiate":
        for block, entry in call.owners.items():
            chain = block.net_buffer_list_chain
            if chain is not None:
                if not driver.attach(entry, SEND, chain):
                    raise MemoryError
                call.charged.append((block, entry))
    lowers: list[LowerEdge] = []
    for block, entry in call.owners.items():
        if entry.lower not in lowers and block not in call.misplaced:
            lowers.append(entry.lower)
    if not call.owners:
        lowers.append(driver.lower)
    parts = []
    for lower in lowers:
        root = _mirror(driver, call, call.tree, lower, len(lowers) > 1 or bool(call.misplaced))
        assert root is not None
        driver.save(call, root)
        call.waiting[root] = lower
        parts.append((root, lower))
    return parts


def _assign(
    driver: IntermediateDriver, call: CallEntry, block: MiniportOffloadBlockList | None, parent: OffloadEntry | None
) -> None:
    """Give every object of a row, and all above it, its offload entry; a new one goes where its parent is."""
    while block is not None:
        entry = parent
        if not block.placeholder:
            assert block.ndis_offload_handle is not None
            known = block.miniport_offload_context
            if isinstance(known, OffloadEntry):
                entry = known
                if call.operation == "update" and parent is not None and parent.lower is not known.lower:
                    # A path cannot move to a next hop of another adapter: the host takes it back, and offloads anew.
                    call.misplaced.add(block)
            else:
                lower = parent.lower if parent is not None else driver.choose_lower(call.upper, block)
                entry = driver.new_entry(block.ndis_offload_handle, call.upper, lower)
                entry.type = block.type
                call.created.append(entry)
            call.owners[block] = entry
        _assign(driver, call, block.dependent_block_list, entry)
        block = block.next_block


def _mirror(
    driver: IntermediateDriver,
    call: CallEntry,
    block: MiniportOffloadBlockList | None,
    lower: LowerEdge,
    prune: bool,
) -> ProtocolOffloadBlockList | None:
    """The row that begins with ``block``, and all above it, for one lower edge: its own objects, and what the shape
    needs.
    """
    first: ProtocolOffloadBlockList | None = None
    last: ProtocolOffloadBlockList | None = None
    while block is not None:
        entry = call.owners.get(block)
        dependents = _mirror(driver, call, block.dependent_block_list, lower, prune)
        own = entry is not None and entry.lower is lower and block not in call.misplaced
        if own or dependents is not None or not prune:
            made = _lower_form(block, entry if own else None)
            made.dependent_block_list = dependents
            if own or not prune:
                call.pairs.append((block, made))
                if own and call.operation == "initiate":
                    assert entry is not None
                    if block.miniport_offload_context is None:
                        driver.prepare_initiate(entry, made)
            if last is None:
                first = made
            else:
                last.next_block = made
            last = made
        block = block.next_block
    return first


def _lower_form(block: MiniportOffloadBlockList, entry: OffloadEntry | None) -> ProtocolOffloadBlockList:
    """One block for the driver below, without its links: with our own handle. Without ``entry`` a
    placeholder: one from above, or for an object that belongs elsewhere.
    """
    if entry is None and not block.placeholder:
        return ProtocolOffloadBlockList(type=block.type)
    return ProtocolOffloadBlockList(
        type=block.type,
        const=block.const,
        cached=block.cached,
        delegated=block.delegated,
        net_buffer_list_chain=block.net_buffer_list_chain,
        port_number=block.port_number,
        protocol_reserved=block.protocol_reserved,
        source_handle=block.source_handle,
        offload_handle=None if entry is None else entry.handle,
    )


def _finish(driver: IntermediateDriver, call: CallEntry) -> None:
    """Everything is back: results into the tree from above, entries made or gone, and up with it."""
    for block in walk(call.tree):
        if block.placeholder:
            block.status = Status.SUCCESS
        elif block in call.misplaced:
            block.status = Status.FAILURE
    for above, below in call.pairs:
        above.status = below.status
        above.net_buffer_list_chain = below.net_buffer_list_chain
    if call.operation == "initiate":
        _settle_initiate(driver, call)
    elif call.operation == "terminate":
        _settle_terminate(driver, call)
    driver.restore(call)
    try:
        driver.complete_tree(call)
    finally:
        driver.calls.discard(call)
    for entry in call.created:
        if entry.deferred is not None:
            driver.release_deferred(entry)
        if driver.uploading and entry.connection and entry in driver.entries:
            # It was on its way down when everything was to come back.
            driver.upload(entry, UploadReason.UPLOAD_REQUESTED)


def _settle_initiate(driver: IntermediateDriver, call: CallEntry) -> None:
    for block, _ in call.charged:
        if block.status not in _OFFLOADED:
            _release_chain(driver, block.net_buffer_list_chain)
    created = set(call.created)
    for block, entry in call.owners.items():
        if entry not in created:
            continue
        if block.status in _OFFLOADED:
            driver.publish(block, entry)
        else:
            entry.deferred = None
            driver.remove(entry)


def _settle_terminate(driver: IntermediateDriver, call: CallEntry) -> None:
    for block, entry in call.owners.items():
        if driver.records:
            _release_chain(driver, block.net_buffer_list_chain)
        delegated = block.delegated
        if isinstance(delegated, TcpDelegated):
            if driver.lends and delegated.buffered_data is not None:
                driver.lend(delegated.buffered_data, entry.lower)
            _give_back(driver, block, entry, delegated)
        if block.status == Status.SUCCESS:
            driver.remove(entry)


def _give_back(
    driver: IntermediateDriver, block: MiniportOffloadBlockList, entry: OffloadEntry, delegated: TcpDelegated
) -> None:
    """Requests that were refused, and waited for older ones, end with the offload: sends go behind the others in the
    chain, if there is one, for they come later in the stream (A5).
    """
    for operation, head in driver.take_held(entry):
        if operation == SEND and block.net_buffer_list_chain is not None:
            *_, last = iterate(block.net_buffer_list_chain)
            last.next = head
            *_, delegated.send_data_tail = iterate(head)
        else:
            driver.complete_up(entry.upper, operation, head)


def _release_chain(driver: IntermediateDriver, chain: NetBufferList | None) -> None:
    for nbl in iterate(chain):
        driver.detach(nbl, SEND)
        driver.data_entries -= 1


def _fail_part(
    driver: IntermediateDriver, call: CallEntry, lower: LowerEdge, root: ProtocolOffloadBlockList
) -> None:
    """A lower driver has refused its part while others have theirs: for the driver above it has failed."""
    for block in walk(root):
        block.status = Status.SUCCESS if block.offload_handle is None else Status.FAILURE
    ascend(driver, lower, call.operation, root)


def _undo(driver: IntermediateDriver, call: CallEntry) -> None:
    """Nothing has been passed down: no records, no entries."""
    for block, _ in call.charged:
        _release_chain(driver, block.net_buffer_list_chain)
    for entry in call.created:
        driver.remove(entry)
