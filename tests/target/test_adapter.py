"""The adapter as a whole (11.3, 17.2, 17.3): pause, upload all, resume, power, halt, pools."""

from dataclasses import replace

import pytest

from chimney.ndis import Status, UploadReason
from chimney.ndis.buffers import iterate
from chimney.ndis.capabilities import DevicePowerState, Oid, OidRequest, TcpConnectionOffload
from chimney.ndis.errors import Misuse
from chimney.ndis.status import StatusIndication
from chimney.target import TargetConfig
from tests.target.machine import World

SUCCESS, PENDING, FAILURE = Status.SUCCESS, Status.PENDING, Status.FAILURE
UPLOAD = int(Status.UPLOAD_IN_PROGRESS)
PAUSE, RESUME = StatusIndication.OFFLOAD_PAUSE, StatusIndication.OFFLOAD_RESUME


@pytest.fixture(params=[0, 2], ids=["no driver", "two drivers"])
def world(request, seed):
    return World(request.param, seed=seed, delay_us=10)


def initiate_while_paused(end):
    """An initiate that was under way when the target paused."""
    tree = end.initiate_tree()
    end.side.binding.initiate_offload(tree)
    end.side.target.pause()
    return tree


def indications(end):
    return [entry[0] for entry in end.host.took("status")]


def offload_statuses(end):
    return [status for _, status, _ in end.host.took("initiate")]


# Pause and resume


def test_connections_go_on_while_the_target_pauses(world):
    a, b = world.connect()
    a.side.target.pause()
    assert indications(a) == [PAUSE]
    [(_, memory)] = b.receive(4)
    [send] = a.send(b"data")
    world.run()
    assert memory == b"data" and a.host.took("send") == [(send, int(SUCCESS), 4)]


def test_an_initiate_under_way_waits_for_the_resume(world):
    a, b = world.ends()
    initiate_while_paused(a)
    world.run(duration=500_000)
    assert not offload_statuses(a) and a.offloaded is None
    a.side.target.resume()
    assert a.side.target.poll_at() <= world.clock()
    world.poll()
    assert offload_statuses(a) == [SUCCESS] and a.offloaded is not None
    assert indications(a) == [PAUSE, RESUME]


def test_an_initiate_under_way_completes_without_a_resume_too(seed):
    world = World(config=TargetConfig(paused_initiate_ticks=300), seed=seed)
    a, _ = world.ends()
    initiate_while_paused(a)
    started = world.clock()
    world.run(until=lambda: a.host.took("initiate"))
    assert world.clock() - started == 300_000 and offload_statuses(a) == [SUCCESS]
    # And so does the next one, in its time.
    late, _ = world.ends(2000)
    late.side.binding.initiate_offload(late.initiate_tree())
    world.run(until=lambda: len(a.host.took("initiate")) == 2)
    assert world.clock() - started == 600_000


def test_a_resume_tells_new_capabilities(world):
    """cap.change: there is no other way to announce them."""
    a, _ = world.connect()
    with pytest.raises(Misuse, match=r"call pause\(\) before \(cap.change\)"):
        a.side.target.resume()
    changed = TcpConnectionOffload(support_ipv6=False, tcp_connection_offload_capacity=1)
    a.side.target.pause()
    a.side.target.resume(changed)
    assert a.side.binding.hardware_capabilities == changed
    assert world.ends(2000)[0].initiate()[-1] == Status.OFFLOAD_TCP_ENTRIES
    assert world.ends(3000, ipv6=True)[0].initiate()[-1] == FAILURE


# Upload all


def test_what_is_posted_after_upload_all_comes_back(world):
    a, b = world.connect()
    world.network.loss = 1.0
    [early] = a.send(b"early")
    world.poll()
    a.side.target.pause()
    a.side.target.upload_all()
    assert indications(a) == [PAUSE, StatusIndication.UPLOAD_ALL]
    world.poll()
    assert not a.host.took("send"), "what was posted before may stay"
    [late] = a.send(b"late")
    [(receive, _)] = a.receive(10)
    last = a.disconnect()
    world.poll()
    assert a.host.took("send") == [(early, UPLOAD, 0), (late, UPLOAD, 0)]
    assert a.host.took("receive") == [(receive, UPLOAD, 0)] and a.host.took("disconnect") == [(last, UPLOAD, 0)]
    assert a.terminate().net_buffer_list_chain is None


