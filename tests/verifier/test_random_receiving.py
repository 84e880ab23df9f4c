"""The reverse of the mutants: whatever hosts and networks do that is allowed, no check of receiving has a finding."""

from random import Random

import pytest

from chimney.conformance.steps import send
from chimney.conformance.world import World
from chimney.link.memory import Clock
from chimney.ndis.handle import OFFLOADED
from chimney.target import TargetConfig
from chimney.verifier import Verifier


def make_world(random, seed, verifier):
    """A world with a network, windows and preferred indication sizes of all kinds; and both ends, offloaded."""
    world = World(
        clock=verifier.clock,
        observer=verifier,
        drivers=random.choice([0, 0, 1, 2]),
        config=TargetConfig(push_ticks=random.choice([50, 500, 3000])),
        seed=seed,
        delay_us=random.choice([10, 100, 5000, 50_000]),
        loss=random.choice([0, 0, 0.05, 0.2]),
        reorder=random.choice([0, 0.1]),
        reorder_us=3000,
        duplicate=random.choice([0, 0.1]),
        gro=random.choice([False, True]),
    )
    ends = world.ends()
    for end, peer in (ends, ends[::-1]):
        end.cached.rcv_indication_size = random.choice([0, 0, 100, 3000])
        window = random.choice([4000, 1 << 16, 1 << 18])
        end.cached.initial_rcv_wnd = end.delegated.rcv_wnd = window
        peer.delegated.snd_wnd = peer.delegated.max_snd_wnd = window
    for end in ends:
        end.initiate()
        end.host.answer = lambda data: random.choice([0, len(data), len(data), random.randrange(len(data))])
        end.host.on["receive"] = end.host.on["indicate"] = lambda subject, end=end: post_more(random, end)
    return world, ends


def post_more(random, end):
    """From within an upcall."""
    open_still = end.handle.phase == OFFLOADED and not end.peer_closed and end.upload_reason is None
    if open_still and random.random() < 0.3:
        end.receive(random.choice([0, 10, 500, 3000]), push=random.random() < 0.7)


def step(random, world, end):
    """Something that an application or host does, or some time."""
    what = random.random()
    if what < 0.35:
        send(end, *(random.choice([1, 100, 1460, 5000, 20_000]) for _ in range(random.randrange(1, 3))))
    elif what < 0.65:
        sizes = [random.choice([0, 1, 100, 1460, 3000, 30_000]) for _ in range(random.randrange(1, 4))]
        end.receive(*sizes, push=random.random() < 0.6)
    elif what < 0.7:
        end.terminate()
        end.initiate()
    elif what < 0.72:
        end.query("delegated")
    else:
        world.run(duration=random.choice([100, 1000, 100_000, 700_000]))


@pytest.mark.parametrize("seed", range(40))
def test_no_finding(seed):
    random = Random(seed)
    verifier = Verifier(Clock(1_000_000))
    world, ends = make_world(random, seed, verifier)
    for _ in range(random.randrange(5, 60)):
        end = random.choice(ends)
        if end.handle.phase == OFFLOADED:
            step(random, world, end)
    for _ in range(40):
        world.run(duration=100_000)
    ends[0].disconnect() if random.random() < 0.6 else ends[0].abort()
    for _ in range(20):
        world.run(duration=100_000)
    for end in ends:
        end.host.on.clear()
    world.close()
    verifier.finish()
    assert [str(violation) for violation in verifier.violations] == []
