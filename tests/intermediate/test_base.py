"""What the base does for every intermediate driver: records, ways back, shortage of memory, requests in order."""

from dataclasses import replace

import pytest

from chimney.intermediate import IntermediateDriver, PassThrough
from chimney.ndis import DisconnectFlags, OffloadHandle, OffloadStateType, Status, UploadReason, bind, net_buffer_list
from chimney.ndis.buffers import link
from chimney.ndis.errors import Misuse
from chimney.ndis.state import MiniportOffloadBlockList, NeighborCached
from tests.intermediate.rig import OPERATIONS, Host, Rig, Target, block, lists, references, tree

COMPLETED_LINKED = ("send", "receive", "forward")


class Short(IntermediateDriver):
    """Has memory for ``left`` records (None: for any number)."""

    def __init__(self, name, uppers=1, lowers=1):
        super().__init__(name, uppers, lowers)
        self.left = None

    def allocate(self, what):
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


def contexts(nbl):
    found, context = [], nbl.context
    while context is not None:
        found.append(context.owner)
        context = context.next
    return found


def statuses(requests):
    return [nbl.status for nbl in requests]


# Records


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_record_goes_down_with_each_request_and_is_gone_above(operation):
    drivers = [PassThrough(f"driver {n}", records=True) for n in range(3)]
    rig = Rig(*drivers)
    handle, *_ = rig.offload()
    posted = lists(1 if operation == "disconnect" else 3)
    assert rig.post(operation, handle, *posted) == Status.PENDING
    assert all(contexts(nbl) == drivers for nbl in posted)
    assert [driver.call_entries for driver in drivers] == [len(posted)] * 3
    rig.target.complete(operation, *posted)
    assert rig.host.completed == [(operation, posted)]
    assert [driver.call_entries for driver in drivers] == [0] * 3


def test_the_record_is_freed_when_the_completion_has_been_propagated():
    rig = Rig(PassThrough("driver", records=True))
    handle, *_ = rig.offload()
    counts = []
    rig.host.on_completion = lambda *_: counts.append(rig.driver.call_entries)
    [nbl] = lists()
    rig.post("send", handle, nbl)
    rig.target.complete("send", nbl)
    assert (counts, rig.driver.call_entries) == ([1], 0)


@pytest.mark.parametrize("operation", COMPLETED_LINKED)
def test_calls_may_be_merged_and_split_on_the_way_back(operation):
    rig = Rig(PassThrough("driver", records=True))
    handle, *_ = rig.offload()
    a, b, c, d = posted = lists(4)
    rig.post(operation, handle, a, b)
    rig.post(operation, handle, c, d)
    rig.target.complete(operation, a)
    rig.target.complete(operation, b, c)
    assert rig.driver.call_entries == 1
    rig.target.complete(operation, d)
    assert rig.host.completed == [(operation, [a]), (operation, [b, c]), (operation, [d])]
    assert posted == [nbl for _, part in rig.host.completed for nbl in part] and rig.driver.call_entries == 0


@pytest.mark.parametrize("operation", COMPLETED_LINKED)
def test_a_merged_list_is_taken_apart_by_upper_edge(operation):
    rig = Rig(IntermediateDriver("driver", uppers=2))
    one, two = rig.hosts
    (first, *_), (second, *_) = rig.offload(one), rig.offload(two)
    a, b, c, d, e = lists(5)
    rig.post(operation, first, a, c, host=one)
    rig.post(operation, second, b, d, host=two)
    rig.post(operation, first, e, host=one)
    rig.target.complete(operation, a, b, c, d, e)
    assert one.completed == [(operation, [a, c, e])] and two.completed == [(operation, [b, d])]
    assert rig.driver.call_entries == 0


