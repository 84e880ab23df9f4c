"""The pass-through intermediate driver: every request goes down, every completion and indication goes up, nothing
changes.
"""

from __future__ import annotations

from chimney.intermediate.base import IntermediateDriver


class PassThrough(IntermediateDriver):
    """One pass-through driver: bind ``lower`` above a target or another driver, and then a host or driver above
    ``upper``. With ``records`` it attaches a record to every request, which with one edge on either side no one needs.
    """

    def __init__(self, name: str, *, records: bool = False) -> None:
        super().__init__(name, records=records)
