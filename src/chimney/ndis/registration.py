"""What drivers tell NDIS about their entry points before anything is offloaded (documents: 6.6, *Registering...*).

The tables say which entry points a driver has; the calls themselves go to the driver's edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from chimney.ndis.driver import Miniport, Protocol

Handler = Callable[..., Any] | None


class ChimneyOffloadType(IntEnum):
    """NDIS_CHIMNEY_OFFLOAD_TYPE; all other values are reserved."""

    TCP = 1


@dataclass(slots=True)
class ProviderGenericCharacteristics:
    """NDIS_PROVIDER_CHIMNEY_OFFLOAD_GENERIC_CHARACTERISTICS: state operations of a miniport edge."""

    initiate_offload: Handler = None
    terminate_offload: Handler = None
    update_offload: Handler = None
    invalidate_offload: Handler = None
    query_offload: Handler = None

    @classmethod
    def of(cls, edge: Miniport) -> ProviderGenericCharacteristics:
        """The table of the handlers that ``edge`` defines."""
        return _filled(cls(), edge)


@dataclass(slots=True)
class ProviderTcpCharacteristics:
    """NDIS_PROVIDER_CHIMNEY_OFFLOAD_TCP_CHARACTERISTICS: data operations of a miniport edge."""

    tcp_offload_send: Handler = None
    tcp_offload_receive: Handler = None
    tcp_offload_disconnect: Handler = None
    tcp_offload_forward: Handler = None
    tcp_offload_receive_return: Handler = None
    offload_type: int = ChimneyOffloadType.TCP

    @classmethod
    def of(cls, edge: Miniport) -> ProviderTcpCharacteristics:
        """The table of the handlers that ``edge`` defines."""
        return _filled(cls(), edge)


@dataclass(slots=True)
class ClientGenericCharacteristics:
    """NDIS_CLIENT_CHIMNEY_OFFLOAD_GENERIC_CHARACTERISTICS: state completions and generic events of a protocol edge."""

    initiate_offload_complete: Handler = None
    terminate_offload_complete: Handler = None
    update_offload_complete: Handler = None
    invalidate_offload_complete: Handler = None
    query_offload_complete: Handler = None
    indicate_offload_event: Handler = None

    @classmethod
    def of(cls, edge: Protocol) -> ClientGenericCharacteristics:
        """The table of the handlers that ``edge`` defines."""
        return _filled(cls(), edge)


@dataclass(slots=True)
class ClientTcpCharacteristics:
    """NDIS_CLIENT_CHIMNEY_OFFLOAD_TCP_CHARACTERISTICS: data completions, indications and events of a protocol edge."""

    tcp_offload_send_complete: Handler = None
    tcp_offload_receive_complete: Handler = None
    tcp_offload_disconnect_complete: Handler = None
    tcp_offload_forward_complete: Handler = None
    tcp_offload_event: Handler = None
    tcp_offload_receive_indicate: Handler = None

    @classmethod
    def of(cls, edge: Protocol) -> ClientTcpCharacteristics:
        """The table of the handlers that ``edge`` defines."""
        return _filled(cls(), edge)


Characteristics = (
    ProviderGenericCharacteristics
    | ProviderTcpCharacteristics
    | ClientGenericCharacteristics
    | ClientTcpCharacteristics
)
Table = TypeVar(
    "Table",
    ProviderGenericCharacteristics,
    ProviderTcpCharacteristics,
    ClientGenericCharacteristics,
    ClientTcpCharacteristics,
)


@cache
def _entry_points(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name != "offload_type")


def complete(table: Characteristics) -> bool:
    """Whether every entry point is there, and the offload type is one that exists."""
    if getattr(table, "offload_type", ChimneyOffloadType.TCP) != ChimneyOffloadType.TCP:
        return False
    kind: Any = type(table)
    for name in _entry_points(kind):
        if getattr(table, name) is None:
            return False
    return True


def _filled(table: Table, edge: Miniport | Protocol) -> Table:
    kind: Any = type(table)
    for name in _entry_points(kind):
        if getattr(type(edge), name) is not getattr(edge.base, name):
            setattr(table, name, getattr(edge, name))
    return table


class Registration:
    """The driver's way to NdisSetOptionalHandlers, valid during its set-options callback."""

    def __init__(self) -> None:
        self.tables: list[Characteristics] = []

    def set_optional_handlers(self, table: Characteristics) -> None:
        """NdisSetOptionalHandlers: register one table."""
        self.tables.append(table)

    def registered(self, *kinds: type) -> bool:
        """Whether a complete table of each kind has been registered."""
        return all(any(isinstance(table, kind) and complete(table) for table in self.tables) for kind in kinds)
