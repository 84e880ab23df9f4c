"""TCP_INFO of a kernel socket, by the names of struct tcp_info (linux/tcp.h). A kernel that knows less gives zeros."""

from __future__ import annotations

import socket
import struct

from chimney.host.linux import sockopts as so

_WORDS = (
    "rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent last_data_recv "
    "last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans"
)
_PARTS = (
    ("8B", "state ca_state retransmits probes backoff options wscale flags"),
    ("24I", _WORDS),
    ("4Q", "pacing_rate max_pacing_rate bytes_acked bytes_received"),
    ("6I", "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out"),
    ("4Q", "delivery_rate busy_time rwnd_limited sndbuf_limited"),
    ("2I", "delivered delivered_ce"),
    ("2Q", "bytes_sent bytes_retrans"),
    ("4I", "dsack_dups reord_seen rcv_ooopack snd_wnd"),
)
_LAYOUT = struct.Struct("=" + "".join(layout for layout, _ in _PARTS))
_NAMES = " ".join(names for _, names in _PARTS).split()


def tcp_info(sock: socket.socket) -> dict[str, int]:
    """All figures, ``tcpi_state`` and so on. Raises OSError."""
    data = sock.getsockopt(so.IPPROTO_TCP, so.TCP_INFO, _LAYOUT.size)
    values = _LAYOUT.unpack(data.ljust(_LAYOUT.size, b"\0"))
    found = {f"tcpi_{name}": value for name, value in zip(_NAMES, values, strict=True)}
    scales = found.pop("tcpi_wscale")
    del found["tcpi_flags"]
    found["tcpi_snd_wscale"], found["tcpi_rcv_wscale"] = scales & 15, scales >> 4
    return found
