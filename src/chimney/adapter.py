"""A network interface as the stack runs it: link, target, intermediate drivers, and the host's edge on top.

An `Assembly` holds the adapters that are made, run and closed together: those of a team, or a single one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from chimney.host.edge import HostEdge
from chimney.host.errors import ChimneyError, NotOffloadable
from chimney.host.kernel import Flow
from chimney.host.services import Progress
from chimney.intermediate import IntermediateDriver, IntermediateDrivers, Team
from chimney.link import base as link_base
from chimney.ndis.capabilities import Oid, OidRequest, TcpConnectionOffloadParameters
from chimney.ndis.driver import Miniport, Protocol
from chimney.ndis.library import Binding, bind
from chimney.ndis.status import Status, StatusIndication
from chimney.platform import Platform
from chimney.statistics import InterfaceStatistics
from chimney.target import SoftTarget, TargetConfig

if TYPE_CHECKING:
    from chimney.verifier import Verifier

# Frames read from the link before the engine sends: enough to acknowledge in bulk, few enough to stay in the cache.
_BATCH = 32
# Frames, and what else is done, before the other adapters, the kernel's sockets and the caller have their turn.
_TURN = 128
_LARGEST_WINDOW = 65535
_TCP_HEADER = 20


# The members of InterfaceStatistics, and whom the host asks for them.
_STATISTICS = {
    "tcp4": Oid.TCP4_OFFLOAD_STATS,
    "tcp6": Oid.TCP6_OFFLOAD_STATS,
    "ip4": Oid.IP4_OFFLOAD_STATS,
    "ip6": Oid.IP6_OFFLOAD_STATS,
}


class InterfaceAdapter:
    """One network interface. Its target is in operation when `enable` has returned.

    Raises OSError or LinkError if the interface cannot be tapped. Whoever made it closes ``link``.
    """

    def __init__(
        self,
        device: str,
        platform: Platform,
        send_flight: int,
        upload_all: Callable[[InterfaceAdapter], None],
        verifier: Verifier | None,
    ) -> None:
        self.device = device
        self.paused = False
        self._clock = platform.clock
        self._upload_all = upload_all
        self.link = platform.open_link(device)
        self.target = SoftTarget(
            f"target on {device}",
            self.link if verifier is None else verifier.watch(self.link),
            platform.clock,
            TargetConfig(max_cwnd=send_flight),
        )
        self.edge = HostEdge(f"host on {device}", self._status, platform.clock)

    def enable(self, parameters: TcpConnectionOffloadParameters) -> None:
        """Say what is to be done with our connections; nothing may be offloaded before (cap.enable).

        Raises NotOffloadable.
        """
        request = OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS, parameters, set=True)
        status = self.edge.binding.oid_request(request)
        if status != Status.SUCCESS:
            raise NotOffloadable(f"the target on {self.device} does not take its parameters: {Status(status).name}")

    def statistics(self, wait: Callable[[], None]) -> InterfaceStatistics:
        """What the target and the link have counted. ``wait()`` is called while a driver takes its time to answer.

        Raises ChimneyError if a driver does not tell, and what ``wait`` raises.
        """
        link = self.link.statistics
        told = InterfaceStatistics(
            self.device,
            offloaded=len(self.target.connections),
            frames_in=link.received_frames,
            frames_dropped=link.received_drops,
            frames_out=link.sent_frames,
            frames_refused=link.refused,
        )
        for name, oid in _STATISTICS.items():
            request = OidRequest(oid)
            self._ask(request, wait)
            setattr(told, name, request.information)
        return told

    def reset_statistics(self, wait: Callable[[], None]) -> None:
        """Let the target begin at zero again. Raises as `statistics` does."""
        for oid in _STATISTICS.values():
            self._ask(OidRequest(oid, set=True), wait)

    def _ask(self, request: OidRequest, wait: Callable[[], None]) -> None:
        status = self.edge.ask(request, wait)
        if status != Status.SUCCESS:
            raise ChimneyError(f"the drivers on {self.device} do not carry out a {request}: {Status(status).name}")

    def _status(self, code: StatusIndication) -> None:
        """Pause, upload-all and resume concern this adapter's connections alone (11.3)."""
        if code == StatusIndication.OFFLOAD_RESUME:
            self.paused = False
        elif code in (StatusIndication.OFFLOAD_PAUSE, StatusIndication.UPLOAD_ALL):
            self.paused = True
        if code == StatusIndication.UPLOAD_ALL:
            self._upload_all(self)

    def watch(self, flow: Flow) -> None:
        self.target.watch(_link_flow(flow))

    def unwatch(self, flow: Flow) -> None:
        self.target.unwatch(_link_flow(flow))

    def keep_out(self, flow: Flow, out: bool) -> None:
        self.target.keep_out(_link_flow(flow), out)

    def run(self) -> int:
        """Let the target do what is due, for a turn at most; how much that was."""
        left = _TURN
        while left > 0:
            done = self.target.poll(self._clock(), _BATCH)
            if not done:
                break
            left -= done
        return _TURN - left

    def has_work(self, now: int) -> bool:
        """Whether `run` would do anything."""
        return self.link.pending() > 0 or self.target.poll_at() <= now

    def drain(self) -> None:
        left = self.link.pending()
        while left > 0:
            self.target.poll(self._clock(), min(left, _BATCH))
            left -= _BATCH

    def flush(self) -> None:
        self.target.flush(self._clock())

    def retransmitted(self, flow: Flow) -> int:
        found = self.target.find(_link_flow(flow))
        return 0 if found is None else int(found.retransmitted_segments)

    def progress(self, flow: Flow) -> Progress | None:
        found = self.target.find(_link_flow(flow))
        if found is None:
            return None
        engine = found.engine
        scale = engine.receiver.window.scale
        window = min((engine.rcv_wnd + (1 << scale) - 1) >> scale, _LARGEST_WINDOW)
        stats = engine.stats
        return Progress(found.state, stats.segments_in, stats.segments_out, engine.snd_max, engine.rcv_nxt, window)

    def found_mtu(self, flow: Flow) -> int:
        found = self.target.find(_link_flow(flow))
        if found is None:
            return 0
        sender = found.engine.sender
        headers = sender.ip_header + _TCP_HEADER
        mtu = int(sender.black_hole.limit + headers)
        return mtu if mtu < min(sender.path_mtu, sender.remote_mss + headers) and not sender.timer.count else 0

    def tcp_info(self, flow: Flow) -> dict[str, int]:
        found = self.target.find(_link_flow(flow))
        return {} if found is None else asdict(found.info(self._clock()))


