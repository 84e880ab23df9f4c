"""State operations: saved words, entries, and trees whose objects belong to several adapters."""

import pytest

from chimney.intermediate import IntermediateDriver, PassThrough
from chimney.ndis import OffloadHandle, OffloadStateType, ProtocolOffloadBlockList, Status, net_buffer_list
from chimney.ndis.errors import Misuse
from chimney.ndis.state import walk
from tests.intermediate.rig import Rig, Target, block, delegated, lists, references, tree

NEIGHBOR, PATH, TCP = OffloadStateType.NEIGHBOR, OffloadStateType.IP4, OffloadStateType.TCP


class ByVlan(IntermediateDriver):
    """New objects go to the adapter whose number is the neighbor's VLAN."""

    def __init__(self, name, uppers=1, lowers=2):
        super().__init__(name, uppers, lowers)

    def choose_lower(self, upper, block):
        return self.lowers[block.const.vlan_id]


def neighbor(handle, vlan, *paths):
    made = block(NEIGHBOR, handle, *paths)
    made.const.vlan_id = vlan
    return made


def fork(handles=None, **fields):
    """Neighbors on two adapters in one row, each with a path and a connection; (tree, handles as (n, p, t) twice)."""
    handles = handles or [[OffloadHandle(None) for _ in range(3)] for _ in range(2)]
    rows = [
        neighbor(n, vlan, block(PATH, p, block(TCP, t, **(fields if vlan else {}))))
        for vlan, (n, p, t) in enumerate(handles)
    ]
    rows[0].next_block = rows[1]
    return rows[0], handles


@pytest.fixture
def rig():
    return Rig(ByVlan("driver"))


def offload_both(rig):
    root, handles = fork()
    rig.host.binding.initiate_offload(root)
    for target in rig.targets:
        target.complete_tree()
    rig.host.log.clear()
    return handles


def test_every_adapter_gets_its_own_objects(rig):
    root, handles = fork()
    rig.host.binding.initiate_offload(root)
    for target, ours in zip(rig.targets, handles, strict=True):
        [(operation, part)] = target.trees
        blocks = list(walk(part))
        assert operation == "initiate" and [b.type for b in blocks] == [NEIGHBOR, PATH, TCP]
        assert not set(ours) & {b.ndis_offload_handle for b in blocks}
    rig.targets[1].complete_tree()
    assert rig.host.log == [] and handles[1][2].miniport_offload_context is None, "the whole is not there yet"
    rig.targets[0].complete_tree()
    assert rig.host.log == [("initiate", root)]
    assert all(b.status == Status.SUCCESS for b in walk(root))
    for number, ours in enumerate(handles):
        for handle in ours:
            assert handle.miniport_offload_context.lower is rig.driver.lowers[number]
    assert (rig.driver.call_entries, rig.driver.offload_entries) == (0, 6)


def test_a_shared_placeholder_stands_in_every_part(rig):
    handles = offload_both(rig)
    leaves = [block(TCP, t, state=False, delegated=delegated()) for _, _, t in handles]
    root = block(PATH, None, *leaves)
    rig.host.binding.terminate_offload(root)
    for target in rig.targets:
        [(_, part)] = target.trees
        assert [b.placeholder for b in walk(part)] == [True, False]
    rig.targets[0].complete_tree()
    rig.targets[1].complete_tree(fail={1: Status.FAILURE})
    assert rig.host.log == [("terminate", root)]
    assert [b.status for b in walk(root)] == [Status.SUCCESS, Status.SUCCESS, Status.FAILURE]
    assert rig.driver.offload_entries == 5


def test_what_stands_between_is_a_bare_placeholder(rig):
    """A parent that belongs to another adapter shows neither its state nor its handle."""
    handles = offload_both(rig)
    leaf = block(TCP, handles[1][2], state=False)
    root = neighbor(handles[0][0], 0, block(PATH, None, leaf))
    rig.host.binding.query_offload_state(root)
    [(_, part)] = rig.targets[1].trees
    blocks = list(walk(part))
    assert [b.placeholder for b in blocks] == [True, True, False]
    assert blocks[0].const is None and blocks[0].cached is None
    [(_, other)] = rig.targets[0].trees
    assert [b.type for b in walk(other)] == [NEIGHBOR], "and what is not needed for the shape is left out"


def test_dependents_of_an_offloaded_object_follow_it(rig):
    handles = offload_both(rig)
    new = OffloadHandle(None)
    path = block(PATH, handles[1][1], block(TCP, new), state=False)
    rig.host.binding.initiate_offload(block(NEIGHBOR, handles[1][0], path, state=False))
    assert rig.targets[0].trees == []
    rig.targets[1].complete_tree()
    assert new.miniport_offload_context.lower is rig.driver.lowers[1]


def test_partial_success_in_one_part(rig):
    root, handles = fork(net_buffer_list_chain=(chain := net_buffer_list(b"x")))
    rig.host.binding.initiate_offload(root)
    rig.targets[0].complete_tree()
    outcome = [Status.OFFLOAD_PARTIAL_SUCCESS, Status.OFFLOAD_PATH_ENTRIES, Status.FAILURE]
    rig.targets[1].complete_tree(fail=enumerate(outcome))
    assert [b.status for b in walk(root)] == [Status.SUCCESS] * 3 + outcome
    assert [h.miniport_offload_context is not None for h in handles[1]] == [True, False, False]
    assert chain.context is None and rig.driver.offload_entries == 4


