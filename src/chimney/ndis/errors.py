"""What NDIS answers to a driver that breaks a rule: at once, in its own call, before anything has changed hands."""

from __future__ import annotations


class Misuse(ValueError):
    """A call that the documents forbid. What it was about stays with its owner.

    ``call`` names it, ``what`` says what is wrong and with what, ``remedy`` what to do instead, ``rule`` the id in the
    catalogue (`chimney rules`).
    """

    def __init__(self, call: str, what: str, remedy: str, rule: str) -> None:
        super().__init__(f"{call}: {what}. {remedy} ({rule})")
        self.call = call
        self.what = what
        self.remedy = remedy
        self.rule = rule
