"""The states of RFC 9293 (3.3.2) from ESTABLISHED on, and every transition between them.

What moves a connection from one state to the next stands here and nowhere else. The values are those of the
interface documents (TCP_OFFLOAD_CONNECTION_STATE). Opening a connection is the kernel's business: no transition
leaves LISTEN, SYN_SENT or SYN_RECEIVED.
"""

from enum import IntEnum


class State(IntEnum):
    """Connection states."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10


class Cause(IntEnum):
    """What moves a connection to another state."""

    FIN_SENT = 0
    FIN_ACKED = 1
    FIN_RECEIVED = 2


OFFLOADABLE = frozenset(
    {State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK}
)
"""The states in which a connection can be taken over."""

FIN_IS_QUEUED = frozenset({State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK})
"""Our FIN stands after the last byte of the send queue and is not acknowledged."""

FIN_WAS_ACKED = frozenset({State.FIN_WAIT_2, State.TIME_WAIT})
"""Our FIN has been acknowledged."""

FIN_WAS_RECEIVED = frozenset({State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK, State.TIME_WAIT})
"""The peer's FIN is before RCV.NXT."""

TRANSITIONS: dict[tuple[int, int], State] = {
    (State.ESTABLISHED, Cause.FIN_SENT): State.FIN_WAIT_1,
    (State.CLOSE_WAIT, Cause.FIN_SENT): State.LAST_ACK,
    (State.FIN_WAIT_1, Cause.FIN_ACKED): State.FIN_WAIT_2,
    (State.CLOSING, Cause.FIN_ACKED): State.TIME_WAIT,
    (State.LAST_ACK, Cause.FIN_ACKED): State.CLOSED,
    (State.ESTABLISHED, Cause.FIN_RECEIVED): State.CLOSE_WAIT,
    (State.FIN_WAIT_1, Cause.FIN_RECEIVED): State.CLOSING,
    (State.FIN_WAIT_2, Cause.FIN_RECEIVED): State.TIME_WAIT,
}


def after(state: int, cause: int) -> State:
    """The state that follows `state` upon `cause`; `state` itself if nothing changes."""
    return TRANSITIONS.get((state, cause), State(state))
