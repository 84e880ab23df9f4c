"""Two hosts with drivers and targets, over a network in memory and under virtual time; everything can be observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any
from typing import Protocol as Structural

from chimney.conformance import trees, wire
from chimney.conformance.end import End
from chimney.conformance.handshake import MACS
from chimney.conformance.host import Host
from chimney.intermediate import FaultyDriver, PassThrough
from chimney.link.base import NEVER, NO_VLAN, Flow, Frame, Link, Statistics
from chimney.link.memory import Clock, MemoryLink, MemoryNetwork
from chimney.ndis.capabilities import (
    DevicePowerState,
    Oid,
    OidRequest,
    Switch,
    TcpConnectionOffloadParameters,
)
from chimney.ndis.crossing import Observer
from chimney.ndis.driver import Miniport, Protocol
from chimney.ndis.handle import IDLE, OFFLOADED, OffloadHandle
from chimney.ndis.library import Binding, Library, bind
from chimney.ndis.state import ProtocolOffloadBlockList, walk
from chimney.ndis.status import Status
from chimney.target import SoftTarget, TargetConfig
from chimney.verifier.limits import Limits

Tree = ProtocolOffloadBlockList

_CALLS = {"query": "query_offload_state"}


class Driver(Structural):
    """An intermediate driver with one edge on each side."""

    @property
    def upper(self) -> Miniport: ...

    @property
    def lower(self) -> Protocol: ...


class Team(Structural):
    """A driver with several edges on each side (see `chimney.intermediate.Multiplexer`)."""

    @property
    def uppers(self) -> Sequence[Miniport]: ...

    @property
    def lowers(self) -> Sequence[Protocol]: ...


def soft_target(side: Side) -> SoftTarget:
    """The real target of a side."""
    return SoftTarget(f"target {side.index}", side.port, side.clock, side.config)


def limits_of(config: TargetConfig, link: Link, short_of: str = "") -> Limits:
    """What the software target has room for, as a verifier wants to know it."""
    codes = {
        "neighbor": Status.RESOURCES,
        "path": Status.RESOURCES,
        "connection": Status.RESOURCES,
        "transmit buffer": Status.OFFLOAD_TCP_XMIT_BUFFER,
        "receive buffer": Status.OFFLOAD_TCP_RCV_BUFFER,
    }
    return Limits(
        neighbors=config.neighbor_capacity,
        paths=config.path_capacity,
        connections=config.tcp_capacity,
        ip_addresses=config.ip_address_capacity,
        hw_addresses=config.hw_address_capacity,
        vlans=config.vlan_capacity,
        interface_vlans=config.interface_vlans,
        mac=link.mac,
        initial_rcv_wnd=config.max_initial_rcv_wnd,
        path_mtu=config.max_path_mtu or link.mtu,
        short_of=frozenset({codes[short_of]} if short_of in codes else ()),
        no_copies=short_of == "buffered data",
        no_segments=short_of == "segment",
    )


class Side:
    """One host with drivers above a target. ``link`` is its end of the network, ``port`` what the target has of it;
    ``target`` is bound at the bottom; ``ends`` are the connections the host knows. ``number`` is 0 or 1, for the two
    ends of connections; ``index`` counts the sides, of which more than one can be at the same end (see `World.team`).
    """

    def __init__(
        self,
        world: World,
        index: int,
        drivers: Sequence[Callable[[str], Driver]],
        config: TargetConfig,
        target: Callable[[Side], Any],
        host: Callable[[str], Host],
        link: Callable[[Side, Link], Link] | None,
    ) -> None:
        self.world = world
        self.index = index
        self.number = number = index % 2
        self.clock = world.clock
        self.config = config
        self.ticks_per_second = config.ticks_per_second
        self.ends: list[End] = []
        mac = MACS[number][:5] + bytes([index + 1])
        self.link = world.network.link("abc"[index], mac, send_buffer=world.send_buffer)
        self.port = world.watched(self.link)
        if link is not None:
            self.port = link(self, self.port)
        # A SoftTarget, or something that stands before one and has all its attributes.
        self.target = target(self)
        self.runs_short_of("")
        self.host = host(f"host {index}")
        self.host.side = self
        self.host.obedient = world.obedient
        self.drivers = [make(f"driver {index}.{place}") for place, make in enumerate(drivers)]
        self.bindings: list[Binding] = []
        self.binding: Binding = None  # type: ignore[assignment]  # set by bind_above

    def bind_above(self, below: Miniport) -> None:
        """Bind drivers and host above ``below``."""
        for driver in self.drivers:
            self.bind(driver.lower, below)
            below = driver.upper
        self.binding = self.bind(self.host, below)

    def bind(self, protocol: Protocol, miniport: Miniport) -> Binding:
        binding = bind(protocol, miniport, self.world.observer, self.world.library)
        self.bindings.append(binding)
        return binding

    # Operations

    def start(self, call: str, tree: Tree) -> None:
        """A state operation on the binding, by the host; before the first initiate the host enables offloading."""
        if call == "initiate_offload" and self.host.obedient and self.binding.parameters is None:
            self.enable()
        log = self.host.log
        getattr(self.host, call)(tree)
        alone = not self.drivers and self.world.team is None
        assert not alone or not log or log[-1][1] is not tree, "completed from within the downward call"

    def state(self, operation: str, tree: Tree) -> None:
        """A state operation on the binding, and the target's turn, in which it completes."""
        self.start(operation, tree)
        self.target.flush(self.clock())

    def wait_for(self, what: str, tree: Tree) -> None:
        """Poll: a state operation completes then, not from within the call."""
        self.target.poll(self.clock())
        self.poll_drivers()
        if not self._count(what, tree):
            self.world.run(until=lambda: self._count(what, tree) > 0)
        assert self._count(what, tree) == 1, f"{what} completes once"

    def poll_drivers(self) -> int:
        """Let time pass for drivers that keep something back; returns how much that brought about."""
        done = 0
        for driver in self.drivers:
            if isinstance(driver, FaultyDriver):
                before = driver.pending
                driver.poll()
                done += before
        return done

    def _count(self, what: str, tree: Tree) -> int:
        return sum(subject is tree for subject, *_ in self.host.took(what))

    def perform(self, what: str, tree: Tree) -> list[Tree]:
        """A "query", "update" or "invalidate" (or another state operation), to its end; the tree's blocks."""
        self.start(_CALLS.get(what, f"{what}_offload"), tree)
        self.wait_for(what, tree)
        return list(walk(tree))

    def initiate(self, *ends: End) -> list[Status]:
        """Offload connections in one tree; the statuses of its blocks in documents' order."""
        return [block.status for block in self.perform("initiate", trees.initiate_tree(ends))]

    def terminate(self, *ends: End) -> list[Status]:
        """Take connections back in one tree, with the paths and neighbors that nothing else uses."""
        return [block.status for block in self.perform("terminate", self.terminate_tree(*ends))]

    def terminate_tree(self, *ends: End) -> Tree:
        """The tree that takes ``ends`` back, with the paths and neighbors that nothing else uses."""
        leaving: set[OffloadHandle] = set()
        for end in ends:
            for name in ("path_handle", "neighbor_handle"):
                handle = getattr(end, name)
                users = [e for e in self.ends if getattr(e, name) is handle and e.handle.phase != IDLE]
                if trees.offloaded(handle) and all(user in ends for user in users):
                    leaving.add(handle)
        return trees.terminate_tree(ends, leaving.__contains__)

    # The adapter

    def runs_short_of(self, what: str) -> None:
        """Let the target run short of something (`SoftTarget.allocate` has the names; "": of nothing), and let a
        verifier know what it has room for.
        """
        target = getattr(self.target, "inner", self.target)
        target.allocate = what.__ne__ if what else None
        know = getattr(self.world.observer, "know", None)
        if know is not None:
            know(self.target.name, limits_of(self.config, self.link, what))

    def parameters(self, **changes: Any) -> TcpConnectionOffloadParameters:
        """The parameters that leave the target as it is configured, with ``changes``."""
        config = self.config
        on = {True: Switch.ON, False: Switch.OFF}
        values: dict[str, Any] = {
            "encapsulation": config.encapsulation,
            "support_ipv4": on[config.support_ipv4],
            "support_ipv6": on[config.support_ipv6],
            "support_sack": on[config.support_sack],
            "ticks_per_second": config.ticks_per_second,
            "tcp_ack_frequency": config.ack_frequency,
            "tcp_delayed_ack_ticks": config.delayed_ack_ticks,
            "tcp_maximum_retransmissions": config.max_retransmissions,
            "tcp_doubt_reachability_retransmissions": config.doubt_reachability_retransmissions,
            "tcp_sws_prevention_ticks": config.sws_prevention_ticks,
            "tcp_duplicate_ack_threshold": config.duplicate_ack_threshold,
            "tcp_push_ticks": config.push_ticks,
            "nce_stale_ticks": config.nce_stale_ticks,
        }
        return TcpConnectionOffloadParameters(**(values | changes))

    def enable(self, **changes: Any) -> int:
        """Set the connection offload parameters (cap.enable); returns the status."""
        request = OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS, self.parameters(**changes), set=True)
        status = self.oid(request)
        if status == Status.SUCCESS and "ticks_per_second" in changes:
            self.ticks_per_second = changes["ticks_per_second"]
        return status

    def disable(self, **changes: Switch) -> int:
        """Switch capabilities off (``support_ipv4``, ``support_ipv6``), after taking back what uses them."""
        off = {name for name, switch in changes.items() if switch is Switch.OFF}
        using = [
            end
            for end in self.ends
            if end.handle.phase == OFFLOADED
            and ("support_ipv4" if len(end.flow.local_address) == 4 else "support_ipv6") in off
        ]
        if using and self.host.obedient:
            self.terminate(*using)
        return self.enable(**changes)

    def statistics(self, oid: Oid) -> Any:
        """A statistics query; what it answers."""
        request = OidRequest(oid)
        assert self.oid(request) == Status.SUCCESS
        return request.information

    def reset_statistics(self, oid: Oid) -> int:
        """Set a family's counters to zero."""
        return self.oid(OidRequest(oid, None, set=True))

    def power(self, state: DevicePowerState) -> int:
        """Announce a change of power; before a power-down all is taken back (power.upload-first)."""
        if state is not DevicePowerState.D0 and self.host.obedient:
            offloaded = [end for end in self.ends if end.handle.phase == OFFLOADED]
            self.host.paused = True
            if offloaded:
                self.start("terminate_offload", self.terminate_tree(*offloaded))
        elif self.host.obedient:
            self.host.paused = False
        return self.oid(OidRequest(Oid.PNP_SET_POWER, state, set=True))

    def oid(self, request: OidRequest) -> int:
        """An OID request, to its end; its status."""
        status = self.host.oid_request(request)
        if status != Status.PENDING:
            return status
        self.world.run(until=lambda: any(asked is request for asked, *_ in self.host.took("oid")))
        return next(status for asked, status, _ in self.host.took("oid") if asked is request)

    def close(self) -> None:
        """Close the bindings, from the host downward."""
        for binding in sorted(self.bindings, key=lambda binding: -binding.level):
            if binding.protocol.binding is not None:
                binding.close()

    # The wire

    def inject(self, *frames: bytes, vlan: int = NO_VLAN) -> None:
        """Put frames on the wire towards this side, as if the other one had sent them."""
        for frame in frames:
            self.world.network.carry(self.world.sides[1 - self.number].link, bytearray(frame), vlan, False)

    def end_of(self, packet: wire.Packet) -> End | None:
        """The connection that a received TCP packet is for."""
        remote_port, local_port = packet.ports
        flow = Flow(packet.destination, local_port, packet.source, remote_port)
        return next((end for end in self.ends if end.flow == flow), None)


