"""The adapter as a whole: parameters, pause and upload-all, statistics, power (documents: 8, 11, 17)."""

from __future__ import annotations

from dataclasses import replace

from chimney.conformance import wire
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, send
from chimney.conformance.world import Side, World
from chimney.intermediate import LowerEdge, PassThrough, UpperEdge
from chimney.ndis.capabilities import DevicePowerState, Encapsulation, Oid, OidRequest, Switch, TcpConnectionOffload
from chimney.ndis.errors import Misuse
from chimney.ndis.registration import Registration
from chimney.ndis.status import Status, UploadReason
from chimney.target import SoftTarget, TargetConfig
from chimney.verifier.checks.upload_requests import LINK_STATE

_OK = Status.SUCCESS
_TCP, _IP = Oid.TCP4_OFFLOAD_STATS, Oid.IP4_OFFLOAD_STATS


class _Curious(SoftTarget):
    """Asks NDIS for the entry points of a chimney type that does not exist, besides its own."""

    def initialize(self) -> None:
        super().initialize()
        status, table = self.handle.get_offload_handlers(2)
        assert status == Status.NOT_SUPPORTED and table is None


@scenario(
    target=lambda side: _Curious(f"target {side.index}", side.port, side.clock, side.config),
    config=TargetConfig(tcp_capacity=3),
)
def registration(world: World) -> None:
    """Tables and capabilities at initialisation; queries that NDIS answers; an unknown chimney type."""
    side = world.sides[0]
    for oid in (
        Oid.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES,
        Oid.TCP_CONNECTION_OFFLOAD_CURRENT_CONFIG,
    ):
        request = OidRequest(oid)
        assert side.oid(request) == _OK
        assert request.information.tcp_connection_offload_capacity == 3  # type: ignore[attr-defined]
    assert side.oid(OidRequest(Oid.OFFLOAD_ENCAPSULATION, Encapsulation.IEEE_802_3, set=True)) == _OK
    world.connect()
    request = OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS)
    assert side.oid(request) == _OK and request.information == side.parameters()


class _Plain(SoftTarget):
    """An adapter that reports no chimney."""

    def hardware_capabilities(self) -> TcpConnectionOffload:
        return None  # type: ignore[return-value]

    current_config = hardware_capabilities


@scenario(target=lambda side: _Plain(f"target {side.index}", side.port, side.clock, side.config))
def no_chimney(world: World) -> None:
    """An adapter that reports no connection offload: there is nothing to enable, and nothing is offloaded."""
    side = world.sides[0]
    assert side.binding.hardware_capabilities is None and side.binding.current_config is None
    assert side.oid(OidRequest(Oid.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES)) == Status.NOT_SUPPORTED


@scenario(delay_us=100)
def parameters(world: World) -> None:
    """IP versions are switched off and on; other ticks; values that make no sense."""
    a, b = world.connect()
    c, d = world.connect(2000, ipv6=True)
    exchange(a, b, 300)
    exchange(c, d, 300)
    side = world.sides[0]
    assert side.disable(support_ipv6=Switch.OFF) == _OK
    assert a.offloaded and not c.offloaded
    exchange(a, b, 300)
    assert side.enable(tcp_delayed_ack_ticks=10, tcp_push_ticks=50, tcp_ack_frequency=1) == _OK
    assert c.initiate() == [_OK] * 3
    exchange(c, d, 300)
    side.terminate(a, c)
    assert side.enable(ticks_per_second=100, tcp_delayed_ack_ticks=4, tcp_push_ticks=50) == _OK
    a.initiate()
    exchange(a, b, 300)
    assert side.oid(OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS, "nonsense", set=True)) == Status.FAILURE


@scenario(delay_us=100)
def pause_and_resume(world: World) -> None:
    """A paused target serves what it has, takes nothing new; capabilities change; a resume without, and none at all."""
    a, b = world.connect()
    side = world.sides[0]
    side.target.pause()
    exchange(a, b, 1000)
    assert side.host.paused
    smaller = replace(side.target.hardware_capabilities(), tcp_connection_offload_capacity=2)
    side.target.resume(smaller)
    assert not side.host.paused and side.binding.hardware_capabilities == smaller
    c, d = world.connect(2000)
    exchange(c, d, 300)
    e, _ = world.ends(3000)
    assert e.initiate()[-1] == Status.OFFLOAD_TCP_ENTRIES
    side.target.pause()
    exchange(a, b, 500)