def test_a_list_of_one_upper_edge_stays_whole_and_a_disconnect_finds_its_edge():
    rig = Rig(IntermediateDriver("driver", uppers=2))
    one, two = rig.hosts
    first, second = rig.offload(one), rig.offload(two)
    a, b = lists(2)
    rig.post("send", second[0], a, b, host=two)
    rig.target.complete("send", a, b)
    assert two.completed == [("send", [a, b])] and a.next is b
    end = net_buffer_list()
    rig.post("disconnect", first[0], end, host=one)
    assert rig.target.requests[-1][3] == DisconnectFlags.GRACEFUL_CLOSE
    rig.target.complete("disconnect", end)
    assert one.completed == [("disconnect", [end])]


def test_a_handler_may_post_while_parts_are_being_completed():
    rig = Rig(IntermediateDriver("driver", uppers=2))
    one, two = rig.hosts
    (first, *_), (second, *_) = rig.offload(one), rig.offload(two)
    a, b, again = lists(3)

    def post_and_complete(operation, completed):
        one.on_completion = None
        rig.post("send", first, again, host=one)
        rig.target.complete("send", again)

    one.on_completion = post_and_complete
    rig.post("send", first, a, host=one)
    rig.post("send", second, b, host=two)
    rig.target.complete("send", a, b)
    assert one.completed == [("send", [a]), ("send", [again])] and two.completed == [("send", [b])]


def test_a_refusal_from_below_leaves_the_request_as_it_was():
    class Refuses(Target):
        def tcp_offload_send(self, offload_context, net_buffer_list):
            raise Misuse("send", "no", "do not", "send.none")

    rig = Rig(PassThrough("driver", records=True), targets=[Refuses()])
    handle, *_ = rig.offload()
    a, b = lists(2)
    for _ in range(2):
        with pytest.raises(Misuse):
            rig.post("send", handle, a, b)
        assert contexts(a) == contexts(b) == [] and rig.driver.call_entries == 0


def test_somebody_elses_record_on_top_is_refused():
    rig = Rig(PassThrough("driver", records=True))
    handle, *_ = rig.offload()
    [nbl] = lists()
    rig.post("send", handle, nbl)
    nbl.push_context("a driver that forgot its own", None)
    with pytest.raises(Misuse, match="record on top"):
        rig.target.complete("send", nbl)


# Sends in an initiate's chain


@pytest.mark.parametrize("way", ["completion", "terminate", "failure"])
def test_handed_over_sends_come_back(way):
    rig = Rig(PassThrough("below", records=True), PassThrough("above", records=True))
    handles = [OffloadHandle(None) for _ in range(3)]
    a, b = lists(2)
    rig.host.binding.initiate_offload(tree(*reversed(handles), net_buffer_list_chain=link([a, b])))
    assert contexts(a) == contexts(b) == list(rig.drivers)
    if way == "failure":
        rig.target.complete_tree(fail={2: Status.OFFLOAD_TCP_ENTRIES, 1: Status.FAILURE, 0: Status.FAILURE})
        assert contexts(a) == contexts(b) == [] and rig.at_rest()
        return
    rig.target.complete_tree()
    [entry] = [e for e in rig.driver.entries if e.connection]
    assert contexts(a) == contexts(b) == list(rig.drivers) and entry.sends_below == 2
    chain = None
    if way == "completion":
        rig.target.complete("send", a, b)
        assert rig.host.completed == [("send", [a, b])]
    else:
        chain = a
    rig.host.binding.terminate_offload(references(*handles))
    rig.target.complete_tree(chains={2: chain})
    assert contexts(a) == contexts(b) == [] and rig.at_rest()


# Shortage of memory


