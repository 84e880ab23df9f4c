"""Frames that reach the host on the ordinary path: whose they are, and their parts."""

from __future__ import annotations

from typing import NamedTuple

from chimney.host.kernel import Flow

_ETHERNET = 14
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_TCP = 6
_FIN, _SYN, _RST = 1, 2, 4


class KeptSegment(NamedTuple):
    """A received TCP segment: its flow, the whole IP packet, and where TCP begins in it."""

    flow: Flow
    packet: bytes
    tcp_offset: int

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


def parse_frame(frame: memoryview) -> KeptSegment | None:
    """The TCP segment in an Ethernet frame (without IPv6 extension headers or fragments), copied; None if there is
    none.
    """
    if frame.nbytes < _ETHERNET + 40:
        return None
    ether_type = bytes(frame[12:14])
    ip = frame[_ETHERNET:]
    if ether_type == _IPV4 and ip[0] >> 4 == 4:
        header = (ip[0] & 15) * 4
        total = ip[2] << 8 | ip[3]
        fragment = (ip[6] << 8 | ip[7]) & 0x3FFF
        protocol = ip[9]
        source, destination = bytes(ip[12:16]), bytes(ip[16:20])
        if fragment or header < 20:
            return None
    elif ether_type == _IPV6 and ip[0] >> 4 == 6:
        header = 40
        total = (ip[4] << 8 | ip[5]) + 40
        protocol = ip[6]
        source, destination = bytes(ip[8:24]), bytes(ip[24:40])
    else:
        return None
    if protocol != _TCP or total > ip.nbytes or total < header + 20:
        return None
    if not 20 <= (ip[header + 12] >> 4) * 4 <= total - header:
        # The kernel drops it, and nobody else may be bothered with it (forward.one-segment).
        return None
    ports = ip[header : header + 4]
    flow = Flow(destination, ports[2] << 8 | ports[3], source, ports[0] << 8 | ports[1])
    return KeptSegment(flow, bytes(ip[:total]), header)
