"""What the two ends of a connection have in common when its handshake is over: addresses, options, sequence numbers."""

from __future__ import annotations

from typing import Any

from chimney.ndis.state import TcpDelegated, TimerRemainder
from chimney.ndis.status import TcpConnectionState, TcpConstFlags

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
IPV4 = (b"\x0a\0\0\x01", b"\x0a\0\0\x02")
IPV6 = (b"\xfd" + bytes(14) + b"\x01", b"\xfd" + bytes(14) + b"\x02")
ISS = (0xFFFFFF00, 0x7FFFFF00)
WINDOW = 1 << 18
SCALE = 7
CONST_FLAGS = TcpConstFlags.TIMESTAMP_ENABLED | TcpConstFlags.SACK_ENABLED | TcpConstFlags.WINDOW_SCALING_ENABLED


def delegated(side: int, **changes: Any) -> TcpDelegated:
    """The state right after the handshake, as one side has it."""
    mine, theirs = ISS[side], ISS[1 - side]
    values: dict[str, Any] = {
        "state": TcpConnectionState.ESTABLISHED,
        "rcv_nxt": theirs,
        "rcv_wnd": WINDOW,
        "snd_una": mine,
        "snd_nxt": mine,
        "snd_max": mine,
        "snd_wnd": WINDOW,
        "max_snd_wnd": WINDOW,
        "send_wl1": theirs,
        "c_wnd": 14600,
        "ss_thresh": 0x7FFFFFFF,
        "s_rtt": 0,
        "rtt_var": 0,
        "ts_recent": 1,
        "ts_recent_age": 0,
        "ts_time": 1,
        "total_rt": 0,
        "dup_ack_count": 0,
        "snd_wnd_probe_count": 0,
        "keep_alive": TimerRemainder(),
        "retransmit": TimerRemainder(),
    }
    return TcpDelegated(**(values | changes))
