"""What the host sets at run time (chapter 8): parameters, switches, encapsulation; and what the target reports."""

from dataclasses import replace

import pytest

from chimney.ndis import OffloadHandle, OffloadStateType, ProtocolOffloadBlockList, Status
from chimney.ndis.capabilities import (
    Encapsulation,
    Oid,
    OidRequest,
    Switch,
    TcpConnectionOffload,
    TcpConnectionOffloadParameters,
)
from chimney.ndis.state import TcpCached
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState
from chimney.target import TargetConfig
from chimney.tcp.hystart import Hystart
from chimney.tcp.reno import Reno
from tests.target.machine import CONST_FLAGS, ISS, WINDOW, World

SUCCESS, FAILURE = Status.SUCCESS, Status.FAILURE
PARAMETERS = TcpConnectionOffloadParameters()


def set_parameters(side, **changes):
    request = OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS, replace(PARAMETERS, **changes), set=True)
    return side.binding.oid_request(request)


def silent(world):
    world.network.loss = 1.0


def data_frames(world, name="a"):
    return [(time, frame) for time, sender, frame in world.wire if sender == name and len(frame) > 66]


# Capabilities


def test_the_target_reports_what_it_can_do():
    config = TargetConfig(tcp_capacity=17, support_ipv6=False, support_sack=False)
    binding = World(config=config).sides[0].binding
    reported = TcpConnectionOffload(support_ipv6=False, support_sack=False, tcp_connection_offload_capacity=17)
    assert binding.hardware_capabilities == binding.current_config == reported


def test_ndis_answers_queries_of_parameters_after_a_set():
    side = World().sides[0]
    assert set_parameters(side, tcp_push_ticks=7) == SUCCESS
    request = OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS)
    assert side.binding.oid_request(request) == SUCCESS and request.information.tcp_push_ticks == 7


@pytest.mark.parametrize(
    ("ipv6", "ipv4_on", "ipv6_on", "offloaded"),
    [
        (False, Switch.OFF, Switch.ON, False),
        (False, Switch.ON, Switch.OFF, True),
        (True, Switch.ON, Switch.OFF, False),
        (True, Switch.OFF, Switch.NO_CHANGE, True),
    ],
)
def test_what_the_latest_set_does_not_enable_is_disabled(ipv6, ipv4_on, ipv6_on, offloaded):
    world = World()
    set_parameters(world.sides[0], support_ipv4=ipv4_on, support_ipv6=ipv6_on)
    end = world.ends(ipv6=ipv6)[0]
    assert end.initiate() == ([SUCCESS] * 3 if offloaded else [Status.OFFLOAD_PARTIAL_SUCCESS, FAILURE, FAILURE])
    # And the next set switches it on again.
    set_parameters(world.sides[0])
    assert world.ends(2000, ipv6)[0].initiate() == [SUCCESS] * 3


def test_a_connection_over_a_path_whose_ip_version_was_disabled_fails_at_its_node():
    world = World()
    a, _ = world.connect()
    set_parameters(world.sides[0], support_ipv4=Switch.OFF)
    late = world.ends(2000)[0]
    late.path_handle, late.neighbor_handle = a.path_handle, a.neighbor_handle
    assert late.initiate() == [FAILURE, FAILURE, FAILURE]


def test_what_the_hardware_cannot_do_stays_off():
    world = World(config=TargetConfig(support_ipv6=False))
    assert set_parameters(world.sides[0]) == SUCCESS
    assert world.ends(ipv6=True)[0].initiate()[-1] == FAILURE


@pytest.mark.parametrize("switch", [Switch.ON, Switch.OFF])
def test_sack_can_be_switched_off(switch):
    """It is ignored then, and not sent, whatever was negotiated (tcp.options.flags)."""
    world = World()
    set_parameters(world.sides[0], support_sack=switch)
    a, _ = world.connect()
    a.forward(a.segment(100, b"early"))
    world.poll()
    [(_, _, frame)] = [entry for entry in world.wire if entry[1] == "a"]
    assert (len(frame) > 66) == (switch is Switch.ON), "timestamps, and behind them SACK blocks"


def test_another_encapsulation_switches_everything_off():
    world = World()
    assert set_parameters(world.sides[0], encapsulation=Encapsulation.IEEE_LLC_SNAP_ROUTED) == SUCCESS
    assert world.ends()[0].initiate()[-1] == FAILURE


