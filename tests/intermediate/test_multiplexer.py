"""The team of adapters: who gets what, and how it leaves an adapter."""

import pytest

from chimney.intermediate import Multiplexer, PassThrough, least_loaded
from chimney.ndis import OffloadHandle, OffloadStateType, Status, UploadReason
from chimney.ndis.capabilities import Encapsulation, TcpConnectionOffload
from chimney.ndis.status import StatusIndication
from tests.intermediate.rig import Rig, Target, block, lists, references, tree

PAUSE, ALL, RESUME = (
    StatusIndication.OFFLOAD_PAUSE,
    StatusIndication.UPLOAD_ALL,
    StatusIndication.OFFLOAD_RESUME,
)
CHANGED = StatusIndication.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES
LITTLE = TcpConnectionOffload(support_ipv6=False, tcp_connection_offload_capacity=2)
NONE = TcpConnectionOffload(encapsulation=Encapsulation.NOT_SUPPORTED)


def team(uppers=1, capabilities=(None, None), **options):
    targets = [Target(f"target {n}", which) for n, which in enumerate(capabilities)]
    return Rig(Multiplexer("team", uppers, len(targets), **options), targets=targets)


def told(host):
    return [code for code, _ in host.took("status")]


def terminate(rig, handles, host=None, target=None):
    (host or rig.host).binding.terminate_offload(references(*handles))
    (target or rig.target).complete_tree()


def test_with_an_active_adapter_the_others_stand_by():
    rig = team(uppers=2, capabilities=(None, LITTLE))
    for host in rig.hosts:
        rig.offload(host)
        assert host.binding.hardware_capabilities == TcpConnectionOffload()
    assert all(entry.lower is rig.driver.active for entry in rig.driver.entries)


def test_spread_over_adapters_with_what_all_can_do():
    rig = team(capabilities=(None, LITTLE), choice=least_loaded)
    found = rig.host.binding.hardware_capabilities
    assert (found.support_ipv4, found.support_ipv6, found.tcp_connection_offload_capacity) == (True, False, 65538)
    rig.offload(target=rig.targets[0])
    rig.offload(target=rig.targets[1])
    rig.offload(target=rig.targets[0])
    assert [entry.lower.index for entry in rig.driver.entries].count(0) == 6


def test_fail_over_with_connections():
    rig = team(uppers=2, capabilities=(None, LITTLE))
    one, two = rig.hosts
    first, second = rig.offload(one), rig.offload(two)
    rig.driver.fail_over(rig.driver.lowers[1])
    assert told(one) == told(two) == [PAUSE, ALL]
    [nbl] = lists()
    rig.post("send", first[0], nbl)
    assert nbl.status == Status.UPLOAD_IN_PROGRESS and rig.target.requests == []
    terminate(rig, first)
    assert told(one) == [PAUSE, ALL] and rig.driver.active is rig.driver.lowers[0]
    terminate(rig, second, two)
    assert rig.driver.active is rig.driver.lowers[1]
    for host in rig.hosts:
        assert host.took("status")[2:] == [(CHANGED, LITTLE), (RESUME, LITTLE)]
        assert host.binding.hardware_capabilities == LITTLE
    rig.offload(one, rig.targets[1])
    rig.driver.fail_over(rig.driver.lowers[1])
    assert one.log == [], "it is there already"


def test_fail_over_without_connections_to_an_adapter_of_the_same_kind():
    rig = team()
    rig.driver.fail_over(rig.driver.lowers[1])
    assert rig.host.took("status") == [(PAUSE, None), (RESUME, TcpConnectionOffload())]
    with pytest.raises(ValueError, match="not an edge"):
        rig.driver.fail_over(team().driver.lower)


def test_fail_over_to_an_adapter_without_chimney_and_back():
    rig = team(capabilities=(None, NONE))
    rig.driver.fail_over(rig.driver.lowers[1])
    assert told(rig.host) == [PAUSE], "nothing can be offloaded until there is an adapter that takes it"
    rig.driver.fail_over(rig.driver.lowers[0])
    assert told(rig.host) == [PAUSE, RESUME]


def test_a_connection_on_its_way_down_is_asked_back():
    rig = team()
    handles = [OffloadHandle(None) for _ in range(3)]
    rig.host.binding.initiate_offload(tree(*reversed(handles)))
    rig.driver.fail_over(rig.driver.lowers[1])
    assert told(rig.host) == [PAUSE, ALL]
    rig.target.complete_tree()
    assert rig.host.took("event") == [(handles[0], 3, UploadReason.UPLOAD_REQUESTED)]
    terminate(rig, handles)
    assert told(rig.host)[2:] == [RESUME] and rig.driver.active is rig.driver.lowers[1]


