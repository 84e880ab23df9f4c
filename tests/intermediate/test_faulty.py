"""The driver that makes trouble: what it does, and what it must not do with it."""

import pytest

from chimney.intermediate import Faults, FaultyDriver, PassThrough
from chimney.ndis import OffloadHandle, Status, UploadReason
from chimney.ndis.status import TcpOffloadEvent
from tests.intermediate.rig import Rig, lists, references, tree

ABORT = TcpOffloadEvent.INDICATE_ABORT


def make(faults=None, above=()):
    rig = Rig(FaultyDriver("faulty", faults), *above)
    return rig, rig.driver


def entry_of(driver, handle):
    [entry] = [e for e in driver.entries if e.upper_handle is handle]
    return entry


def test_without_faults_lists_pass_as_they_are():
    rig, driver = make()
    handle, *_ = rig.offload()
    a, b, c = lists(3)
    rig.post("send", handle, a, b, c)
    rig.target.complete("send", a, b)
    rig.target.complete("send", c)
    assert rig.host.completed == [("send", [a, b]), ("send", [c])] and driver.pending == 0


def test_connections_are_known_in_the_order_in_which_they_came():
    """Where their records are in memory must not show: a run of the same events is the same run."""
    rig, driver = make()
    handles = [rig.offload()[0] for _ in range(40)]
    assert [entry.upper_handle for entry in driver.connections] == handles


def test_what_is_held_comes_up_in_order_when_released():
    rig, driver = make()
    handle, *_ = rig.offload()
    driver.hold()
    a, b, c = lists(3)
    rig.post("send", handle, a, b)
    rig.post("receive", handle, c)
    rig.target.complete("send", a, b)
    rig.target.complete("receive", c)
    rig.target.handle.tcp_offload_event_handler(entry_of(driver, handle).handle, ABORT, 0)
    for _ in range(10):
        driver.poll()
    assert rig.host.log == [] and driver.pending == 0 and len(driver.kept) == 4 and driver.call_entries == 3
    driver.release()
    assert rig.host.log == [("send", a), ("send", b), ("receive", c), ("event", handle, ABORT, 0)]
    assert rig.host.completed == [("send", [a, b]), ("receive", [c])] and driver.call_entries == 0


def test_delayed_for_so_many_polls_and_not_overtaken():
    rig, driver = make(Faults(delay={2}, longest=1))
    handle, *_ = rig.offload()
    a, b = lists(2)
    rig.post("send", handle, a, b)
    rig.target.complete("send", a)
    rig.target.complete("send", b)
    assert rig.host.log == []
    driver.poll()
    assert rig.host.completed == [("send", [a]), ("send", [b])]


def test_merged_and_split_at_ordinals():
    rig, driver = make(Faults(split={1}, merge={1}))
    handle, *_ = rig.offload()
    driver.hold()
    a, b, c, d = lists(4)
    rig.post("send", handle, a, b, c, d)
    rig.target.complete("send", a, b)
    rig.target.complete("send", c)
    rig.target.complete("send", d)
    driver.release()
    assert [nbl for _, part in rig.host.completed for nbl in part] == [a, b, c, d]
    assert [len(part) for _, part in rig.host.completed] == [1, 2, 1]


def test_disconnects_stay_alone():
    rig, driver = make(Faults(merge=1.0))
    handles = [rig.offload()[0] for _ in range(2)]
    driver.hold()
    ends = lists(2)
    for handle, nbl in zip(handles, ends, strict=True):
        rig.post("disconnect", handle, nbl)
        rig.target.complete("disconnect", nbl)
    driver.release()
    assert sorted(len(part) for _, part in rig.host.completed) == [1, 1]


def test_indicated_data_does_not_overtake_what_is_kept_of_its_connection():
    rig, driver = make()
    first, second = rig.offload()[0], rig.offload()[0]
    driver.hold()
    a, b, c, data = lists(4)
    for handle, nbl in ((first, a), (second, b), (first, c)):
        rig.post("receive", handle, nbl)
        rig.target.complete("receive", nbl)
    rig.target.indicate(entry_of(driver, second).handle, data)
    assert [entry[:2] for entry in rig.host.log] == [("receive", a), ("receive", b), ("indicate", second)]
    driver.release()
    assert rig.host.log[-1] == ("receive", c)


def test_the_end_of_an_offload_waits_for_what_is_kept():
    rig, driver = make()
    handles = rig.offload()
    driver.hold()
    [a] = lists()
    rig.post("send", handles[0], a)
    root = references(*handles)
    rig.host.binding.terminate_offload(root)
    rig.target.complete("send", a, status=Status.UPLOAD_IN_PROGRESS)
    rig.target.complete_tree()
    assert rig.host.log == []
    driver.release()
    assert rig.host.log == [("send", a), ("terminate", root)] and rig.at_rest()


