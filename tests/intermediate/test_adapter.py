"""What concerns a whole adapter: capabilities, OID requests, status indications, frames."""

import pytest

from chimney.intermediate import IntermediateDriver, PassThrough
from chimney.ndis import Status, net_buffer_list
from chimney.ndis.capabilities import (
    Encapsulation,
    IpOffloadStats,
    Oid,
    OidRequest,
    TcpConnectionOffload,
    TcpConnectionOffloadParameters,
    TcpOffloadStats,
)
from tests.intermediate.rig import Rig, Target

PARAMETERS = TcpConnectionOffloadParameters(ticks_per_second=100)
LITTLE = TcpConnectionOffload(support_ipv6=False, tcp_connection_offload_capacity=2)


class NoOffload(IntermediateDriver):
    """A driver that changes packets: nothing can be offloaded through it."""

    allows_offload = False


def set_parameters():
    return OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS, PARAMETERS, set=True)


def test_capabilities_are_those_below():
    rig = Rig(PassThrough("one"), PassThrough("two"), targets=[Target(capabilities=LITTLE)])
    assert rig.host.binding.hardware_capabilities == rig.host.binding.current_config == LITTLE


def test_no_capabilities_through_a_driver_that_allows_none():
    rig = Rig(PassThrough("one"), NoOffload("two"))
    assert rig.host.binding.hardware_capabilities is None
    query = OidRequest(Oid.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES)
    assert rig.host.binding.oid_request(query) == Status.NOT_SUPPORTED
    assert rig.host.binding.oid_request(set_parameters()) == Status.NOT_SUPPORTED
    assert rig.target.oids == []


def test_a_set_goes_down_through_every_layer_and_is_remembered_there():
    rig = Rig(PassThrough("one"), PassThrough("two"))
    assert rig.host.binding.oid_request(set_parameters()) == Status.SUCCESS
    assert rig.target.oids[0].information is PARAMETERS
    query = OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS)
    for binding in (rig.host.binding, *(driver.lower.binding for driver in rig.drivers)):
        assert binding.oid_request(query) == Status.SUCCESS and query.information is PARAMETERS
    assert len(rig.target.oids) == 1, "NDIS answers these queries"


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE])
def test_a_pended_request_is_completed_through_every_layer(status):
    rig = Rig(PassThrough("one"), PassThrough("two"))
    rig.target.oid_status = Status.PENDING
    request = set_parameters()
    assert rig.host.binding.oid_request(request) == Status.PENDING and rig.host.log == []
    rig.target.handle.oid_request_complete(rig.target.oids[0], status)
    assert rig.host.took("oid") == [(request, status)]
    assert (rig.host.binding.parameters is PARAMETERS) == (status == Status.SUCCESS)


@pytest.mark.parametrize(
    ("answers", "total"),
    [
        ([TcpOffloadStats(1, 2, out_resets=3), TcpOffloadStats(10, 20, 30)], TcpOffloadStats(11, 22, 30, 3)),
        ([IpOffloadStats(1), IpOffloadStats(out_no_routes=7)], IpOffloadStats(1, out_no_routes=7)),
    ],
)
@pytest.mark.parametrize("pended", [(), (0,), (1,), (0, 1), (1, 0)])
def test_statistics_of_several_adapters_add_up(answers, total, pended):
    rig = Rig(IntermediateDriver("driver", uppers=2, lowers=2))
    for number, target in enumerate(rig.targets):
        target.answer = answers[number]
        if number in pended:
            target.oid_status = Status.PENDING
    host = rig.hosts[1]
    request = OidRequest(Oid.TCP4_OFFLOAD_STATS)
    assert host.binding.oid_request(request) == (Status.PENDING if pended else Status.SUCCESS)
    for number in pended:
        assert host.log == []
        target = rig.targets[number]
        target.oids[0].information = answers[number]
        target.handle.oid_request_complete(target.oids[0], Status.SUCCESS)
    assert request.information == total
    assert host.took("oid") == ([(request, Status.SUCCESS)] if pended else []) and rig.hosts[0].log == []


def test_a_set_goes_to_every_adapter_and_the_first_failure_stands_for_all():
    rig = Rig(IntermediateDriver("driver", lowers=2))
    rig.targets[0].oid_status = Status.FAILURE
    request = set_parameters()
    assert rig.host.binding.oid_request(request) == Status.FAILURE
    assert [target.oids[0].information for target in rig.targets] == [PARAMETERS] * 2
    assert request.information is PARAMETERS and rig.host.binding.parameters is None


def test_status_indications_and_frames_reach_every_upper_edge():
    rig = Rig(IntermediateDriver("driver", uppers=2))
    other = TcpConnectionOffload(encapsulation=Encapsulation.IEEE_LLC_SNAP_ROUTED)
    rig.target.handle.indicate_status_ex(0x40020003, other)
    frame = net_buffer_list(b"frame")
    rig.target.handle.indicate_receive_net_buffer_lists(frame)
    for host in rig.hosts:
        assert host.log == [("status", 0x40020003, other), ("frames", frame)]
        assert host.binding.hardware_capabilities == other
