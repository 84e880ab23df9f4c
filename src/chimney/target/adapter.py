"""The adapter as a whole: what it can do, when it pauses, loses power or is halted, and what its owner asks of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from chimney.link.base import Flow, Link
from chimney.ndis.capabilities import OidRequest, TcpConnectionOffload
from chimney.ndis.errors import Misuse
from chimney.ndis.status import Status, StatusIndication, UploadReason
from chimney.target.advice import look
from chimney.target.config import TargetConfig
from chimney.target.datapath import Datapath
from chimney.target.events import (
    accept_requests,
    can_go_on,
    hardware_failed,
    may_suggest_upload,
    refuse_requests,
    request_upload,
    suggest_upload,
)
from chimney.target.frames import flow_key
from chimney.target.objects import NeighborObject, PathObject, TcpObject
from chimney.target.oids import oid_request
from chimney.tcp.config import NEVER


class Adapter(Datapath):
    """What a `SoftTarget` does that is not one connection's.

    capable            what it can do, and its parameters before the host has set any.
    neighbors, paths   offloaded objects below the connections.
    source_addresses   of the offloaded paths, and how many have each.
    paused, uploading  OFFLOAD_PAUSE or UPLOAD_ALL has been indicated, and no OFFLOAD_RESUME since.
    power_request      the set of PNP_SET_POWER that waits for the end of all offloads.
    """

    def __init__(self, name: str, link: Link, clock: Callable[[], int], config: TargetConfig) -> None:
        self.held_until = NEVER
        self.look_at = NEVER
        super().__init__(name, link, clock, config)
        self.capable = config
        self.neighbors: set[NeighborObject] = set()
        self.paths: set[PathObject] = set()
        self.source_addresses: Counter[bytes] = Counter()
        self.paused = False
        self.uploading = False
        self.power_request: OidRequest | None = None
        self.powered = True
        self.held: list[Callable[[], None]] = []
        self._failing_updates: set[TcpObject] = set()

    # Capabilities, OIDs, the end

    def hardware_capabilities(self) -> TcpConnectionOffload:
        """What is reported when the adapter is initialised, and with a resume (cap.report)."""
        return self.capable.capabilities()

    def current_config(self) -> TcpConnectionOffload:
        """What of it is switched on now."""
        return self.config.capabilities()

    def oid_request(self, request: OidRequest) -> int:
        return oid_request(self, request)

    def offloads_nothing(self) -> bool:
        """Whether all objects have been given back."""
        return not self.connections and not self.paths and not self.neighbors

    def is_idle(self) -> bool:
        """Whether it offloads nothing, and is not about to."""
        return self.offloads_nothing() and not self.operations and not self.held

    def finish_power_request(self) -> None:
        """The power request succeeds when the last offload has been terminated (power.target-waits)."""
        request = self.power_request
        if request is not None and self.offloads_nothing():
            self.power_request = None
            self.powered = False
            self.handle.oid_request_complete(request, Status.SUCCESS)

    def halt(self) -> None:
        """MiniportHaltEx. Raises Misuse while lists of indications are with the host (general.unload.after-returns)."""
        if self.lent:
            raise Misuse(
                "MiniportHaltEx",
                f"{len(self.lent)} lists of receive indications are still with the host",
                "return them before the adapter is closed",
                "general.unload.after-returns",
            )

    # Pause and resume (11.3)

    def pause(self) -> None:
        """Indicate OFFLOAD_PAUSE: the host offloads nothing more until `resume`. Initiates that are under way wait for
        that, or for ``paused_initiate_ticks``; offloaded connections go on (status.pause.target).
        """
        self.paused = True
        self.handle.indicate_status_ex(StatusIndication.OFFLOAD_PAUSE)

    def upload_all(self) -> None:
        """Indicate UPLOAD_ALL: the host takes everything back. What is posted from now on ends with UPLOAD_IN_PROGRESS
        (status.pause.send-status).
        """
        self.uploading = True
        for tcp in self.connections.values():
            if not tcp.sending.refusal and not tcp.failed:
                refuse_requests(tcp)
        self.handle.indicate_status_ex(StatusIndication.UPLOAD_ALL)

    def resume(self, capabilities: TcpConnectionOffload | None = None) -> None:
        """Indicate OFFLOAD_RESUME, with ``capabilities`` instead of those reported before (cap.change).

        Raises Misuse if neither `pause` nor `upload_all` came before.
        """
        if not (self.paused or self.uploading):
            raise Misuse("resume", "the target is not paused", "call pause() before", "cap.change")
        if capabilities is not None:
            self.capable = _with_capabilities(self.capable, capabilities)
            self.configure(_with_capabilities(self.config, capabilities))
        self.paused = self.uploading = False
        for tcp in self.connections.values():
            if not tcp.upload_reason and can_go_on(tcp):
                accept_requests(tcp)
        self.release_held()
        self.held_until = NEVER
        self._plan_chores()
        self.handle.indicate_status_ex(StatusIndication.OFFLOAD_RESUME, self.hardware_capabilities())

    def hold_initiate(self, operation: Callable[[], None]) -> bool:
        """Whether an initiate has to wait, since the target pauses; if so, ``operation`` is called later."""
        if not self.paused or (self.held_until != NEVER and self.now >= self.held_until):
            return False
        self.held.append(operation)
        if self.held_until == NEVER:
            self.held_until = self.now + self.config.microseconds(self.config.paused_initiate_ticks)
            self._plan_chores()
        return True

    def release_held(self) -> None:
        """The initiates that waited go on."""
        self.operations.extend(self.held)
        self.held = []

    # What the owner asks for

    def request_retrieve(self, flow: Flow, reason: UploadReason) -> bool:
        """Ask the host for the upload of a connection (TcpIndicateRetrieve). False: not now, since it is half closed,
        or goes back anyway (upload.half-closed, A8). Raises KeyError if the flow is not offloaded.
        """
        tcp = self.connections[flow_key(flow)]
        if reason.mandatory and reason is not UploadReason.UPLOAD_REQUESTED:
            if tcp.terminating or tcp.failed or tcp.sending.refusal:
                return False
            request_upload(self, tcp, reason, True)
            return True
        if not may_suggest_upload(tcp):
            return False
        if reason.mandatory:
            request_upload(self, tcp, reason, True)
        else:
            suggest_upload(self, tcp, reason)
        return True

    def fail_hardware(self, flow: Flow) -> None:
        """Let the state of an offloaded connection be lost: the next query, invalidate, update or terminate of it
        fails, and the host learns why (9.8; for an update, see `fail_update`). For tests. Raises KeyError if the flow
        is not offloaded.
        """
        self.connections[flow_key(flow)].broken = True

    def fail_update(self, flow: Flow) -> None:
        """Let the next update of a connection fail; it goes on as before (update.failure). For tests. Raises KeyError
        if the flow is not offloaded.
        """
        self._failing_updates.add(self.connections[flow_key(flow)])

    def update_fails(self, tcp: TcpObject) -> bool:
        """Whether an update of this connection has to fail."""
        if tcp in self._failing_updates:
            self._failing_updates.discard(tcp)
            return True
        return bool(tcp.broken)

    def report_failures(self, broken: list[TcpObject]) -> None:
        """An operation on these has been completed with FAILURE (hwfail.sequence)."""
        for tcp in broken:
            hardware_failed(self, tcp)

    # Chores

    def plan_look(self) -> None:
        """There is a connection: from now on the target looks how it is used, if it is to."""
        if self.config.advice_ticks and self.look_at == NEVER:
            self.look_at = self.now + self.config.microseconds(self.config.advice_ticks)
            self._plan_chores()

    def do_chores(self) -> None:
        if self.now >= self.held_until:
            self.release_held()
            self.run_operations()
            self.held_until = NEVER
        if self.now >= self.look_at:
            self.look_at = NEVER
            if self.connections:
                look(self)
                self.plan_look()
        self._plan_chores()

    def count_fragment(self, addresses: bytes) -> None:
        for path in self.paths:
            if addresses == path.const.destination_address + path.const.source_address:
                path.fragments += 1

    def _plan_chores(self) -> None:
        self.chores_at = min(self.held_until, self.look_at)


def _with_capabilities(config: TargetConfig, capabilities: TcpConnectionOffload) -> TargetConfig:
    return replace(
        config,
        encapsulation=capabilities.encapsulation,
        support_ipv4=capabilities.support_ipv4,
        support_ipv6=capabilities.support_ipv6,
        support_sack=capabilities.support_sack,
        tcp_capacity=capabilities.tcp_connection_offload_capacity,
    )
