"""Intermediate drivers that scenarios put between host and target, to see what the others make of it."""

from __future__ import annotations

from dataclasses import replace

from chimney.intermediate import IntermediateDriver
from chimney.intermediate.edges import OffloadEntry
from chimney.ndis.state import NeighborConst, ProtocolOffloadBlockList, TcpCached

VLAN_ID = 7
USER_PRIORITY = 3


class ShortDriver(IntermediateDriver):
    """A driver that has no memory while ``short``."""

    def __init__(self, name: str) -> None:
        self.short = False
        super().__init__(name)

    def allocate(self, what: str) -> bool:
        return not self.short


class TaggingDriver(IntermediateDriver):
    """A driver that puts everything that is offloaded through it into a VLAN of its own (im.initiate.vlan)."""

    def prepare_initiate(self, entry: OffloadEntry, block: ProtocolOffloadBlockList) -> None:
        if isinstance(block.const, NeighborConst):
            block.const = replace(block.const, vlan_id=VLAN_ID)
        if isinstance(block.cached, TcpCached):
            block.cached = replace(block.cached, user_priority=USER_PRIORITY)
