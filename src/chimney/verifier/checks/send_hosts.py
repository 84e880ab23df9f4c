"""What the host does with sends that come back unfinished: it goes on with them, or lets them be (10.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chimney.ndis.buffers import Mdl, NetBufferList
from chimney.ndis.crossing import BlockView, Crossing, Kind, NblView, Stage
from chimney.ndis.state import BACKLOG_UNSUPPORTED, TcpDelegated
from chimney.ndis.status import DisconnectFlags, Status, TcpOffloadEvent
from chimney.verifier.books import OFFLOADED, Completed, Layer, ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.recent import Recent
from chimney.verifier.streams import Stream, distance

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_GIVEN_BACK = (Status.UPLOAD_IN_PROGRESS, Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED)
_DATA = (Kind.SEND, Kind.DISCONNECT)
# So much of what a host has to send itself is remembered, and so many aborted lists.
_REMEMBERED = 1 << 16
_FLOWS = 256
_ABORTED = 32


@dataclass(slots=True)
class Sends:
    """A connection's sends as its host knows them: positions count from SND.UNA at the initiate.

    starts       of the pending requests by the id of their list.
    outstanding  posted bytes that are not completed; ``backlog``: how many there should be, 0 if nobody has said.
    back         what has come back unfinished: position and bytes, as far as they are remembered; ``back_to`` its end.
    expected     what has to be posted next, for the connection has been offloaded before.
    """

    posted: int = 0
    outstanding: int = 0
    backlog: int = 0
    starts: dict[int, int] = field(default_factory=dict)
    back: list[tuple[int, bytes]] = field(default_factory=list)
    back_to: int = 0
    remembered: int = 0
    without_memory: Crossing | None = None
    refused: set[NetBufferList] = field(default_factory=set)
    expected: Left | None = None
    at: int = 0


@dataclass(slots=True)
class Left:
    """What an upload has left to the host: from sequence number ``seq`` on these bytes, ``length`` in all."""

    seq: int
    data: bytes
    length: int
    without_memory: bool


@dataclass(slots=True)
class Aborted:
    """What nobody is to send any more."""

    lists: list[NetBufferList] = field(default_factory=list)
    memory: list[Mdl] = field(default_factory=list)


class UnfinishedSends(Checks):
    """At the boundary below a host."""

    RULES = ("send.complete.upload-host", "send.complete.abort-host", "im.send.no-memory.host", "send.backlog.hint")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._left: Recent[Any, Left] = Recent(_FLOWS)

    # Down

    @enter(Kind.INITIATE, stage=Stage.HANDLER)
    def offloading(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item, fresh in zip(operation.before, operation.objects, operation.new, strict=True):
            if item is not None and fresh and item.stream is not None and isinstance(block.delegated, TcpDelegated):
                self._continued(crossing, item, item.stream, block, block.delegated)

    def _continued(
        self, crossing: Crossing, item: ObjectBook, stream: Stream, block: BlockView, state: TcpDelegated
    ) -> None:
        sends = item.facts["send_hosts: sends"] = Sends()
        left = self._left.pop(stream.flow, None)
        if left is not None:
            done = distance(state.snd_una, left.seq)
            if 0 <= done <= left.length:
                sends.expected, sends.at = left, done
        for view in block.chain:
            self._post(crossing, item, sends, view)

    @enter(*_DATA)
    def posted(self, crossing: Crossing) -> None:
        if not crossing.boundary.top or not crossing.notes:
            return
        item: ObjectBook = crossing.notes[0].book
        sends: Sends | None = item.facts.get("send_hosts: sends")
        if sends is None or (crossing.kind is Kind.DISCONNECT and crossing.value != DisconnectFlags.GRACEFUL_CLOSE):
            return
        if sends.backlog and crossing.kind is Kind.SEND:
            self.check(
                "send.backlog.hint",
                sends.outstanding < 2 * sends.backlog,
                f"{sends.outstanding} bytes are outstanding, {sends.backlog} are preferred, and more are posted",
                crossing,
                item,
            )
        for view in crossing.nbls:
            self._again(crossing, item, sends, view)
            self._post(crossing, item, sends, view)

    def _again(self, crossing: Crossing, item: ObjectBook, sends: Sends, view: NblView) -> None:
        """The same memory once more on the same connection."""
        assert item.stream is not None
        aborted: Aborted | None = item.stream.facts.get("send_hosts: aborted")
        if aborted is not None:
            memory = [mdl for _, _, mdls in view.buffers for mdl in mdls if mdl.byte_count]
            again = view.nbl in aborted.lists or any(mdl in aborted.memory for mdl in memory)
            self.check("send.complete.abort-host", not again, "aborted data is posted again", crossing, item)
        if sends.without_memory is not None:
            again = view.nbl in sends.refused
            message = "a send that a driver had no memory for is posted again before the upload"
            self.check("im.send.no-memory.host", not again, message, crossing, item)

    def _post(self, crossing: Crossing, item: ObjectBook, sends: Sends, view: NblView) -> None:
        sends.starts[id(view.nbl)] = sends.posted
        sends.posted += view.length
        sends.outstanding += view.length
        left = sends.expected
        if left is None or not view.length:
            return
        wanted = left.data[sends.at : sends.at + view.length]
        request = self.books.of(crossing).requests.get(id(view.nbl))
        if not wanted or request is None:
            sends.expected = None
            return
        ok = request.data(0, len(wanted)) == wanted
        message = f"what is posted at sequence number {left.seq + sends.at} is not what the upload left to the host"
        self.check("send.complete.upload-host", ok, message, crossing, item)
        if left.without_memory:
            self.check("im.send.no-memory.host", ok, message, crossing, item)
        sends.at += view.length
        if not ok:
            sends.expected = None

    @leave(*_DATA)
    def refused(self, crossing: Crossing) -> None:
        if crossing.raised is not None and crossing.boundary.top and crossing.notes:
            sends: Sends | None = crossing.notes[0].book.facts.get("send_hosts: sends")
            for view in crossing.nbls:
                if sends is not None and sends.starts.pop(id(view.nbl), None) is not None:
                    sends.posted -= view.length
                    sends.outstanding -= view.length

    # Up

    @enter(Kind.EVENT, stage=Stage.HANDLER)
    def event(self, crossing: Crossing) -> None:
        if crossing.boundary.top and crossing.value == TcpOffloadEvent.INDICATE_SEND_BACKLOG_CHANGE:
            item = self.books.object(crossing)
            sends: Sends | None = None if item is None else item.facts.get("send_hosts: sends")
            if sends is not None and isinstance(crossing.information, int):
                sends.backlog = crossing.information

    @enter(Kind.QUERY_COMPLETE)
    def queried(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item in zip(operation.after, operation.objects, strict=False):
            sends: Sends | None = None if item is None else item.facts.get("send_hosts: sends")
            if sends is not None and isinstance(block.delegated, TcpDelegated) and block.status == Status.SUCCESS:
                size = block.delegated.send_backlog_size
                sends.backlog = 0 if size == BACKLOG_UNSUPPORTED else size

    @enter(Kind.SEND_COMPLETE, Kind.DISCONNECT_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            for entry in crossing.notes:
                if entry.request is not None and entry.request.kind in _DATA:
                    self._ended(crossing, entry, entry.request)

    def _ended(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        item, view = request.book, entry.view
        sends: Sends | None = item.facts.get("send_hosts: sends")
        start = None if sends is None else sends.starts.pop(id(view.nbl), None)
        if sends is None or start is None:
            return
        sends.outstanding -= request.length
        count = min(view.bytes_transferred, request.length)
        if view.status in _GIVEN_BACK:
            self._given_back(sends, request, start, count)
            if view.status != Status.UPLOAD_IN_PROGRESS and request.kind is Kind.SEND:
                sends.without_memory = sends.without_memory or crossing
                sends.refused.add(view.nbl)
        elif view.status == Status.REQUEST_ABORTED and request.kind is Kind.SEND and count < request.length:
            aborted: Aborted = request.stream.facts.setdefault("send_hosts: aborted", Aborted())
            self.exercise("send.complete.abort-host")
            if len(aborted.lists) < _ABORTED:
                aborted.lists.append(view.nbl)
                aborted.memory += [mdl for _, _, mdls in view.buffers for mdl in mdls if mdl.byte_count]

    def _given_back(self, sends: Sends, request: Request, start: int, count: int) -> None:
        length = request.length - count
        sends.back_to = max(sends.back_to, start + request.length)
        room = _REMEMBERED - sends.remembered
        if length and room > 0:
            sends.back.append((start + count, request.data(count, min(length, room))))
            sends.remembered += length

    @enter(Kind.TERMINATE)
    def terminating(self, crossing: Crossing) -> None:
        if crossing.boundary.top and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                sends: Sends | None = None if item is None else item.facts.get("send_hosts: sends")
                if sends is not None and sends.without_memory is not None:
                    self.exercise("im.send.no-memory.host")

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item in zip(operation.after, operation.objects, strict=False):
            sends: Sends | None = None if item is None else item.facts.get("send_hosts: sends")
            if item is not None and item.ended and sends is not None and isinstance(block.delegated, TcpDelegated):
                self._left_to_host(crossing, item, sends, block, block.delegated)

    def _left_to_host(
        self, crossing: Crossing, item: ObjectBook, sends: Sends, block: BlockView, state: TcpDelegated
    ) -> None:
        stream = item.stream
        if stream is None or stream.failed or stream.abort_event is not None:
            return
        done = self.books.of(crossing).done
        for view in block.chain:
            request = done.get(id(view.nbl))
            start = sends.starts.pop(id(view.nbl), None)
            if request is not None and start is not None:
                self._given_back(sends, request, start, request.length - view.length)
        una = distance(state.snd_una, stream.send.origin)
        data = b""
        for start, part in sorted(sends.back):
            if start != una + len(data):
                break
            data += part
        if data:
            without_memory = sends.without_memory is not None
            self._left[stream.flow] = Left(state.snd_una, data, sends.back_to - una, without_memory)

    @enter(Kind.INITIATE_COMPLETE)
    def offloaded(self, crossing: Crossing) -> None:
        """A failed initiate changes nothing: what was left to the host still is."""
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item, fresh in zip(operation.after, operation.objects, operation.new, strict=False):
            if item is None or not fresh or item.layer is not Layer.TCP or block.status in OFFLOADED:
                continue
            sends: Sends | None = item.facts.get("send_hosts: sends")
            if sends is not None and sends.expected is not None and item.stream is not None:
                self._left[item.stream.flow] = sends.expected

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            for item in book.objects.values():
                sends: Sends | None = item.facts.get("send_hosts: sends")
                if sends is not None and sends.without_memory is not None and item.offloaded:
                    going = any(operation.kind is Kind.TERMINATE for operation in item.operations)
                    message = "a driver had no memory for a send, and the connection has not been uploaded"
                    self.check("im.send.no-memory.host", going, message, item, item)
