"""What the kernel says of the network, and what the watch makes of it: with a target that completes when it is told."""

import pytest

from chimney.host import reachability, steering, withdrawal
from chimney.host.connection import Owner
from chimney.host.errors import NotOffloadable
from chimney.host.kernel_network import NeighborState
from chimney.ndis import Status
from chimney.ndis.state import walk
from chimney.ndis.status import OffloadStateType, TcpOffloadEvent, UploadReason
from tests.host.network_fakes import GATEWAY, MAC, OTHER_GATEWAY, OTHER_MAC, SECOND, Watched
from tests.host.scripted import ScriptedStack

KEY = (2, GATEWAY)


@pytest.fixture(params=[0, 2], ids=["direct", "two drivers"])
def one(request):
    return Watched(drivers=request.param)


def test_nothing_has_changed(one):
    one.network.news = True
    one.settle()
    assert one.perform() == []
    assert one.network.watched == {KEY}


def test_another_hardware_address_updates_the_neighbor(one):
    one.change(neighbor_mac=OTHER_MAC)
    one.settle()
    name, tree = one.target.operations[0]
    assert (name, tree.type, tree.dependent_block_list) == ("update", OffloadStateType.NEIGHBOR_CACHED, None)
    assert tree.cached.dl_destination_address == OTHER_MAC
    assert one.path.neighbor.cached.dl_destination_address == MAC
    one.perform("update")
    assert one.path.neighbor.cached.dl_destination_address == OTHER_MAC


def test_another_mtu_updates_the_path_once_for_all_its_connections():
    two = Watched(2)
    two.change(path_mtu=1280)
    two.settle()
    [(name, tree)] = two.target.operations
    assert (name, tree.type, tree.cached.path_mtu) == ("update", OffloadStateType.IP4_CACHED, 1280)
    two.perform("update")
    assert two.path.cached.path_mtu == 1280


def test_the_smallest_of_several_mtus_counts():
    two = Watched(2)
    two.change(two.connections[1], path_mtu=1300)
    two.perform("update")
    assert two.path.cached.path_mtu == 1300


def test_a_path_that_has_shrunk_does_not_wait_for_the_others():
    many = Watched(40)
    # A round has been made, and took its time: the next one is not due yet.
    many.network.news = True
    many.turn()
    last = many.connections[-1]
    many.change(last, path_mtu=1280)
    many.watch.may_have_shrunk(last)
    [(name, tree)] = many.target.operations
    assert (name, tree.cached.path_mtu) == ("update", 1280)
    # Once is enough.
    many.watch.may_have_shrunk(last)
    many.perform("update")
    assert many.path.cached.path_mtu == 1280


@pytest.mark.parametrize(
    "changes",
    [{}, {"path_mtu": 1500}, {"path_mtu": 9000}, {"path_mtu": 1280, "next_hop": OTHER_GATEWAY}],
    ids=["the same", "no smaller", "larger", "another way"],
)
def test_what_has_not_just_shrunk_has_its_turn(one, changes):
    one.change(**changes)
    one.network.news = False
    one.watch.may_have_shrunk(one.connection)
    assert not one.target.operations
    assert one.watch.poll_at() <= one.stack.now + SECOND


def test_a_way_that_is_gone_has_not_shrunk(one):
    one.lose()
    one.network.news = False
    one.watch.may_have_shrunk(one.connection)
    assert not one.target.operations


def test_no_second_update_before_the_first_has_completed(one):
    one.change(path_mtu=1280)
    one.settle()
    one.change(path_mtu=1400)
    one.settle()
    assert [name for name, _ in one.target.operations] == ["update"]
    one.perform("update", "update")
    assert one.path.cached.path_mtu == 1400


def test_a_refused_update_takes_the_connections_back(one):
    """update.failure.host; the next initiate brings a new path."""
    path = one.path
    one.change(path_mtu=9000)
    one.settle()
    one.target.complete(Status.FAILURE)
    one.settle()
    assert one.connection.owner is Owner.KERNEL
    assert "does not take" in one.connection.info().withdrawn
    one.wait(2 * withdrawal.FIRST_PAUSE_US)
    assert one.connection.owner is Owner.TARGET
    assert one.path is not path
    assert one.path.cached.path_mtu == 9000


def test_another_gateway_relinks_the_path(one):
    old = one.path.neighbor
    one.change(next_hop=OTHER_GATEWAY, neighbor_mac=OTHER_MAC)
    # The new neighbor is offloaded by itself (the scripted target completes an initiate at once).
    one.settle()
    [tree] = one.target.initiated[1:]
    assert (tree.type, tree.dependent_block_list) == (OffloadStateType.NEIGHBOR, None)
    [(name, tree)] = one.target.operations
    assert name == "update"
    assert [block.type for block in walk(tree)] == [OffloadStateType.NEIGHBOR, OffloadStateType.IP4]
    assert all(block.cached is None for block in walk(tree))
    one.perform("update", "terminate")
    assert one.path.neighbor.next_hop == OTHER_GATEWAY
    assert not old.offloaded
    assert list(one.path.neighbor.paths) == [one.path]
    assert one.connection.info().uploads == 0


