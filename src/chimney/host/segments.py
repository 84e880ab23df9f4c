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
    packet: bytes
    tcp_offset: int
    foreign: bool = False

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


def without_judged_resets(segments: list[KeptSegment], rcv_nxt: int) -> list[KeptSegment]:
    """The segments of an offload less the RSTs that the kernel has judged already, before it was at ``rcv_nxt``.

    The tap is open before the cut, so it shows segments that the kernel has processed too. To process data once more is
    harmless, but an RST that the kernel has challenged (RFC 5961, 3.2) may be just in sequence by now. That takes new
    data behind it, which shows that the kernel has seen the RST as well.
    """
    kept: list[KeptSegment] = []
    judged = False
    for segment in reversed(segments):
        tcp = segment.tcp()
        flags = tcp[13]
        if flags & _RST:
            if judged:
                continue
        elif not flags & _SYN:
            length = tcp.nbytes - (tcp[12] >> 4) * 4 + (flags & _FIN)
            known = (rcv_nxt - int.from_bytes(tcp[4:8], "big")) & 0xFFFFFFFF
            judged = judged or (length > 0 and 0 < known < 1 << 31)
        kept.append(segment)
    kept.reverse()
    return kept
