"""Block lists: the shape of a tree, what each kind of node carries, and what becomes of it (chapter 5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.state import (
    NeighborCached,
    NeighborConst,
    NeighborDelegated,
    PathCached,
    PathConst,
    PathDelegated,
    TcpCached,
    TcpConst,
    TcpDelegated,
)
from chimney.ndis.status import OffloadStateType, Status
from chimney.verifier.books import (
    OFFLOADED,
    OPERATION_COMPLETIONS,
    OPERATIONS,
    POISON,
    Layer,
    ObjectBook,
    Operation,
    layer_of,
)
from chimney.verifier.check import Checks, enter, segment_out
from chimney.verifier.packets import Packet
from chimney.verifier.relations import same_state
from chimney.verifier.streams import Stream
from chimney.verifier.violation import name

_FAILED = 0xC0000000
_STRUCTURES = {
    Layer.NEIGHBOR: (NeighborConst, NeighborCached, NeighborDelegated),
    Layer.PATH: (PathConst, PathCached, PathDelegated),
    Layer.TCP: (TcpConst, TcpCached, TcpDelegated),
}
_CLASSES = ("CONST", "CACHED", "DELEGATED")
_SUFFIXES = {kind: kind.name.rpartition("_")[2] for kind in OffloadStateType}
_UPDATES_IN_BOTH = (Kind.INITIATE, Kind.INITIATE_COMPLETE)
_FILLED_IN = ("vlan_id", "user_priority", "send_data_head", "send_data_tail")


def descendants(blocks: tuple[BlockView, ...], root: BlockView) -> Iterator[BlockView]:
    """Everything above ``root``; ``blocks`` is the tree in the documents' order."""
    at = blocks.index(root) + 1
    while at < len(blocks) and blocks[at].depth > root.depth:
        yield blocks[at]
        at += 1


def is_new(block: BlockView) -> bool:
    """In an initiate: a block with state that is to be offloaded."""
    return block.handle is not None and block.cell is None