def test_a_relink_waits_for_the_new_neighbors_hardware_address(one):
    one.change(next_hop=OTHER_GATEWAY, neighbor_mac=b"")
    one.settle()
    assert one.network.probed == [(2, OTHER_GATEWAY)]
    assert not one.target.operations
    assert not one.path.neighbor.invalid
    one.change(neighbor_mac=OTHER_MAC)
    one.perform("update", "terminate")
    assert (2, OTHER_GATEWAY) in one.network.watched


def test_a_new_neighbor_that_the_target_does_not_take(one):
    one.target.answer = Status.RESOURCES
    one.change(next_hop=OTHER_GATEWAY, neighbor_mac=OTHER_MAC)
    one.settle()
    assert one.connection.owner is Owner.KERNEL
    one.target.answer = Status.SUCCESS
    one.wait(2 * withdrawal.FIRST_PAUSE_US)
    assert one.connection.owner is Owner.TARGET
    assert one.path.neighbor.next_hop == OTHER_GATEWAY


def test_our_own_hardware_address_is_a_constant_of_another_neighbor(one):
    assert not any(one.path.neighbor.const.dl_source_address)
    one.change(device_mac=b"\x0c" * 6)
    one.perform("update", "terminate")
    assert one.path.neighbor.const.dl_source_address == b"\x0c" * 6


def test_paths_move_together_and_the_connections_stay():
    two = Watched(1)
    other = two.add(1)
    two.settle()
    two.change(next_hop=OTHER_GATEWAY, neighbor_mac=OTHER_MAC)
    two.perform("update", "terminate")
    assert other.chimney.record.path is two.path
    assert len(two.path.users) == 2


def test_one_of_two_connections_goes_another_way():
    """A path has one neighbor: who no longer shares its way goes up, and comes down on a path of its own."""
    two = Watched(2)
    first, second = two.connections
    two.change(second, next_hop=OTHER_GATEWAY, neighbor_mac=OTHER_MAC)
    two.settle()
    two.wait(withdrawal.FIRST_PAUSE_US)
    assert (first.owner, second.owner) == (Owner.TARGET, Owner.TARGET)
    assert first.chimney.record.path is not second.chimney.record.path
    assert second.chimney.record.path.neighbor.next_hop == OTHER_GATEWAY
    assert (first.info().uploads, second.info().uploads) == (0, 1)


def test_another_device_is_another_adapter(one):
    one.change(device="eth1", device_index=3)
    one.settle()
    assert one.connection.info().uploads == 1
    one.settle()
    assert (one.connection.owner, one.connection.hand_over.plan.device) == (Owner.TARGET, "eth1")


# No way


def test_what_has_no_route_is_silenced_and_waits_and_goes_on(one):
    connection = one.connection
    one.lose()
    one.settle()
    [(name, tree)] = one.target.operations
    assert (name, tree.type) == ("invalidate", OffloadStateType.NEIGHBOR)
    # The target asks for the upload, which the host has a better answer to.
    event = int(TcpOffloadEvent.INDICATE_RETRIEVE)
    one.target.handle.tcp_offload_event_handler(one.target.tcp_handle, event, int(UploadReason.INVALID_STATE))
    one.perform("invalidate")
    assert connection.owner is Owner.TARGET
    # What is posted meanwhile would be refused there.
    sends = [connection.post_send(data) for data in (b"one", b"two")]
    receive = connection.post_receive(bytearray(8))
    shutdown = connection.shutdown()
    one.settle()
    assert not one.target.sends and not one.target.receives and not one.target.disconnects
    one.change()
    one.perform("update", "terminate")
    assert [bytes(nbl.first_net_buffer.views()[0]) for nbl in one.target.sends] == [b"one", b"two"]
    assert len(one.target.receives) == 1 and len(one.target.disconnects) == 1
    assert connection.info().uploads == 0
    assert not any(request.done for request in (*sends, receive, shutdown))


def test_what_has_no_route_for_long_goes_to_the_kernel_and_comes_back(one):
    one.lose(why="there is no route at all")
    one.perform("invalidate")
    one.wait(steering.GRACE_US)
    assert one.connection.owner is Owner.KERNEL
    assert "no route at all" in one.connection.info().withdrawn
    # Attempts in vain, with growing pauses, and then news.
    one.wait(10 * SECOND)
    assert one.connection.owner is Owner.KERNEL
    one.change()
    one.settle()
    assert one.connection.owner is Owner.TARGET
    assert one.connection.info().withdrawn == ""