def test_what_is_posted_from_a_late_completion_goes_down_after_it():
    """The target does not know that a completion is being executed: it might complete or indicate in between."""
    rig, driver = make()
    handle, *_ = rig.offload()
    driver.hold()
    a, b = lists(2)

    def post(operation, completed):
        rig.host.on_completion = None
        assert rig.post("receive", handle, b) == Status.PENDING
        assert rig.target.requests == []

    rig.host.on_completion = post
    rig.post("receive", handle, a)
    rig.target.complete("receive", a)
    driver.release()
    assert [request[2] for request in rig.target.requests] == [b]


def test_the_nth_allocation_fails():
    rig, driver = make(Faults(out_of_memory={6, 11}))
    handles = [OffloadHandle(None) for _ in range(3)]
    rig.host.binding.initiate_offload(tree(*reversed(handles)))
    rig.target.complete_tree()
    a, b, c = lists(3)
    rig.post("send", handles[0], a, b)
    assert [a.status, b.status] == [Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED] and rig.target.requests == []
    rig.post("receive", handles[0], c)
    assert len(rig.target.requests) == 1
    assert driver.triggers.out_of_memory.happened == 1


def test_the_nth_initiate_is_refused():
    rig, driver = make(Faults(refuse={2}))
    rig.offload()
    root = tree(*(OffloadHandle(None) for _ in range(3)))
    rig.host.binding.initiate_offload(root)
    assert rig.host.log == [("initiate", root)] and root.status == Status.RESOURCES and rig.target.trees == []


@pytest.mark.parametrize("reason", list(UploadReason))
def test_uploads_are_asked_for(reason):
    rig, driver = make(Faults(upload={2}, reasons=(reason,)))
    handle, *_ = rig.offload()
    a, b, c = lists(3)
    for nbl in (a, b, c):
        rig.post("send", handle, nbl)
    assert rig.host.took("event") == [(handle, TcpOffloadEvent.INDICATE_RETRIEVE, reason)]
    assert len(rig.target.requests) == (2 if reason.mandatory else 3)
    rig.target.complete("send", a, b)
    if reason.mandatory:
        assert c.status == Status.UPLOAD_IN_PROGRESS and rig.host.completed == [("send", [a, b]), ("send", [c])]


def test_the_same_seed_makes_the_same_trouble():
    def run(seed):
        faults = Faults(seed=seed, delay=0.5, merge=0.5, split=0.5, out_of_memory=0.02)
        rig, driver = make(faults, above=[PassThrough("above", records=True)])
        handles = []
        while len(handles) < 3:
            got = [OffloadHandle(None) for _ in range(3)]
            rig.host.binding.initiate_offload(tree(*reversed(got)))
            while rig.target.trees:
                rig.target.complete_tree()
            while driver.pending:
                driver.poll()
            if got[0].miniport_offload_context is not None:
                handles.append(got[0])
        posted = []
        for round_ in range(30):
            handle = handles[round_ % 3]
            batch = lists(3)
            posted += [(nbl, handle) for nbl in batch]
            rig.post("send", handle, *batch)
            rig.target.complete("send", *(r[2] for r in rig.target.requests)) if rig.target.requests else None
            driver.poll()
        while driver.pending:
            driver.poll()
        owner = {id(nbl): handle for nbl, handle in posted}
        place = {id(nbl): number for number, (nbl, _) in enumerate(posted)}
        back = [place[id(nbl)] for _, part in rig.host.completed for nbl in part]
        assert sorted(back) == list(range(len(posted))), "each comes back once"
        for handle in handles:
            mine = [n for n in back if owner[id(posted[n][0])] is handle]
            assert mine == sorted(mine), "in order within its connection"
        assert [d.call_entries for d in rig.drivers] == [0, 0]
        return [[place[id(nbl)] for nbl in part] for _, part in rig.host.completed]

    assert run(1) == run(1) != run(2)


def test_it_can_be_told_to_behave():
    rig, driver = make(Faults(delay=1.0, out_of_memory=1.0, refuse={2}, upload=1.0))
    driver.behave()
    [a] = lists()
    for _ in range(3):
        handle, *_ = rig.offload()
        rig.post("send", handle, a)
        rig.target.complete("send", a)
        assert rig.host.log == [("send", a)] and driver.pending == 0


def test_pause_upload_all_and_resume_are_told_above():
    rig, driver = make()
    handles = rig.offload()
    driver.pause()
    driver.upload_all()
    rig.host.binding.terminate_offload(references(*handles))
    rig.target.complete_tree()
    driver.resume()
    assert [code for code, _ in rig.host.took("status")] == [0x40020001, 0x40020002, 0x40020003]
