"""Invalidate: what has been invalidated is not used for sending, and stays until it is terminated (9.7, A7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.status import Status, UploadReason
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, leave, segment_out
from chimney.verifier.packets import Packet
from chimney.verifier.relations import below, completed_inside, connections_of, nodes
from chimney.verifier.streams import Stream
from chimney.verifier.violation import name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_MARGIN_US = 100_000
"""A connection that is terminated so soon after the invalidate need not be asked for."""


class Invalidate(Checks):
    """How a target silences objects."""

    RULES = ("invalidate.async", "invalidate.stop-send", "invalidate.request-upload", "invalidate.keep")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._silenced = 0

    @enter(Kind.INVALIDATE)
    def invalidate(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            states = [b for b in crossing.blocks if b.const or b.cached or b.delegated]
            self.check(
                "invalidate.async",
                not states,
                lambda: f"{len(states)} blocks carry state structures",
                crossing,
                culprit=crossing.boundary.protocol.name,
            )

    @enter(Kind.INVALIDATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        self.check(
            "invalidate.async", not completed_inside(crossing), "it was completed from within the call", crossing
        )
        for block, item, _ in nodes(operation):
            if item is None or block.status != Status.SUCCESS:
                continue
            self._silenced += 1
            item.facts["invalidate: invalid"] = crossing
            for connection in connections_of(item):
                if connection.stream is not None and "invalidate: to be asked for" not in connection.facts:
                    connection.facts["invalidate: to be asked for"] = crossing

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if self._silenced and _silenced(item):
            message = "a segment goes out over an object that has been invalidated"
            self.check("invalidate.stop-send", False, message, packet)

    def _asked(self, where: Crossing | ObjectBook, item: ObjectBook, at: int) -> None:
        since: Crossing | None = item.facts.pop("invalidate: to be asked for", None)
        stream = item.stream
        if since is None or stream is None:
            return
        began = since.notes.call.number if isinstance(since.notes, Operation) else since.number
        asked = any(reason is UploadReason.INVALID_STATE and event.number > began for event, reason in stream.retrieves)
        if asked or (at > since.at + _MARGIN_US and not stream.failed):
            self.check(
                "invalidate.request-upload",
                asked,
                "it has been invalidated, or what it depends on, and its upload was not asked for",
                where,
                item,
            )

    # They stay, and can be asked about and taken back.

    @enter(Kind.TERMINATE, stage=Stage.HANDLER)
    def terminate(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None:
                    if _silenced(item) and item.stream is not None:
                        self.exercise("invalidate.stop-send")
                    self._asked(crossing, item, crossing.at)

    @leave(Kind.TERMINATE, Kind.QUERY, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.raised is None or not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        if any(_silenced(item) for item in operation.objects):
            self.check(
                "invalidate.keep",
                False,
                lambda: f"{crossing.function} of invalidated objects raised {crossing.raised!r}",
                crossing,
            )

    @enter(Kind.TERMINATE_COMPLETE, Kind.QUERY_COMPLETE)
    def answered(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        lost = any(b.status != Status.SUCCESS for b, item, _ in nodes(operation) if item is not None and item.stream)
        for block, item, _ in nodes(operation):
            if item is not None and _silenced(item):
                if item.stream is None and lost:
                    # Where a connection is not given back, what it depends on is not, either.
                    continue
                broken = item.stream is not None and item.stream.hardware_failure is not None
                if block.status != Status.SUCCESS and item.stream is not None and not broken:
                    # The host is told of broken hardware next.
                    item.stream.facts["invalidate: invalid and failed"] = crossing
                else:
                    self.check(
                        "invalidate.keep",
                        block.status == Status.SUCCESS or broken,
                        f"it has been invalidated, and {crossing.function} says {name(block.status)}",
                        crossing,
                        item,
                    )

    @finish
    def finished(self) -> None:
        for stream in self.books.streams.values():
            failed = stream.facts.get("invalidate: invalid and failed")
            if failed is not None:
                self.check(
                    "invalidate.keep",
                    stream.hardware_failure is not None,
                    "it had been invalidated, and an operation failed for no broken hardware",
                    failed,
                    stream,
                )
        for book in self.books.boundaries.values():
            if not book.boundary.bottom:
                continue
            for item in book.objects.values():
                self._asked(item, item, self.verifier.clock())
            for operation in book.operations:
                if operation.kind is Kind.INVALIDATE:
                    self.check("invalidate.async", False, "it was never completed", operation.call)
                elif any(_silenced(item) for item in operation.objects):
                    self.check(
                        "invalidate.keep", False, "of invalidated objects, it was never completed", operation.call
                    )


def _silenced(item: ObjectBook | None) -> bool:
    """Whether the object, or one that it depends on, has been invalidated."""
    return item is not None and any("invalidate: invalid" in other.facts for other in below(item))
