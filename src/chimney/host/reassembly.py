"""Datagrams from their fragments: those that a target has passed up, for it does not reassemble (16.4).

Sources: RFC 791 (3.2), RFC 8200 (4.5), RFC 5722 (overlapping fragments), RFC 6864, RFC 8900.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

TIMEOUT_US = 30_000_000
"""How long a datagram waits for the rest of its fragments: as long as Linux lets an IPv4 datagram wait."""
_MOST_DATAGRAMS = 64
_MOST_FRAGMENTS = 256
_LARGEST = 65535
_UNIT = 8


class Fragment(NamedTuple):
    """A part of a datagram. ``key`` tells the datagram (source, destination, identification); ``offset`` of ``data`` is
    in bytes, ``more`` says that it is not the end. ``next_header`` is what the whole begins with, which the first
    fragment tells.
    """

    key: tuple[bytes, bytes, int]
    offset: int
    more: bool
    next_header: int
    data: bytes


@dataclass(slots=True)
class _Incomplete:
    """``size`` is the whole datagram's, 0 as long as the end is missing; times are in microseconds."""

    until: int
    parts: dict[int, Fragment] = field(default_factory=dict)
    received: int = 0
    size: int = 0


class Reassembly:
    """Puts fragments together. It keeps a bounded number of datagrams and of fragments; the oldest is forgotten first.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, bytes, int], _Incomplete] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, fragment: Fragment, now: int) -> tuple[int, bytes] | None:
        """Take in a fragment at ``now`` (microseconds). Returns next header and data of a datagram that is complete.

        Fragments that overlap, or contradict each other about the end, spoil their datagram (RFC 5722); one that comes
        twice does not.
        """
        self._expire(now)
        key, offset, size = fragment.key, fragment.offset, len(fragment.data)
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= _MOST_DATAGRAMS:
                del self._waiting[next(iter(self._waiting))]
            waiting = self._waiting[key] = _Incomplete(now + TIMEOUT_US)
        known = waiting.parts.get(offset)
        if known is not None and known.more == fragment.more and len(known.data) == size:
            return None
        if not _is_sound(fragment) or not self._fits(waiting, fragment):
            del self._waiting[key]
            return None
        waiting.parts[offset] = fragment
        waiting.received += size
        if not fragment.more:
            waiting.size = offset + size
        if waiting.received != waiting.size:
            return None
        del self._waiting[key]
        parts = [waiting.parts[at] for at in sorted(waiting.parts)]
        return parts[0].next_header, b"".join([part.data for part in parts])

    def _expire(self, now: int) -> None:
        for key in [key for key, waiting in self._waiting.items() if waiting.until <= now]:
            del self._waiting[key]

    def _fits(self, waiting: _Incomplete, fragment: Fragment) -> bool:
        """Whether a fragment is beside all others of its datagram, and before its end."""
        begin, end = fragment.offset, fragment.offset + len(fragment.data)
        if len(waiting.parts) >= _MOST_FRAGMENTS or (waiting.size and (end > waiting.size or not fragment.more)):
            return False
        for at, part in waiting.parts.items():
            part_end = at + len(part.data)
            if (begin < part_end and at < end) or (not fragment.more and part_end > end):
                return False
        return True


def _is_sound(fragment: Fragment) -> bool:
    """Whether the fragment has data, ends at a multiple of 8 bytes unless it is the last, and within a datagram."""
    size = len(fragment.data)
    return size > 0 and not (fragment.more and size % _UNIT) and fragment.offset + size <= _LARGEST
