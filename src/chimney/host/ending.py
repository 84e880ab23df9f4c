"""How a connection has ended while a target had it, in the words of a socket (SO_ERROR).

Sources: RFC 9293 (3.10.7.4: reset; 3.8.3: time-out), RFC 1122 (4.2.3.5, 4.2.3.9), tcp(7).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from chimney.ndis.status import TcpConnectionState, UploadReason

if TYPE_CHECKING:
    from chimney.host.chimney_path import ChimneyPath
    from chimney.host.connection import Connection
    from chimney.host.kernel import KernelSide
    from chimney.ndis.state import TcpCached, TcpDelegated

# As many unanswered retransmissions or probes in a row are enough (tcp(7): tcp_retries2).
_RETRIES = 15
_TEXTS = {
    errno.ECONNRESET: "the peer reset the connection while it was offloaded",
    errno.EPIPE: "the peer, which had closed its half, reset the connection while it was offloaded",
    errno.ETIMEDOUT: "the peer did not answer: the connection timed out while it was offloaded",
    errno.ECONNABORTED: "the offload target has failed, and has lost the connection; make a new one",
}


def error_of(number: int) -> OSError:
    """The exception for an error number of `judge`, of the class that a socket would raise."""
    cause = f"the connection timed out while it was offloaded: {os.strerror(number)}"
    return OSError(number, _TEXTS.get(number, cause))


def target_error(chimney: ChimneyPath) -> int:
    """What requests end with that the target gives up, by what it has told so far."""
    if chimney.lost:
        return errno.ECONNABORTED
    return errno.EPIPE if chimney.peer_closed and chimney.connection.shutdown_request is None else errno.ECONNRESET


def judge(connection: Connection, delegated: TcpDelegated, cached: TcpCached, kernel: KernelSide) -> int:
    """The error number by which the connection has ended, and into ``delegated`` the state that it ended in; 0 if it
    goes on, or has ended in order. Asked when a terminate has completed, and its buffered data has been taken.
    """
    chimney = connection.chimney
    assert chimney is not None
    number = _number(connection, chimney, delegated, cached, kernel)
    if number:
        received_all = chimney.has_all(delegated)
        delegated.state = TcpConnectionState.CLOSE_WAIT if received_all else TcpConnectionState.ESTABLISHED
    return number


def _number(
    connection: Connection, chimney: ChimneyPath, delegated: TcpDelegated, cached: TcpCached, kernel: KernelSide
) -> int:
    closed = delegated.state is TcpConnectionState.CLOSED
    received_all = chimney.has_all(delegated)
    if connection.abort_request is not None and connection.abort_request.done:
        return errno.ECONNRESET
    if chimney.lost:
        return errno.ECONNABORTED
    if not chimney.reset and chimney.upload_reason == UploadReason.TIMEOUT_EXPIRATION:
        fin_acked = connection.has_shut and delegated.snd_una == delegated.snd_max
        if closed and fin_acked and not received_all:
            # The target waits for the peer's FIN for two minutes (timer.fin-wait-2), the kernel for as long as the
            # application has the socket.
            delegated.state = TcpConnectionState.FIN_WAIT_2
            return 0
        if closed or _has_given_up(delegated, cached):
            # What the network has said about it is the cause (RFC 1122, 4.2.3.9).
            return kernel.forget_error() or errno.ETIMEDOUT
    if chimney.reset or (closed and not (connection.has_shut and received_all)):
        # As the kernel tells it where only the peer has closed; in LAST-ACK and CLOSING it is a reset again.
        return errno.EPIPE if received_all and connection.shutdown_request is None else errno.ECONNRESET
    return 0


def _has_given_up(delegated: TcpDelegated, cached: TcpCached) -> bool:
    """Whether so much has remained unanswered that the host would give up, too: a driver may ask for an upload for any
    reason, and the kernel may have more luck then.
    """
    if cached.max_rt and delegated.total_rt >= cached.max_rt:
        return True
    probes = delegated.keep_alive.count
    return delegated.retransmit.count >= _RETRIES or 0 < cached.ka_probe_count <= probes