def test_a_connection_that_stays_until_the_resume_goes_on(world):
    a, b = world.connect()
    a.side.target.upload_all()
    a.side.target.resume()
    [send] = a.send(b"data")
    [(_, memory)] = b.receive(4)
    world.run()
    assert a.host.took("send") == [(send, int(SUCCESS), 4)] and memory == b"data"


def test_a_send_that_is_refused_stays_so_when_the_target_resumes_before_its_turn(world):
    """Neither is it lost, nor does a later one overtake it."""
    a, _ = world.connect()
    a.side.target.upload_all()
    [refused] = a.send(b"refused")
    a.side.target.resume()
    [behind] = a.send(b"behind")
    world.run()
    assert a.host.took("send") == [(refused, UPLOAD, 0), (behind, UPLOAD, 0)]


def test_a_receive_waits_for_data_when_the_target_resumes_before_its_turn(world):
    """SUCCESS without bytes would be the end of the stream."""
    a, b = world.connect()
    b.side.target.upload_all()
    [(receive, memory)] = b.receive(4)
    b.side.target.resume()
    world.run()
    assert not b.host.took("receive")
    a.send(b"data")
    world.run()
    assert b.host.took("receive") == [(receive, int(SUCCESS), 4)] and memory == b"data"


def test_after_the_end_of_the_stream_there_are_no_receives_even_if_the_target_resumes(world):
    a, b = world.connect()
    b.side.target.upload_all()
    a.disconnect()
    world.run()
    assert b.host.took("INDICATE_DISCONNECT")
    b.side.target.resume()
    [(receive, _)] = b.receive(4)
    world.run()
    assert b.host.took("receive") == [(receive, int(Status.INVALID_STATE), 0)]


def test_what_is_offloaded_after_upload_all_is_to_go_back_too(seed):
    world = World(config=TargetConfig(paused_initiate_ticks=1), seed=seed)
    a, _ = world.ends()
    tree = initiate_while_paused(a)
    a.side.target.upload_all()
    world.run(until=lambda: a.host.took("initiate"))
    assert tree.status == SUCCESS
    [send] = a.send(b"x")
    world.poll()
    assert a.host.took("send") == [(send, UPLOAD, 0)]


# Power


def power(end, state):
    request = OidRequest(Oid.PNP_SET_POWER, state, set=True)
    return request, end.side.binding.oid_request(request)


def test_power_is_lowered_at_once_when_nothing_is_offloaded(world):
    a = world.ends()[0]
    assert power(a, DevicePowerState.D3)[1] == SUCCESS
    assert a.initiate() == [FAILURE] * 3
    assert power(a, DevicePowerState.D0)[1] == SUCCESS
    assert a.initiate() == [SUCCESS] * 3


def test_power_is_lowered_when_the_last_offload_has_been_terminated(world):
    a, _ = world.connect()
    late = world.connect(2000)[0]
    tree = late.terminate_tree()
    a.side.binding.terminate_offload(tree)
    request, status = power(a, DevicePowerState.D2)
    assert status == PENDING
    assert power(a, DevicePowerState.D3)[1] == FAILURE, "one at a time"
    world.poll()
    assert a.host.took("terminate") and not a.host.took("oid")
    a.terminate()
    assert a.host.took("oid") == [(request, SUCCESS, 0)]
    assert a.host.log[-1][0] == "oid", "the terminates complete first"


def test_power_does_not_wait_for_an_offload_that_fails(seed):
    world = World(config=TargetConfig(neighbor_capacity=0), seed=seed)
    a, _ = world.ends()
    a.side.binding.initiate_offload(a.initiate_tree())
    request, status = power(a, DevicePowerState.D3)
    assert status == PENDING
    world.poll()
    assert a.host.took("oid") == [(request, SUCCESS, 0)]


