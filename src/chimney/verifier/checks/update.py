"""Update: cached variables and nothing else (9.5)."""

from __future__ import annotations

from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.state import TcpCached, TcpConst, TcpDelegated
from chimney.ndis.status import Status, TcpCachedFlags
from chimney.verifier.books import Layer, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, segment_out
from chimney.verifier.packets import RST, Packet
from chimney.verifier.plausible import contradiction
from chimney.verifier.relations import completed_inside, connections_of, nodes, open_initiate
from chimney.verifier.streams import Stream
from chimney.verifier.violation import name

_SECOND = 1_000_000


class UpdateTarget(Checks):
    """How a target carries an update out."""

    RULES = ("update.async", "update.cached-only", "update.max-rt", "update.failure")

    @enter(Kind.UPDATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        self.check("update.async", not completed_inside(crossing), "it was completed from within the call", crossing)
        for index, (block, item, _) in enumerate(nodes(operation)):
            if item is None:
                continue
            if block.status == Status.SUCCESS:
                item.facts["update: updated"] = True
                before, cached = operation.facts.get("update: cached", {}).get(item), operation.before[index].cached
                if isinstance(cached, TcpCached) and before is not None:
                    self._max_rt(before, cached, item)
            elif block.status == Status.FAILURE:
                for connection in connections_of(item):
                    connection.facts["update: update failed"] = crossing

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            for operation in book.operations:
                if book.boundary.bottom and operation.kind is Kind.UPDATE:
                    self.check("update.async", False, "it was never completed", operation.call)

    # What an update leaves alone shows in the next query.

    @enter(Kind.UPDATE, stage=Stage.HANDLER)
    def arrives(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None and isinstance(item.cached, TcpCached):
                    crossing.notes.facts.setdefault("update: cached", {})[item] = item.cached

    @enter(Kind.INITIATE_COMPLETE)
    def initiated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.bottom and isinstance(operation, Operation):
            for block, item, new in nodes(operation):
                if item is not None and new and item.offloaded and isinstance(block.delegated, TcpDelegated):
                    state = block.delegated
                    item.facts["update: total rt"], item.facts["update: ka count"] = (
                        state.total_rt,
                        state.keep_alive.count,
                    )

    def _max_rt(self, before: TcpCached, cached: TcpCached, item: ObjectBook) -> None:
        if cached.flags & TcpCachedFlags.MAX_RT_RESTART:
            expected = []
            if item.facts.get("update: total rt"):
                expected.append(("total rt", item.facts["update: total rt"]))
            if cached.ka_probe_count != before.ka_probe_count and item.facts.get("update: ka count"):
                expected.append(("ka count", item.facts["update: ka count"]))
            item.facts["update: restarted"] = expected

    @enter(Kind.QUERY_COMPLETE)
    def queried(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for block, item, _ in nodes(operation):
            if item is None or block.status != Status.SUCCESS:
                continue
            if item.facts.get("update: updated"):
                self._unchanged(crossing, block, item)
            if isinstance(block.delegated, TcpDelegated):
                self._restarted(crossing, block.delegated, item)

    def _unchanged(self, crossing: Crossing, block: BlockView, item: ObjectBook) -> None:
        if isinstance(block.const, TcpConst):
            self.check(
                "update.cached-only",
                block.const == item.const,
                lambda: f"after an update the constants are {block.const}, they were {item.const}",
                crossing,
                item,
            )
        if isinstance(block.delegated, TcpDelegated) and item.stream is not None:
            wrong = contradiction(block.delegated, item.stream)
            self.check(
                "update.cached-only", not wrong, lambda: f"after an update the state says {wrong}", crossing, item
            )

    def _restarted(self, crossing: Crossing, state: TcpDelegated, item: ObjectBook) -> None:
        values = {"total rt": state.total_rt, "ka count": state.keep_alive.count}
        for what, before in item.facts.pop("update: restarted", ()):
            now = values[what]
            self.check(
                "update.max-rt",
                now < before,
                _restart_message(what, before, now),
                crossing,
                item,
            )
        item.facts["update: total rt"], item.facts["update: ka count"] = values["total rt"], values["ka count"]

    # A failed update changes nothing.

    @enter(Kind.SEND_COMPLETE, Kind.RECEIVE_COMPLETE, Kind.DISCONNECT_COMPLETE, Kind.FORWARD_COMPLETE)
    def ended(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            if entry.request is not None and "update: update failed" in entry.request.book.facts:
                self._goes_on(crossing, entry.view.status, entry.request.stream)

    def _goes_on(self, crossing: Crossing, status: int, stream: Stream) -> None:
        excused = stream.leaving or stream.failed or self.books.of(crossing).uploading_all is not None
        self.check(
            "update.failure",
            status in (Status.SUCCESS, Status.INVALID_STATE) or excused,
            lambda: f"an update failed, and a request ends with {name(status)} since then",
            crossing,
            stream,
        )


def _restart_message(what: str, before: int, now: int) -> str:
    words = {"total rt": "TotalRT", "ka count": "the count of keepalive probes"}
    return f"{words[what]} was {before}, and is {now} after an update with MAX_RT_RESTART"


class UpdatedWindow(Checks):
    """A receive window that an update has enlarged is advertised."""

    RULES = ("update.rcv-window",)

    @enter(Kind.UPDATE, stage=Stage.HANDLER)
    def arrives(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for block, item in zip(operation.before, operation.objects, strict=True):
            if item is None or not isinstance(block.cached, TcpCached) or not isinstance(item.cached, TcpCached):
                continue
            scale = item.const.rcv_wind_scale if isinstance(item.const, TcpConst) else 0
            most = 0xFFFF << scale
            if block.cached.flags & TcpCachedFlags.UPDATE_RCV_WND:
                # Whatever was asked for before, this is what counts from now on.
                item.facts.pop("update: window", None)
            before, after = min(item.cached.initial_rcv_wnd, most), min(block.cached.initial_rcv_wnd, most)
            if block.cached.flags & TcpCachedFlags.UPDATE_RCV_WND and after > before + (2 << scale):
                operation.facts.setdefault("update: windows", []).append((item, before, scale))

    @enter(Kind.UPDATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        status = {id(item): block.status for block, item, _ in nodes(operation) if item is not None}
        for item, before, scale in operation.facts.get("update: windows", ()):
            if status.get(id(item)) == Status.SUCCESS and item.stream is not None:
                item.facts["update: window"] = (before, scale, crossing.at)

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if "update: window" not in item.facts or packet.flags & RST:
            return
        before, scale, since = item.facts["update: window"]
        receive = stream.receive
        if packet.window << scale > before:
            del item.facts["update: window"]
            self.exercise("update.rcv-window")
        elif packet.at > since + _SECOND // 10 and receive.available == receive.delivered:
            del item.facts["update: window"]
            self._missing(packet, item, before)

    @enter(Kind.TERMINATE, stage=Stage.HANDLER)
    def terminate(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom or not isinstance(crossing.notes, Operation):
            return
        for item in crossing.notes.objects:
            if item is None or "update: window" not in item.facts or item.stream is None:
                continue
            before, _, since = item.facts.pop("update: window")
            receive = item.stream.receive
            told = item.stream.failed or item.stream.leaving and item.stream.terminate is not crossing
            silent = any(o is not None and o.invalid is not None for o in (item, item.parent))
            if crossing.at > since + _SECOND and receive.available == receive.delivered and not (told or silent):
                self._missing(crossing, item, before)

    def _missing(self, where: Packet | Crossing, item: ObjectBook, before: int) -> None:
        self.check(
            "update.rcv-window",
            False,
            f"no window of more than {before} bytes is advertised, although an update has enlarged it",
            where,
            item,
        )


class UpdateHost(Checks):
    """When a host updates, and what it does if that fails."""

    RULES = ("update.host.exclusive", "update.failure.host")

    @enter(Kind.INVALIDATE)
    def invalidate(self, crossing: Crossing) -> None:
        if crossing.boundary.top and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None:
                    item.facts["update: invalidated by host"] = True

    @enter(Kind.UPDATE)
    def update(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item in zip(operation.before, operation.objects, strict=True):
            if item is None or not _changes(block, item):
                continue
            why = "being offloaded" if open_initiate(item) is not None else ""
            if item.facts.get("update: invalidated by host"):
                why = "invalidated"
            for other in item.operations:
                if other is not operation and other.kind is Kind.UPDATE and _changed_by(other, item):
                    why = "being updated"
            self.check("update.host.exclusive", not why, f"an update of what is {why}", crossing, item)

    @enter(Kind.UPDATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.top and isinstance(operation, Operation):
            for block, item, _ in nodes(operation):
                if item is not None and block.status == Status.FAILURE:
                    item.facts["update: update failed here"] = True

    @enter(Kind.TERMINATE)
    def terminate(self, crossing: Crossing) -> None:
        if crossing.boundary.top and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None and item.facts.pop("update: update failed here", False):
                    self.exercise("update.failure.host")

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            for item in book.objects.values() if book.boundary.top else ():
                if item.facts.get("update: update failed here") and item.offloaded:
                    self.check("update.failure.host", False, "an update of it failed, and it stays", item, item)


def _changes(block: BlockView, item: ObjectBook) -> bool:
    """Whether the block changes the object: new values, or another neighbor."""
    relinks = item.layer is Layer.PATH and block.parent is not None and not block.parent.placeholder
    return block.cached is not None or relinks


def _changed_by(operation: Operation, item: ObjectBook) -> bool:
    return any(
        other is item and _changes(block, item)
        for block, other in zip(operation.before, operation.objects, strict=True)
    )
