"""The verifier's books: which state objects exist at each boundary, which operations and requests are under way there,
and who has what. Checks read them; `bookkeeping` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.capabilities import TcpConnectionOffload, TcpConnectionOffloadParameters
from chimney.ndis.crossing import BlockView, Boundary, Crossing, Kind, NblView
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.state import (
    CachedState,
    ConstState,
    OffloadBlockList,
)
from chimney.ndis.status import (
    OffloadStateType,
    Status,
)
from chimney.verifier.streams import Stream

POISON = 0x5AFE0BAD
"""Status written into requests and blocks on their way down: whoever completes them has to overwrite it."""

REQUESTS = {Kind.SEND, Kind.RECEIVE, Kind.DISCONNECT, Kind.FORWARD}
COMPLETIONS = {
    Kind.SEND_COMPLETE: Kind.SEND,
    Kind.RECEIVE_COMPLETE: Kind.RECEIVE,
    Kind.DISCONNECT_COMPLETE: Kind.DISCONNECT,
    Kind.FORWARD_COMPLETE: Kind.FORWARD,
}
OPERATIONS = {Kind.INITIATE, Kind.TERMINATE, Kind.UPDATE, Kind.INVALIDATE, Kind.QUERY}
OPERATION_COMPLETIONS = {
    Kind.INITIATE_COMPLETE: Kind.INITIATE,
    Kind.TERMINATE_COMPLETE: Kind.TERMINATE,
    Kind.UPDATE_COMPLETE: Kind.UPDATE,
    Kind.INVALIDATE_COMPLETE: Kind.INVALIDATE,
    Kind.QUERY_COMPLETE: Kind.QUERY,
}
OFFLOADED = (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS)


_DONE_REQUESTS = 256
_DONE_BYTES = 1 << 20


class Layer(IntEnum):
    """The layer of a state object."""

    NEIGHBOR = 0
    PATH = 1
    TCP = 2


def layer_of(kind: OffloadStateType) -> Layer:
    """The layer that a block type belongs to."""
    return _LAYERS[kind]


_LAYERS = {
    kind: Layer.NEIGHBOR
    if kind <= OffloadStateType.NEIGHBOR
    else Layer.PATH
    if kind <= OffloadStateType.IP6
    else Layer.TCP
    for kind in OffloadStateType
}


@dataclass(slots=True, eq=False)
class ObjectBook:
    """One state object at one boundary, from the initiate to the end of its terminate.

    ``const`` and ``cached`` are copies of what the host gave last (``cached`` after a successful update). ``cell`` is
    the lower driver's value once offloaded. ``operations`` are the state operations of it that are open. ``offloaded``
    until its terminate has completed. ``requests`` are its open ones by the id of their list, ``orders`` counts
    those of each kind. ``stream`` is set for
    connections, the same object at every boundary; ``above`` is this object at the boundary above.
    """

    boundary: Boundary
    handle: OffloadHandle
    layer: Layer
    parent: ObjectBook | None
    const: ConstState | None
    cached: CachedState | None
    initiated: Crossing
    cell: object = None
    offloaded: bool = False
    ended: bool = False
    invalid: Crossing | None = None
    lower_handle: OffloadHandle | None = None
    operations: list[Operation] = field(default_factory=list)
    dependents: list[ObjectBook] = field(default_factory=list)
    requests: dict[int, Request] = field(default_factory=dict)
    orders: dict[Kind, int] = field(default_factory=dict)
    stream: Stream | None = None
    above: ObjectBook | None = None
    initiate_returned: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        if self.stream is not None:
            return self.stream.label
        return f"{self.layer.name.lower()} object"


TcpBook = ObjectBook


@dataclass(slots=True, eq=False)
class Operation:
    """A state operation at one boundary: the call, the handler (the tree's miniport form), the completion.

    ``objects`` has one entry for each block in documents' order, None for a placeholder; ``before`` the blocks as they
    were called with, ``lower`` as the handler got them, ``after`` as the completion brought them. ``above`` is the
    operation that it belongs to at the boundary above, and ``parts`` are those that it has become below. ``facts`` is
    for the checks' own notes.
    """

    kind: Kind
    boundary: Boundary
    call: Crossing
    root: OffloadBlockList
    objects: list[ObjectBook | None]
    new: list[bool]
    handler: Crossing | None = None
    lower_root: OffloadBlockList | None = None
    completion: Crossing | None = None
    above: Operation | None = None
    parts: list[Operation] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def before(self) -> tuple[BlockView, ...]:
        return self.call.blocks

    @property
    def lower(self) -> tuple[BlockView, ...]:
        return self.handler.blocks if self.handler is not None else ()

    @property
    def after(self) -> tuple[BlockView, ...]:
        return self.completion.blocks if self.completion is not None else ()

    def streams(self) -> list[Stream]:
        """The connections in the tree."""
        return [item.stream for item in self.objects if item is not None and item.stream is not None]


@dataclass(slots=True, eq=False)
class Request:
    """A send, receive, disconnect or forward at one boundary.

    ``view`` is the list as it was posted; ``order`` counts the requests of its kind on its connection at this boundary;
    ``inside`` has the numbers of the calls that it was posted within, ``reentrant`` says that a completion of its kind
    for its connection at this boundary is among them. ``chained``: it came in an initiate's chain. ``start`` and
    ``end`` are its positions in the send stream. ``above`` and ``below`` are the same request at the next boundaries;
    ``serial`` counts all completions, 0 before its own.
    """

    kind: Kind
    nbl: NetBufferList
    boundary: Boundary
    book: ObjectBook
    posted: Crossing
    view: NblView
    order: int
    inside: tuple[int, ...] = ()
    reentrant: bool = False
    chained: bool = False
    flags: int = 0
    start: int = 0
    end: int = 0
    completed: Crossing | None = None
    returned_in_chain: bool = False
    above: Request | None = None
    below: Request | None = None
    serial: int = 0

    length: int = field(init=False)
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.length = self.view.length
        self.stream = self.book.stream  # type: ignore[assignment]  # requests are made of connections

    @property
    def prefilled(self) -> int:
        """Bytes that a non-push receive held when it was posted (A9)."""
        return self.view.bytes_transferred if self.view.no_push else 0

    def data(self, start: int = 0, length: int | None = None) -> bytes:
        """The posted bytes, or ``length`` of them from ``start`` on, read from the caller's memory."""
        wanted = self.length - start if length is None else length
        parts = []
        for offset, used, mdls in self.view.buffers:
            if start >= used:
                start -= used
                continue
            offset += start
            left = min(used - start, wanted)
            start = 0
            wanted -= left
            for mdl in mdls:
                count = mdl.byte_count
                if offset >= count:
                    offset -= count
                    continue
                take = min(left, count - offset)
                parts.append(bytes(mdl.view[offset : offset + take]))
                left -= take
                offset = 0
                if not left:
                    break
            if not wanted:
                break
        return b"".join(parts)


@dataclass(slots=True, eq=False)
class Completed:
    """One list of a completion call: as it comes back, and the open request it belongs to (None: there is none).
    ``delivered``: what a receive above its target should hold, until the call returns.
    """

    view: NblView
    request: Request | None
    earlier: Request | None = None
    elsewhere: Request | None = None
    delivered: bytes = b""


class BoundaryBook:
    """What is known about one boundary.

    ``objects`` by the id of the upper handle; ``requests`` the open ones by the id of their list, ``done`` those that
    have come back lately; ``operations`` the
    open state operations; ``lent`` the lists of accepted indications and BufferedData that are above, with the
    connection; ``parameters`` and ``capabilities`` as set and reported last; ``paused`` and ``uploading_all`` as
    indicated. ``facts`` is for the checks' own notes.
    """

    def __init__(self, boundary: Boundary) -> None:
        self.boundary = boundary
        self.objects: dict[int, ObjectBook] = {}
        self.requests: dict[int, Request] = {}
        self.done: dict[int, Request] = {}
        self._done_bytes = 0
        self.operations: list[Operation] = []
        self.lent: dict[int, tuple[NetBufferList, Crossing, Stream | None]] = {}
        self.tables: list[object] = []
        self.capabilities: TcpConnectionOffload | None = None
        self.parameters: TcpConnectionOffloadParameters | None = None
        self.paused: Crossing | None = None
        self.uploading_all: Crossing | None = None
        self.facts: dict[str, Any] = {}

    def take(self, nbl: NetBufferList) -> Request | None:
        """The open request of this list, which is not open any more."""
        request = self.requests.pop(id(nbl), None)
        if request is not None:
            request.book.requests.pop(id(nbl), None)
        return request

    def finished(self, request: Request) -> None:
        """A request has come back."""
        # The id may have been another list's before.
        self._done_bytes -= self._done_length(self.done.pop(id(request.nbl), None))
        self.done[id(request.nbl)] = request
        self._done_bytes += request.length

    def forget_done(self) -> None:
        """Let go of the oldest requests that have come back: they keep their owners' memory."""
        while len(self.done) > _DONE_REQUESTS or (self.done and self._done_bytes > _DONE_BYTES):
            self._done_bytes -= self._done_length(self.done.pop(next(iter(self.done))))

    @staticmethod
    def _done_length(request: Request | None) -> int:
        return 0 if request is None else request.length

    def open_requests(self, book: ObjectBook, *kinds: Kind) -> list[Request]:
        """The connection's open requests of these kinds (all, if none are given), oldest first."""
        return [request for request in book.requests.values() if not kinds or request.kind in kinds]

    def offloaded(self, layer: Layer | None = None) -> list[ObjectBook]:
        """The objects that are offloaded now."""
        return [o for o in self.objects.values() if o.offloaded and (layer is None or o.layer is layer)]


class Books:
    """All boundaries of an observer, and the connections that cross them."""

    def __init__(self) -> None:
        self.boundaries: dict[int, BoundaryBook] = {}
        self.streams: dict[tuple[bytes, int, bytes, int], Stream] = {}

    def of(self, where: Boundary | Crossing) -> BoundaryBook:
        """The book of a boundary."""
        boundary = where.boundary if isinstance(where, Crossing) else where
        book = self.boundaries.get(boundary.number)
        if book is None:
            book = self.boundaries[boundary.number] = BoundaryBook(boundary)
        return book

    def object(self, crossing: Crossing) -> ObjectBook | None:
        """The object that a data request, an indication or an event is about, by its handle; a handler of a miniport
        is given a context, and is looked up by the call it belongs to.
        """
        handle = crossing.handle
        at: Crossing | None = crossing
        while handle is None and at is not None:
            at = at.parent
            handle = None if at is None or at.boundary is not crossing.boundary else at.handle
            if at is not None and at.boundary is not crossing.boundary:
                break
        return None if handle is None else self.of(crossing).objects.get(id(handle))

    def labels(self, crossing: Crossing) -> list[str]:
        """The connections that a call is about, as far as they are known."""
        found: list[ObjectBook | Stream | None] = [self.object(crossing)]
        if isinstance(crossing.notes, Operation):
            found += crossing.notes.streams()
        elif isinstance(crossing.notes, list):
            for entry in crossing.notes:
                request = (entry.request or entry.earlier) if isinstance(entry, Completed) else entry
                if isinstance(request, Request):
                    found.append(request.book)
        return list(dict.fromkeys(item.label for item in found if item is not None))

    def below(self, boundary: Boundary) -> list[BoundaryBook]:
        """The boundaries under the driver below ``boundary``; empty above a target."""
        driver = boundary.miniport.driver
        if driver is None:
            return []
        return [book for book in self.boundaries.values() if book.boundary.protocol.driver is driver]

    def above(self, boundary: Boundary) -> list[BoundaryBook]:
        """The boundaries over the driver above ``boundary``; empty below a host."""
        driver = boundary.protocol.driver
        if driver is None:
            return []
        return [book for book in self.boundaries.values() if book.boundary.miniport.driver is driver]