@scenario(delay_us=100)
def upload_all(world: World) -> None:
    """The target wants everything back: sends come back, the host takes all, and may offload again after the resume."""
    pairs = [world.ends(port) for port in (1000, 2000, 3000)]
    pairs[1][0].share(pairs[0][0])
    for a, b in pairs:
        assert set(a.initiate()) | set(b.initiate()) == {_OK}
        b.reading = 2000
        a.receive(200)
        send(a, 3000)
    world.run(duration=150)
    target = world.sides[0].target
    target.pause()
    target.upload_all()
    first = pairs[0][0]
    [late] = send(first, 100)
    forwarded = first.forward(first.segment(0, push=False))
    world.run(until=lambda: not any(a.offloaded for a, _ in pairs))
    assert late.status == Status.UPLOAD_IN_PROGRESS and forwarded[0].status in (_OK, Status.UPLOAD_IN_PROGRESS)
    assert first.neighbor_handle.miniport_offload_context is None
    target.resume()
    for a, _ in pairs:
        assert a.initiate() == [_OK] * 3
    world.run(until=lambda: all(arrived(b) for _, b in pairs))


@scenario(delay_us=100)
def upload_requests(world: World) -> None:
    """The target asks for a connection back: for reasons that the host may ignore, and for one that it may not."""
    a, b = world.connect()
    target = world.sides[0].target
    b.reading = 1000
    for reason in UploadReason:
        if not reason.mandatory:
            assert target.request_retrieve(a.flow, reason)
            exchange(a, b, 300)
    send(a, 3000)
    assert target.request_retrieve(a.flow, UploadReason.UPLOAD_REQUESTED)
    send(a, 100)
    a.receive(100)
    world.run(until=lambda: not a.offloaded)
    a.initiate()
    world.run(until=lambda: arrived(b))
    # Half closed, it is not asked for.
    a.disconnect()
    world.run(until=lambda: b.peer_closed)
    assert not b.side.target.request_retrieve(b.flow, UploadReason.LOW_ACTIVITY)


@scenario(
    delay_us=100,
    config=TargetConfig(
        advice_ticks=1000,
        low_activity_bytes=100,
        no_preposting_indications=3,
        small_io_bytes=50,
        drop_permille=300,
        out_of_order_permille=300,
        fragments=3,
    ),
    unfiltered=True,
)
def advice(world: World) -> None:
    """The target looks how connections are used, and had rather given some back: all six optional reasons."""
    a, b = world.connect()
    world.run(duration=2_100_000)
    b.host.answer = len
    for _ in range(6):
        send(a, 500)
        world.run(duration=300_000)
    b.reading = 1000
    for _ in range(30):
        send(a, 20)
        world.run(duration=60_000)
    send(a, 5000)
    world.run(duration=1_000_000)
    # Many come too early, and again.
    world.network.reorder = 0.7
    send(a, 40_000)
    world.run(duration=1_500_000)
    world.network.reorder = 0.0
    send(b, 5000)
    # A frame in fragments, again and again.
    for _ in range(5):
        frame = b.frame(b.segment(0, bytes(200), ack=0), identification=5)
        b.inject(*wire.fragments(frame, 80))
        world.settle()
    world.run(duration=1_500_000)
    lost = [0]

    def lose_half(name: str, frame: bytes) -> bool:
        lost[0] += name == "b" and len(frame) > 500
        return bool(name == "b" and len(frame) > 500 and lost[0] % 2)

    a.reading = 10_000
    world.network.drop_if = lose_half
    for _ in range(4):
        send(b, 3000)
        world.run(duration=700_000)
    world.network.drop_if = None
    world.run(until=lambda: arrived(a, b))
    reasons = {UploadReason(reason) for _, reason, _ in b.host.took("INDICATE_RETRIEVE")}
    assert reasons == {reason for reason in UploadReason if not reason.mandatory}, reasons