def test_others_keep_the_neighbor_that_one_has_no_route_by():
    two = Watched(1)
    other = two.add(1, path=type(two.path.const)(two.path.const.source_address, b"\x0a\x00\x09\x01"))
    two.settle()
    assert other.chimney.record.path.neighbor is two.path.neighbor
    two.lose(two.connection)
    two.settle()
    assert two.connection.owner is Owner.KERNEL
    assert other.owner is Owner.TARGET and not other.chimney.held


def test_a_neighbor_that_the_kernel_has_forgotten_is_asked_for_and_nothing_else(one):
    """A flush of the table, for example: it answers."""
    one.change(neighbor_mac=b"")
    one.settle()
    assert one.network.probed == [KEY]
    one.change(neighbor_mac=MAC)
    # The target hears that it is there: it may have sent in vain.
    one.perform("update")
    assert not one.path.neighbor.invalid


@pytest.mark.parametrize("how", ["failed", "silent"])
def test_a_neighbor_that_does_not_answer_is_invalidated(one, how):
    one.change(neighbor_mac=b"")
    one.settle()
    if how == "failed":
        one.network.states[KEY] = NeighborState.FAILED
        one.network.news = True
    else:
        one.stack.now += 6 * SECOND
    one.perform("invalidate")
    assert one.connection.owner is Owner.TARGET and one.connection.chimney.held
    # Nobody else asks for it now.
    before = len(one.network.probed)
    one.wait(2 * SECOND)
    assert len(one.network.probed) > before
    one.change(neighbor_mac=OTHER_MAC)
    one.perform("update", "terminate")
    assert not one.connection.chimney.held


def test_an_upload_waits_for_what_is_under_way(one):
    """terminate.host.control-drained"""
    one.change(path_mtu=1280)
    one.settle()
    assert [name for name, _ in one.target.operations] == ["update"]
    one.stack.during_poll.append(lambda: None)
    terminated = []

    def complete():
        terminated.append(len(one.target.terminated))
        one.target.complete()

    # The first of these is called by the drain before the upload.
    one.stack.during_poll.append(lambda: one.stack.during_poll.append(complete))
    one.connection.upload()
    assert terminated == [0]
    assert one.connection.owner is Owner.KERNEL


# Withdrawals