@pytest.mark.parametrize(
    ("encapsulation", "status"),
    [(Encapsulation.IEEE_802_3, SUCCESS), (Encapsulation.IEEE_LLC_SNAP_ROUTED, FAILURE), (None, FAILURE)],
)
def test_the_encapsulation_oid(encapsulation, status):
    binding = World().sides[0].binding
    assert binding.oid_request(OidRequest(Oid.OFFLOAD_ENCAPSULATION, encapsulation, set=True)) == status


def test_an_unknown_oid_is_not_supported():
    binding = World().sides[0].binding
    assert binding.oid_request(OidRequest(Oid.OFFLOAD_ENCAPSULATION)) == Status.NOT_SUPPORTED
    request = OidRequest(Oid.TCP_CONNECTION_OFFLOAD_CURRENT_CONFIG, None, set=True)
    assert binding.oid_request(request) == Status.NOT_SUPPORTED


# Parameters


@pytest.mark.parametrize("change", [{"ticks_per_second": 99}, {"tcp_ack_frequency": 0}, {"tcp_push_ticks": -1}])
def test_values_that_make_no_sense_change_nothing(change):
    world = World()
    before = world.sides[0].target.config
    assert set_parameters(world.sides[0], **change) == FAILURE
    assert world.sides[0].target.config is before


def test_the_tick_stays_while_connections_count_in_it():
    world = World()
    a, _ = world.connect()
    assert set_parameters(world.sides[0], ticks_per_second=100) == FAILURE
    a.terminate()
    assert set_parameters(world.sides[0], ticks_per_second=100) == SUCCESS
    assert world.sides[0].target.config.fin_wait_2_ticks == 12_000, "120 seconds, in any tick"


def test_the_tick_does_not_change_while_an_initiate_is_under_way():
    """Its tree counts in the present one."""
    a, _ = World().ends()
    a.side.binding.initiate_offload(a.initiate_tree())
    assert set_parameters(a.side, ticks_per_second=100) == FAILURE
    a.side.target.poll(a.side.clock())
    a.terminate()
    assert set_parameters(a.side, ticks_per_second=100) == SUCCESS


def test_times_of_our_own_are_the_same_after_coarser_ticks():
    side = World(config=TargetConfig(advice_ticks=50)).sides[0]
    assert set_parameters(side, ticks_per_second=10) == SUCCESS
    assert side.target.config.advice_ticks == 1, "rounded up: 0 would switch it off"
    assert set_parameters(side, ticks_per_second=1000) == SUCCESS
    assert side.target.config.advice_ticks == 50


def test_times_are_counted_in_the_tick_that_was_set():
    """Keepalive after 50 ticks of a tenth of a second."""
    world = World()
    set_parameters(world.sides[0], ticks_per_second=10)
    a, b = world.ends()
    a.cached = TcpCached(TcpCachedFlags.KEEP_ALIVE_ENABLED, WINDOW, ka_timeout=50, ka_interval=10, ka_probe_count=3)
    a.initiate(), b.initiate()
    started = world.clock()
    world.run(until=lambda: world.wire)
    assert world.wire[0][0] - started == 5_000_000


@pytest.mark.parametrize("before", [True, False])
def test_acknowledgements(before):
    """TcpAckFrequency and TcpDelayedAckTicks, of connections that are offloaded already, too."""
    world = World()
    if before:
        set_parameters(world.sides[0], tcp_ack_frequency=4, tcp_delayed_ack_ticks=70)
    a, b = world.connect()
    if not before:
        set_parameters(world.sides[0], tcp_ack_frequency=4, tcp_delayed_ack_ticks=70)
    a.receive(10_000, push=False)
    for offset in range(3):
        a.forward(a.segment(offset, b"x"))
    started = world.clock()
    world.run(until=lambda: world.wire)
    assert world.wire[0][0] - started == 70_000
    del world.wire[:]
    for offset in range(3, 7):
        a.forward(a.segment(offset, b"x"))
    world.poll()
    assert len(world.wire) == 1


def test_duplicate_acknowledgements():
    world = World()
    a, _ = world.ends()
    a.const = replace(a.const, flags=CONST_FLAGS & ~2)
    a.initiate()
    set_parameters(world.sides[0], tcp_duplicate_ack_threshold=5)
    silent(world)
    a.send(bytes(20_000))
    world.poll()
    del world.wire[:]
    first = ISS[0].to_bytes(4, "big")
    for _ in range(5):
        assert first not in [frame[38:42] for _, frame in data_frames(world)]
        a.forward(a.segment(0))
        world.poll()
    assert first in [frame[38:42] for _, frame in data_frames(world)]


