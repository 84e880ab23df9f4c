"""What a connection reports to its owner."""

from enum import IntEnum


class Event(IntEnum):
    """Entries of Connection.events."""

    RESET = 1
    """An acceptable RST arrived; the state is CLOSED."""
    SYN = 2
    """A SYN at RCV.NXT arrived; the state is CLOSED."""
    TIMEOUT = 3
    """Retransmissions, window probes or keepalive probes were not answered, or FIN_WAIT_2 lasted too long."""
    URGENT = 4
    """A segment with URG arrived; nothing is processed from there on."""
    FIN_RECEIVED = 5
    """The peer's FIN is in sequence: all data before it is in Connection.received."""
    FIN_ACKED = 6
    """The peer has acknowledged our FIN, and with it all data."""
    TIME_WAIT = 7
    """TIME_WAIT was entered: the waiting is somebody else's."""
    CLOSED = 8
    """CLOSED was reached in order: both FINs are acknowledged."""
