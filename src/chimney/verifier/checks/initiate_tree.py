"""Initiate: how a target takes a tree, and what its statuses say of each other (9.2, 9.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.status import Status
from chimney.verifier.books import OFFLOADED, POISON, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.limits import CODES
from chimney.verifier.relations import completed_inside, nodes
from chimney.verifier.violation import name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_ENTRIES = (Status.OFFLOAD_NEIGHBOR_ENTRIES, Status.OFFLOAD_PATH_ENTRIES, Status.OFFLOAD_TCP_ENTRIES)


class InitiateCourse(Checks):
    """When a target works on an initiate, and that it always completes it."""

    RULES = ("initiate.async", "initiate.concurrent", "initiate.context.contents")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._contexts: dict[tuple[int, object], ObjectBook] = {}

    @enter(Kind.INITIATE, stage=Stage.HANDLER)
    def arrives(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for other in self._open(crossing.notes):
                other.facts["initiate_tree: overlapped"] = True
                crossing.notes.facts["initiate_tree: overlapped"] = True

    def _open(self, operation: Operation) -> list[Operation]:
        book = self.books.of(operation.boundary)
        return [o for o in book.operations if o.kind is Kind.INITIATE and o is not operation and o.handler is not None]

    @leave(Kind.INITIATE, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        if operation.facts.get("initiate_tree: overlapped"):
            self.check(
                "initiate.concurrent",
                crossing.raised is None,
                lambda: f"an initiate is under way, and another one raised {crossing.raised!r}",
                crossing,
            )
        if operation.completion is None and crossing.raised is None:
            written = [
                block
                for block, fresh in zip(operation.lower, operation.new, strict=False)
                if fresh and block.handle is not None and block.handle.miniport_offload_context is not None
            ]
            self.check(
                "initiate.async",
                not written,
                lambda: f"{len(written)} objects were offloaded from within the call",
                crossing,
            )

    @enter(Kind.INITIATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        self.check("initiate.async", not completed_inside(crossing), "it was completed from within the call", crossing)
        if operation.facts.get("initiate_tree: overlapped"):
            stale = [block for block in operation.after if block.status == POISON]
            self.check(
                "initiate.concurrent",
                not stale,
                lambda: f"another initiate was under way, and {len(stale)} blocks of this one have no status",
                crossing,
            )
        for block, item, fresh in nodes(operation):
            if item is not None and fresh and item.offloaded:
                self._context(crossing, block, item)

    def _context(self, crossing: Crossing, block: BlockView, item: ObjectBook) -> None:
        value = block.cell
        key = (crossing.boundary.number, value if isinstance(value, int) else id(value))
        other = self._contexts.get(key)
        self.check(
            "initiate.context.contents",
            other is None or not other.offloaded or other is item,
            lambda: f"its context is that of {other and other.label}, too",
            crossing,
            item,
        )
        self._contexts[key] = item
        item.facts["initiate_tree: context key"] = key

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None and item.ended:
                    key = item.facts.get("initiate_tree: context key")
                    if self._contexts.get(key) is item:  # type: ignore[arg-type]
                        del self._contexts[key]  # type: ignore[arg-type]

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            if not book.boundary.bottom:
                continue
            for operation in book.operations:
                if operation.kind is Kind.INITIATE:
                    self.check("initiate.async", False, "it was never completed", operation.call)
                    if operation.facts.get("initiate_tree: overlapped"):
                        self.check(
                            "initiate.concurrent", False, "of overlapping initiates, this never ended", operation.call
                        )


class InitiateOutcome(Checks):
    """The statuses of a completed initiate, at the target's boundary."""

    RULES = (
        "initiate.order.depth-first",
        "initiate.status.success",
        "initiate.status.partial",
        "initiate.status.failure-generic",
        "initiate.root-fail",
        "initiate.failed-node.dependents",
    )

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        for operation in self.books.of(crossing).operations:
            if operation.kind is Kind.INITIATE:
                operation.facts["initiate_tree: room has grown"] = True

    @enter(Kind.INITIATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        entries = list(nodes(operation))
        fresh = {id(block): item for block, item, new in entries if new and item is not None}
        rows: dict[int, list[BlockView]] = {}
        for block, _, _ in entries:
            if block.parent is not None:
                rows.setdefault(id(block.parent), []).append(block)
        failed: set[int] = set()
        for block, item, new in entries:
            above_failed = block.parent is not None and id(block.parent) in failed
            if item is None:
                # What stands on a placeholder stands on what the placeholder stands on.
                if above_failed:
                    failed.add(id(block))
                continue
            if new and block.status in OFFLOADED:
                self._dependents(crossing, block, item, rows.get(id(block), []), fresh)
            elif new:
                failed.add(id(block))
                self._code(crossing, block, item)
            if above_failed and new:
                self._beneath(crossing, block, item)
                failed.add(id(block))
        if operation.new and operation.new[0] and entries[0][0].status not in OFFLOADED:
            self._root(crossing, entries)
        if "initiate_tree: room has grown" not in operation.facts:
            self._order(crossing, entries)

    def _dependents(
        self,
        crossing: Crossing,
        block: BlockView,
        item: ObjectBook,
        row: list[BlockView],
        fresh: dict[int, ObjectBook],
    ) -> None:
        missing = [b for b in row if id(b) in fresh and b.status not in OFFLOADED]
        linkers = [b for b in row if id(b) not in fresh and not b.placeholder]
        rule = "initiate.status.success" if block.status == Status.SUCCESS else "initiate.status.partial"
        self.check(
            rule,
            block.cell is not None,
            lambda: f"{name(block.status)}, but no context was written",
            crossing,
            item,
        )
        if linkers:
            return
        right = not missing if block.status == Status.SUCCESS else bool(missing)
        self.check(
            rule,
            right,
            lambda: f"{name(block.status)}, and {len(missing)} of {len(row)} dependents were not offloaded",
            crossing,
            item,
        )

    def _code(self, crossing: Crossing, block: BlockView, item: ObjectBook) -> None:
        known = block.status == Status.FAILURE or block.status in CODES[item.layer]
        self.check(
            "initiate.status.failure-generic",
            known,
            lambda: f"{name(block.status)} says nothing of a {item.layer.name.lower()} object that was not offloaded",
            crossing,
            item,
        )

    def _beneath(self, crossing: Crossing, block: BlockView, item: ObjectBook) -> None:
        self.check(
            "initiate.failed-node.dependents",
            block.status not in OFFLOADED and block.status != POISON and block.cell is None,
            lambda: f"{name(block.status)} above an object that could not be offloaded",
            crossing,
            item,
        )
        self.check(
            "initiate.status.failure-generic",
            block.status == Status.FAILURE or block.status in OFFLOADED,
            lambda: f"it was never attempted, and has {name(block.status)}",
            crossing,
            item,
        )

    def _root(self, crossing: Crossing, entries: list[Any]) -> None:
        taken = [block for block, item, new in entries if new and (block.status in OFFLOADED or block.cell is not None)]
        self.check(
            "initiate.root-fail",
            not taken,
            lambda: f"the root could not be offloaded, and {len(taken)} other objects were",
            crossing,
        )

    def _order(self, crossing: Crossing, entries: list[Any]) -> None:
        """What was refused for want of room leaves no room for what comes later in the order."""
        refused: dict[object, BlockView] = {}
        for block, item, new in entries:
            if not new:
                continue
            kind = (block.type, block.parent.type if block.parent is not None else None)
            if block.status == _ENTRIES[item.layer]:
                refused.setdefault(kind, block)
            elif block.status in OFFLOADED:
                self.check(
                    "initiate.order.depth-first",
                    kind not in refused,
                    "it was offloaded, and one before it in the order refused for want of room",
                    crossing,
                    item,
                )