class World:
    """Two sides, a network between them, and the time.

    ``team`` is the driver that joins sides 0 and 2, if there is one.

    drivers     between each host and target: how many that pass everything through (every second one keeps records of
                requests), or what makes each, with its name, from the target upward.
    team        makes a driver with two upper and two lower edges: side 0 then has two hosts over two targets, as sides
                0 and 2; the ``drivers`` stand above it.
    config      of the targets: one for both, or one for each.
    observer    sees every boundary; one with a ``watch`` sees the targets' links, too.
    library     NDIS itself, at every boundary.
    target, host, link  make the bottom and top of a side, and what stands between target and link.
    unfiltered  the links let everything in that has their address, as an interface does that others use, too.
    obedient    the hosts do what the documents demand of them; otherwise they only record.
    quick_acks  whether the targets may acknowledge without delay at the start and after a pause. Scenarios rather wait.

    All others are the network's impairments (see MemoryNetwork).
    """

    def __init__(
        self,
        drivers: int | Sequence[Callable[[str], Driver]] = 0,
        config: TargetConfig | tuple[TargetConfig, TargetConfig] | None = None,
        seed: int = 1,
        send_buffer: int = 0,
        *,
        clock: Clock | None = None,
        observer: Observer | None = None,
        library: Library | None = None,
        team: Callable[[str], Team] | None = None,
        target: Callable[[Side], Any] = soft_target,
        host: Callable[[str], Host] = Host,
        link: Callable[[Side, Link], Link] | None = None,
        unfiltered: bool = False,
        obedient: bool = True,
        quick_acks: bool = False,
        **impairments: Any,
    ) -> None:
        self.clock = clock or Clock(1_000_000)
        self.send_buffer = send_buffer
        self.observer = observer
        self.library = library
        self.unfiltered = unfiltered
        self.obedient = obedient
        self.network = MemoryNetwork(self.clock, seed, **impairments)
        configs = config if isinstance(config, tuple) else (config or TargetConfig(),) * 2
        if not quick_acks:
            configs = (replace(configs[0], quick_acks=0), replace(configs[1], quick_acks=0))
        made = [_PASS_THROUGH[n % 2] for n in range(drivers)] if isinstance(drivers, int) else list(drivers)
        self.sides: list[Side] = []
        for index in (0, 1) if team is None else (0, 1, 2):
            self.sides.append(Side(self, index, made, configs[index % 2], target, host, link))
        self.team = None if team is None else team("team 0")
        if self.team is None:
            self.sides[0].bind_above(self.sides[0].target)
        else:
            members = self.sides[0::2]
            for side, lower in zip(members, self.team.lowers, strict=True):
                side.bind(lower, side.target)
            for side, upper in zip(members, self.team.uppers, strict=True):
                side.bind_above(upper)
        self.sides[1].bind_above(self.sides[1].target)
        self.wire: list[tuple[int, str, bytes]] = []
        self.network.tap = self._tap

    def _tap(self, time: int, name: str, direction: str, frame: bytes) -> None:
        if direction == "out":
            self.wire.append((time, name, frame))

    def watched(self, link: MemoryLink) -> Link:
        """What a side's target gets of its link: without a filter, and observed, if that is asked for."""
        port: Link = Unfiltered(link) if self.unfiltered else link
        watch = getattr(self.observer, "watch", None)
        return port if watch is None else watch(port)

    def ends(
        self,
        port: int = 1000,
        ipv6: bool = False,
        addresses: tuple[bytes, bytes] | None = None,
        host: int = 0,
    ) -> list[End]:
        """Both ends of a connection, not offloaded yet; ``addresses`` are side 0's and side 1's, ``host`` the side
        whose host has the first end.
        """
        return [End(side, port, ipv6, addresses) for side in (self.sides[host], self.sides[1])]

    def connect(self, port: int = 1000, ipv6: bool = False) -> list[End]:
        """Both ends of a connection, offloaded."""
        ends = self.ends(port, ipv6)
        for end in ends:
            assert set(end.initiate()) == {Status.SUCCESS}
        return ends

    def poll(self) -> None:
        """Let both targets and hosts do what can be done now, until that is nothing."""
        for _ in range(1000):
            done = sum([side.target.poll(self.clock()) + side.poll_drivers() for side in self.sides])
            if not done + sum([side.host.attend() for side in self.sides]):
                return
        raise AssertionError("a target finds work for ever")

    def settle(self) -> None:
        """Let arrive what is under way, and poll."""
        self.poll()
        while self.network.next_at() <= self.clock() + self.network.delay_us + self.network.jitter_us:
            self.clock.advance_to(max(self.network.next_at(), self.clock()))
            self.poll()

    def next_at(self) -> int:
        """When something is to be done next (us)."""
        for side in self.sides:
            if not side.target.wants_write:
                side.link.writable()
        times: list[int] = [side.target.poll_at() for side in self.sides]
        return min(self.network.next_at(), *times)

    def run(
        self, until: Callable[[], object] | None = None, duration: int | None = None, limit: int = 600_000_000
    ) -> None:
        """Let time pass until the condition holds, or for a duration (us), or until nothing happens any more."""
        end = self.clock() + (limit if duration is None else duration)
        self.poll()
        while until is None or not until():
            at = max(self.next_at(), self.clock())
            if at >= NEVER or at > end:
                if duration is not None:
                    self.clock.advance_to(end)
                    self.poll()
                assert until is None, f"not reached at {self.clock()} us"
                return
            self.clock.advance_to(at)
            self.poll()

    def close(self) -> None:
        """The end of a scenario: everything is taken back and returned, and the bindings are closed."""
        self.poll()
        for side in self.sides:
            side.host.keeps_lists = False
            offloaded = [end for end in side.ends if end.handle.phase == OFFLOADED]
            if offloaded:
                side.terminate(*offloaded)
        self.poll()
        if self.team is not None:
            # What is above the team goes before what is below it, on both sides.
            self.sides[0].bindings += self.sides[2].bindings
        for side in self.sides:
            side.close()


