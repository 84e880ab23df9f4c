"""NET_BUFFER_LIST, NET_BUFFER and MDL: how bytes are described, and how progress on them is recorded.

A `NetBufferList` is one request or one indication; its `NetBuffer` is a run of bytes spread over `Mdl` pieces of
memory. The bytes of a NetBuffer are found by skipping ``data_offset`` bytes from the start of its MDL chain and
taking ``data_length`` bytes from there (documents: *NET_BUFFER*, *NET_BUFFER_LIST*). Nothing here copies stream data,
except `copy_into_net_buffer`, whose purpose it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chimney.ndis.errors import Misuse

IDLE_LEVEL = 0x7FFFFFFF
"""``level`` of a NetBufferList that no driver below a host has."""
FREED_LEVEL = -2
"""``level`` of a NetBufferList that has been given back to its pool."""


class Mdl:
    """One piece of memory: ``view`` (a flat byte memoryview; writable where data is to be placed), and the next
    piece.
    """

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.byte_count = view.nbytes
        self.next: Mdl | None = None


class NetBuffer:
    """A contiguous logical run of bytes over a chain of MDLs (*NET_BUFFER*)."""

    def __init__(self, mdl_chain: Mdl | None, data_offset: int, data_length: int) -> None:
        self.next: NetBuffer | None = None
        self.mdl_chain = mdl_chain
        self.current_mdl = mdl_chain
        self.current_mdl_offset = 0
        self.data_offset = 0
        self.data_length = data_length + data_offset
        if data_offset:
            advance_net_buffer_data_start(self, data_offset)

    def views(self) -> list[memoryview]:
        """The used bytes, in order, as views into the MDLs' memory."""
        found: list[memoryview] = []
        left = self.data_length
        mdl = self.current_mdl
        offset = self.current_mdl_offset
        while left > 0 and mdl is not None:
            take = min(left, mdl.byte_count - offset)
            if take > 0:
                found.append(mdl.view[offset : offset + take])
                left -= take
            mdl = mdl.next
            offset = 0
        return found


class NetBufferListContext:
    """A driver's own data on a NetBufferList (*NET_BUFFER_LIST_CONTEXT*); contexts form a stack."""

    def __init__(self, owner: object, data: object, next_context: NetBufferListContext | None) -> None:
        self.owner = owner
        self.data = data
        self.next = next_context


class NetBufferList:
    """One request or one indication (*NET_BUFFER_LIST*).

    The out-of-band entries are attributes: ``tcp_offload_bytes_transferred`` (TcpOffloadBytesTransferred) and
    ``tcp_receive_no_push`` (TcpReceiveNoPush). ``miniport_reserved`` belongs to the target and ``protocol_reserved``
    to the protocol while they own the structure; ``scratch`` to its current owner. ``pool`` is the pool it was
    allocated from, None for a stand-alone one. ``level`` and ``operation`` belong to NDIS: where a request is (see
    `chimney.ndis.library`), and what kind it is.
    """

    def __init__(self, first_net_buffer: NetBuffer) -> None:
        self.next: NetBufferList | None = None
        self.first_net_buffer = first_net_buffer
        self.context: NetBufferListContext | None = None
        self.miniport_reserved: object = None
        self.protocol_reserved: object = None
        self.scratch: object = None
        self.source_handle: object = None
        self.status = 0
        self.tcp_offload_bytes_transferred = 0
        self.tcp_receive_no_push = False
        self.pool: NetBufferListPool | None = None
        self.level = IDLE_LEVEL
        self.operation = 0

    def push_context(self, owner: object, data: object) -> None:
        """Put ``owner``'s data on top of the context stack (an intermediate driver, on the way down)."""
        self.context = NetBufferListContext(owner, data, self.context)

    def pop_context(self, owner: object) -> object:
        """Take ``owner``'s data off the context stack and return it.

        Raises RuntimeError if the top of the stack is another driver's: contexts leave in the reverse order of their
        arrival, so somebody completed a list that it does not own.
        """
        top = self.context
        if top is None or top.owner is not owner:
            whose = "empty" if top is None else f"{top.owner!r}'s"
            raise RuntimeError(
                f"{owner!r} takes its context off a NetBufferList whose context stack is {whose}: "
                "complete a list only once, and only after every driver below has taken its own context off"
            )
        self.context = top.next
        return top.data

    def data_length(self) -> int:
        """Used bytes in all its NetBuffers."""
        total = 0
        nb: NetBuffer | None = self.first_net_buffer
        while nb is not None:
            total += nb.data_length
            nb = nb.next
        return total