def test_a_pause_of_the_active_adapter_is_passed_on_and_initiates_wait():
    rig = team()
    rig.targets[1].handle.indicate_status_ex(PAUSE)
    assert rig.host.log == [], "nobody uses that one"
    rig.target.handle.indicate_status_ex(PAUSE)
    handles = [OffloadHandle(None) for _ in range(3)]
    rig.host.binding.initiate_offload(tree(*reversed(handles)))
    assert told(rig.host) == [PAUSE] and rig.target.trees == []
    rig.target.handle.indicate_status_ex(RESUME, LITTLE)
    assert rig.host.took("status")[1:] == [(CHANGED, LITTLE), (RESUME, LITTLE)]
    rig.target.complete_tree()
    assert handles[0].miniport_offload_context is not None


def test_upload_all_of_the_active_adapter_makes_another_one_active():
    rig = team()
    handles = rig.offload()
    rig.target.handle.indicate_status_ex(ALL)
    assert told(rig.host) == [PAUSE, ALL]
    root = tree(*(OffloadHandle(None) for _ in range(3)))
    rig.host.binding.initiate_offload(root)
    assert rig.host.took("initiate") == [(root,)], "it cannot wait for what it may depend on"
    assert root.status == Status.FAILURE
    rig.host.log = [entry for entry in rig.host.log if entry[0] == "status"]
    terminate(rig, handles)
    assert told(rig.host) == [PAUSE, ALL, RESUME] and rig.driver.active is rig.driver.lowers[1]
    rig.offload(target=rig.targets[1])


def test_upload_all_of_the_last_adapter_waits_for_its_resume():
    rig = team()
    handles = rig.offload()
    rig.targets[1].handle.indicate_status_ex(ALL)
    assert rig.host.log == []
    rig.target.handle.indicate_status_ex(ALL)
    terminate(rig, handles)
    assert told(rig.host) == [PAUSE, ALL]
    rig.target.handle.indicate_status_ex(RESUME, TcpConnectionOffload())
    assert told(rig.host) == [PAUSE, ALL, RESUME]


def test_spread_goes_on_without_the_adapter_that_wants_to_be_empty():
    rig = team(choice=least_loaded)
    here, there = rig.offload(), rig.offload(target=rig.targets[1])
    rig.target.handle.indicate_status_ex(PAUSE)
    rig.target.handle.indicate_status_ex(ALL)
    assert told(rig.host) == [PAUSE, ALL]
    terminate(rig, here)
    assert told(rig.host) == [PAUSE, ALL, RESUME], "the other one takes everything new"
    rig.offload(target=rig.targets[1])
    assert there[0].miniport_offload_context is not None


def test_spread_waits_for_a_paused_adapter_that_has_objects():
    """Connections over its neighbors would be offloaded to it (status.pause.host)."""
    rig = team(choice=least_loaded)
    rig.offload()
    for target in rig.targets:
        target.handle.indicate_status_ex(PAUSE)
    rig.targets[1].handle.indicate_status_ex(RESUME, TcpConnectionOffload())
    assert told(rig.host) == [PAUSE]
    rig.target.handle.indicate_status_ex(RESUME, TcpConnectionOffload())
    assert told(rig.host) == [PAUSE, RESUME]


def test_changed_capabilities_of_the_active_adapter_are_told():
    rig = team()
    rig.targets[1].handle.indicate_status_ex(CHANGED, LITTLE)
    assert rig.host.log == []
    rig.target.handle.indicate_status_ex(CHANGED, LITTLE)
    assert rig.host.took("status") == [(CHANGED, LITTLE)]
    rig.target.handle.indicate_status_ex(RESUME, TcpConnectionOffload())
    assert rig.host.took("status")[1:] == [(CHANGED, TcpConnectionOffload())], "there was no pause to end"


def test_a_team_of_teams_over_other_drivers():
    """Every driver keeps its own handles and records, whatever is above and below it."""
    low = Multiplexer("low", uppers=2, lowers=2, choice=least_loaded)
    middle = Multiplexer("middle", uppers=1, lowers=2, choice=least_loaded)
    rig = Rig(low, middle, PassThrough("top", records=True))
    offloaded = [rig.offload(target=rig.targets[n % 2]) for n in range(4)]
    posted = {}
    for handles in offloaded:
        posted[handles[0]] = lists(2)
        rig.post("send", handles[0], *posted[handles[0]])
    assert [len(target.requests) for target in rig.targets] == [4, 4]
    for target in rig.targets:
        target.complete("send", *(request[2] for request in reversed(target.requests)))
    back = [nbl for _, part in rig.host.completed for nbl in part]
    assert sorted(map(id, back)) == sorted(id(nbl) for batch in posted.values() for nbl in batch)
    assert [driver.call_entries for driver in rig.drivers] == [0, 0, 0]
    for number, handles in enumerate(offloaded):
        terminate(rig, handles, target=rig.targets[number % 2])
    assert rig.at_rest()


def test_new_objects_under_a_placeholder_may_go_different_ways():
    rig = team(choice=least_loaded)
    paths = [block(OffloadStateType.IP4, OffloadHandle(None)) for _ in range(2)]
    root = block(OffloadStateType.NEIGHBOR, None, *paths)
    rig.host.binding.initiate_offload(root)
    for target in rig.targets:
        target.complete_tree()
    assert rig.host.log == [("initiate", root)]
    assert {entry.lower.index for entry in rig.driver.entries} == {0, 1}
