"""How many bytes of its stream a kernel socket has carried.

TCP_INFO's counters are differences of sequence numbers (RFC 4898: tcpEStatsAppHCThruOctetsAcked): they count a SYN and
FINs, too, where they are acknowledged or received. What is on the socket's side of the stream alone is told here.
"""

from __future__ import annotations

import socket

from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import FINS, TcpInfo, TcpState
from chimney.host.linux.tcp_info import tcp_info

# The two calls beside TCP_INFO see another instant, as long as data flows.
_ATTEMPTS = 8


class Carried:
    """Counts for one socket, from now on; ``sock`` may have been in use before."""

    def __init__(self, sock: socket.socket) -> None:
        try:
            self._syn = _counts_the_syn(sock)
        except OSError:
            # What kind of socket does not tell is refused when it is to be offloaded.
            self._syn = 0
        self._ended = False

    def ended(self) -> None:
        """The end of the stream has been read."""
        self._ended = True

    def restored(self) -> None:
        """The socket has been recycled: its counters began anew, without a handshake."""
        self._syn = 0

    def of(self, info: TcpInfo) -> tuple[int, int]:
        """Stream bytes acknowledged by the peer, and received, when the socket told ``info``."""
        state = TcpState(info.state)
        _, fin_acknowledged, fin_received = FINS.get(state, (False, False, False))
        if state is TcpState.CLOSE:
            # In order, or by a reset, which acknowledges nothing.
            fin_acknowledged = fin_received = self._ended
        sent = info.bytes_acked - self._syn - fin_acknowledged
        return max(sent, 0), max(info.bytes_received - fin_received, 0)


def _counts_the_syn(sock: socket.socket) -> int:
    """1 if the counter of acknowledged bytes is one ahead of the bytes that were sent and acknowledged: the socket has
    opened the connection. Raises OSError.
    """
    for _ in range(_ATTEMPTS):
        before = tcp_info(sock)
        outstanding, unsent = (so.queue_length(sock.fileno(), name) for name in (so.SIOCOUTQ, so.SIOCOUTQNSD))
        after = tcp_info(sock)
        if all(before[name] == after[name] for name in ("tcpi_bytes_acked", "tcpi_bytes_sent", "tcpi_state")):
            break
    fin_queued, fin_acknowledged, _ = FINS.get(TcpState(after["tcpi_state"]), (False, False, False))
    in_flight = outstanding - unsent - (fin_queued and not fin_acknowledged and not unsent)
    payload = after["tcpi_bytes_sent"] - after["tcpi_bytes_retrans"] - in_flight
    return int(after["tcpi_bytes_acked"] - fin_acknowledged - payload == 1)