def test_one_that_comes_and_goes_waits_longer_and_longer(one):
    connection = one.connection
    pauses = []
    for _ in range(4):
        connection.withdraw("a firewall")
        one.settle()
        assert connection.owner is Owner.KERNEL
        began = one.stack.now
        while connection.owner is Owner.KERNEL:
            one.wait(SECOND // 10)
        pauses.append((one.stack.now - began) // SECOND)
    assert pauses == sorted(pauses) and pauses[-1] > 2 * pauses[0]


def test_the_application_decides(one):
    connection = one.connection
    connection.withdraw("a firewall")
    one.settle()
    connection.upload()
    one.wait(100 * SECOND)
    assert (connection.owner, connection.info().withdrawn) == (Owner.KERNEL, "")
    connection.offload()
    assert connection.owner is Owner.TARGET


def test_a_withdrawal_that_the_kernel_refuses_is_tried_again(one):
    from chimney.host.errors import UploadFailed

    connection = one.connection
    connection.kernel.failures.append(UploadFailed("no memory"))
    connection.withdraw("a firewall")
    one.settle()
    assert (connection.owner, connection.info().withdrawn) == (Owner.TARGET, "no memory")
    assert connection.hand_over_error is None
    one.wait(2 * SECOND)
    assert connection.info().uploads == 1


def test_news_all_the_time_do_not_make_attempts_all_the_time(one):
    connection, attempts = one.connection, []
    connection.withdraw("a firewall")
    one.settle()

    def refuse(*arguments):
        attempts.append(one.stack.now)
        raise NotOffloadable("the firewall drops everything")

    connection.kernel.prepare = refuse
    start = one.stack.now
    while one.stack.now < start + SECOND:
        one.stack.now += 5000
        one.network.news = True
        one.turn()
    assert 2 <= len(attempts) <= SECOND / withdrawal.LEAST_PAUSE_US + 1
    del connection.kernel.prepare
    one.settle()
    one.stack.now += withdrawal.LEAST_PAUSE_US
    one.network.news = True
    one.settle()
    assert connection.owner is Owner.TARGET


def test_news_during_an_initiate_are_not_overlooked():
    made = Watched(0)
    made.target.answer = None

    def meanwhile():
        if not made.target.initiated:
            made.stack.during_poll.append(meanwhile)
            return
        [connection] = made.stack.offloaded.values()
        assert connection.owner is Owner.OFFLOADING
        made.change(connection, path_mtu=1280)
        made.watch.ready()
        made.watch.run(made.stack.now)
        made.stack.during_poll.append(lambda: made.target.complete_initiate(Status.SUCCESS))

    made.stack.during_poll.append(meanwhile)
    made.add()
    made.stack.now = made.watch._not_before
    made.perform("update")
    assert made.path.cached.path_mtu == 1280


def test_an_adapter_that_is_closed_is_forgotten(one):
    edges = one.watch._steering.edges
    assert edges == [one.stack.edge]
    binding, one.stack.edge.binding = one.stack.edge.binding, None
    other = ScriptedStack()
    one.stack.on_adapter[0](other)
    one.stack.edge.binding = binding
    assert one.watch._steering.edges == [other.edge]


# Many


def test_a_round_is_bounded_in_every_turn():
    many = Watched(100)
    looked = []
    for connection in many.connections:
        where = connection.kernel.where
        connection.kernel.where = lambda where=where: looked.append(1) or where()
    many.network.news = True
    most, turns = 0, 0
    while True:
        before = len(looked)
        many.stack.now += 1000
        many.turn()
        turns += 1
        most = max(most, len(looked) - before)
        if len(looked) == 100:
            break
        assert turns < 50
    assert most <= 16


def test_a_round_that_has_to_wait_keeps_nobody_busy(one):
    where = one.connection.kernel.where

    def slow():
        one.stack.now += SECOND
        return where()

    one.connection.kernel.where = slow
    for _ in range(3):
        # It takes its time, and has pauses after it.
        one.network.news = True
        one.turn()
    one.network.news = True
    one.watch.ready()
    one.watch._steering.look_at = one.watch._regular_at = one.stack.now
    one.watch._reachability._look_at = one.stack.now + 100 * SECOND
    assert one.watch.poll_at() == one.watch._not_before > one.stack.now


# Reachability


def test_the_targets_question_is_answered_from_the_kernels_entry(one):
    neighbor = one.path.neighbor
    one.network.states[KEY], one.network.confirmed_us = NeighborState.REACHABLE, 1_234_000
    assert one.stack.edge.reachability(neighbor, 5000) == 1234
    one.network.confirmed_us = 0
    assert one.stack.edge.reachability(neighbor, 5000) == 1
    one.network.states[KEY] = NeighborState.STALE
    assert one.stack.edge.reachability(neighbor, 5000) == 0


@pytest.mark.parametrize(("nrd", "confirmed", "probed"), [(10, [KEY], []), (9000, [], [KEY])], ids=["progress", "none"])
def test_what_the_target_says_a_little_later_counts(one, nrd, confirmed, probed):
    one.perform()
    one.network.confirmed.clear()
    one.network.states[KEY] = NeighborState.STALE
    one.stack.edge.reachability(one.path.neighbor, 5000)
    one.target.nic_reachability_delta = nrd
    one.stack.retransmitted = lambda flow: 0
    one.watch._reachability._confirm_at = one.watch._reachability._look_at = one.stack.now + 100 * SECOND
    one.stack.now += reachability._DELAY_US
    one.perform()
    assert (one.network.confirmed, one.network.probed) == (confirmed, probed)


def test_retransmissions_without_progress_make_the_kernel_probe_at_once(one):
    count = [0]
    one.stack.retransmitted = lambda flow: count[0]
    one.target.nic_reachability_delta = 5000
    one.wait(SECOND)
    one.perform()
    assert one.network.probed == []
    count[0] = 2
    one.wait(SECOND)
    one.perform()
    assert one.network.probed == [KEY]
    # Not all the time.
    count[0] = 4
    one.wait(SECOND)
    one.perform()
    assert one.network.probed == [KEY]


def test_many_connections_retransmit(monkeypatch):
    monkeypatch.setattr(reachability, "_LOOKS", 2)
    many = Watched(4)
    count = [0]
    many.stack.retransmitted = lambda flow: count[0]
    many.target.nic_reachability_delta = 5000
    for _ in range(4):
        many.wait(SECOND)
        many.perform()
        count[0] += 2
    assert many.network.probed == [KEY]


def test_who_has_left_has_no_path_that_has_shrunk(one):
    connection = one.connection
    connection.release()
    connection.kernel.where = None
    one.watch.may_have_shrunk(connection)
    one.settle()


def test_what_is_posted_between_the_relink_and_the_resumption_keeps_its_place(one):
    connection = one.connection
    one.lose()
    one.perform("invalidate")
    first = connection.post_receive(bytearray(8))
    one.change()
    one.settle()
    assert one.target.complete()[0] == "update"
    second = connection.post_receive(bytearray(16))
    one.perform()
    assert [len(nbl.first_net_buffer.views()[0]) for nbl in one.target.receives] == [8, 16]
    assert not first.done and not second.done
