"""Query, update, relink, invalidate, and neighbors by themselves: trees, records, and what may overlap."""

import pytest

from chimney.host.objects import ObjectTable
from chimney.host.upkeep import is_busy, may_query
from chimney.ndis import Status
from chimney.ndis.state import walk
from chimney.ndis.status import OffloadStateType
from tests.host.network_fakes import MAC, OTHER_GATEWAY, OTHER_MAC, Watched


@pytest.fixture(params=[0, 2], ids=["direct", "two drivers"])
def one(request):
    made = Watched(drivers=request.param)
    made.perform()
    return made


@pytest.fixture
def upkeep(one):
    return one.stack.edge.upkeep


def done(answers):
    return answers.append


def test_an_update_is_known_when_it_has_completed(one, upkeep):
    answers = []
    upkeep.update_path(one.path, 1300, done(answers))
    assert is_busy(one.path) and not is_busy(one.path.neighbor)
    assert one.path.cached.path_mtu == 1500
    one.target.complete()
    assert (answers, one.path.cached.path_mtu, is_busy(one.path)) == ([True], 1300, False)


def test_a_failed_update_changes_nothing(one, upkeep):
    answers = []
    upkeep.update_neighbor(one.path.neighbor, OTHER_MAC, done(answers))
    one.target.complete(Status.FAILURE)
    assert (answers, one.path.neighbor.cached.dl_destination_address) == ([False], MAC)


def test_a_query_overlaps_with_changes(one, upkeep):
    """9.1: only a terminate waits for it."""
    neighbor, answers = one.path.neighbor, []
    one.target.nic_reachability_delta = 42
    upkeep.query_reachability(neighbor, answers.append)
    assert neighbor.running and not is_busy(neighbor) and may_query(neighbor)
    upkeep.update_neighbor(neighbor, OTHER_MAC, lambda taken: None)
    one.target.complete()
    one.target.complete_queries()
    assert answers == [42] and not neighbor.running


def test_a_relink_that_fails_for_some(one, upkeep):
    two = one.add(1, path=type(one.path.const)(one.path.const.source_address, b"\x0a\x00\x09\x01"))
    first, second = one.path, two.chimney.record.path
    old, answers = first.neighbor, []
    plan = one.connection.kernel.plan
    new = one.stack.edge.objects.neighbor(
        type(plan)(**{**{n: getattr(plan, n) for n in plan.__slots__}, "next_hop": OTHER_GATEWAY})
    )
    upkeep.offload_neighbor(new, done([]))
    assert new.offloaded
    upkeep.relink([first, second], new, done(answers))
    assert all(is_busy(record) for record in (first, second, old, new))
    name, tree = one.target.operations[0]
    types = [OffloadStateType.NEIGHBOR, OffloadStateType.IP4, OffloadStateType.IP4]
    assert (name, [block.type for block in walk(tree)]) == ("update", types)
    one.target.operations.clear()
    for block, status in zip(walk(tree), (Status.SUCCESS, Status.SUCCESS, Status.FAILURE), strict=True):
        block.status = status
    one.target.handle.update_offload_complete(tree)
    assert answers == [False]
    assert (first.neighbor, second.neighbor) == (new, old)
    assert (list(new.paths), list(old.paths)) == ([first], [second])


def test_what_is_invalid_is_not_found_any_more(one, upkeep):
    objects, plan = one.stack.edge.objects, one.connection.kernel.plan
    path, neighbor = one.path, one.path.neighbor
    assert objects.path(plan) is path
    upkeep.invalidate(neighbor)
    # From the call on: what is offloaded meanwhile must not depend on it.
    other = objects.path(plan)
    assert other is not path and other.neighbor is not neighbor
    [(name, tree)] = one.target.operations
    assert name == "invalidate"
    assert (tree.const, tree.cached, tree.delegated) == (None, None, None)
    one.target.complete()
    assert one.connection.chimney.held


def test_a_neighbor_that_nothing_depends_on_is_taken_back(one, upkeep):
    objects, plan = one.stack.edge.objects, one.connection.kernel.plan
    alone = objects.neighbor(
        type(plan)(**{**{n: getattr(plan, n) for n in plan.__slots__}, "next_hop": OTHER_GATEWAY})
    )
    upkeep.offload_neighbor(alone, done([]))
    assert upkeep.take_back_unused({alone}) and not one.target.operations
    assert upkeep.take_back_unused()
    one.target.complete(Status.FAILURE)
    # What a driver had no memory for is tried again.
    assert upkeep.take_back_unused()
    assert one.target.complete()[0] == "terminate"
    assert not upkeep.take_back_unused()
    assert not alone.offloaded


def test_a_neighbor_is_not_taken_back_before_a_query_has_completed(one, upkeep):
    """terminate.host.control-drained."""
    objects, plan = one.stack.edge.objects, one.connection.kernel.plan
    alone = objects.neighbor(
        type(plan)(**{**{n: getattr(plan, n) for n in plan.__slots__}, "next_hop": OTHER_GATEWAY})
    )
    upkeep.offload_neighbor(alone, done([]))
    changes = []
    upkeep.changed = lambda: changes.append(alone.running)
    upkeep.query_reachability(alone, done([]))
    assert upkeep.take_back_unused() and not one.target.operations
    one.target.complete_queries()
    assert changes == [0]
    assert upkeep.take_back_unused() and [name for name, _ in one.target.operations] == ["terminate"]


def test_the_last_connection_takes_path_and_neighbor_along(one):
    one.connection.upload()
    types = [block.type for block in walk(one.target.terminated[0])]
    assert types == [
        OffloadStateType.NEIGHBOR_DELEGATED,
        OffloadStateType.IP4_DELEGATED,
        OffloadStateType.TCP_DELEGATED,
    ]
    assert ObjectTable().path(one.connection.kernel.plan).users == {}
