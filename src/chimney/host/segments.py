"""TCP segments that reach the host instead of the target, or instead of the kernel's socket."""

from __future__ import annotations

from typing import NamedTuple

from chimney.host.kernel import Flow

_FIN, _SYN, _RST = 1, 2, 4


class KeptSegment(NamedTuple):
    """A received TCP segment: its flow, an IP packet without options, and where TCP begins in it.

    ``foreign``: the target does not read it from its link, for it came on another interface, with IP options or in
    fragments. The others are copies of what the target has passed up.
    """

    flow: Flow
    packet: bytes | memoryview
    tcp_offset: int
    foreign: bool = False

    def copy(self) -> KeptSegment:
        """The same, in memory of its own."""
        return self if isinstance(self.packet, bytes) else self._replace(packet=bytes(self.packet))

    def tcp(self) -> memoryview:
        """The segment from the TCP header on, as a forward wants it."""
        return memoryview(self.packet)[self.tcp_offset :]


def without_repeats(segments: list[KeptSegment]) -> list[KeptSegment]:
    """The segments less those with data or a FIN that say the same as an earlier one.

    Processed late, but one by one, both would be answered; to a peer whose FIN was answered once, and that has gone, a
    second answer is a stray segment, which it answers with an RST.
    """
    seen: set[tuple[bytes, int, int]] = set()
    kept = []
    for segment in segments:
        tcp = segment.tcp()
        payload = tcp.nbytes - (tcp[12] >> 4) * 4
        if tcp[13] & _FIN or payload > 0:
            said = bytes(tcp[4:12]), tcp[13], payload
            if said in seen:
                continue
            seen.add(said)
        kept.append(segment)
    return kept


def data_beyond(segments: list[KeptSegment], rcv_nxt: int) -> list[KeptSegment]:
    """Those of the segments that have data or a FIN behind ``rcv_nxt``.

    They arrived before the cut: the kernel has processed them, and answered. What it holds out of order, it does not
    tell. An RST that it has challenged (RFC 5961, 3.2) must not be processed once more: it may be in sequence by now.
    """
    kept = []
    for segment in segments:
        tcp = segment.tcp()
        flags = tcp[13]
        length = tcp.nbytes - (tcp[12] >> 4) * 4 + (flags & _FIN)
        news = (int.from_bytes(tcp[4:8], "big") + length - rcv_nxt) & 0xFFFFFFFF
        if length and 0 < news < 1 << 31 and not flags & (_RST | _SYN):
            kept.append(segment)
    return kept
