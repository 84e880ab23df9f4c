"""Segments that belong to nobody's stream, made from what the doors know: an attacker who has seen everything.

Each is such that a connection that follows RFC 9293, RFC 7323 and RFC 5961 survives it whatever happens meanwhile: its
sequence and acknowledgement numbers stay wrong however much is sent until it is processed. `is_deadly` has the
exceptions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chimney.conformance import wire
from chimney.conformance.handshake import IPV4, IPV6, MACS
from chimney.sim import case
from chimney.sim.application import pattern
from chimney.sim.case import OTHER
from chimney.sim.machine import PORTS

if TYPE_CHECKING:
    from chimney.sim.world import World

_MASK = 0xFFFFFFFF
# No run sends so much, and no window is so large.
_FAR = 1 << 24
_FILLER = b"\xa5"

# Options that make no sense.
_BAD_OPTIONS = (
    b"\x08\x00",  # timestamps of length 0
    b"\x08\x01",  # of length 1
    b"\x08\x0b" + bytes(9) + b"\x01",  # of 11 bytes
    b"\x08\x0a\x00\x00",  # cut off by the end of the header
    b"\x05\x02\x01\x01",  # SACK without a block
    b"\x05\x0b" + bytes(9) + b"\x01",  # with a block and a bit
    b"\x05\x28\x00\x00",  # longer than the header
    b"\xfe\xff\x00\x00",  # an unknown one, longer than the header
    b"\x02\x04\xff\xff\x03\x03\xff\x04\x02",  # a SYN's on a segment that is none
    b"\x13\x12" + bytes(16),  # an MD5 signature (RFC 2385)
    b"\xff" * 40,
    b"\x01" * 40,
)
# SACK blocks that make no sense: from and to, counted from what the receiver has sent.
_BAD_BLOCKS = ((1000, 2000), (0, -1), (_FAR, _FAR + 1), (-_FAR, -_FAR + 1))


@dataclass(slots=True, frozen=True)
class _Target:
    """What an attacker knows of the machine that it sends to; positions as `chimney.sim.door` has them.

    has, edge    what of the peer's stream it has acknowledged, and a right edge that its window has not reached.
    sent         what of the peer's stream is sent, its FIN included; ``stream``: without it.
    own, acked   what it has sent itself, and what of that it has heard to be acknowledged.
    window       the peer's that it has heard of last, as it stands in segments.
    timestamps   an option with the peer's newest one moved by so many ticks; nothing if none is known.
    """

    has: int
    edge: int
    sent: int
    stream: int
    own: int
    acked: int
    window: int
    timestamps: Callable[[int], bytes]


def is_deadly(step: case.Garbage) -> bool:
    """Whether the connection ends if the sequence number is what the receiver waits for: nobody can tell a guess that
    is right from the peer.
    """
    return step.offset < 0 and step.kind in ("rst-blind", "syn")


def craft(world: World, step: case.Garbage) -> bytes | None:
    """The frame that a step injects; None if too little is known for it yet."""
    to, by = step.to, OTHER[step.to]
    known = _known(world, to)
    make = _MAKERS[step.kind]
    made = make(known, step, by)
    if made is None:
        return None
    sequence, acknowledged, flags, options, payload = made
    sender_iss, receiver_iss = world.case.iss if by == "a" else world.case.iss[::-1]
    if step.kind == "options" and step.offset % 2:
        blocks = _BAD_BLOCKS[step.offset // 2 % len(_BAD_BLOCKS)]
        edges = [(receiver_iss + known.own + edge) & _MASK for edge in blocks]
        options = struct.pack("!BBBBII", 1, 1, 5, 10, *edges)
    options += bytes(-len(options) % 4)
    header = struct.pack(
        "!HHIIBBHHH",
        *(PORTS if by == "a" else PORTS[::-1]),
        (sender_iss + sequence) & _MASK,
        (receiver_iss + acknowledged) & _MASK if flags & wire.ACK else 0,
        (20 + len(options)) // 4 << 4,
        flags,
        min(step.amount, 0xFFFF) if step.kind == "window" else known.window,
        0,
        0,
    )
    segment = header + options + payload
    if step.kind == "truncated":
        segment = _truncated(segment, step.offset)
    elif step.kind == "random":
        segment = header[:4] + world.chance.randbytes(max(step.amount, 0))
    addresses = IPV6 if world.case.ipv6 else IPV4
    source, destination = addresses if by == "a" else addresses[::-1]
    good_ip = not (step.kind == "checksum" and step.offset % 2)
    if step.kind != "random" and len(segment) >= 18:
        segment = wire.checked(source, destination, segment, good=step.kind != "checksum")
    packet = wire.ip_packet(source, destination, segment, good=good_ip)
    ether_type = wire.ETHER_IPV6 if world.case.ipv6 else wire.ETHER_IPV4
    macs = MACS if by == "a" else MACS[::-1]
    return wire.ethernet(macs[1], macs[0], ether_type, packet)


def _known(world: World, to: case.Side) -> _Target:
    host = world.case.host(to)
    mine, theirs, heard = world.doors[to].facts, world.doors[OTHER[to]].facts, world.doors[to].heard
    tsval, echo = theirs.tsval, max(mine.tsval, 0)
    known = world.case.timestamps and tsval >= 0
    # Before it has heard anything: what a socket with that buffer says at first.
    window = heard.window if heard.window >= 0 else min(world.case.host(OTHER[to]).receive_buffer, 0xFFFF)

    def timestamps(moved: int) -> bytes:
        return struct.pack("!BBBBII", 1, 1, 8, 10, (tsval + moved) & _MASK, echo & _MASK) if known else b""

    return _Target(
        has=mine.ack,
        edge=max(mine.edge, mine.ack + host.receive_buffer + host.receive_window),
        sent=theirs.seq_end,
        stream=theirs.fin if theirs.fin >= 0 else theirs.seq_end,
        own=mine.seq_end,
        acked=heard.ack,
        window=window >> max(world.case.scale, 0),
        timestamps=timestamps,
    )


# Sequence number, acknowledgement number, flags, options, payload; positions
_Made = tuple[int, int, int, bytes, bytes]
_Maker = Callable[[_Target, case.Garbage, case.Side], _Made | None]


def _rst_blind(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    return _guess(known, step), 0, wire.RST, b"", b""


def _rst_outside(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    at = known.edge + step.offset if step.offset >= 0 else known.has + step.offset - _FAR
    return at, 0, wire.RST, b"", b""


def _syn(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    return _guess(known, step), 0, wire.SYN, b"\x02\x04\x05\xb4", b""


def _guess(known: _Target, step: case.Garbage) -> int:
    """Behind all that the peer has sent, and so not what the receiver waits for; with a negative offset, just that."""
    return known.has if step.offset < 0 else known.sent + 1 + step.offset


def _old(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    at = known.has - step.amount - abs(step.offset)
    return at, known.acked, wire.ACK | wire.PSH, known.timestamps(0), _FILLER * step.amount


def _beyond(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    return known.edge + abs(step.offset), known.acked, wire.ACK, known.timestamps(0), _FILLER * step.amount


def _ack_future(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    return known.sent, known.own + _FAR + abs(step.offset), wire.ACK, known.timestamps(0), b""


def _ack_old(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    return known.sent, known.acked - step.amount - abs(step.offset), wire.ACK, known.timestamps(0), b""


def _paws(known: _Target, step: case.Garbage, by: case.Side) -> _Made | None:
    """The peer's own bytes: who has just got the connection may not know its newest timestamp, and take them."""
    stamps = known.timestamps(-1 - abs(step.offset) - step.amount)
    if not stamps or not known.sent:
        return None
    at = known.has if known.sent > known.has else max(known.has - step.amount, 0)
    size = min(step.amount, known.stream - at)
    return at, known.acked, wire.ACK, stamps, pattern(by, at, max(size, 0))


