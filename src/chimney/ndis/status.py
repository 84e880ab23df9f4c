"""Status codes, events, upload reasons, flags and enumerations, with the documents' values.

Names are the documents' without their prefix: ``NDIS_STATUS_UPLOAD_IN_PROGRESS`` is ``Status.UPLOAD_IN_PROGRESS``,
``TcpIndicateRetrieve`` is ``TcpOffloadEvent.INDICATE_RETRIEVE``.
"""

from enum import IntEnum, IntFlag


class Status(IntEnum):
    """NDIS_STATUS values (public header *ndis.h*)."""

    SUCCESS = 0x00000000
    PENDING = 0x00000103
    OFFLOAD_PARTIAL_SUCCESS = 0x40020004
    FAILURE = 0xC0000001
    RESOURCES = 0xC000009A
    NOT_SUPPORTED = 0xC00000BB
    INVALID_STATE = 0xC0000184
    REQUEST_ABORTED = 0xC001000C
    PAUSED = 0xC023002A
    UPLOAD_IN_PROGRESS = 0xC0231001
    REQUEST_UPLOAD = 0xC0231002
    UPLOAD_REQUESTED = 0xC0231003
    OFFLOAD_TCP_ENTRIES = 0xC0231004
    OFFLOAD_PATH_ENTRIES = 0xC0231005
    OFFLOAD_NEIGHBOR_ENTRIES = 0xC0231006
    OFFLOAD_IP_ADDRESS_ENTRIES = 0xC0231007
    OFFLOAD_HW_ADDRESS_ENTRIES = 0xC0231008
    OFFLOAD_VLAN_ENTRIES = 0xC0231009
    OFFLOAD_TCP_XMIT_BUFFER = 0xC023100A
    OFFLOAD_TCP_RCV_BUFFER = 0xC023100B
    OFFLOAD_TCP_RCV_WINDOW = 0xC023100C
    OFFLOAD_VLAN_MISMATCH = 0xC023100D
    OFFLOAD_DATA_NOT_ACCEPTED = 0xC023100E
    OFFLOAD_POLICY = 0xC023100F
    OFFLOAD_DATA_PARTIALLY_ACCEPTED = 0xC0231010
    OFFLOAD_REQUEST_RESET = 0xC0231011
    OFFLOAD_CONNECTION_REJECTED = 0xC0231012
    OFFLOAD_PATH_REJECTED = 0xC0231013
    OFFLOAD_STATE_INVALID = 0x40020005
    # No public header has a value for NDIS_STATUS_OFFLOAD_PATH_MTU, although four pages name it: ours, in the same
    # facility.
    OFFLOAD_PATH_MTU = 0xC02310F0


class StatusIndication(IntEnum):
    """Status indications of an adapter (``NdisMIndicateStatusEx``)."""

    OFFLOAD_PAUSE = 0x40020001
    UPLOAD_ALL = 0x40020002
    OFFLOAD_RESUME = 0x40020003
    TASK_OFFLOAD_CURRENT_CONFIG = 0x40020006
    TASK_OFFLOAD_HARDWARE_CAPABILITIES = 0x40020007
    TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES = 0x4002000B


class TcpOffloadEvent(IntEnum):
    """TCP_OFFLOAD_EVENT_TYPE: events of one connection (``NdisTcpOffloadEventHandler``)."""

    INDICATE_SEND_BACKLOG_CHANGE = 1
    INDICATE_DISCONNECT = 2
    INDICATE_RETRIEVE = 3
    INDICATE_ABORT = 4


class UploadReason(IntEnum):
    """TCP_UPLOAD_REASON: why a target asks for a connection's upload."""

    LOW_ACTIVITY = 1
    HIGH_DROP_RATE = 2
    SMALL_IO = 3
    NO_BUFFER_PREPOSTING = 4
    RECEIVED_URGENT_DATA = 5
    HIGH_FRAGMENTATION = 6
    HIGH_OUT_OF_ORDER_PACKETS = 7
    TIMEOUT_EXPIRATION = 8
    INVALID_STATE = 9
    UPLOAD_REQUESTED = 10
    HARDWARE_FAILURE = 11

    @property
    def mandatory(self) -> bool:
        """True if the host always terminates the offload for this reason, False if it may ignore it."""
        return self in _MANDATORY


_MANDATORY = frozenset(
    {
        UploadReason.RECEIVED_URGENT_DATA,
        UploadReason.TIMEOUT_EXPIRATION,
        UploadReason.INVALID_STATE,
        UploadReason.UPLOAD_REQUESTED,
        UploadReason.HARDWARE_FAILURE,
    }
)


class IndicateOffloadEvent(IntEnum):
    """INDICATE_OFFLOAD_EVENT: generic events (``NdisMOffloadEventIndicate``)."""

    NEIGHBOR_REACHABILITY_IN_DOUBT = 1
    NEIGHBOR_REACHABILITY_QUERY = 2


class DisconnectFlags(IntFlag):
    """Flags of a disconnect request: exactly one of the two is set."""

    GRACEFUL_CLOSE = 0x01
    ABORTIVE_CLOSE = 0x02


class TcpConstFlags(IntFlag):
    """``Flags`` of the constant TCP state."""

    TIMESTAMP_ENABLED = 0x01
    SACK_ENABLED = 0x02
    WINDOW_SCALING_ENABLED = 0x04
    ECN_ENABLED = 0x08
    """Not of the documents, which name ECN as a thing of the future (16.6): both sides have negotiated it."""


class TcpCachedFlags(IntFlag):
    """``Flags`` of the cached TCP state."""

    KEEP_ALIVE_ENABLED = 0x01
    NAGLING_ENABLED = 0x02
    KEEP_ALIVE_RESTART = 0x04
    MAX_RT_RESTART = 0x08
    UPDATE_RCV_WND = 0x10


class TcpConnectionState(IntEnum):
    """TCP_OFFLOAD_CONNECTION_STATE (RFC 9293 section 3.3.2)."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RCVD = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10

    @property
    def offloadable(self) -> bool:
        """True for the states in which a connection may be offloaded: ESTABLISHED to LAST_ACK."""
        return TcpConnectionState.ESTABLISHED <= self <= TcpConnectionState.LAST_ACK


class OffloadStateType(IntEnum):
    """OFFLOAD_STATE_TYPE: which state structures follow a block."""

    NEIGHBOR_CONST = 1
    NEIGHBOR_CACHED = 2
    NEIGHBOR_DELEGATED = 3
    NEIGHBOR = 4
    IP4_CONST = 5
    IP4_CACHED = 6
    IP4_DELEGATED = 7
    IP4 = 8
    IP6_CONST = 9
    IP6_CACHED = 10
    IP6_DELEGATED = 11
    IP6 = 12
    TCP_CONST = 13
    TCP_CACHED = 14
    TCP_DELEGATED = 15
    TCP = 17
