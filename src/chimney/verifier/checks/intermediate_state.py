"""State operations on their way through an intermediate driver: tree, state, and saved words (9.1, 12.3)."""

from __future__ import annotations

from chimney.ndis.crossing import BlockView, Crossing, Kind
from chimney.ndis.state import NeighborConst, TcpCached
from chimney.ndis.status import Status
from chimney.verifier.books import OFFLOADED, OPERATION_COMPLETIONS, OPERATIONS, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, segment_out
from chimney.verifier.packets import Packet
from chimney.verifier.relations import same_state
from chimney.verifier.streams import Stream
from chimney.verifier.violation import name

_VLAN_ID = 0x0FFF
# What brings state back.
_RETURNING = (Kind.QUERY_COMPLETE, Kind.TERMINATE_COMPLETE)


class StateDown(Checks):
    """The call that a driver makes of the one that it got."""

    RULES = ("im.state.propagate", "im.state.save")

    @enter(*OPERATIONS)
    def passed_down(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.protocol.driver is None or not isinstance(operation, Operation):
            return
        above = operation.above
        if above is None or not above.lower:
            return
        word = crossing.blocks[0].im_reserved
        self.check(
            "im.state.save",
            word is not None and word is not above.lower[0].im_reserved,
            "ImReserved below is what it was above",
            crossing,
        )
        places = {id(item): index for index, item in enumerate(above.objects) if item is not None}
        last = -1
        for block, item in zip(operation.before, operation.objects, strict=True):
            if item is not None:
                last = self._block(crossing, block, item, above, places, last)

    def _block(
        self,
        crossing: Crossing,
        block: BlockView,
        item: ObjectBook,
        above: Operation,
        places: dict[int, int],
        last: int,
    ) -> int:
        place = places.get(id(item.above), -1)
        if place < 0:
            self.check("im.state.propagate", False, "a block that is not in the tree above", crossing, item)
            return last
        upper = above.lower[place]
        difference = _difference(upper, block, crossing.kind is Kind.INITIATE)
        if not difference and (block.depth != upper.depth or place < last):
            difference = "its place in the tree"
        self.check("im.state.propagate", not difference, lambda: f"changed on the way: {difference}", crossing, item)
        return max(place, last)


def _difference(upper: BlockView, lower: BlockView, initiate: bool) -> str:
    """What is not the same in the two forms of a block; VlanId and UserPriority of an initiate may be changed."""
    if upper.type != lower.type:
        return "its type"
    if not same_state(upper.const, lower.const, *(("vlan_id",) if initiate else ())):
        return "constants"
    if not same_state(upper.cached, lower.cached, *(("user_priority",) if initiate else ())):
        return "cached state"
    if not same_state(upper.delegated, lower.delegated):
        return "delegated state"
    if [view.nbl for view in upper.chain] != [view.nbl for view in lower.chain]:
        return "the chain of lists"
    return ""


class StateUp(Checks):
    """The completion that a driver makes of the one that it got."""

    RULES = ("im.state.propagate", "im.state.restore", "im.state.complete")

    @enter(*OPERATION_COMPLETIONS)
    def passed_up(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            return
        operation = crossing.notes
        if not isinstance(operation, Operation):
            self.check("im.state.complete", False, "no such operation is under way above", crossing)
            return
        if not operation.parts:
            # A driver without memory lets everything fail, and passes nothing down (A24).
            blocks = zip(operation.after, operation.objects, strict=False)
            ended = [block.status for block, item in blocks if item is not None]
            failed = not any(status in OFFLOADED for status in ended)
            self.check("im.state.propagate", failed, "it succeeds, and has not been passed down", crossing)
            return
        self._words(crossing, operation)
        known = [item.above for part in operation.parts for item in part.objects if item is not None]
        reached = {id(item) for item in known}
        for block, item in zip(operation.after, operation.objects, strict=False):
            if item is not None and id(item) not in reached:
                failed = block.status not in OFFLOADED
                self.check("im.state.propagate", failed, "an object succeeds that was not passed down", crossing, item)
        for part in operation.parts:
            self._part(crossing, operation, part)

    def _words(self, crossing: Crossing, operation: Operation) -> None:
        if not operation.lower or not crossing.blocks:
            return
        before, after = operation.lower[0], crossing.blocks[0]
        self.check(
            "im.state.restore",
            after.im_reserved is before.im_reserved and after.source_handle is before.source_handle,
            "ImReserved or SourceHandle is not what it was in the call",
            crossing,
        )

    def _part(self, crossing: Crossing, operation: Operation, part: Operation) -> None:
        if part.completion is None:
            self.check("im.state.complete", False, "the driver below has not completed it", crossing)
            return
        if len(part.after) != len(part.objects) or len(operation.after) != len(operation.objects):
            self.check("im.state.complete", False, "the tree has another shape than in the call", crossing)
            return
        above = {id(item): block for block, item in zip(operation.after, operation.objects, strict=True)}
        for block, item in zip(part.after, part.objects, strict=True):
            if item is not None and id(item.above) in above:
                self._node(crossing, item, above[id(item.above)], block)

    def _node(self, crossing: Crossing, item: ObjectBook, upper: BlockView, lower: BlockView) -> None:
        self.check(
            "im.state.complete",
            upper.status == lower.status,
            lambda: f"{name(lower.status)} below, {name(upper.status)} above",
            crossing,
            item,
        )
        if lower.status == Status.SUCCESS and crossing.kind in _RETURNING:
            same = _same_state(upper, lower)
            self.check("im.state.complete", same, "the state is not what came from below", crossing, item)

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            for operation in book.operations:
                if operation.parts and all(part.completion is not None for part in operation.parts):
                    message = f"a completed {operation.kind.name.lower()} has not been passed up"
                    self.check(
                        "im.state.complete",
                        False,
                        message,
                        operation.call,
                        culprit=operation.boundary.miniport.name,
                    )


def _same_state(upper: BlockView, lower: BlockView) -> bool:
    """Whether the blocks' states agree, but for the sends: a driver may put its own behind those from below (A5)."""
    return (
        same_state(upper.const, lower.const)
        and same_state(upper.cached, lower.cached)
        and same_state(upper.delegated, lower.delegated, "send_data_head", "send_data_tail")
    )


class VlanOnTheWay(Checks):
    """A target uses the VLAN and priority that it got, whatever the host had given (im.initiate.vlan)."""

    RULES = ("im.initiate.vlan",)

    @enter(Kind.INITIATE)
    def passed_down(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.protocol.driver is None or not isinstance(operation, Operation):
            return
        for item, fresh in zip(operation.objects, operation.new, strict=True):
            if not fresh or item is None or item.above is None:
                continue
            before, after = item.above, item
            vlan = isinstance(before.const, NeighborConst) and isinstance(after.const, NeighborConst)
            if vlan and before.const.vlan_id != after.const.vlan_id:  # type: ignore[union-attr]
                item.facts["intermediate_state: vlan set"] = True
            priority = isinstance(before.cached, TcpCached) and isinstance(after.cached, TcpCached)
            if priority and before.cached.user_priority != after.cached.user_priority:  # type: ignore[union-attr]
                item.facts["intermediate_state: priority set"] = True
            for fact in ("intermediate_state: vlan set", "intermediate_state: priority set"):
                if item.above.facts.get(fact):
                    item.facts[fact] = True

    @segment_out
    def sent(self, packet: Packet, tcp: ObjectBook, stream: Stream) -> None:
        neighbor = tcp.parent.parent if tcp.parent is not None else None
        if (
            neighbor is not None
            and neighbor.facts.get("intermediate_state: vlan set")
            and isinstance(neighbor.const, NeighborConst)
        ):
            self.check(
                "im.initiate.vlan",
                max(packet.vlan, 0) & _VLAN_ID == neighbor.const.vlan_id,
                f"tag {packet.vlan:#x} on the wire, VLAN {neighbor.const.vlan_id} in the state",
                packet,
                tcp,
                packet.link,
            )
        if tcp.facts.get("intermediate_state: priority set") and isinstance(tcp.cached, TcpCached):
            self.check(
                "im.initiate.vlan",
                max(packet.vlan, 0) >> 13 == tcp.cached.user_priority,
                f"tag {packet.vlan:#x} on the wire, priority {tcp.cached.user_priority} in the state",
                packet,
                tcp,
                packet.link,
            )
