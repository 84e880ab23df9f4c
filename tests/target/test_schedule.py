"""When connections are served next: a heap that does not outgrow the connections in it."""

import gc
import weakref

from chimney.ndis.status import TcpCachedFlags
from chimney.target.schedule import Schedule
from chimney.tcp.config import NEVER
from tests.target.machine import World


def test_the_earliest_deadline_counts(seed):
    world = World(seed=seed)
    first, second = (world.connect(port)[0].offloaded for port in (1000, 2000))
    schedule = Schedule()
    schedule.add(first, 500)
    schedule.add(second, 400)
    schedule.add(first, 600)
    assert schedule.next_at() == 400 and schedule.pop_due(399) is None
    schedule.add(first, 300)
    assert [schedule.pop_due(1000) for _ in range(3)] == [first, second, None]
    assert schedule.next_at() == NEVER


def test_equal_deadlines_keep_their_order(seed):
    world = World(seed=seed)
    connections = [world.connect(port)[0].offloaded for port in range(1000, 1100, 2)]
    schedule = Schedule()
    for deadline in (10_000, 9_000, 8_000, 7_000):
        for tcp in connections:
            schedule.add(tcp, deadline)
    assert [schedule.pop_due(7_000) for _ in connections] == connections


def test_deadlines_that_no_longer_count_are_dropped(seed):
    """Every exchange leaves the keepalive's deadline behind, which is hours away."""
    world = World(seed=seed)
    a, b = world.ends()
    a.cached.flags |= TcpCachedFlags.KEEP_ALIVE_ENABLED
    a.cached.ka_timeout, a.cached.ka_interval, a.cached.ka_probe_count = 7_200_000, 75_000, 9
    a.initiate()
    b.initiate()
    b.host.answer = len
    for _ in range(200):
        a.send(b"x")
        world.run(duration=1_000_000)
    assert len(b.host.indicated) == 200
    assert len(a.side.target.schedule) < 50


def test_connections_that_are_gone_are_let_go(seed):
    world = World(seed=seed)
    gone = []
    for port in range(1000, 1200, 2):
        a, _ = world.connect(port)
        a.send(b"x")
        a.side.target.flush(world.clock())
        gone.append(weakref.ref(a.offloaded))
        a.terminate()
    gc.collect()
    assert sum(reference() is not None for reference in gone) < 30
