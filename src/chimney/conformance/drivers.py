"""Intermediate drivers that scenarios put between host and target, to see what the others make of it."""

from __future__ import annotations

from chimney.intermediate import IntermediateDriver


class ShortDriver(IntermediateDriver):
    """A driver that has no memory while ``short``."""

    def __init__(self, name: str) -> None:
        self.short = False
        super().__init__(name)

    def allocate(self, what: str) -> bool:
        return not self.short
