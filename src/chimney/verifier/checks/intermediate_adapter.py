"""Capabilities through an intermediate driver: OID requests down, what has changed up (12.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chimney.ndis.capabilities import Oid, TcpConnectionOffload
from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.status import Status, StatusIndication
from chimney.verifier.books import Operation
from chimney.verifier.check import Checks, enter, leave

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_CAPABILITIES = frozenset(
    {
        Oid.TCP_CONNECTION_OFFLOAD_CURRENT_CONFIG,
        Oid.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES,
        Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS,
        Oid.OFFLOAD_ENCAPSULATION,
    }
)
_FLAGS = ("support_ipv4", "support_ipv6", "support_ipv6_extension_headers", "support_sack")


class CapabilityRequests(Checks):
    """Queries and sets of capabilities: down, if the driver allows offload; not supported, if it does not."""

    RULES = ("im.cap.query",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._passed: dict[int, list[Crossing]] = {}

    @enter(Kind.OID, stage=Stage.HANDLER)
    def arrived(self, crossing: Crossing) -> None:
        request: Any = crossing.information
        if not crossing.boundary.bottom and request.oid in _CAPABILITIES:
            self._passed[crossing.number] = []

    @enter(Kind.OID)
    def passed_down(self, crossing: Crossing) -> None:
        at = crossing.parent
        while at is not None:
            if at.number in self._passed:
                self._passed[at.number].append(crossing)
                return
            at = at.parent

    @leave(Kind.OID, stage=Stage.HANDLER)
    def answered(self, crossing: Crossing) -> None:
        passed = self._passed.pop(crossing.number, None)
        if passed is None or crossing.raised is not None:
            return
        asked: Any = crossing.information
        reported = self.books.of(crossing).capabilities
        if reported is None or not reported.recognised:
            refused = crossing.result in (Status.NOT_SUPPORTED, Status.PENDING)
            message = "there is no chimney here, and a request about it is answered otherwise than not supported"
            self.check("im.cap.query", refused, message, crossing)
            return
        requests: list[Any] = [call.information for call in passed]
        same = [request for request in requests if (request.oid, request.set) == (asked.oid, asked.set)]
        self.check("im.cap.query", bool(same), "the request is not passed down", crossing)


class ChangedCapabilities(Checks):
    """Behind the capabilities that a driver has reported must be adapters that have them."""

    RULES = ("im.cap.hw-change",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._first: dict[int, TcpConnectionOffload] = {}
        self._reported: dict[int, TcpConnectionOffload] = {}

    @enter(Kind.SET_ATTRIBUTES)
    def reported(self, crossing: Crossing) -> None:
        if isinstance(crossing.information, tuple) and crossing.information[0] is not None:
            self._reported[crossing.boundary.number] = crossing.information[0]

    @enter(Kind.STATUS)
    def changed(self, crossing: Crossing) -> None:
        """A resume tells the capabilities of the one that it comes from; it may be passed on as it is."""
        told = crossing.value == StatusIndication.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES
        passed_on = crossing.value == StatusIndication.OFFLOAD_RESUME and crossing.parent is not None
        if passed_on and crossing.parent is not None:
            passed_on = crossing.parent.kind is Kind.STATUS and crossing.parent.value == crossing.value
        if (told or passed_on) and isinstance(crossing.information, TcpConnectionOffload):
            self._reported[crossing.boundary.number] = crossing.information

    @enter(Kind.INITIATE)
    def passed_down(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not isinstance(operation, Operation) or operation.above is None:
            return
        upper = operation.above.boundary
        reported = self._reported.get(upper.number)
        behind = self.books.of(crossing).capabilities
        if reported is None or behind is None:
            return
        first = self._first.setdefault(upper.number, behind)
        if behind != first:
            together = [book.capabilities for book in self.books.below(upper) if book.capabilities is not None]
            self.check(
                "im.cap.hw-change",
                _covers(behind, together, reported),
                lambda: f"{reported} is what has been reported above, {behind} what is behind it now",
                crossing,
                culprit=upper.miniport.name,
            )


def _covers(
    behind: TcpConnectionOffload, all_behind: list[TcpConnectionOffload], reported: TcpConnectionOffload
) -> bool:
    """Whether ``behind`` can do what has been reported. A driver may add up how many connections its adapters take."""
    more = [flag for flag in _FLAGS if getattr(reported, flag) and not getattr(behind, flag)]
    capacity = reported.tcp_connection_offload_capacity
    together = sum(one.tcp_connection_offload_capacity for one in all_behind)
    return (
        not more
        and not reported.encapsulation & ~behind.encapsulation
        and (capacity <= behind.tcp_connection_offload_capacity or capacity == together)
    )