class Assembly:
    """The adapters of ``devices``, and the drivers above them, which may be in common.

    Raises OSError or LinkError if an interface cannot be tapped, NotOffloadable, and what the drivers raise; nothing
    is left open then.
    """

    def __init__(
        self,
        devices: tuple[str, ...],
        platform: Platform,
        drivers: IntermediateDrivers,
        send_flight: int,
        parameters: TcpConnectionOffloadParameters,
        upload_all: Callable[[InterfaceAdapter], None],
        verifier: Verifier | None,
    ) -> None:
        self.adapters: dict[str, InterfaceAdapter] = {}
        self._drivers: list[IntermediateDriver] = []
        self._verifier = verifier
        # What has been opened, closed in the reverse order: the bindings from the top down, then the links.
        self._opened = ExitStack()
        try:
            for device in devices:
                adapter = InterfaceAdapter(device, platform, send_flight, upload_all, verifier)
                self._opened.callback(adapter.link.close)
                self.adapters[device] = adapter
            for device, below in self._drivers_above(drivers).items():
                self._bind(self.adapters[device].edge, below)
            for adapter in self.adapters.values():
                adapter.enable(parameters)
        except BaseException:
            self.close()
            raise

    def _drivers_above(self, drivers: IntermediateDrivers) -> dict[str, Miniport]:
        """Each device's edge for the host."""
        targets: dict[str, Miniport] = {device: adapter.target for device, adapter in self.adapters.items()}
        if len(targets) > 1:
            assert isinstance(drivers, Team)
            return drivers.together(targets, self._bind)
        return {device: drivers(device, target, self._bind) for device, target in targets.items()}

    def _bind(self, protocol: Protocol, miniport: Miniport) -> Binding:
        binding = bind(protocol, miniport, observer=self._verifier)
        self._opened.callback(binding.close)
        driver = protocol.driver
        if isinstance(driver, IntermediateDriver) and driver not in self._drivers:
            self._drivers.append(driver)
        return binding

    @property
    def pending(self) -> bool:
        """Whether a driver keeps something back until it has its next turn."""
        return any(driver.pending for driver in self._drivers)

    def poll(self) -> None:
        """Give the drivers that keep something back their turn, the lowest first."""
        for driver in self._drivers:
            if driver.pending:
                driver.poll()

    def close(self) -> None:
        """Close the bindings, and then the links; harmless when repeated. Raises Misuse of what is not given back."""
        self._opened.close()


def _link_flow(flow: Flow) -> link_base.Flow:
    return link_base.Flow(flow.local_address, flow.local_port, flow.remote_address, flow.remote_port)
