"""Whatever the interleaving: every list comes back once, to the edge it came by, in order within its connection."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from chimney.intermediate import Faults, FaultyDriver, IntermediateDriver, PassThrough
from chimney.ndis import OffloadHandle, Status
from chimney.ndis.buffers import link
from tests.intermediate.rig import Rig, lists, tree

COMBINATIONS = [(upper, lower) for upper in range(2) for lower in range(2)] * 2
OPERATIONS = ("send", "receive", "forward")

posts = st.tuples(st.just("post"), st.integers(0, 7), st.sampled_from(OPERATIONS), st.integers(1, 4))
completions = st.tuples(
    st.just("complete"), st.integers(0, 1), st.sampled_from(OPERATIONS), st.lists(st.integers(0, 7), max_size=8)
)
indications = st.tuples(st.just("indicate"), st.integers(0, 7), st.booleans(), st.just(0))
returns = st.tuples(st.just("return"), st.integers(0, 1), st.lists(st.integers(0, 99), max_size=6), st.just(0))


class Crossbar(IntermediateDriver):
    """New objects go to the adapter whose number is the neighbor's VLAN."""

    def __init__(self):
        super().__init__("crossbar", uppers=2, lowers=2)

    def choose_lower(self, upper, block):
        return self.lowers[block.const.vlan_id]


class World:
    """Eight connections over two upper and two lower edges; ``pending`` requests by adapter, operation, connection."""

    def __init__(self):
        self.rig = Rig(Crossbar())
        self.connections = []
        self.pending = [{operation: defaultdict(list) for operation in OPERATIONS} for _ in range(2)]
        self.posted = defaultdict(list)
        self.lent = [[], []]
        self.lender = {}
        for upper, lower in COMBINATIONS:
            handles = [OffloadHandle(None) for _ in range(3)]
            root = tree(*reversed(handles))
            root.const.vlan_id = lower
            self.rig.hosts[upper].binding.initiate_offload(root)
            below = self.rig.targets[lower].complete_tree()
            tcp = below.dependent_block_list.dependent_block_list
            self.connections.append((handles[0], tcp.ndis_offload_handle))
        for host in self.rig.hosts:
            host.log.clear()

    def post(self, number, operation, count):
        upper, lower = COMBINATIONS[number]
        batch = lists(count)
        self.rig.post(operation, self.connections[number][0], *batch, host=self.rig.hosts[upper])
        self.pending[lower][operation][number] += batch
        self.posted[operation, number] += batch

    def complete(self, lower, operation, order):
        waiting = self.pending[lower][operation]
        chosen = [waiting[number].pop(0) for number in order if waiting[number]]
        if chosen:
            self.rig.targets[lower].complete(operation, *chosen)

    def indicate(self, number, accepted, _):
        upper, lower = COMBINATIONS[number]
        host = self.rig.hosts[upper]
        host.verdict = (Status.SUCCESS, 1) if accepted else (Status.OFFLOAD_DATA_NOT_ACCEPTED, 0)
        [nbl] = lists()
        assert self.rig.targets[lower].indicate(self.connections[number][1], nbl) == host.verdict
        assert host.log.pop() == ("indicate", self.connections[number][0], nbl)
        if accepted:
            self.lent[upper].append(nbl)
            self.lender[nbl] = lower

    def return_(self, upper, which, _):
        mine = self.lent[upper]
        chosen = [mine.pop(index % len(mine)) for index in which if mine]
        if not chosen:
            return
        before = [len(target.returned) for target in self.rig.targets]
        self.rig.hosts[upper].binding.offload_tcp_receive_return(link(chosen))
        for lower, target in enumerate(self.rig.targets):
            assert target.returned[before[lower] :] == [nbl for nbl in chosen if self.lender[nbl] == lower]

    def finish(self):
        for lower in range(2):
            for operation in OPERATIONS:
                for number in range(8):
                    self.complete(lower, operation, [number] * len(self.pending[lower][operation][number]))
        for upper in range(2):
            self.return_(upper, [0] * len(self.lent[upper]), 0)

    def check(self):
        for upper, host in enumerate(self.rig.hosts):
            for operation in OPERATIONS:
                back = host.took(operation)
                for number, (via, _) in enumerate(COMBINATIONS):
                    if via == upper:
                        mine = {id(nbl) for nbl in self.posted[operation, number]}
                        assert [n for (n,) in back if id(n) in mine] == self.posted[operation, number]
                expected = sum(
                    len(self.posted[operation, number]) for number in range(8) if COMBINATIONS[number][0] == upper
                )
                assert len(back) == expected, "each once, and nobody else's"
        assert self.rig.driver.call_entries == self.rig.driver.lent == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(posts | completions | indications | returns, max_size=60))
def test_a_crossbar_loses_nothing(actions):
    world = World()
    for what, *arguments in actions:
        getattr(world, "return_" if what == "return" else what)(*arguments)
    world.finish()
    world.check()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(OPERATIONS), st.integers(1, 4), st.booleans()), max_size=40),
    st.integers(0, 2**16),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_delays_merges_and_splits_keep_the_order(actions, seed, delay, merge, split):
    faults = Faults(seed=seed, delay=delay, merge=merge, split=split)
    rig = Rig(PassThrough("below", records=True), FaultyDriver("faulty", faults), PassThrough("above", records=True))
    driver = rig.drivers[1]
    handles = []
    for _ in range(3):
        got = [OffloadHandle(None) for _ in range(3)]
        rig.host.binding.initiate_offload(tree(*reversed(got)))
        rig.target.complete_tree()
        while driver.pending:
            driver.poll()
        handles.append(got[0])
    posted = defaultdict(list)
    for number, operation, count, polled in actions:
        batch = lists(count)
        posted[operation, number] += batch
        rig.post(operation, handles[number], *batch)
        waiting = [request[2] for request in rig.target.requests if request[0] == operation]
        rig.target.complete(operation, *waiting)
        if polled:
            driver.poll()
    while driver.pending:
        driver.poll()
    for (operation, _), batch in posted.items():
        mine = {id(nbl) for nbl in batch}
        assert [nbl for (nbl,) in rig.host.took(operation) if id(nbl) in mine] == batch
    assert sum(len(part) for _, part in rig.host.completed) == sum(map(len, posted.values()))
    assert [d.call_entries for d in rig.drivers] == [0, 0, 0]