def _options(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    return known.sent, known.acked, wire.ACK, _BAD_OPTIONS[step.offset // 2 % len(_BAD_OPTIONS)], b""


def _urgent(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    return known.sent, known.acked, wire.ACK | wire.URG, known.timestamps(0), b""


def _window(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    """Right but for its window, which nobody has offered: none, or too much."""
    return known.sent, known.acked, wire.ACK, known.timestamps(0), b""


def _next_data(known: _Target, step: case.Garbage, by: case.Side) -> _Made:
    """Data that would be taken if the rest of it made sense."""
    return known.has, known.acked, wire.ACK | wire.PSH, known.timestamps(0), _FILLER * max(step.amount, 1)


_MAKERS: dict[str, _Maker] = {
    "rst-blind": _rst_blind,
    "rst-outside": _rst_outside,
    "syn": _syn,
    "old": _old,
    "beyond": _beyond,
    "ack-future": _ack_future,
    "ack-old": _ack_old,
    "paws": _paws,
    "options": _options,
    "window": _window,
    "urgent": _urgent,
    "truncated": _next_data,
    "checksum": _next_data,
    "random": _next_data,
}


def _truncated(segment: bytes, how: int) -> bytes:
    """A TCP segment that contradicts itself: a header that is too short, or ends behind the end of the packet."""
    kind = how % 4
    if kind == 0:
        return segment[:12]
    if kind == 1:
        return segment[:12] + b"\x40" + segment[13:]
    if kind == 2:
        return segment[:12] + b"\xf0" + segment[13:20]
    return segment[:19]