@scenario(delay_us=100)
def short_of_memory_for_segments(world: World) -> None:
    """The target has no memory for what arrives, and asks for the connection's upload."""
    a, b = world.connect()
    b.reading = 1000
    b.side.runs_short_of("segment")
    send(a, 500)
    world.run(until=lambda: not b.offloaded)
    b.side.runs_short_of("")
    b.initiate()
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100, unfiltered=True)
def statistics(world: World) -> None:
    """Counters of both IP versions, with retransmissions, resets and damaged frames; and sets that reset them."""
    side = world.sides[0]
    for ipv6, tcp, ip in ((False, _TCP, _IP), (True, Oid.TCP6_OFFLOAD_STATS, Oid.IP6_OFFLOAD_STATS)):
        a, b = world.connect(2000 if ipv6 else 1000, ipv6=ipv6)
        exchange(a, b, 5000)
        world.network.drop_if = lambda name, frame: name == "a"
        send(a, 300)
        world.run(duration=500_000)
        world.network.drop_if = None
        b.reading = 5000
        world.run(until=lambda end=b: arrived(end))  # type: ignore[misc]
        a.inject(a.frame(a.segment(0, b"damaged"), good=False))
        world.settle()
        counted = side.statistics(tcp)
        assert counted.out_segments and counted.in_segments and counted.retransmitted_segments
        assert counted.currently_established == 1 and side.statistics(ip).out_octets > 5300
        assert side.reset_statistics(tcp) == side.reset_statistics(ip) == _OK
        assert not side.statistics(tcp).out_segments and not side.statistics(ip).in_receives
        exchange(a, b, 100)
        b.abort()
        world.run(until=lambda end=a: not end.offloaded)  # type: ignore[misc]
        assert side.statistics(tcp).reset_established == 1


@scenario(delay_us=100)
def power(world: World) -> None:
    """A power-down waits for the termination of all offloads; and none is needed when there is none."""
    a, b = world.connect()
    c, _ = world.connect(2000)
    b.reading = 1000
    send(a, 3000)
    side = world.sides[0]
    assert side.power(DevicePowerState.D3) == _OK
    assert not a.offloaded and not c.offloaded
    assert side.power(DevicePowerState.D0) == _OK
    a.initiate()
    world.run(until=lambda: arrived(b))
    side.terminate(a)
    assert side.power(DevicePowerState.D2) == _OK
    assert side.power(DevicePowerState.D0) == _OK


@scenario(delay_us=100)
def lists_outlive_their_connection(world: World) -> None:
    """Lists that the host keeps are returned after the terminate."""
    a, b = world.connect()
    b.host.answer = len
    b.host.keeps_lists = True
    send(a, 500)
    world.run(until=lambda: arrived(b))
    b.terminate()
    assert b.host.held
    b.host.return_lists()


@scenario(delay_us=100)
def media_loss(world: World) -> None:
    """The medium is gone for a while: connections stay, and go on."""
    a, b = world.connect()
    b.reading = 2000
    for lost in (True, False):
        side = world.sides[0]
        target = getattr(side.target, "inner", side.target)
        target.handle.indicate_status_ex(LINK_STATE, int(lost))
        world.network.drop_if = (lambda name, frame: True) if lost else None
        send(a, 1000)
        world.run(duration=700_000)
    world.run(until=lambda: arrived(b))


class _SilentUpperEdge(UpperEdge):
    def set_options(self, registration: Registration) -> None:
        """Registers nothing."""


class _SilentLowerEdge(LowerEdge):
    def set_options(self, registration: Registration) -> None:
        """Registers nothing."""
        self.owner.lower_bound()


class _Silent(PassThrough):
    """Passes capabilities on, but has no chimney entry points of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.upper = _SilentUpperEdge(f"{name} (upper edge)", self, 0)
        self.lower = _SilentLowerEdge(f"{name} (lower edge)", self, 0)
        self.uppers, self.lowers = [self.upper], [self.lower]


@scenario(drivers=[_Silent])
def a_driver_without_entry_points(world: World) -> None:
    """A driver in between has registered none: nothing is offloaded through it, whatever it says."""
    for side in world.sides:
        assert side.binding.hardware_capabilities is not None
    a, _ = world.ends()
    try:
        a.initiate()
    except Misuse as misuse:
        assert misuse.rule == "reg.ndis.block-unregistered"
    else:
        raise AssertionError("offloaded through a driver without entry points")


class _Refusing(PassThrough):
    """A driver that changes packets, and so cannot allow offloads."""

    allows_offload = False


@scenario(drivers=[_Refusing])
def a_driver_that_forbids_offload(world: World) -> None:
    """A driver in between answers capability queries itself: there is no chimney."""
    side: Side = world.sides[0]
    assert side.binding.hardware_capabilities is None
    assert side.oid(OidRequest(Oid.TCP_CONNECTION_OFFLOAD_CURRENT_CONFIG)) == Status.NOT_SUPPORTED
    assert side.enable() == Status.NOT_SUPPORTED