def test_a_part_that_is_refused_fails_and_the_rest_goes_on():
    class Refuses(Target):
        def terminate_offload(self, block_list):
            raise Misuse("terminate", "no", "do not", "terminate.none")

    rig = Rig(ByVlan("driver"), targets=[Target("good"), Refuses("bad")])
    handles = offload_both(rig)
    root = references(*reversed(handles[0]))
    root.next_block = references(*reversed(handles[1]))
    rig.host.binding.terminate_offload(root)
    rig.targets[0].complete_tree()
    assert rig.host.log == [("terminate", root)]
    assert [b.status for b in walk(root)] == [Status.SUCCESS] * 3 + [Status.FAILURE] * 3
    assert (rig.driver.call_entries, rig.driver.offload_entries) == (0, 3)


def test_a_tree_that_is_refused_leaves_nothing():
    class Refuses(Target):
        def initiate_offload(self, block_list):
            raise Misuse("initiate", "no", "do not", "initiate.none")

    rig = Rig(PassThrough("driver", records=True), targets=[Refuses()])
    chain = net_buffer_list(b"x")
    with pytest.raises(Misuse):
        rig.host.binding.initiate_offload(tree(*(OffloadHandle(None) for _ in range(3)), net_buffer_list_chain=chain))
    assert rig.at_rest() and chain.context is None and rig.host.log == []


def test_a_path_does_not_move_to_another_adapter(rig):
    """Relinking across adapters fails for the path, and is not passed down; the rest of the tree is."""
    handles = offload_both(rig)
    staying, moving = block(PATH, handles[0][1], state=False), block(PATH, handles[1][1], state=False)
    root = block(NEIGHBOR, handles[0][0], staying, moving, state=False)
    rig.host.binding.update_offload(root)
    assert rig.targets[1].trees == []
    [(_, part)] = rig.targets[0].trees
    assert [b.type for b in walk(part)] == [NEIGHBOR, PATH]
    rig.targets[0].complete_tree()
    assert [root.status, staying.status, moving.status] == [Status.SUCCESS, Status.SUCCESS, Status.FAILURE]


def test_placeholders_alone_come_back(rig):
    root = block(PATH, None)
    rig.host.binding.query_offload_state(root)
    rig.target.complete_tree()
    assert root.status == Status.SUCCESS and rig.driver.call_entries == 0


def test_nothing_comes_up_before_its_initiate_has_completed(rig):
    """One adapter is ready before the other: what it says meanwhile is told afterwards (A40)."""
    a, b = lists(2)
    a.next = b
    root, handles = fork(net_buffer_list_chain=a)
    connection = handles[1][2]
    rig.host.binding.initiate_offload(root)
    part = rig.targets[1].complete_tree()
    seen = part.dependent_block_list.dependent_block_list.ndis_offload_handle
    rig.targets[1].complete("send", a)
    rig.targets[1].handle.tcp_offload_event_handler(seen, 1, 99)
    rig.targets[1].complete("send", b)
    assert rig.targets[1].indicate(seen, net_buffer_list(b"data")) == (Status.OFFLOAD_DATA_NOT_ACCEPTED, 0)
    assert rig.host.log == []
    rig.targets[0].complete_tree()
    assert rig.host.log == [("initiate", root), ("send", a), ("event", connection, 1, 99), ("send", b)]
    [(operation, _, ours)] = rig.targets[1].requests
    assert operation == "receive" and ours.data_length() == 0, "the target may indicate again what was refused"
    [nbl] = lists()
    rig.post("receive", connection, nbl)
    rig.targets[1].complete("receive", ours, nbl)
    assert rig.host.completed[-1] == ("receive", [nbl]) and rig.driver.call_entries == 0
    assert rig.targets[1].indicate(seen, net_buffer_list(b"data"))[0] == Status.SUCCESS


@pytest.mark.parametrize("operation", ["initiate", "terminate", "update", "invalidate", "query"])
def test_the_words_of_each_layer_are_saved_and_restored(operation):
    drivers = [PassThrough(f"driver {n}") for n in range(3)]
    rig = Rig(*drivers)
    handle = OffloadHandle(None) if operation == "initiate" else rig.offload()[0]
    root = block(TCP, handle, im_reserved="above", source_handle="source", protocol_reserved="own", port_number=4)
    suffix = "_state" if operation == "query" else ""
    getattr(rig.host.binding, f"{operation}_offload{suffix}")(root)
    [(_, below)] = rig.target.trees
    assert below.im_reserved not in ("above", None) and below.source_handle == "source"
    assert (below.protocol_reserved, below.port_number) == ("own", 4)
    assert [driver.call_entries for driver in drivers] == [1, 1, 1]
    below.source_handle = "clobbered"
    rig.target.complete_tree()
    assert (root.im_reserved, root.source_handle) == ("above", "source")
    assert [driver.call_entries for driver in drivers] == [0, 0, 0]


def test_an_operation_completes_by_its_own_function_and_once():
    rig = Rig(PassThrough("driver"))
    handle, *_ = rig.offload()
    rig.host.binding.query_offload_state(block(TCP, handle, state=False))
    [(_, below)] = rig.target.trees
    with pytest.raises(Misuse, match="no such operation under way"):
        rig.target.handle.update_offload_complete(below)
    stray = ProtocolOffloadBlockList(type=TCP)
    with pytest.raises(Misuse, match="no such operation under way"):
        rig.driver.lower.query_offload_complete(stray)


def test_a_very_wide_tree(rig):
    wide = 3000
    paths = [block(PATH, OffloadHandle(None)) for _ in range(wide)]
    rig.host.binding.initiate_offload(neighbor(OffloadHandle(None), 1, *paths))
    rig.targets[1].complete_tree()
    assert rig.driver.offload_entries == wide + 1