@pytest.mark.parametrize(
    ("operation", "first", "rest"),
    [
        ("send", Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED),
        ("receive", Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED),
        ("forward", Status.UPLOAD_IN_PROGRESS, Status.UPLOAD_IN_PROGRESS),
        ("disconnect", Status.REQUEST_UPLOAD, None),
    ],
)
@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_memory_nothing_is_passed_down(operation, first, rest, left):
    rig = Rig(Short("driver"), PassThrough("above", records=True))
    handle, *_ = rig.offload()
    posted = lists(3 if rest is not None else 1)
    rig.driver.left = min(left, len(posted) - 1)
    assert rig.post(operation, handle, *posted) == Status.PENDING
    assert rig.target.requests == []
    assert rig.host.completed == [(operation, posted)]
    assert statuses(posted) == [first, rest, rest][: len(posted)]
    assert all(nbl.tcp_offload_bytes_transferred == 0 for nbl in posted)
    assert [driver.call_entries for driver in rig.drivers] == [0, 0]


@pytest.mark.parametrize(("kind", "also"), [("send", "disconnect"), ("receive", None)])
def test_a_refused_request_is_not_overtaken(kind, also):
    """Older ones come back first, and later ones of its kind do not go down, even if there is memory again."""
    rig = Rig(Short("driver"))
    handle, *_ = rig.offload()
    old, refused, later, other = lists(4)
    rig.post(kind, handle, old)
    rig.driver.left = 0
    rig.post(kind, handle, refused)
    rig.driver.left = None
    rig.post(kind, handle, later)
    assert rig.host.completed == [] and [r[2] for r in rig.target.requests] == [old]
    rig.target.complete(kind, old)
    assert rig.host.completed == [(kind, [old]), (kind, [refused]), (kind, [later])]
    assert statuses([refused, later]) == [Status.REQUEST_UPLOAD] * 2
    if also is not None:
        rig.post(also, handle, other)
        assert other.status == Status.REQUEST_UPLOAD and rig.target.requests == []
    rig.post("receive" if kind == "send" else "send", handle, net_buffer_list())
    assert len(rig.target.requests) == 1, "the other direction goes on"


def test_a_receive_is_not_refused_within_a_receive_completion():
    """One receive completion or indication at a time (10.2)."""
    rig = Rig(Short("driver"))
    handle, *_ = rig.offload()
    a, b = lists(2)
    rig.post("receive", handle, a)

    def post(operation, completed):
        rig.host.on_completion = None
        rig.driver.left = 0
        rig.post("receive", handle, b)
        assert rig.host.completed == [("receive", [a])], "the refusal waits"

    rig.host.on_completion = post
    rig.target.complete("receive", a)
    assert rig.host.completed == [("receive", [a]), ("receive", [b])]


@pytest.mark.parametrize("left", range(6))
def test_an_initiate_without_memory_fails_as_a_whole(left):
    """Call entry, three offload entries, and a record for each handed-over send."""
    rig = Rig(Short("driver"))
    handles = [OffloadHandle(None) for _ in range(3)]
    chain = link(lists(2))
    rig.driver.left = left
    root = tree(*reversed(handles), net_buffer_list_chain=chain)
    rig.host.binding.initiate_offload(root)
    assert rig.target.trees == [] and rig.host.log == [("initiate", root)]
    path = root.dependent_block_list
    assert [root.status, path.status, path.dependent_block_list.status] == [Status.RESOURCES] * 3
    assert contexts(chain) == contexts(chain.next) == [] and rig.at_rest()
    rig.driver.left = None
    rig.host.binding.initiate_offload(tree(*reversed(handles), net_buffer_list_chain=chain))
    rig.target.complete_tree()
    assert handles[0].miniport_offload_context is not None


def test_an_initiate_without_memory_fails_its_linkers_and_not_its_placeholders():
    rig = Rig(Short("driver"))
    _, path, neighbor = rig.offload()
    rig.driver.left = 0
    tcp = block(OffloadStateType.TCP, OffloadHandle(None))
    other = block(OffloadStateType.TCP, OffloadHandle(None))
    row = block(OffloadStateType.IP4, path, tcp, state=False)
    row.next_block = block(OffloadStateType.IP4, None, other)
    rig.host.binding.initiate_offload(block(OffloadStateType.NEIGHBOR, neighbor, row, state=False))
    [(root,)] = rig.host.took("initiate")
    assert [root.status, row.status, tcp.status] == [Status.FAILURE, Status.FAILURE, Status.RESOURCES]
    assert [row.next_block.status, other.status] == [Status.SUCCESS, Status.RESOURCES]