def test_the_limit_of_retransmissions():
    world = World()
    a, _ = world.connect()
    set_parameters(world.sides[0], tcp_maximum_retransmissions=2)
    silent(world)
    a.send(b"x" * 100)
    world.run(until=lambda: a.host.took("INDICATE_RETRIEVE"))
    sent = len(data_frames(world))
    assert sent <= 1 + 1 + 2, "once, a tail probe, and two retransmissions"


def test_the_push_timer():
    world = World()
    a, b = world.connect()
    set_parameters(world.sides[0], tcp_push_ticks=30)
    a.receive(100)
    a.forward(a.segment(0, b"x", push=False))
    started = world.clock()
    world.run(until=lambda: a.host.took("receive"))
    assert world.clock() - started == 30_000


def test_stale_neighbors():
    world = World()
    a, _ = world.connect()
    set_parameters(world.sides[0], nce_stale_ticks=1000)
    world.run(duration=1_001_000)
    a.send(b"x")
    world.poll()
    assert len(a.host.took("generic")) == 1


def test_silly_windows():
    """The sender holds back what is small for TcpSwsPreventionTicks, and then sends what the window allows."""
    world = World()
    a, _ = world.ends()
    a.delegated.snd_wnd, a.delegated.max_snd_wnd = 100, WINDOW
    a.initiate()
    set_parameters(world.sides[0], tcp_sws_prevention_ticks=75)
    silent(world)
    a.send(bytes(1000))
    started = world.clock()
    world.run(until=lambda: world.wire)
    assert world.wire[0][0] - started == 75_000 and len(world.wire[0][2]) == 66 + 100


def test_a_segment_that_ends_a_send_is_not_held_back():
    world = World()
    a, _ = world.ends()
    a.delegated.snd_wnd, a.delegated.max_snd_wnd = 100, WINDOW
    a.initiate()
    a.send(bytes(100), bytes(1000))
    world.poll()
    assert [len(frame) for _, name, frame in world.wire] == [66 + 100]


def test_a_window_that_has_grown_by_little_is_told_in_the_end():
    world = World()
    a, _ = world.ends()
    a.cached.initial_rcv_wnd = 1280
    a.delegated.rcv_wnd = 1280
    a.initiate()
    set_parameters(world.sides[0], tcp_sws_prevention_ticks=75, tcp_delayed_ack_ticks=10)
    a.forward(a.segment(0, bytes(1280)))
    world.run(duration=20_000)
    assert a.offloaded.engine.rcv_wnd == 0
    del world.wire[:]
    a.receive(256, push=False)
    started = world.clock()
    world.run(until=lambda: world.wire)
    [(time, _, frame)] = world.wire
    assert time - started == 75_000 and int.from_bytes(frame[48:50], "big") == 256 >> 7


def test_the_state_of_a_closed_connection_is_not_offloaded():
    world = World()
    end = world.ends()[0]
    end.delegated.state = TcpConnectionState.CLOSED
    assert end.initiate()[-1] == FAILURE


def test_an_initiate_without_power_fails_everywhere():
    world = World()
    world.sides[0].target.powered = False
    end = world.ends()[0]
    assert end.initiate() == [FAILURE] * 3
    placeholder = ProtocolOffloadBlockList(type=OffloadStateType.NEIGHBOR, offload_handle=None)
    world.sides[0].state("initiate_offload", placeholder)
    assert placeholder.status == SUCCESS and OffloadHandle(None).miniport_offload_context is None


def test_the_congestion_control_is_the_one_that_was_configured():
    settings = {"congestion": "cubic", "hystart": "hystart", "slow_start_after_idle": False, "pacing": True}
    a, b = World(config=TargetConfig(**settings, black_hole_detection=False)).connect()
    plain, _ = World(config=TargetConfig(congestion="reno")).connect()
    for end in (a, b):
        sender = end.offloaded.engine.sender
        assert isinstance(sender.congestion.leaving, Hystart)
        assert sender.pacer.enabled and not sender.usage.restarts and not sender.black_hole.enabled
    sender = plain.offloaded.engine.sender
    assert isinstance(sender.congestion, Reno) and sender.usage.restarts and sender.black_hole.enabled
