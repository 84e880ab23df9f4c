"""Initiate: received data that is handed over in BufferedData (9.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.buffers import Mdl, NetBufferList
from chimney.ndis.crossing import BlockView, Crossing, Kind, NblView, Stage, view_list
from chimney.ndis.state import TcpDelegated
from chimney.ndis.status import Status
from chimney.verifier.books import OFFLOADED, Layer, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.recent import Recent
from chimney.verifier.relations import nodes, view_bytes
from chimney.verifier.streams import PEER_CLOSED, Stream, distance

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_REMEMBERED = 256
_COMPARED = 1 << 16
_POISON = 0xDB
_STALE_US = 1_000_000
"""After so long at the host a connection's sequence numbers may have come round."""


class BufferedDataDown(Checks):
    """What a host hands over, and what it does with its buffer afterwards."""

    RULES = ("initiate.buffered.newest", "initiate.buffered.host-frees")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        # What came back from the stay before: when, where its bytes end, how much was undelivered, its last bytes.
        self._returned: Recent[tuple[bytes, int, bytes, int], tuple[int, int, int, bytes]] = Recent(_REMEMBERED)
        self._given: dict[int, NetBufferList] = {}

    @enter(Kind.INITIATE)
    def initiate(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item, new in zip(operation.before, operation.objects, operation.new, strict=True):
            if new and item is not None and item.stream is not None and isinstance(block.delegated, TcpDelegated):
                known = self._returned.pop(item.stream.flow, None)
                views = view_list(block.delegated.buffered_data)
                if known is not None:
                    self._newest(crossing, block.delegated, views, item, known)
                for view in views:
                    self._again(crossing, view, item)

    def _newest(
        self,
        crossing: Crossing,
        delegated: TcpDelegated,
        views: tuple[NblView, ...],
        item: ObjectBook,
        known: tuple[int, int, int, bytes],
    ) -> None:
        at, received, undelivered, tail = known
        ahead = distance(_received(delegated), received)
        length = sum(view.length for view in views)
        if not length or ahead < 0 or crossing.at > at + _STALE_US:
            return
        # It ends at RcvNxt, and does not reach back to what has been delivered.
        self.check(
            "initiate.buffered.newest",
            length <= undelivered + ahead,
            lambda: f"{length} bytes before RcvNxt, and all but {undelivered + ahead} were delivered",
            crossing,
            item,
        )
        if length <= _COMPARED and ahead < length:
            now = view_bytes(views, length)[: length - ahead]
            overlap = min(len(now), len(tail))
            self.check(
                "initiate.buffered.newest",
                not overlap or now[-overlap:] == tail[-overlap:],
                lambda: f"BufferedData does not end with the byte before RcvNxt {delegated.rcv_nxt}",
                crossing,
                item,
            )

    def _again(self, crossing: Crossing, view: NblView, item: ObjectBook) -> None:
        if self._given.pop(id(view.nbl), None) is view.nbl:
            data = view_bytes((view,), _COMPARED)
            self.check(
                "initiate.buffered.host-frees",
                not data or data.strip(bytes([_POISON])) != b"",
                "a buffer that had been handed over with success is handed over once more",
                crossing,
                item,
            )

    @enter(Kind.INITIATE_COMPLETE, stage=Stage.HANDLER)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item, new in nodes(operation):
            before = operation.before[operation.after.index(block)].delegated
            if new and item is not None and block.status in OFFLOADED and isinstance(before, TcpDelegated):
                for view in view_list(before.buffered_data):
                    self.exercise("initiate.buffered.host-frees")
                    self._given[id(view.nbl)] = view.nbl
        while len(self._given) > _REMEMBERED:
            self._freed(self._given.pop(next(iter(self._given))))

    def _freed(self, nbl: NetBufferList) -> None:
        pool = nbl.pool
        self.check(
            "initiate.buffered.host-frees",
            pool is None,
            lambda: f"BufferedData that was handed over with success was never freed into pool {pool and pool.name!r}",
            culprit="host_stack",
        )

    @finish
    def finished(self) -> None:
        for nbl in self._given.values():
            self._freed(nbl)

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item, _ in nodes(operation):
            delegated = block.delegated
            if item is not None and item.ended and item.stream is not None and isinstance(delegated, TcpDelegated):
                views = view_list(delegated.buffered_data)
                length = sum(view.length for view in views)
                tail = view_bytes(views, length) if length <= _COMPARED else b""
                self._returned[item.stream.flow] = crossing.at, _received(delegated), length, tail


def _received(delegated: TcpDelegated) -> int:
    """The sequence number behind the last byte received: RcvNxt counts the peer's FIN."""
    return (delegated.rcv_nxt - (delegated.state in PEER_CLOSED)) & 0xFFFFFFFF


class BufferedDataDelivered(Checks):
    """How a target delivers what was handed over."""

    RULES = ("initiate.buffered.copy", "initiate.buffered.wait", "initiate.buffered.first")

    @enter(Kind.INITIATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for index, (block, item, new) in enumerate(nodes(operation)):
            before = operation.before[index].delegated
            if not new or item is None or item.stream is None or not isinstance(before, TcpDelegated):
                continue
            if block.status in OFFLOADED and before.buffered_data is not None and item.stream.receive.handed_over:
                self._take(block, before, item.stream)

    def _take(self, block: BlockView, before: TcpDelegated, stream: Stream) -> None:
        """Whoever still needs the host's buffer gets something else from now on."""
        views = view_list(before.buffered_data)
        stream.facts["initiate_receive_data: handed over"] = bytes(stream.receive.content[: stream.receive.handed_over])
        mdls = [mdl for view in views for _, _, mdls in view.buffers for mdl in mdls]
        if all(_poison(mdl) for mdl in mdls):
            stream.facts["initiate_receive_data: poisoned"] = True

    @enter(Kind.RECEIVE_COMPLETE)
    def received(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            request = entry.request
            if (
                request is None
                or request.kind is not Kind.RECEIVE
                or not request.stream.facts.get("initiate_receive_data: handed over")
            ):
                continue
            skip = request.view.bytes_transferred if request.view.no_push else 0
            count = min(
                entry.view.bytes_transferred - skip, len(request.stream.facts["initiate_receive_data: handed over"])
            )
            if count > 0:
                self._delivered(crossing, request.stream, request.data(skip, count))

    @enter(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        item = self.books.object(crossing) if crossing.boundary.bottom else None
        if item is None or item.stream is None or not item.stream.facts.get("initiate_receive_data: handed over"):
            return
        self.check(
            "initiate.buffered.wait",
            "initiate_receive_data: receive posted" in item.facts,
            "handed-over data is indicated, and no receive request has been posted yet",
            crossing,
            item,
        )
        item.facts["initiate_receive_data: indicated bytes"] = view_bytes(
            crossing.nbls, len(item.stream.facts["initiate_receive_data: handed over"])
        )

    @enter(Kind.RECEIVE)
    def posted(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if item is not None and crossing.boundary.bottom and "initiate_receive_data: receive posted" not in item.facts:
            item.facts["initiate_receive_data: receive posted"] = True
            if item.stream is not None and item.stream.facts.get("initiate_receive_data: handed over"):
                self.exercise("initiate.buffered.wait")

    @leave(Kind.RECEIVE_INDICATE)
    def answered(self, crossing: Crossing) -> None:
        item = self.books.object(crossing) if crossing.boundary.bottom else None
        data = None if item is None else item.facts.pop("initiate_receive_data: indicated bytes", None)
        if data is None or not isinstance(crossing.result, tuple):
            return
        assert item is not None and item.stream is not None
        status, consumed = crossing.result
        self._delivered(crossing, item.stream, data if status == Status.SUCCESS else data[:consumed])

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for block, item, _ in nodes(operation):
            if item is None or item.layer is not Layer.TCP or item.stream is None:
                continue
            if item.stream.facts.get("initiate_receive_data: handed over") and isinstance(
                block.delegated, TcpDelegated
            ):
                views = view_list(block.delegated.buffered_data)
                self._delivered(
                    crossing,
                    item.stream,
                    view_bytes(views, len(item.stream.facts["initiate_receive_data: handed over"])),
                )

    def _delivered(self, crossing: Crossing, stream: Stream, data: bytes) -> None:
        expected: bytes = stream.facts["initiate_receive_data: handed over"]
        length = min(len(expected), len(data))
        if not length:
            return
        if stream.facts.get("initiate_receive_data: poisoned"):
            self.check(
                "initiate.buffered.copy",
                data[:length] == expected[:length] or bytes([_POISON] * 4) not in data,
                "what is delivered was read from the host's buffer after the initiate had completed",
                crossing,
                stream,
            )
        self.check(
            "initiate.buffered.first",
            data[:length] == expected[:length],
            lambda: f"{length} bytes delivered are not the next ones of those that were handed over",
            crossing,
            stream,
        )
        stream.facts["initiate_receive_data: handed over"] = expected[length:]


def _poison(mdl: Mdl) -> bool:
    """Whether the memory could be overwritten."""
    view = mdl.view
    if view.readonly:
        return False
    view[:] = bytes([_POISON]) * view.nbytes
    return True
