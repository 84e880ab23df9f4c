"""Initiate: what the code of a failed object says, against what is known of the target (9.3, 16.3).

A target's capacity of connections is known from its capability record, everything else only if it has been announced
(`Verifier.know`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.state import NeighborConst, TcpDelegated
from chimney.ndis.status import Status
from chimney.verifier.books import OFFLOADED, BoundaryBook, Layer, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, leave
from chimney.verifier.limits import CODES, Limits
from chimney.verifier.relations import nodes
from chimney.verifier.violation import name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_RULES = {
    Status.OFFLOAD_HW_ADDRESS_ENTRIES: "initiate.status.hw-address",
    Status.OFFLOAD_TCP_RCV_WINDOW: "initiate.status.rcv-window",
    Status.OFFLOAD_PATH_MTU: "initiate.status.path-mtu",
    Status.OFFLOAD_VLAN_ENTRIES: "initiate.vlan.no-resources",
    Status.OFFLOAD_VLAN_MISMATCH: "initiate.vlan.mismatch",
}
_UNKNOWN = Limits(announced=False)


class InitiateStatus(Checks):
    """The code of each new object, at the target's boundary."""

    RULES = (
        "initiate.status.resource-code",
        "initiate.status.hw-address",
        "initiate.status.rcv-window",
        "initiate.status.path-mtu",
        "initiate.vlan.no-resources",
        "initiate.vlan.acceptable",
        "initiate.vlan.mismatch",
        "initiate.buffered.no-memory",
    )

    @enter(Kind.INITIATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        if "initiate_tree: room has grown" in operation.facts:
            # How much room there was at the time is not known.
            return
        book = self.books.of(crossing)
        limits = self._limits(book)
        # What comes behind a failure may not have been tried (A19), nor what stands on one.
        sure = True
        unsure: set[int] = set()
        for index, (block, item, new) in enumerate(nodes(operation)):
            if block.parent is not None and id(block.parent) in unsure:
                unsure.add(id(block))
            if item is None or not new:
                continue
            tried = block.status in OFFLOADED or (sure and id(block) not in unsure)
            self._object(crossing, operation.before[index], block, item, book, limits, tried)
            if block.status not in OFFLOADED:
                sure = False
                unsure.add(id(block))

    def _limits(self, book: BoundaryBook) -> Limits:
        limits = self.verifier.limits.get(book.boundary.miniport.name, _UNKNOWN)
        if book.capabilities is not None:
            # What was reported last: a resume may have changed it.
            limits = _with_room(limits, book.capabilities.tcp_connection_offload_capacity)
        return limits

    def _object(
        self,
        crossing: Crossing,
        before: BlockView,
        block: BlockView,
        item: ObjectBook,
        book: BoundaryBook,
        limits: Limits,
        tried: bool,
    ) -> None:
        status = block.status
        if item.layer is Layer.NEIGHBOR:
            self._vlan(crossing, block, item, book, limits)
        offloaded = status in OFFLOADED
        if offloaded and not limits.announced:
            return
        reasons = limits.standing_in_the_way(book, before, item)
        right = status in reasons or (not tried and status == Status.FAILURE)
        for code in reasons:
            rule = _RULES.get(code)
            if rule is not None:
                self._check(rule, right, crossing, block, item, code)
            elif not offloaded:
                self._check("initiate.status.resource-code", right, crossing, block, item, code)
        if not offloaded and status != Status.FAILURE and status in CODES[item.layer]:
            self.check(
                "initiate.status.resource-code",
                status in reasons or not limits.knows(Status(status)),
                lambda: f"{name(status)}, and there is no such shortage",
                crossing,
                item,
            )
        elif not offloaded and status != Status.FAILURE:
            self.check(
                "initiate.status.resource-code",
                False,
                lambda: f"{name(status)} names no shortage of a {item.layer.name.lower()} object",
                crossing,
                item,
            )
        copies = isinstance(before.delegated, TcpDelegated) and before.delegated.buffered_data is not None
        if limits.no_copies and copies and not reasons:
            self.check(
                "initiate.buffered.no-memory",
                status == Status.FAILURE,
                lambda: f"there is no memory for a copy of BufferedData, and the status is {name(status)}",
                crossing,
                item,
            )

    def _check(
        self, rule: str, right: bool, crossing: Crossing, block: BlockView, item: ObjectBook, code: Status
    ) -> None:
        self.check(rule, right, lambda: f"{name(block.status)} instead of {code.name}", crossing, item)

    def _vlan(self, crossing: Crossing, block: BlockView, item: ObjectBook, book: BoundaryBook, limits: Limits) -> None:
        const = block.const
        if not isinstance(const, NeighborConst):
            return
        vlans = limits.interface_vlans
        if not const.vlan_id or (vlans is not None and (not vlans or const.vlan_id in vlans)):
            right = block.status != Status.OFFLOAD_VLAN_MISMATCH
            if block.status == Status.OFFLOAD_VLAN_ENTRIES:
                scarce = block.status in limits.standing_in_the_way(book, block, item)
                right = scarce or bool(const.vlan_id and limits.vlans is None)
            self.check(
                "initiate.vlan.acceptable",
                right,
                lambda: f"VLAN {const.vlan_id} was refused with {name(block.status)}",
                crossing,
                item,
            )


@lru_cache(256)
def _with_room(limits: Limits, connections: int) -> Limits:
    return replace(limits, connections=connections)


class RejectedConnections(Checks):
    """A target may decline a connection, and those above have to go on."""

    RULES = ("initiate.status.rejected",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._seen: BaseException | None = None

    @leave(Kind.INITIATE_COMPLETE, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        if not any(block.status == Status.OFFLOAD_CONNECTION_REJECTED for block in crossing.blocks):
            return
        raised = crossing.raised
        self.check(
            "initiate.status.rejected",
            raised is None or raised is self._seen,
            lambda: f"a connection was declined, and the handler raised {raised!r}",
            crossing,
            culprit=crossing.boundary.protocol.name,
        )
        self._seen = raised
