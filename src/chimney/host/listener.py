"""What the host hears beside its connections and links: the kernel's news, ICMP, segments that came another way."""

from __future__ import annotations

from typing import Protocol

NEVER = 1 << 62
"""A time that does not come, in microseconds."""


class Listener(Protocol):
    """One source of news; the stack calls it in its turns, and has it closed.

    It is called between the completions of two hand-overs' turns, too: it may ask for a hand-over by
    `Services.hand_over_soon` only, and posts to the drivers what may be posted at any time.
    """

    def fileno(self) -> int:
        """The descriptor that is readable when there is news."""

    def ready(self) -> None:
        """The descriptor is readable: take in what is there, a bounded part of it."""

    def poll_at(self) -> int:
        """When `run` is to be called, in microseconds of the stack's clock; a time past: in the next turn; NEVER."""

    def run(self, now: int) -> None:
        """Do what is due; called in each turn at or after `poll_at`."""

    def close(self) -> None:
        """Give the descriptor back."""