def _recording(name: str) -> Driver:
    return PassThrough(name, records=True)


_PASS_THROUGH: tuple[Callable[[str], Driver], ...] = (PassThrough, _recording)


class Unfiltered(Link):
    """A link whose filter is never closed: the host's interface, on which other frames arrive as well."""

    def __init__(self, link: Link) -> None:
        super().__init__(link.name, link.mac, link.mtu)
        self.inner = link
        link.set_filter(None)

    def pending(self) -> int:
        return self.inner.pending()

    def receive(self, limit: int) -> list[Frame]:
        return self.inner.receive(limit)

    def release(self) -> None:
        self.inner.release()

    def send(
        self,
        header: bytes | bytearray | memoryview,
        payload: list[memoryview],
        csum_start: int,
        csum_offset: int,
        gso_size: int,
        gso_ipv6: bool,
        vlan: int = NO_VLAN,
    ) -> bool:
        return self.inner.send(header, payload, csum_start, csum_offset, gso_size, gso_ipv6, vlan)

    def writable(self) -> bool:
        return self.inner.writable()

    def set_filter(self, flows: Iterable[Flow] | None) -> None:
        """Everything comes in, whatever flows are asked for."""

    @property
    def statistics(self) -> Statistics:
        return self.inner.statistics

    def close(self) -> None:
        self.inner.close()