@pytest.mark.parametrize("operation", ["query", "update", "invalidate", "terminate"])
def test_other_state_operations_without_memory_fail(operation):
    rig = Rig(Short("driver"))
    handles = rig.offload()
    rig.driver.left = 0
    root = references(*handles)
    suffix = "_state" if operation == "query" else ""
    getattr(rig.host.binding, f"{operation}_offload{suffix}")(root)
    assert rig.target.trees == [] and rig.host.took(operation) == [(root,)]
    path = root.dependent_block_list
    assert [root.status, path.status, path.dependent_block_list.status] == [Status.FAILURE] * 3
    assert (rig.driver.call_entries, rig.driver.offload_entries) == (0, 3)


# Requests of a connection that is to come back


def test_after_stop_requests_come_back_in_order_and_unperformed():
    rig = Rig(PassThrough("driver", records=True))
    handles = rig.offload()
    old, new, receive, forward = lists(4)
    rig.post("send", handles[0], old)
    [entry] = [e for e in rig.driver.entries if e.connection]
    rig.driver.upload(entry, UploadReason.UPLOAD_REQUESTED)
    assert rig.host.took("event") == [(handles[0], 3, UploadReason.UPLOAD_REQUESTED)]
    rig.post("send", handles[0], new)
    rig.post("receive", handles[0], receive)
    rig.post("forward", handles[0], forward)
    assert rig.host.completed == [("receive", [receive]), ("forward", [forward])]
    rig.target.complete("send", old)
    assert rig.host.completed[2:] == [("send", [old]), ("send", [new])]
    assert statuses([old, new, receive, forward]) == [Status.SUCCESS] + [Status.UPLOAD_IN_PROGRESS] * 3
    assert rig.target.requests == []


@pytest.mark.parametrize("chain", [False, True])
def test_what_waits_for_older_requests_ends_with_the_offload(chain):
    """Sends go behind the older ones in the chain: they come later in the stream (A5)."""
    rig = Rig(PassThrough("driver", records=True))
    handles = rig.offload()
    old, new, end = lists(3)
    rig.post("send", handles[0], old)
    [entry] = [e for e in rig.driver.entries if e.connection]
    rig.driver.stop(entry)
    rig.post("send", handles[0], new)
    rig.post("disconnect", handles[0], end)
    root = references(*handles)
    rig.host.binding.terminate_offload(root)
    if not chain:
        rig.target.complete("send", old, status=Status.UPLOAD_IN_PROGRESS)
    rig.target.complete_tree(chains={2: old if chain else None})
    tcp = root.dependent_block_list.dependent_block_list
    if chain:
        assert tcp.net_buffer_list_chain is old and old.next is new and new.next is None
        assert tcp.delegated.send_data_tail is new
        assert [what for what, *_ in rig.host.log] == ["disconnect", "terminate"]
    else:
        assert [what for what, *_ in rig.host.log] == ["send", "send", "disconnect", "terminate"]
    assert new.status == end.status == Status.UPLOAD_IN_PROGRESS and rig.at_rest()


def test_a_driver_without_records_cannot_stop():
    rig = Rig(PassThrough("driver"))
    rig.offload()
    with pytest.raises(ValueError, match="records=True"):
        rig.driver.upload_all()