class NetBufferListPool:
    """Where a driver's own NetBufferLists come from (*NdisAllocateNetBufferListPool*); each has one NetBuffer.

    ``outstanding`` counts those that are not freed yet.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.outstanding = 0

    def allocate(self, net_buffer: NetBuffer) -> NetBufferList:
        """A NetBufferList of this pool around ``net_buffer``."""
        nbl = NetBufferList(net_buffer)
        nbl.pool = self
        self.outstanding += 1
        return nbl

    def free(self, net_buffer_list: NetBufferList) -> None:
        """Take a NetBufferList back. Raises Misuse if it is another pool's, free already, or with a driver below."""
        if net_buffer_list.pool is not self:
            raise Misuse(
                "NdisFreeNetBufferList",
                f"the list is not allocated from pool {self.name!r}, or is free already",
                "free each list once, into the pool that it came from",
                "reg.pools.two",
            )
        # An odd level: an intermediate driver has it back.
        if net_buffer_list.level != IDLE_LEVEL and not net_buffer_list.level & 1:
            raise Misuse(
                "NdisFreeNetBufferList",
                "the list is a pending request",
                "free it when it has been completed",
                "general.ownership.while-pending",
            )
        net_buffer_list.pool = None
        net_buffer_list.level = FREED_LEVEL
        self.outstanding -= 1


def advance_net_buffer_data_start(net_buffer: NetBuffer, delta: int) -> None:
    """Move the start of the used data forward by ``delta`` bytes, freeing no MDL (*NdisAdvanceNetBufferDataStart*).

    Raises ValueError if ``delta`` is negative or more than the used bytes.
    """
    if delta < 0 or delta > net_buffer.data_length:
        raise ValueError(f"data start advanced by {delta} of {net_buffer.data_length} used bytes")
    net_buffer.data_offset += delta
    net_buffer.data_length -= delta
    mdl = net_buffer.current_mdl
    offset = net_buffer.current_mdl_offset + delta
    while mdl is not None and offset >= mdl.byte_count and mdl.next is not None:
        offset -= mdl.byte_count
        mdl = mdl.next
    net_buffer.current_mdl = mdl
    net_buffer.current_mdl_offset = offset


def copy_into_net_buffer(net_buffer: NetBuffer, offset: int, data: memoryview) -> int:
    """Copy ``data`` into the used part of ``net_buffer``, ``offset`` bytes behind its start; return how many bytes
    fitted.
    """
    room = min(net_buffer.data_length - offset, data.nbytes)
    mdl = net_buffer.current_mdl
    at = net_buffer.current_mdl_offset + offset
    done = 0
    while done < room and mdl is not None:
        if at >= mdl.byte_count:
            at -= mdl.byte_count
            mdl = mdl.next
            continue
        take = min(room - done, mdl.byte_count - at)
        mdl.view[at : at + take] = data[done : done + take]
        done += take
        at += take
    return done


def net_buffer_list(*views: memoryview | bytes | bytearray) -> NetBufferList:
    """A stand-alone NetBufferList whose one NetBuffer describes ``views`` in order (none: zero bytes)."""
    first: Mdl | None = None
    last: Mdl | None = None
    total = 0
    for view in views:
        mdl = Mdl(memoryview(view).cast("B"))
        total += mdl.byte_count
        if last is None:
            first = mdl
        else:
            last.next = mdl
        last = mdl
    return NetBufferList(NetBuffer(first, 0, total))


def iterate(head: NetBufferList | None) -> Iterator[NetBufferList]:
    """The lists linked from ``head``; each one may be relinked as soon as it is handed out."""
    while head is not None:
        following = head.next
        yield head
        head = following


def link(lists: Iterable[NetBufferList]) -> NetBufferList | None:
    """Chain ``lists`` through ``next`` and return the head (None for none)."""
    head: NetBufferList | None = None
    last: NetBufferList | None = None
    for nbl in lists:
        if last is None:
            head = nbl
        else:
            last.next = nbl
        last = nbl
    if last is not None:
        last.next = None
    return head