class TreeChecks(Checks):
    """Trees as a host submits them."""

    RULES = (
        "bl.next.same-layer",
        "bl.dependent.next-layer",
        "bl.tcp.leaf",
        "bl.type.matches-state",
        "bl.linker.has-dependent",
        "bl.new.has-state",
        "bl.port.default",
    )

    @enter(*OPERATIONS)
    def submitted(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        blocks = crossing.blocks
        layers: dict[int, Layer] = {}
        unmixed = [
            layers.setdefault(id(block.parent), layer_of(block.type)) is layer_of(block.type) for block in blocks
        ]
        self.check(
            "bl.next.same-layer",
            all(unmixed),
            "a row mixes layers",
            crossing,
        )
        dependents = [block for block in blocks if block.parent is not None]
        if dependents:
            self.check(
                "bl.dependent.next-layer",
                all(_stands_right(block) for block in dependents),
                "a dependent link does not lead to the next layer",
                crossing,
            )
        connections = [block for block in blocks if layer_of(block.type) is Layer.TCP]
        if connections:
            self.check(
                "bl.tcp.leaf",
                all(block.block.dependent_block_list is None for block in connections),  # type: ignore[attr-defined]
                "a TCP block has dependents",
                crossing,
            )
        carrying = [block for block in blocks if _carries(block)]
        if carrying:
            self.check(
                "bl.type.matches-state",
                all(_type_matches(block) for block in carrying),
                "the type of a block does not say which state structures it has",
                crossing,
            )
        self.check(
            "bl.port.default",
            all(block.port_number == 0 for block in blocks),
            "a port number is given, and the miniport has allocated no ports",
            crossing,
        )
        if crossing.kind is Kind.INITIATE:
            self._initiating(crossing)

    def _initiating(self, crossing: Crossing) -> None:
        blocks = crossing.blocks
        for block in blocks:
            if is_new(block):
                self.check(
                    "bl.new.has-state",
                    _has_all(block),
                    "a new object comes without its state",
                    crossing,
                )
            elif block.handle is not None:
                self.check(
                    "bl.linker.has-dependent",
                    any(is_new(other) for other in descendants(blocks, block)),
                    "nothing new depends on a linker",
                    crossing,
                )


def _stands_right(block: BlockView) -> bool:
    assert block.parent is not None
    return layer_of(block.type) == layer_of(block.parent.type) + 1


def _carries(block: BlockView) -> bool:
    return block.const is not None or block.cached is not None or block.delegated is not None


def _has_all(block: BlockView) -> bool:
    # The documents define no delegated path state: a structure without members may be there, or not.
    whole = block.const is not None and block.cached is not None
    return whole and (block.delegated is not None or layer_of(block.type) is Layer.PATH)


def _type_matches(block: BlockView) -> bool:
    layer = layer_of(block.type)
    structures: tuple[Any, ...] = (block.const, block.cached, block.delegated)
    if not all(
        structure is None or isinstance(structure, kind)
        for structure, kind in zip(structures, _STRUCTURES[layer], strict=True)
    ):
        return False
    if isinstance(block.const, PathConst):
        size = 4 if block.type <= OffloadStateType.IP4 else 16
        if len(block.const.source_address) != size:
            return False
    suffix = _SUFFIXES[block.type]
    if suffix not in _CLASSES:
        return _has_all(block)
    named = _CLASSES.index(suffix)
    if layer is Layer.PATH and suffix == "DELEGATED":
        return block.const is None and block.cached is None
    return all((structure is not None) == (index == named) for index, structure in enumerate(structures))


class CompletedTreeChecks(Checks):
    """Trees as a target completes them."""

    RULES = (
        "bl.status.every-node",
        "bl.status.binary",
        "bl.same-pointer",
        "bl.reserved.protocol",
        "bl.reserved.im",
        "bl.source-handle.target",
        "bl.placeholder.meaning",
        "bl.placeholder.success",
        "bl.linker.status",
        "bl.new.meaning",
    )

    @enter(*OPERATION_COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        operation = crossing.notes
        known = isinstance(operation, Operation)
        # A tree that has been completed already is not this rule's business.
        if known or getattr(crossing.root, "ndis_reserved", None) is not None:
            self.check("bl.same-pointer", known, "this is not the tree that the miniport was given", crossing)
        if not known:
            return
        before, after = operation.lower, operation.after
        self.check(
            "bl.status.every-node",
            len(before) == len(after) and all(block.status != POISON for block in after),
            "a block has no status",
            crossing,
        )
        if len(before) != len(after):
            return
        self._unchanged(crossing, operation)
        if crossing.kind is not Kind.INITIATE_COMPLETE:
            statuses = [block.status for block in after]
            self.check(
                "bl.status.binary",
                all(status in (Status.SUCCESS, Status.FAILURE) for status in statuses),
                lambda: f"the statuses are {', '.join(map(name, statuses))}",
                crossing,
            )
        else:
            self._initiated(crossing, operation)
        for old, new in zip(before, after, strict=True):
            if old.placeholder:
                self._placeholder(crossing, old, new)

    def _unchanged(self, crossing: Crossing, operation: Operation) -> None:
        protocol = im = source = True
        for a, b in zip(operation.lower, operation.after, strict=True):
            protocol = protocol and a.protocol_reserved is b.protocol_reserved
            im = im and a.im_reserved is b.im_reserved
            source = source and a.source_handle is b.source_handle
        self.check("bl.reserved.protocol", protocol, "ProtocolReserved of a block has changed", crossing)
        self.check("bl.reserved.im", im, "ImReserved of a block has changed", crossing)
        self.check("bl.source-handle.target", source, "SourceHandle of a block has changed", crossing)

    def _placeholder(self, crossing: Crossing, old: BlockView, new: BlockView) -> None:
        self.check(
            "bl.placeholder.meaning",
            new.placeholder and not _carries(new),
            "a placeholder has become an object, or carries state",
            crossing,
        )
        self.check(
            "bl.placeholder.success",
            new.status == Status.SUCCESS,
            lambda: f"it is completed with {name(new.status)}",
            crossing,
        )

    def _initiated(self, crossing: Crossing, operation: Operation) -> None:
        dependents: dict[int, list[BlockView]] = {}
        for block in operation.after:
            if block.parent is not None and not block.placeholder:
                dependents.setdefault(id(block.parent), []).append(block)
        for old, new in zip(operation.lower, operation.after, strict=True):
            if is_new(old):
                told = (new.status in OFFLOADED and new.cell is not None) or new.status >= _FAILED
                text = "" if told else f"a new object is neither offloaded nor failed: {name(new.status)}"
                self.check("bl.new.meaning", told, text, crossing)
            elif not old.placeholder:
                self._linker(crossing, new, [block.status for block in dependents.get(id(new), [])])

    def _linker(self, crossing: Crossing, linker: BlockView, above: list[int]) -> None:
        self.check(
            "bl.linker.status",
            linker.status in _summaries(above),
            lambda: f"a linker is completed with {name(linker.status)}, its dependents with {list(map(name, above))}",
            crossing,
        )


def _summaries(statuses: list[int]) -> tuple[Status, ...]:
    """What a linker's status may be, by those of the blocks that depend on it."""
    offloaded = [status in OFFLOADED for status in statuses]
    if not all(offloaded):
        return (Status.OFFLOAD_PARTIAL_SUCCESS,) if any(offloaded) else (Status.FAILURE,)
    if Status.OFFLOAD_PARTIAL_SUCCESS in statuses:
        # They are offloaded; something that depends on one of them is not: the documents look one layer up only.
        return (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS)
    return (Status.SUCCESS,)


class LinkerChecks(Checks):
    """What was attached to an object by a linker uses that object."""

    RULES = ("bl.linker.meaning",)

    @enter(Kind.INITIATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not isinstance(operation, Operation) or not crossing.boundary.bottom:
            return
        attached = [item for item, fresh in zip(operation.objects, operation.new, strict=True) if item and not fresh]
        for item, fresh in zip(operation.objects, operation.new, strict=True):
            if item is not None and fresh and item.layer is Layer.TCP:
                below = item.parent
                item.facts["block_lists: linked"] = below in attached or (
                    below is not None and below.parent in attached
                )

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if not item.facts.get("block_lists: linked"):
            return
        path = item.parent
        neighbor = None if path is None else path.parent
        if path is None or neighbor is None or not isinstance(neighbor.cached, NeighborCached):
            return
        if path.operations or neighbor.operations:
            # An update takes effect at any time before it completes (A33).
            return
        self.check(
            "bl.linker.meaning",
            packet.destination_mac == neighbor.cached.dl_destination_address,
            lambda: f"it is sent to {packet.destination_mac.hex(':')}, which is not the neighbor it was attached to",
            packet,
        )


class ConversionChecks(Checks):
    """Trees on both sides of NDIS, and of intermediate drivers."""

    RULES = ("bl.ndis.convert", "bl.source-handle.client")

    @enter(*OPERATIONS, *OPERATION_COMPLETIONS, stage=Stage.HANDLER)
    def converted(self, crossing: Crossing) -> None:
        call = crossing.parent
        if call is None or call.boundary is not crossing.boundary:
            return
        here, there = crossing.blocks, call.blocks
        same = len(here) == len(there) and all(
            _converted(a, b, crossing.kind) for a, b in zip(here, there, strict=True)
        )
        self.check("bl.ndis.convert", same, "the two forms of the tree are not the same", crossing)

    @enter(*OPERATIONS)
    def passed_down(self, crossing: Crossing) -> None:
        above = crossing.parent
        if crossing.boundary.top or above is None or above.kind is not crossing.kind:
            return
        known = {id(block.source_handle) for block in above.blocks}
        self._kept(crossing, all(id(block.source_handle) in known for block in crossing.blocks), False)

    @enter(*OPERATION_COMPLETIONS)
    def passed_up(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        if len(operation.lower) == len(operation.after):
            pairs = zip(operation.lower, operation.after, strict=True)
            self._kept(crossing, all(a.source_handle is b.source_handle for a, b in pairs), True)

    def _kept(self, crossing: Crossing, kept: bool, up: bool) -> None:
        edge = crossing.boundary.miniport if up else crossing.boundary.protocol
        self.check("bl.source-handle.client", kept, "SourceHandle of a block has changed", crossing, culprit=edge.name)


def _converted(handler: BlockView, call: BlockView, kind: Kind) -> bool:
    """NDIS may fill VLAN and priority in at an initiate (im.initiate.vlan); what send data pointers say there is the
    chain's business.
    """
    besides = _FILLED_IN if kind in _UPDATES_IN_BOTH else ()
    return (
        handler.type == call.type
        and handler.depth == call.depth
        and handler.port_number == call.port_number
        and (kind.down or handler.status == call.status)
        and same_state(handler.const, call.const, *besides)
        and same_state(handler.cached, call.cached, *besides)
        and same_state(handler.delegated, call.delegated, *besides)
        and (handler.chain == call.chain or [view.nbl for view in handler.chain] == [view.nbl for view in call.chain])
    )