def test_upload_all_reaches_what_is_on_its_way_down():
    rig = Rig(PassThrough("driver", records=True))
    here = rig.offload()
    coming = [OffloadHandle(None) for _ in range(3)]
    rig.host.binding.initiate_offload(tree(*reversed(coming)))
    rig.driver.upload_all()
    assert [code for code, _ in rig.host.took("status")] == [0x40020002]
    rig.target.complete_tree()
    assert rig.host.took("event") == [(coming[0], 3, UploadReason.UPLOAD_REQUESTED)]
    for handle in (here[0], coming[0]):
        [nbl] = lists()
        rig.post("send", handle, nbl)
        assert nbl.status == Status.UPLOAD_IN_PROGRESS
    for handles in (here, coming):
        rig.host.binding.terminate_offload(references(*handles))
        rig.target.complete_tree()
    rig.driver.resume()
    assert rig.host.took("status")[-1] == (0x40020003, rig.target.capabilities)
    rig.offload()
    assert rig.host.log == [] and rig.driver.uploading is False


# Indications


def test_lent_lists_go_back_to_the_binding_that_lent_them():
    class Fixed(IntermediateDriver):
        def choose_lower(self, upper, block):
            return self.lowers[upper.index]

    rig = Rig(Fixed("driver", uppers=2, lowers=2))
    (one, two), (left, right) = rig.hosts, rig.targets
    rig.offload(one, left)
    rig.offload(two, right)
    entries = {e.upper.index: e for e in rig.driver.entries if e.connection}
    a, b, c, d = lists(4)
    for nbl, index in ((a, 0), (b, 1), (c, 0), (d, 1)):
        assert rig.targets[index].indicate(entries[index].handle, nbl) == (Status.SUCCESS, 0)
    assert [r[1] for r in one.took("indicate")] == [a, c] and [r[1] for r in two.took("indicate")] == [b, d]
    assert rig.driver.lent == 4
    assert one.binding.offload_tcp_receive_return(link([a, b, c, d])) == Status.SUCCESS
    assert left.returned == [a, c] and right.returned == [b, d]
    assert rig.driver.lent == 0 and all(contexts(nbl) == [] for nbl in (a, b, c, d))
    with pytest.raises(Misuse, match="record on top"):
        one.binding.offload_tcp_receive_return(a)


@pytest.mark.parametrize(
    "verdict", [(Status.OFFLOAD_DATA_NOT_ACCEPTED, 0), (Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED, 1)]
)
def test_a_list_that_is_not_kept_is_not_lent(verdict):
    rig = Rig(IntermediateDriver("driver", lowers=2))
    rig.offload()
    [entry] = [e for e in rig.driver.entries if e.connection]
    rig.host.verdict = verdict
    [nbl] = lists()
    assert rig.target.indicate(entry.handle, nbl) == verdict
    assert rig.driver.lent == 0 and contexts(nbl) == []


def test_a_list_may_be_returned_within_its_indication():
    rig = Rig(IntermediateDriver("driver", lowers=2))
    rig.offload()
    [entry] = [e for e in rig.driver.entries if e.connection]

    class Returns(Host):
        def tcp_offload_receive_indicate(self, offload_context, net_buffer_list, status):
            self.binding.offload_tcp_receive_return(net_buffer_list)
            return Status.SUCCESS, 1

    rig.host.__class__ = Returns
    [nbl] = lists()
    assert rig.target.indicate(entry.handle, nbl) == (Status.SUCCESS, 1)
    assert rig.target.returned == [nbl] and rig.driver.lent == 0


def test_buffered_data_of_a_terminate_is_lent_too():
    rig = Rig(IntermediateDriver("above", lowers=2))
    handles = rig.offload()
    root = references(*handles)
    rig.host.binding.terminate_offload(root)
    [(_, below)] = rig.target.trees
    tcp = below.dependent_block_list.dependent_block_list
    a, b = lists(2)
    tcp.delegated.buffered_data = link([a, b])
    rig.target.complete_tree()
    assert rig.driver.lent == 2 and rig.driver.offload_entries == 0
    rig.host.binding.offload_tcp_receive_return(link([b, a]))
    assert rig.target.returned == [b, a] and rig.driver.lent == 0


# Hooks


