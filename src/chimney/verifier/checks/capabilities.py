"""Capabilities, parameters, pauses and power: what an adapter says and is told as a whole (chapters 8, 11.3, 17.2)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chimney.ndis.capabilities import (
    DevicePowerState,
    Encapsulation,
    Oid,
    OidRequest,
    Switch,
    TcpConnectionOffload,
    TcpConnectionOffloadParameters,
)
from chimney.ndis.crossing import BlockView, Boundary, Crossing, Kind, Stage
from chimney.ndis.state import PathConst, TcpConst
from chimney.ndis.status import OffloadStateType, Status, StatusIndication, TcpConstFlags
from chimney.verifier.books import Layer, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.checks.block_lists import is_new

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_IP4 = (OffloadStateType.IP4_CONST, OffloadStateType.IP4)
_ANSWERED_BY_NDIS = (
    Oid.TCP_CONNECTION_OFFLOAD_CURRENT_CONFIG,
    Oid.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES,
    Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS,
)
_CAPABILITIES_CHANGE = (
    StatusIndication.OFFLOAD_RESUME,
    StatusIndication.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES,
)


@dataclass(slots=True)
class _Enabled:
    """What is enabled at a boundary; ``was_set``: by the protocol above."""

    ipv4: bool = False
    ipv6: bool = False
    sack: bool = False
    was_set: bool = False

    def after(self, parameters: TcpConnectionOffloadParameters) -> _Enabled:
        """What is enabled once these hold."""
        if parameters.encapsulation == Encapsulation.NOT_SUPPORTED:
            return _Enabled(was_set=True)
        return _Enabled(
            _switched(parameters.support_ipv4, self.ipv4),
            _switched(parameters.support_ipv6, self.ipv6),
            _switched(parameters.support_sack, self.sack),
            True,
        )

    def allows(self, item: ObjectBook) -> bool:
        """Whether a connection that is offloaded uses nothing but what is enabled."""
        path = None if item.parent is None else item.parent.const
        if isinstance(path, PathConst) and not (self.ipv4 if len(path.source_address) == 4 else self.ipv6):
            return False
        const = item.const
        return self.sack or not isinstance(const, TcpConst) or not const.flags & TcpConstFlags.SACK_ENABLED


def _switched(switch: Switch, now: bool) -> bool:
    return now if switch is Switch.NO_CHANGE else switch is Switch.ON


def _parameters(crossing: Crossing) -> TcpConnectionOffloadParameters | None:
    """What a set of the parameters carries; None for all other requests."""
    request = crossing.information
    if not isinstance(request, OidRequest) or not request.set:
        return None
    information = request.information
    return information if isinstance(information, TcpConnectionOffloadParameters) else None


class CapabilityChecks(Checks):
    """What a target reports, and what a host makes of it."""

    RULES = (
        "cap.report",
        "cap.enable",
        "cap.disable.terminate-first",
        "cap.capacity",
        "cap.change",
        "cap.parameters.set",
        "cap.single-owner",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._enabled: dict[int, _Enabled] = {}
        self._reported: dict[int, TcpConnectionOffload | None] = {}
        self._paused: set[int] = set()
        self._owners: dict[int, Boundary] = {}
        self._connections: Counter[int] = Counter()

    def _at(self, boundary: Boundary) -> _Enabled:
        return self._enabled.setdefault(boundary.number, _Enabled())

    @enter(Kind.SET_ATTRIBUTES)
    def reported(self, crossing: Crossing) -> None:
        number = crossing.boundary.number
        assert isinstance(crossing.information, tuple)
        hardware, current = crossing.information
        if isinstance(current, TcpConnectionOffload):
            self._enabled[number] = _Enabled(current.support_ipv4, current.support_ipv6, current.support_sack)
        if not crossing.boundary.bottom:
            return
        if number in self._reported:
            self._changed(crossing, hardware)
        self._reported[number] = hardware

    @enter(Kind.STATUS)
    def indicated(self, crossing: Crossing) -> None:
        number = crossing.boundary.number
        if not crossing.boundary.bottom:
            return
        if crossing.value in (StatusIndication.OFFLOAD_PAUSE, StatusIndication.UPLOAD_ALL):
            self._paused.add(number)
        elif crossing.value in _CAPABILITIES_CHANGE:
            if isinstance(crossing.information, TcpConnectionOffload):
                self._changed(crossing, crossing.information)
                self._reported[number] = crossing.information
            if crossing.value == StatusIndication.OFFLOAD_RESUME:
                self._paused.discard(number)

    def _changed(self, crossing: Crossing, capabilities: TcpConnectionOffload | None) -> None:
        number = crossing.boundary.number
        resumes = crossing.value == StatusIndication.OFFLOAD_RESUME and number in self._paused
        self.check(
            "cap.change",
            resumes or capabilities == self._reported.get(number),
            "the capabilities change, and not by a resume after a pause",
            crossing,
        )

    @enter(Kind.INITIATE)
    def offloading(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        if boundary.bottom:
            reported = self._reported.get(boundary.number)
            self.check(
                "cap.report",
                reported is not None and reported.recognised,
                "connections are offloaded to an adapter that has reported no chimney",
                crossing,
            )
        if boundary.top:
            enabled = self._at(boundary)
            self.check(
                "cap.enable",
                enabled.was_set and all(_is_enabled(enabled, block) for block in crossing.blocks),
                "something is offloaded that the host has not enabled by the latest set of parameters",
                crossing,
            )

    @enter(Kind.INITIATE_COMPLETE)
    def offloaded(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        book = self.books.of(crossing)
        news = [item for item, fresh in zip(operation.objects, operation.new, strict=True) if item and fresh]
        added = sum(item.layer is Layer.TCP and item.offloaded for item in news)
        count = self._connections[crossing.boundary.number] = self._connections[crossing.boundary.number] + added
        if book.capabilities is not None and added:
            capacity = book.capabilities.tcp_connection_offload_capacity
            self.check(
                "cap.capacity",
                count <= capacity,
                f"{count} connections are offloaded, of {capacity} possible",
                crossing,
            )

    @enter(Kind.TERMINATE_COMPLETE)
    def uploaded(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.bottom and isinstance(operation, Operation):
            gone = [item for item in operation.objects if item and item.layer is Layer.TCP and item.ended]
            self._connections[crossing.boundary.number] -= len(gone)

    @enter(Kind.OID)
    def asked(self, crossing: Crossing) -> None:
        parameters = _parameters(crossing)
        boundary = crossing.boundary
        if parameters is None or not boundary.top:
            return
        enabled = self._at(boundary).after(parameters)
        self.check(
            "cap.disable.terminate-first",
            all(enabled.allows(item) for item in self.books.of(crossing).offloaded(Layer.TCP)),
            "a capability is switched off that an offloaded connection uses",
            crossing,
        )
        owner = self._owners.get(id(boundary.miniport))
        if enabled.ipv4 or enabled.ipv6:
            self.check(
                "cap.single-owner",
                owner is None or owner is boundary,
                lambda: f"{owner and owner.protocol.name} has enabled the offloads of this adapter already",
                crossing,
            )
            self._owners.setdefault(id(boundary.miniport), boundary)
        elif owner is boundary:
            del self._owners[id(boundary.miniport)]

    @leave(Kind.CLOSE)
    def closed(self, crossing: Crossing) -> None:
        if self._owners.get(id(crossing.boundary.miniport)) is crossing.boundary and crossing.raised is None:
            del self._owners[id(crossing.boundary.miniport)]

    @leave(Kind.OID)
    def answered(self, crossing: Crossing) -> None:
        if crossing.raised is None and crossing.result == Status.SUCCESS:
            self._hold(crossing)

    @enter(Kind.OID_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.value == Status.SUCCESS:
            self._hold(crossing)

    def _hold(self, crossing: Crossing) -> None:
        parameters = _parameters(crossing)
        if parameters is not None:
            self._enabled[crossing.boundary.number] = self._at(crossing.boundary).after(parameters)

    @enter(Kind.OID, stage=Stage.HANDLER)
    def arrived(self, crossing: Crossing) -> None:
        request = crossing.information
        if isinstance(request, OidRequest) and request.oid in _ANSWERED_BY_NDIS:
            self.check(
                "cap.parameters.set",
                request.set,
                f"NDIS passes a {request} down, instead of answering it",
                crossing,
                culprit="ndis",
            )

    @leave(Kind.OID, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        if boundary.bottom and self._reported.get(boundary.number) and _parameters(crossing) is not None:
            self.check(
                "cap.parameters.set",
                crossing.raised is None and crossing.result != Status.NOT_SUPPORTED,
                "a target with a chimney does not support its parameters",
                crossing,
            )


def _is_enabled(enabled: _Enabled, block: BlockView) -> bool:
    if not is_new(block):
        return True
    if isinstance(block.const, PathConst):
        return enabled.ipv4 if block.type in _IP4 else enabled.ipv6
    if isinstance(block.const, TcpConst):
        return enabled.sack or not block.const.flags & TcpConstFlags.SACK_ENABLED
    return True


class PauseChecks(Checks):
    """Between OFFLOAD_PAUSE and OFFLOAD_RESUME."""

    RULES = ("status.pause.host", "status.pause.target", "status.pause.send-status")

    @enter(Kind.INITIATE)
    def offloading(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            self.check(
                "status.pause.host",
                self.books.of(crossing).paused is None,
                "a new offload is started while the target pauses",
                crossing,
            )

    @enter(Kind.INITIATE_COMPLETE)
    def offloaded(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation) or not self._is_late(operation):
            return
        self.check(
            "status.pause.target",
            all(block.status != Status.PAUSED for block in operation.after),
            "an initiate that was under way when the target paused is refused for it",
            crossing,
        )

    def _is_late(self, operation: Operation) -> bool:
        """Whether an initiate was open when its target paused, or has come since."""
        return operation.kind is Kind.INITIATE and bool(operation.facts.get("capabilities: late"))

    @enter(Kind.STATUS)
    def paused(self, crossing: Crossing) -> None:
        if crossing.value == StatusIndication.OFFLOAD_PAUSE and crossing.boundary.bottom:
            for operation in self.books.of(crossing).operations:
                operation.facts["capabilities: late"] = True

    @enter(Kind.INITIATE, stage=Stage.HANDLER)
    def arrived(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            if self.books.of(crossing).paused is not None:
                crossing.notes.facts["capabilities: late"] = True

    @enter(Kind.SEND_COMPLETE, Kind.RECEIVE_COMPLETE, Kind.DISCONNECT_COMPLETE, Kind.FORWARD_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        book = self.books.of(crossing)
        if not crossing.boundary.bottom or book.paused is None:
            return
        refused = [view.status for view in crossing.nbls if view.status == Status.PAUSED]
        if book.uploading_all is not None and crossing.kind is Kind.SEND_COMPLETE:
            self.check(
                "status.pause.send-status",
                not refused,
                "a send is completed with PAUSED: UPLOAD_IN_PROGRESS tells the host what to do with it",
                crossing,
            )
        else:
            self.check("status.pause.target", not refused, "a request is refused since the target pauses", crossing)

    @finish
    def over(self) -> None:
        for book in self.books.boundaries.values():
            for operation in book.operations:
                if book.boundary.bottom and self._is_late(operation):
                    self.check(
                        "status.pause.target",
                        False,
                        "an initiate that was under way when the target paused has never been completed",
                        operation.call,
                    )


class PowerChecks(Checks):
    """Power down: first the offloads go."""

    RULES = ("power.upload-first", "power.target-waits")

    @enter(Kind.OID)
    def asked(self, crossing: Crossing) -> None:
        if crossing.boundary.top and _powers_down(crossing):
            book = self.books.of(crossing)
            self.check(
                "power.upload-first",
                all(any(o.kind is Kind.TERMINATE for o in item.operations) for item in book.offloaded()),
                "power goes down, and not every offload is being terminated",
                crossing,
            )

    @leave(Kind.OID)
    def answered(self, crossing: Crossing) -> None:
        if crossing.raised is None and crossing.result == Status.SUCCESS:
            self._succeeded(crossing)

    @enter(Kind.OID_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.value == Status.SUCCESS:
            self._succeeded(crossing)

    def _succeeded(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and _powers_down(crossing):
            left = self.books.of(crossing).offloaded()
            self.check(
                "power.target-waits",
                not left,
                lambda: f"the power request succeeds with {', '.join(item.label for item in left)} still offloaded",
                crossing,
            )


def _powers_down(crossing: Crossing) -> bool:
    request = crossing.information
    if not isinstance(request, OidRequest) or not request.set or request.oid is not Oid.PNP_SET_POWER:
        return False
    return request.information is not DevicePowerState.D0
