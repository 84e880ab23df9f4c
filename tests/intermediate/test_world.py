"""Stacks of different drivers over real targets, under the verifier: every byte arrives, and it has no finding."""

import random
from collections import Counter
from dataclasses import fields

import pytest

from chimney.conformance.handshake import MACS
from chimney.conformance.scenarios import SCENARIOS
from chimney.conformance.steps import arrived, send
from chimney.conformance.world import World
from chimney.intermediate import Faults, FaultyDriver, Multiplexer, PassThrough, active_adapter
from chimney.link.memory import Clock
from chimney.ndis import UploadReason, bind
from chimney.ndis.handle import IDLE, OFFLOADED
from chimney.ndis.state import NeighborCached
from chimney.target import SoftTarget
from chimney.verifier import Verifier

SPARE_MAC = b"\x02\0\0\0\0\x03"


class TurnedWorld(World):
    """Its drivers, and targets beyond the first, have their turns."""

    def __init__(self, *arguments, **options):
        self.more_targets = []
        super().__init__(*arguments, **options)

    def poll(self):
        for _ in range(1000):
            super().poll()
            busy = sum(target.poll(self.clock()) for target in self.more_targets)
            for driver in self.drivers():
                if driver.pending:
                    driver.poll()
                    busy = True
            if not busy:
                return
        raise AssertionError("a driver finds work for ever")

    def next_at(self):
        return min([super().next_at(), *(target.poll_at() for target in self.more_targets)])

    def drivers(self):
        return [driver for side in getattr(self, "sides", ()) for driver in side.drivers]


def verified(drivers, world=TurnedWorld, **options):
    clock = Clock(1_000_000)
    verifier = Verifier(clock)
    return world(drivers, clock=clock, observer=verifier, delay_us=100, **options), verifier


def no_finding(verifier, world):
    verifier.finish()
    assert [str(violation) for violation in verifier.violations] == []
    assert [driver.call_entries for driver in world.drivers()] == [0] * len(world.drivers())


def troubled(seed, **faults):
    return [
        PassThrough,
        lambda name: FaultyDriver(name, Faults(seed=seed, delay=0.5, merge=0.5, split=0.5, **faults)),
        lambda name: PassThrough(name, records=True),
    ]


@pytest.mark.parametrize("name", sorted(name for name in SCENARIOS if "drivers" not in SCENARIOS[name].options))
def test_scenarios_do_not_notice_delays_merges_and_splits(name, monkeypatch):
    scenario = SCENARIOS[name]
    poll = World.poll

    def with_drivers(self):
        poll(self)
        for _ in range(1000):
            waiting = [driver for side in self.sides for driver in side.drivers if driver.pending]
            if not waiting:
                return
            for driver in waiting:
                driver.poll()
            poll(self)
        raise AssertionError("a driver finds work for ever")

    monkeypatch.setattr(World, "poll", with_drivers)
    clock = Clock(1_000_000)
    verifier = Verifier(clock)
    world = scenario.play(clock=clock, observer=verifier, drivers=troubled(name))
    verifier.finish()
    assert [str(violation) for violation in verifier.violations] == []
    assert not any(driver.call_entries for side in world.sides for driver in side.drivers)


def transfer(world, pairs, rounds, chance, meanwhile=lambda number: None):
    """Data both ways over connections that are offloaded again whenever they have come back."""
    ends = [end for pair in pairs for end in pair]
    for end in ends:
        end.reading = 3000

    def offload():
        for end in ends:
            if end.handle.phase == IDLE and not end.host.paused:
                if end.side.binding.parameters is None:
                    end.side.enable()
                # It may be refused within the call.
                end.host.initiate_offload(end.initiate_tree())

    for number in range(rounds):
        offload()
        meanwhile(number)
        for end in ends:
            if chance.random() < 0.7:
                send(end, *(chance.randrange(1, 2000) for _ in range(chance.randrange(1, 4))))
        world.run(duration=chance.randrange(0, 3000))
    for _ in range(200):
        if arrived(*ends):
            break
        offload()
        world.run(duration=20_000)
    assert arrived(*ends), [(len(end.received), len(end.peer.application)) for end in ends]


def test_shortages_refusals_and_uploads_lose_nothing():
    faults = {"out_of_memory": 0.01, "refuse": 0.1, "upload": 0.05, "reasons": tuple(UploadReason)}
    happened = Counter()
    for seed in range(6):
        world, verifier = verified(troubled(seed, **faults))
        transfer(world, [world.ends(1000), world.ends(2000)], 40, random.Random(seed))
        for driver in world.drivers():
            if isinstance(driver, FaultyDriver):
                driver.behave()
        world.close()
        no_finding(verifier, world)
        for driver in world.drivers():
            if isinstance(driver, FaultyDriver):
                triggers = driver.triggers
                happened.update({field.name: getattr(triggers, field.name).happened for field in fields(triggers)})
    assert len(+happened) == 6, f"not everything has happened: {happened}"


class TeamWorld(TurnedWorld):
    """Side 0 has a team of two targets at the bottom."""

    def __init__(self, drivers, choice=active_adapter, **options):
        self.choice = choice
        super().__init__([self.lowest, *drivers], **options)

    def lowest(self, name):
        if self.sides:
            return PassThrough(name)
        team = Multiplexer(name, choice=self.choice)
        spare = SoftTarget("spare target", self.watched(self.network.link("c", SPARE_MAC)), self.clock)
        self.more_targets.append(spare)
        bind(team.lowers[1], spare, self.observer, self.library)
        return team


@pytest.mark.parametrize("seed", range(3))
def test_a_team_fails_over_and_back_with_data_under_way(seed):
    above = [
        lambda name: FaultyDriver(name, Faults(seed=seed, delay=0.4, merge=0.4, split=0.4)),
        lambda name: PassThrough(name, records=True),
    ]
    world, verifier = verified(above, TeamWorld)
    pairs = [world.ends(1000), world.ends(2000, ipv6=True)]
    team = world.sides[0].drivers[0]
    switches = []

    def meanwhile(number):
        if number % 8 == 5:
            switches.append(team.lowers[1 - team.active.index])
            team.fail_over(switches[-1])
        mac = (MACS[0], SPARE_MAC)[team.active.index]
        for _, peer in pairs:
            # The interface of the team has another address now, and its peers have learnt it.
            if peer.neighbor_cached.dl_destination_address != mac:
                if peer.handle.phase == OFFLOADED:
                    peer.update_neighbor(mac)
                peer.neighbor_cached = NeighborCached(mac)

    transfer(world, pairs, 40, random.Random(seed), meanwhile)
    assert len(switches) == 5 and team.active is switches[-1]
    assert all(target.frames_out for target in (world.sides[0].target, *world.more_targets))
    world.close()
    no_finding(verifier, world)
