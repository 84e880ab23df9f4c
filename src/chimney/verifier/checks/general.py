"""What holds for every operation: whose a structure is, who may wait, what comes back (chapters 2, 3 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from chimney.ndis.buffers import Mdl
from chimney.ndis.crossing import Crossing, Kind, NblView, Stage
from chimney.ndis.status import Status
from chimney.verifier.books import (
    COMPLETIONS,
    OPERATION_COMPLETIONS,
    REQUESTS,
    Completed,
    ObjectBook,
    Operation,
)
from chimney.verifier.check import Checks, enter, finish, leave, packet
from chimney.verifier.packets import IPV4, IPV6, SYN, TCP, Packet

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_WORK = (*COMPLETIONS, *OPERATION_COMPLETIONS, Kind.RECEIVE_INDICATE)
_LISTS = (*REQUESTS, *COMPLETIONS, Kind.RECEIVE_RETURN, Kind.RECEIVE_INDICATE, Kind.ORDINARY_RECEIVE)
_OPEN = "general: open requests"
_SAMPLE = 1 << 16
_SAMPLES = 16


class RoutingChecks(Checks):
    """What goes through the chimney, and what a target does on the wire."""

    RULES = ("general.switch", "general.target.data-only", "general.same-nbl")

    @enter(*REQUESTS)
    def requested(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            item = self.books.object(crossing)
            self.check(
                "general.switch",
                item is not None and item.offloaded,
                "a data request is passed down for a connection that is not offloaded",
                crossing,
                item,
            )

    @packet
    def sent(self, packet: Packet) -> None:
        if not packet.incoming:
            self.check(
                "general.target.data-only",
                packet.ethertype in (IPV4, IPV6) and packet.protocol == TCP and not packet.flags & SYN,
                lambda: f"the target sends what is the host's business: {packet}",
                packet,
            )

    @enter(*_LISTS, stage=Stage.HANDLER)
    def passed(self, crossing: Crossing) -> None:
        call = crossing.parent
        if call is not None and call.boundary is crossing.boundary:
            there, here = call.nbls, crossing.nbls
            same = len(there) == len(here)
            if same:
                for a, b in zip(there, here, strict=True):
                    same = same and a.nbl is b.nbl
            self.check("general.same-nbl", same, "NDIS has passed on another list than it was given", crossing)


class WaitChecks(Checks):
    """Handlers do not wait: while one runs, no target goes on with its work.

    A target that completes or delivers something while the innermost call under way is another upward handler has been
    made to run from within that handler, which has waited for it.
    """

    RULES = ("general.context.dispatch-level",)

    @enter(*_WORK)
    def upward(self, crossing: Crossing) -> None:
        within = crossing.parent
        if not crossing.boundary.bottom or within is None:
            return
        if within.stage is Stage.HANDLER and not within.kind.down:
            self.check(
                "general.context.dispatch-level",
                False,
                f"{within.function} of {within.boundary.protocol.name} waits: the target runs within it",
                crossing,
                culprit=within.boundary.protocol.name,
            )

    @leave(Kind.EVENT, Kind.RECEIVE_INDICATE, Kind.OFFLOAD_EVENT)
    def indicated(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            self.exercise("general.context.dispatch-level")


class BalanceChecks(Checks):
    """Everything that goes down comes back, once; what goes up comes back before the adapter goes."""

    RULES = ("general.complete-exactly-once", "general.unload.after-returns")
    _ONCE = "general.complete-exactly-once"

    @enter(*REQUESTS)
    def posted(self, crossing: Crossing) -> None:
        for request in crossing.notes:
            request.book.facts[_OPEN] = request.book.facts.get(_OPEN, 0) + 1

    @leave(*REQUESTS)
    def refused(self, crossing: Crossing) -> None:
        if crossing.raised is not None:
            for request in crossing.notes or ():
                request.book.facts[_OPEN] -= 1

    @enter(Kind.INITIATE, stage=Stage.HANDLER)
    def handed_over(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if isinstance(operation, Operation):
            for block, item in zip(operation.before, operation.objects, strict=True):
                if item is not None and item.stream is not None:
                    item.facts[_OPEN] = item.facts.get(_OPEN, 0) + len(block.chain)

    @enter(*COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        for entry in crossing.notes:
            self._completed(crossing, entry)

    def _completed(self, crossing: Crossing, entry: Completed) -> None:
        request = entry.request
        if request is not None:
            request.book.facts[_OPEN] = request.book.facts.get(_OPEN, 0) - 1
        self.check(
            self._ONCE,
            request is not None or entry.earlier is None,
            "the request has been completed before",
            crossing,
            None if entry.earlier is None else entry.earlier.book,
        )

    @enter(*OPERATION_COMPLETIONS)
    def operated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        self.check(
            self._ONCE,
            isinstance(operation, Operation),
            "no such operation is under way with this tree: it has been completed before, or never begun",
            crossing,
        )
        if not isinstance(operation, Operation) or crossing.kind is not Kind.TERMINATE_COMPLETE:
            return
        if len(operation.after) != len(operation.objects):
            return
        for block, item in zip(operation.after, operation.objects, strict=True):
            if item is not None and item.stream is not None and block.status == Status.SUCCESS:
                left = item.facts.get(_OPEN, 0) - sum(self._in_chain(view, item) for view in block.chain)
                self.check(
                    self._ONCE,
                    left <= 0,
                    f"{left} requests of the connection have not come back when its terminate completes",
                    crossing,
                    item,
                )

    def _in_chain(self, view: NblView, item: ObjectBook) -> bool:
        request = self.books.of(item.boundary).done.get(id(view.nbl))
        return request is not None and request.book is item and request.returned_in_chain

    @leave(Kind.CLOSE)
    def closed(self, crossing: Crossing) -> None:
        """An adapter that refuses to be closed obeys, too."""
        if crossing.boundary.bottom:
            lent = len(self.books.of(crossing).lent)
            self.check(
                "general.unload.after-returns",
                not lent or crossing.raised is not None,
                f"the adapter has been closed while {lent} lists that it has indicated are out",
                crossing,
            )

    @finish
    def over(self) -> None:
        for book in self.books.boundaries.values():
            for operation in book.operations:
                self._left(operation.call, None, f"{operation.call.function} has not been completed")
            for request in book.requests.values():
                if request.book.ended:
                    self._left(request.posted, request.book, "a request has never come back")

    def _left(self, crossing: Crossing, item: ObjectBook | None, message: str) -> None:
        self.check(self._ONCE, False, message, crossing, item)


class _Fingerprint:
    """A pending request, as it was when it was passed down."""

    __slots__ = ("checksum", "kind", "posted", "view")

    def __init__(self, posted: Crossing, kind: Kind, view: NblView) -> None:
        self.posted = posted
        self.kind = kind
        self.view = view
        # A receive's memory is the target's to write into.
        self.checksum = 0 if kind is Kind.RECEIVE else _checksum(view)


class OwnershipChecks(Checks):
    """What is pending belongs to the driver below: the host does not touch it."""

    RULES = ("general.ownership.while-pending",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._pending: dict[int, _Fingerprint] = {}

    @enter(*REQUESTS)
    def posted(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            for view in crossing.nbls:
                self._post(crossing, crossing.kind, view)

    @enter(Kind.INITIATE)
    def handed_over(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            for block in crossing.blocks:
                for view in block.chain:
                    self._post(crossing, Kind.SEND, view)

    def _post(self, crossing: Crossing, kind: Kind, view: NblView) -> None:
        known = self._pending.get(id(view.nbl))
        self.check(
            "general.ownership.while-pending", known is None, "a list is passed down that is pending already", crossing
        )
        if known is None:
            self._pending[id(view.nbl)] = _Fingerprint(crossing, kind, view)

    @leave(*REQUESTS)
    def refused(self, crossing: Crossing) -> None:
        if crossing.raised is not None and crossing.boundary.top:
            self._forget(crossing, crossing.nbls)

    @leave(Kind.INITIATE)
    def initiate_refused(self, crossing: Crossing) -> None:
        if crossing.raised is not None and crossing.boundary.top:
            for block in crossing.blocks:
                self._forget(crossing, block.chain)

    def _forget(self, crossing: Crossing, views: tuple[NblView, ...]) -> None:
        for view in views:
            known = self._pending.get(id(view.nbl))
            if known is not None and known.posted is crossing:
                del self._pending[id(view.nbl)]

    @enter(*COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            for view in crossing.nbls:
                self._back(crossing, view)

    @enter(Kind.INITIATE_COMPLETE, Kind.TERMINATE_COMPLETE)
    def operated(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        ended = crossing.kind is Kind.TERMINATE_COMPLETE
        for block in crossing.blocks:
            if ended or block.status >= Status.FAILURE:
                for view in block.chain:
                    self._back(crossing, view)

    def _back(self, crossing: Crossing, view: NblView) -> None:
        known = self._pending.pop(id(view.nbl), None)
        if known is not None:
            self.check(
                "general.ownership.while-pending",
                _is_same(known, view),
                "a request, or its data, has been changed while it was pending",
                crossing,
            )


def _is_same(known: _Fingerprint, view: NblView) -> bool:
    before = known.view
    if len(before.buffers) != len(view.buffers) or before.no_push != view.no_push:
        return False
    if before.protocol_reserved is not view.protocol_reserved:
        return False
    for (offset, length, mdls), (now_at, now_length, now_mdls) in zip(before.buffers, view.buffers, strict=True):
        if mdls != now_mdls or now_at < offset or now_at + now_length != offset + length:
            return False
    return known.kind is Kind.RECEIVE or _checksum(before) == known.checksum


def _checksum(view: NblView) -> int:
    """Of the bytes that the list describes, wherever its data start is now; of many bytes, of some here and there."""
    value = 0
    for offset, length, mdls in view.buffers:
        for mdl in mdls:
            if offset >= mdl.byte_count:
                offset -= mdl.byte_count
                continue
            piece = _piece(mdl, offset, length)
            value = _sampled(piece, value)
            length -= piece.nbytes
            offset = 0
            if not length:
                break
    return value


def _piece(mdl: Mdl, offset: int, length: int) -> memoryview:
    return mdl.view[offset : offset + min(length, mdl.byte_count - offset)]


def _sampled(piece: memoryview, value: int) -> int:
    size = piece.nbytes
    if size <= _SAMPLES * _SAMPLE:
        return crc32(piece, value)
    # A request of gigabytes goes up and down with every hand-over.
    for number in range(_SAMPLES):
        at = (size - _SAMPLE) * number // (_SAMPLES - 1)
        value = crc32(piece[at : at + _SAMPLE], value)
    return value
