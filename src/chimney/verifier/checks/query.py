"""Query: every variable, as it is now (9.4)."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.state import NeighborCached, NeighborConst, OffloadBlockList, TcpCached, TcpDelegated, TimerRemainder
from chimney.ndis.status import Status, TcpCachedFlags
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.plausible import contradiction
from chimney.verifier.relations import completed_inside, nodes

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_POISON = 0x5AFE0BAD
# Not a query's, or undocumented (A39).
_UNWRITTEN = frozenset({"send_data_head", "send_data_tail", "buffered_data", "flags", "d_wnd"})
_STATE_FLAGS = TcpCachedFlags.KEEP_ALIVE_ENABLED | TcpCachedFlags.NAGLING_ENABLED


class QueryTarget(Checks):
    """What a target answers."""

    RULES = ("query.async", "query.any-class")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._updates: dict[int, int] = {}

    @enter(Kind.QUERY, stage=Stage.HANDLER)
    def arrives(self, crossing: Crossing) -> None:
        """Whatever stands in the structures is no answer."""
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for view in crossing.blocks:
            for state in _structures(view.block):
                _poison(state)

    @leave(Kind.QUERY, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            self.check(
                "query.any-class",
                crossing.raised is None,
                lambda: f"the query was refused: {crossing.raised!r}",
                crossing,
            )

    @enter(Kind.UPDATE_COMPLETE)
    def updated(self, crossing: Crossing) -> None:
        self._updates[crossing.boundary.number] = crossing.number

    @enter(Kind.QUERY_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        self.check("query.async", not completed_inside(crossing), "it was completed from within the call", crossing)
        for block, item, _ in nodes(operation):
            if item is None:
                continue
            if block.status == Status.SUCCESS:
                self._answer(crossing, block, item, operation)
            elif item.stream is not None:
                # Only broken hardware is a reason; the host is told of it next (9.8).
                item.stream.facts["query: query failed"] = crossing

    def _answer(self, crossing: Crossing, block: BlockView, item: ObjectBook, operation: Operation) -> None:
        missing = [name for state in (block.const, block.cached, block.delegated) for name in _poisoned(state)]
        self.check("query.async", not missing, lambda: f"not written: {', '.join(missing)}", crossing, item)
        if missing:
            return
        wrong = ""
        if block.const is not None and _constants(block.const) != _constants(item.const):
            wrong = f"constants {block.const}, they are {item.const}"
        updating = any(other.kind is Kind.UPDATE for other in item.operations)
        updated = self._updates.get(crossing.boundary.number, 0) > operation.call.number
        if block.cached is not None and not updating and not updated:
            if _cached(block.cached) != _cached(item.cached):
                wrong = f"cached variables {block.cached}, they are {item.cached}"
        if isinstance(block.delegated, TcpDelegated) and item.stream is not None and not item.stream.failed:
            wrong = wrong or contradiction(block.delegated, item.stream)
        self.check("query.async", not wrong, lambda: f"the answer is {wrong}", crossing, item)

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            for operation in book.operations:
                if book.boundary.bottom and operation.kind is Kind.QUERY:
                    self.check("query.async", False, "it was never completed", operation.call)
        for stream in self.books.streams.values():
            failed = stream.facts.get("query: query failed")
            if failed is not None:
                self.check(
                    "query.any-class",
                    stream.hardware_failure is not None or stream.failed,
                    "the query failed, and not for broken hardware",
                    failed,
                    stream,
                )


class QueryHost(Checks):
    """What a host does about a failed query."""

    RULES = ("query.failure",)

    @enter(Kind.QUERY_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.top and isinstance(operation, Operation):
            for block, item, _ in nodes(operation):
                if item is not None and block.status == Status.FAILURE:
                    item.facts["query: query failed here"] = True

    @enter(Kind.TERMINATE)
    def terminate(self, crossing: Crossing) -> None:
        if crossing.boundary.top and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None and item.facts.pop("query: query failed here", False):
                    self.exercise("query.failure")

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            for item in book.objects.values() if book.boundary.top else ():
                if item.facts.get("query: query failed here") and item.offloaded:
                    self.check("query.failure", False, "a query of it failed, and it stays", item, item)


def _structures(block: OffloadBlockList) -> list[Any]:
    return [state for state in (block.const, block.cached, block.delegated) if state is not None]


def _poison(state: Any) -> None:
    for field in fields(state):
        value = getattr(state, field.name)
        if field.name in _UNWRITTEN and isinstance(state, TcpDelegated):
            continue
        if isinstance(value, TimerRemainder):
            setattr(state, field.name, TimerRemainder(_POISON, _POISON))
        elif isinstance(value, bytes):
            setattr(state, field.name, b"\x5a\xfe\x0b\xad")
        else:
            setattr(state, field.name, _POISON)


def _poisoned(state: Any) -> list[str]:
    """The variables that nobody has written."""
    if state is None:
        return []
    found = []
    for field in fields(state):
        value = getattr(state, field.name)
        if field.name in _UNWRITTEN and isinstance(state, TcpDelegated):
            continue
        parts = (value.count, value.timeout_delta) if isinstance(value, TimerRemainder) else (value,)
        if _POISON in parts or b"\x5a\xfe\x0b\xad" in parts:
            found.append(field.name)
    return found


def _constants(state: Any) -> Any:
    """Constants, as far as everybody has to read them alike: no source address may mean the interface's own."""
    return state.vlan_id if isinstance(state, NeighborConst) else state


def _cached(state: Any) -> Any:
    if isinstance(state, NeighborCached):
        return state.dl_destination_address
    if isinstance(state, TcpCached):
        return [
            getattr(state, field.name) if field.name != "flags" else state.flags & _STATE_FLAGS
            for field in fields(state)
        ]
    return state