def test_vlan_and_priority_may_be_set_on_the_way_down():
    class Tags(IntermediateDriver):
        def prepare_initiate(self, entry, block):
            if block.type == OffloadStateType.NEIGHBOR:
                block.const = replace(block.const, vlan_id=7)
            elif entry.connection:
                block.cached = replace(block.cached, user_priority=5)

    rig = Rig(Tags("driver"))
    root = tree(*(OffloadHandle(None) for _ in range(3)))
    rig.host.binding.initiate_offload(root)
    below = rig.target.complete_tree()
    tcp = below.dependent_block_list.dependent_block_list
    assert (below.const.vlan_id, tcp.cached.user_priority) == (7, 5)
    assert root.const.vlan_id == 0, "what the host has stays as it is"


def test_plain_python_hooks_see_requests_completions_and_indications():
    class Counts(IntermediateDriver):
        def __init__(self, name):
            super().__init__(name)
            self.seen = []

        def on_request(self, entry, operation, net_buffer_list, flags):
            self.seen.append(("down", operation, flags))
            return self.pass_down(entry, operation, net_buffer_list, flags)

        def on_completion(self, lower, operation, net_buffer_list):
            self.seen.append(("up", operation, lower.index))
            self.complete(operation, net_buffer_list)

        def on_indication(self, entry, net_buffer_list, status):
            self.seen.append(("data", net_buffer_list))
            return self.indicate(entry, net_buffer_list, status)

        def on_event(self, entry, event_type, information):
            self.seen.append(("event", event_type, information))
            self.indicate_event(entry, event_type, information)

    rig = Rig(PassThrough("below"), Counts("driver"), PassThrough("above"))
    handle, *_ = rig.offload()
    for number, operation in enumerate(OPERATIONS, 1):
        [nbl] = lists()
        rig.post(operation, handle, nbl, flags=DisconnectFlags.ABORTIVE_CLOSE)
        rig.target.complete(operation, nbl)
        flags = DisconnectFlags.ABORTIVE_CLOSE if operation == "disconnect" else 0
        assert rig.drivers[1].seen == [("down", number, flags), ("up", number, 0)]
        rig.drivers[1].seen.clear()
    [entry] = [e for e in rig.drivers[0].entries if e.connection]
    [nbl] = lists()
    rig.target.indicate(entry.handle, nbl)
    rig.target.handle.tcp_offload_event_handler(entry.handle, 1, 2)
    assert rig.drivers[1].seen == [("data", nbl), ("event", 1, 2)]
    assert rig.host.took("indicate") == [(handle, nbl)] and rig.host.took("event") == [(handle, 1, 2)]


def test_a_generic_event_finds_the_upper_edge_of_its_neighbor():
    rig = Rig(IntermediateDriver("driver", uppers=2))
    one, two = rig.hosts
    rig.offload(one)
    *_, neighbor = rig.offload(two)
    [entry] = [e for e in rig.driver.entries if e.upper_handle is neighbor]
    cached = NeighborCached(bytes(6))
    question = MiniportOffloadBlockList(
        type=OffloadStateType.NEIGHBOR, cached=cached, ndis_offload_handle=entry.handle
    )
    rig.target.handle.offload_event_indicate(question, 2)
    assert two.took("offload event") == [(neighbor, 2)] and one.took("offload event") == []
    assert cached.host_reachability_delta == 42
    rig.target.handle.offload_event_indicate(None, 1)
    assert one.took("offload event") == [(None, 1)]


def test_the_lower_edges_are_bound_first():
    driver = IntermediateDriver("driver", lowers=2)
    bind(driver.lowers[0], Target())
    with pytest.raises(Misuse, match=r"lower edge 2.*from the targets upward"):
        bind(Host(), driver.upper)


def test_levels_count_from_the_lowest_target():
    low, high = PassThrough("low"), IntermediateDriver("high", uppers=2, lowers=2)
    bind(low.lower, Target())
    bind(high.lowers[0], low.upper)
    bind(high.lowers[1], Target())
    assert (low.upper.level, [upper.level for upper in high.uppers]) == (1, [2, 2])