def test_a_power_state_that_is_none(world):
    assert power(world.ends()[0], 3)[1] == FAILURE


# Pools and the end


def test_indications_come_from_two_pools(world):
    """reg.pools.two: one for chimney receive indications and BufferedData, one for the ordinary path."""
    a, b = world.connect()
    target = b.side.target
    pools = []
    b.host.answer = len
    b.host.on["indicate"] = lambda _: pools.append((target.chimney_pool.outstanding, target.ordinary_pool.outstanding))
    b.host.on["frame"] = b.host.on["indicate"]
    a.send(b"data")
    world.run()
    assert pools == [(1, 0)]
    assert target.lent == {b.host.held[0]} and target.chimney_pool.outstanding == 1
    b.side.binding.offload_tcp_receive_return(b.host.held.pop())
    assert not target.lent and target.chimney_pool.outstanding == 0
    target.watch(b.flow)
    b.host.answer = lambda data: 0
    a.send(b"refused")
    world.run()
    assert target.chimney_pool.outstanding == 0, "a refused list is the target's again"
    b.terminate()
    assert [nbl.pool for nbl in iterate(b.delegated.buffered_data)] == [target.chimney_pool]
    a.send(b"later")
    world.run(duration=1000)
    assert pools[-1] == (1, 1) and target.ordinary_pool.outstanding == 0


def test_an_adapter_is_not_closed_while_lists_are_with_the_host(seed):
    world = World(seed=seed)
    a, b = world.connect()
    b.host.answer = len
    a.send(b"data")
    world.run()
    b.terminate()
    with pytest.raises(Misuse, match="general.unload.after-returns"):
        b.side.binding.close()
    b.side.binding.offload_tcp_receive_return(b.host.held.pop())
    b.side.binding.close()


# What the owner asks for


@pytest.mark.parametrize("reason", [UploadReason.UPLOAD_REQUESTED, UploadReason.TIMEOUT_EXPIRATION])
def test_the_owner_asks_for_an_upload(world, reason):
    a, _ = world.connect()
    assert a.side.target.request_retrieve(a.flow, reason)
    [send] = a.send(b"x")
    world.poll()
    assert a.host.took("INDICATE_RETRIEVE")[0][1] == reason and a.host.took("send") == [(send, UPLOAD, 0)]
    assert not a.side.target.request_retrieve(a.flow, reason), "it goes back already"


def test_a_connection_goes_on_after_an_upload_request_that_the_host_ignores(world):
    a, b = world.connect()
    assert a.side.target.request_retrieve(a.flow, UploadReason.LOW_ACTIVITY)
    assert a.side.target.request_retrieve(a.flow, UploadReason.SMALL_IO), "as often as it likes"
    [send] = a.send(b"data")
    [(_, memory)] = b.receive(4)
    world.run()
    assert a.host.took("send") == [(send, int(SUCCESS), 4)] and memory == b"data"


@pytest.mark.parametrize("side", [0, 1], ids=["FIN_WAIT", "CLOSE_WAIT"])
def test_half_closed_connections_are_not_asked_for_without_need(world, side):
    """upload.half-closed, A8."""
    ends = world.connect()
    ends[0].disconnect()
    world.poll()
    world.run(duration=1000)
    end = ends[side]
    target = end.side.target
    assert not target.request_retrieve(end.flow, UploadReason.LOW_ACTIVITY)
    assert not target.request_retrieve(end.flow, UploadReason.UPLOAD_REQUESTED)
    assert not end.host.took("INDICATE_RETRIEVE")
    assert target.request_retrieve(end.flow, UploadReason.TIMEOUT_EXPIRATION), "there is need"


def test_a_flow_that_is_not_offloaded(world):
    a, _ = world.ends()
    with pytest.raises(KeyError):
        a.side.target.request_retrieve(replace_port(a.flow), UploadReason.SMALL_IO)


def replace_port(flow):
    return flow._replace(local_port=flow.local_port + 1)


def test_config_stays_what_the_hardware_can_do(world):
    target = world.sides[0].target
    assert target.hardware_capabilities() == replace(target.current_config())
