"""The interface of the documents: buffers, statuses, state objects, the two edges of a driver, and the library
between them.
"""

from chimney.ndis.buffers import (
    Mdl,
    NetBuffer,
    NetBufferList,
    advance_net_buffer_data_start,
    net_buffer_list,
)
from chimney.ndis.capabilities import (
    Oid,
    OidRequest,
    TcpConnectionOffload,
    TcpConnectionOffloadParameters,
)
from chimney.ndis.driver import HandlerNotRegistered, Miniport, Protocol
from chimney.ndis.errors import Misuse
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.library import Binding, MiniportHandle, bind
from chimney.ndis.state import MiniportOffloadBlockList, ProtocolOffloadBlockList
from chimney.ndis.status import DisconnectFlags, OffloadStateType, Status, TcpOffloadEvent, UploadReason

__all__ = [
    "Binding",
    "DisconnectFlags",
    "HandlerNotRegistered",
    "Mdl",
    "Miniport",
    "MiniportHandle",
    "MiniportOffloadBlockList",
    "Misuse",
    "NetBuffer",
    "NetBufferList",
    "OffloadHandle",
    "OffloadStateType",
    "Oid",
    "OidRequest",
    "Protocol",
    "ProtocolOffloadBlockList",
    "Status",
    "TcpConnectionOffload",
    "TcpConnectionOffloadParameters",
    "TcpOffloadEvent",
    "UploadReason",
    "advance_net_buffer_data_start",
    "bind",
    "net_buffer_list",
]
