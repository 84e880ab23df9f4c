"""Handles and contexts: how each driver's name of an object becomes its neighbour's (chapter 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.errors import Misuse
from chimney.verifier.books import (
    COMPLETIONS,
    OFFLOADED,
    OPERATION_COMPLETIONS,
    OPERATIONS,
    REQUESTS,
    Layer,
    Operation,
)
from chimney.verifier.check import Checks, enter, leave

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_INDICATIONS = (Kind.EVENT, Kind.RECEIVE_INDICATE)


class ContextChecks(Checks):
    """The cell: the lower driver's value, from the initiate to the end of the terminate."""

    RULES = (
        "handle.context.write-on-success",
        "handle.context.untouched-on-failure",
        "handle.context.lifetime",
        "handle.im.context-up",
        "handle.ndis.extract-context",
        "handle.ndis.map-blocklist",
    )

    @enter(Kind.INITIATE_COMPLETE)
    def initiated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not isinstance(operation, Operation) or len(operation.after) != len(operation.objects):
            return
        bottom = crossing.boundary.bottom
        for block, item, fresh in zip(operation.after, operation.objects, operation.new, strict=True):
            if item is None:
                continue
            offloaded = block.status in OFFLOADED
            if bottom and offloaded:
                self.check(
                    "handle.context.write-on-success",
                    block.cell is not None,
                    "an object is offloaded, and no context has been stored for it",
                    crossing,
                    item,
                )
            elif bottom and fresh:
                self.check(
                    "handle.context.untouched-on-failure",
                    block.cell is None,
                    "an object has not been offloaded, and a context has been stored for it",
                    crossing,
                    item,
                )
            stream = item.stream
            if fresh and offloaded and stream is not None:
                cells = stream.facts.setdefault("handles: cells", {})
                if not bottom:
                    self.check(
                        "handle.im.context-up",
                        block.cell is not None and all(block.cell is not cell for cell in cells.values()),
                        "the context for the driver above is missing, or that of the driver below",
                        crossing,
                        stream,
                        culprit=crossing.boundary.miniport.name,
                    )
                cells[crossing.boundary.number] = block.cell

    @enter(*REQUESTS)
    def requested(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if item is not None and item.offloaded and crossing.handle is not None and crossing.boundary.bottom:
            self._same(crossing, crossing.handle.miniport_offload_context is item.cell)

    @enter(*OPERATIONS, *OPERATION_COMPLETIONS)
    def operated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not isinstance(operation, Operation) or not crossing.boundary.bottom:
            return
        if len(crossing.blocks) != len(operation.objects):
            return
        for block, item, fresh in zip(crossing.blocks, operation.objects, operation.new, strict=True):
            if item is not None and not fresh and item.cell is not None:
                self._same(crossing, block.cell is item.cell)

    def _same(self, crossing: Crossing, same: bool) -> None:
        self.check(
            "handle.context.lifetime", same, "the context is not the one that was stored at the initiate", crossing
        )

    @enter(*REQUESTS, stage=Stage.HANDLER)
    def extracted(self, crossing: Crossing) -> None:
        call = crossing.parent
        if call is not None and call.handle is not None and call.boundary is crossing.boundary:
            self.check(
                "handle.ndis.extract-context",
                crossing.context is call.handle.miniport_offload_context,
                "the miniport is given another context than the handle holds",
                crossing,
            )

    @enter(*OPERATIONS, stage=Stage.HANDLER)
    def mapped(self, crossing: Crossing) -> None:
        self._mapped(crossing, crossing.parent)

    @enter(*OPERATION_COMPLETIONS, stage=Stage.HANDLER)
    def mapped_back(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if isinstance(operation, Operation):
            self._mapped(crossing, operation.call, cells=False)

    def _mapped(self, crossing: Crossing, other: Crossing | None, cells: bool = True) -> None:
        if other is None or other.boundary is not crossing.boundary:
            return
        here, there = crossing.blocks, other.blocks
        self.check(
            "handle.ndis.map-blocklist",
            [block.handle for block in here] == [block.handle for block in there]
            and (not cells or all(a.cell is b.cell for a, b in zip(here, there, strict=True))),
            "the handles or context cells of the two forms of the tree differ",
            crossing,
        )


class IndicationHandleChecks(Checks):
    """Which handle an indication names."""

    RULES = ("handle.ndis.store-tcp-neighbor", "handle.indicate.stored", "handle.indicate.upper-context")

    @enter(*_INDICATIONS)
    def indicated(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        item = self.books.of(crossing).objects.get(id(crossing.handle))
        right = item is not None and item.layer is Layer.TCP
        for rule in ("handle.indicate.stored", "handle.ndis.store-tcp-neighbor"):
            self.check(rule, right, "the handle is not one with which a connection was offloaded here", crossing)

    @enter(Kind.OFFLOAD_EVENT)
    def neighbor(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom or not crossing.blocks:
            return
        item = self.books.of(crossing).objects.get(id(crossing.blocks[0].handle))
        self.check(
            "handle.ndis.store-tcp-neighbor",
            item is not None and item.layer is Layer.NEIGHBOR,
            "the block's handle is not one with which a neighbor was offloaded here",
            crossing,
        )

    @enter(*_INDICATIONS, stage=Stage.HANDLER)
    def delivered(self, crossing: Crossing) -> None:
        call = crossing.parent
        if call is not None and call.boundary is crossing.boundary:
            self.check(
                "handle.indicate.upper-context",
                crossing.handle is call.handle,
                "the driver above is given another handle than was indicated",
                crossing,
            )


class IntermediateHandleChecks(Checks):
    """An intermediate driver has its own handles, and knows its objects as long as they are offloaded."""

    RULES = ("handle.im.own-handle", "handle.im.entry-lifetime")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._raised: BaseException | None = None

    @enter(*OPERATIONS)
    def passed_down(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            return
        uppers = self.books.above(crossing.boundary)
        handles = [block.handle for block in crossing.blocks if block.handle is not None]
        if not handles:
            return
        self._own(crossing, len(set(map(id, handles))) == len(handles), "one handle stands for two objects")
        self._own(
            crossing,
            not any(id(handle) in upper.objects for handle in handles for upper in uppers),
            "the handle of the driver above is passed down",
        )
        if crossing.kind is Kind.INITIATE:
            self._own(
                crossing,
                not any(b.const is not None and b.cell is not None for b in crossing.blocks),
                "the handle of a new object stands for another object already",
            )

    @enter(*REQUESTS)
    def requested(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            return
        known = self.books.of(crossing).objects.get(id(crossing.handle)) is not None
        self._own(crossing, known, "the handle is not the one with which the connection was offloaded below")

    def _own(self, crossing: Crossing, ok: bool, message: str) -> None:
        culprit = crossing.boundary.protocol.name
        self.check("handle.im.own-handle", ok, message, crossing, culprit=culprit)

    @leave(*REQUESTS, *OPERATIONS, stage=Stage.HANDLER)
    def went_down(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            self._known(crossing, crossing.boundary.miniport.name)
        else:
            self._raised = crossing.raised

    @leave(*_INDICATIONS, *COMPLETIONS, *OPERATION_COMPLETIONS, stage=Stage.HANDLER)
    def went_up(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            self._known(crossing, crossing.boundary.protocol.name)
        else:
            self._raised = crossing.raised

    @leave(*REQUESTS, *OPERATIONS, *_INDICATIONS, *COMPLETIONS, *OPERATION_COMPLETIONS)
    def called(self, crossing: Crossing) -> None:
        self._raised = crossing.raised

    def _known(self, crossing: Crossing, driver: str) -> None:
        """What an intermediate driver raises by itself says that it does not know the object; what it lets through
        from a neighbour is that one's.
        """
        error = crossing.raised
        passed_on = error is not None and (error is self._raised or isinstance(error, Misuse))
        item = self.books.object(crossing)
        if (item is None or item.offloaded) and not passed_on:
            self.check(
                "handle.im.entry-lifetime",
                error is None,
                lambda: f"it fails with {error!r} on an object that is offloaded",
                crossing,
                culprit=driver,
            )
        self._raised = error
