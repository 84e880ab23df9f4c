"""Cases drawn from a seed: number ``index`` of the campaign ``seed`` is the same case everywhere and always.

Every ingredient is a small function, and how likely it is stands in a constant beside it. A quarter of the cases has
no vices at all, so that what goes wrong there goes wrong because of a hand-over; a quarter has a bad network, a quarter
has bad drivers and targets, and a quarter has everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple, get_args, get_type_hints

import msgspec

from chimney.ndis.status import UploadReason
from chimney.sim.case import (
    ALLOCATIONS,
    OTHER,
    SIDES,
    Case,
    Change,
    Die,
    Driver,
    Garbage,
    Host,
    Layer,
    Mtu,
    Network,
    Offload,
    Partition,
    Side,
    Step,
    Target,
    Upload,
    Window,
)
from chimney.sim.scripts import SMALL_BUFFER, Script, pick, script_of

_64_BITS = (1 << 64) - 1

# The wire. Most numbers are such that something happens in a short run: many segments, sequence numbers that wrap.
_IPV6 = 0.2
_TIMESTAMPS = 0.8
_SACK = 0.8
_SCALES = ((6, 7), (1, 0), (2, -1), (1, 14))
_MSS = ((4, 1460), (4, 536), (1, 1000), (1, 216))
_ISS_AT = ((4, 1 << 32), (2, 1 << 31), (2, 0))  # sequence numbers begin shortly before this; 0: anywhere
_DELAYS_US = ((6, 200), (2, 20), (2, 1000), (1, 5000))

# The machines
_SECOND_CHIMNEY = 0.3  # that b, too, has a chimney
_SMALL_BUFFERS = 0.2  # of one kind, where no script needs them
_NAGLE = 0.25
_YOUNG = 0.6  # that acknowledgements are not delayed at first
_PLAIN_LAYERS = ((7, 0), (2, 1), (1, 2))
_LATENCIES_US = ((4, 0), (3, 20), (2, 200), (1, 2000))
# A hand-over of some ten gaps: shorter than a round trip, or so long that timers expire in it.
_GAPS_US = ((2, 0), (2, 20), (4, 100), (3, 1000), (2, 20_000), (2, 200_000))
_GRACES_US = ((5, 20_000), (2, 2_000), (2, 600_000), (1, 15_000_000))

# Hand-overs: half of them at numbers of events, early ones more likely than late ones, half at what the script does.
_STAYS = ((1, 0), (8, 1), (6, 2), (2, 3), (1, 4))  # how often the connection is taken down
_BY_EVENT = 0.5
_DOWN_AT_ONCE = 0.4  # that it is offloaded before anything happens
_STAYS_DOWN = 0.35  # that it is not taken back: the target has it to the end
_TOGETHER = 0.5  # that both sides hand over at about the same events
_LAST_EVENT = 60
_APPLICATION_BY_EVENT = 0.25  # that what an application does follows the hand-overs, event by event

# A bad network
_LOSS, _BURST, _JITTER, _REORDER, _DUPLICATE, _CORRUPT, _NARROW = 0.3, 0.15, 0.3, 0.3, 0.4, 0.15, 0.1
_PARTITION, _CHANGE, _MTU, _GARBAGE = 0.3, 0.1, 0.1, 0.3
_TOLD_LATER = 0.5  # that the end which does not know of a new MTU is told of it some time
_WINDOW = 0.15  # that a peer takes back what it has offered
_GRO = 0.2  # in any network: a NIC may merge segments
_RATES = (0.02, 0.05, 0.1, 0.2, 0.4)
_DUPLICATE_RATES = (0.1, 0.5, 1.0)
_PARTITIONS_US = (100, 500, 2_000, 20_000, 250_000, 1_000_000)
_WINDOWS = (1, 100, 1000, 3000, 65536)
_MTUS = {False: (576, 1000, 1400), True: (1280, 1400)}

# Bad drivers and targets
_LAYERS = ((2, 1), (2, 2), (1, 3))
_FAULTY_LAYER = 0.7
_DELAY, _MERGE, _SPLIT, _OUT_OF_MEMORY, _REFUSE, _ASKS = 0.5, 0.3, 0.3, 0.3, 0.15, 0.2
_HOLD, _SLOW, _DRIVER_PAUSES, _DRIVER_UPLOADS = 0.6, 0.3, 0.1, 0.2
_TARGET_PAUSES, _TARGET_UPLOADS, _SHORT, _FAILURE, _DIE = 0.15, 0.25, 0.25, 0.15, 0.1
_DRIVER_RATES = (0.05, 0.2, 0.5, 1.0)

_REASONS = tuple(UploadReason.__members__)
# What a target must have met before it may say so.
_CAUSED = ("RECEIVED_URGENT_DATA", "TIMEOUT_EXPIRATION", "INVALID_STATE")
_TARGET_REASONS = tuple(reason for reason in _REASONS if reason not in _CAUSED)
Action = Literal["hold", "slow", "release", "upload", "pause", "resume", "upload-all"]
_KINDS = get_args(get_type_hints(Garbage)["kind"])


class When(NamedTuple):
    """A moment, as steps have it."""

    at: int = -1
    event: int = 0


@dataclass(slots=True)
class _Draft:
    """A case in the making. ``moments`` are those of the script and of the hand-overs, around which trouble is made."""

    chance: Random
    script: Script
    steps: list[Step]
    moments: list[When]

    def around(self) -> When:
        """Near a moment of interest: a bit before it, or soon after it."""
        return _near(self.chance, self.chance.choice(self.moments), self.script.delay_us)


def mixed(seed: int, index: int) -> int:
    """A number for (seed, index), the same on every machine: two rounds of splitmix64."""
    value = 0
    for part in (seed, index):
        value = (value + part + 0x9E3779B97F4A7C15) & _64_BITS
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _64_BITS
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _64_BITS
        value ^= value >> 31
    return value


def case_of(seed: int, index: int) -> Case:
    """Number ``index`` of the cases that ``seed`` stands for."""
    chance = Random(mixed(seed, index))
    bad_network, bad_drivers = chance.random() < 0.5, chance.random() < 0.5
    ipv6 = chance.random() < _IPV6
    mss = min(pick(chance, _MSS), 1440 if ipv6 else 1460)
    delay_us = pick(chance, _DELAYS_US)
    script = script_of(chance, mss, delay_us)
    hosts = {
        "a": _host(chance, script, "a", bad_drivers),
        "b": _host(chance, script, "b", bad_drivers) if chance.random() < _SECOND_CHIMNEY else _peer(chance, script),
    }
    draft = _Draft(chance, script, [], [When(at=at) for at in script.moments])
    chimneys = [side for side in SIDES if hosts[side].chimney]
    _hand_overs(draft, chimneys)
    network = Network(delay_us=delay_us, gro=chance.random() < _GRO)
    if bad_network:
        network = _bad_network(draft, network, ipv6, hosts["b"].chimney)
    if bad_drivers:
        for side in chimneys:
            _bad_drivers(draft, side, hosts[side].layers)
            _bad_target(draft, side)
    return Case(
        seed=chance.getrandbits(16),
        a=hosts["a"],
        b=hosts["b"],
        network=network,
        ipv6=ipv6,
        timestamps=chance.random() < _TIMESTAMPS,
        sack=chance.random() < _SACK,
        scale=_scale(chance, min(host.receive_buffer for host in hosts.values())),
        mss=mss,
        iss=(_iss(chance), _iss(chance)),
        steps=_ordered(script.steps + draft.steps),
        grace_us=pick(chance, _GRACES_US),
    )


def _ordered(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Those with a time first; what happens at the same moment stays in order."""
    return tuple(sorted(steps, key=lambda step: (step.event, step.at)))


def _scale(chance: Random, buffer: int) -> int:
    """A shift in which windows of so many bytes can be said."""
    scale = pick(chance, _SCALES)
    return scale if buffer >> max(scale, 0) else _SCALES[0][1]


def _iss(chance: Random) -> int:
    wraps_at = pick(chance, _ISS_AT)
    if not wraps_at:
        return chance.getrandbits(32)
    return (wraps_at - chance.choice((0, 1, 2, 500, 1500, 4000))) & 0xFFFFFFFF


# Machines


def _peer(chance: Random, script: Script) -> Host:
    """A machine that is its kernel alone."""
    return Host(
        latency_us=pick(chance, _LATENCIES_US),
        receive_buffer=SMALL_BUFFER if script.stalled == "b" else _buffer(chance),
        send_buffer=_buffer(chance),
        nodelay=chance.random() >= _NAGLE,
        young=chance.random() < _YOUNG,
    )


def _host(chance: Random, script: Script, side: Side, bad_drivers: bool) -> Host:
    """A machine with a chimney."""
    if bad_drivers:
        layers = tuple(_layer(chance) for _ in range(pick(chance, _LAYERS)))
    else:
        layers = (Layer(),) * pick(chance, _PLAIN_LAYERS)
    peer = _peer(chance, script)
    stalled = script.stalled == side
    return Host(
        chimney=True,
        layers=layers,
        latency_us=peer.latency_us,
        gap_us=pick(chance, _GAPS_US),
        receive_buffer=SMALL_BUFFER if stalled else peer.receive_buffer,
        send_buffer=peer.send_buffer,
        receive_window=SMALL_BUFFER if stalled else _buffer(chance),
        send_flight=_buffer(chance),
        nodelay=peer.nodelay,
        young=peer.young,
    )


def _buffer(chance: Random) -> int:
    return chance.choice((SMALL_BUFFER, 4096, 8192)) if chance.random() < _SMALL_BUFFERS else 65536


def _layer(chance: Random) -> Layer:
    """A driver that makes trouble, or a plain one."""
    if chance.random() >= _FAULTY_LAYER:
        return Layer()

    def rate(likely: float) -> float:
        return chance.choice(_DRIVER_RATES) if chance.random() < likely else 0.0

    return Layer(
        seed=chance.randint(1, 99),
        delay=rate(_DELAY),
        longest=chance.choice((1, 3, 10)),
        merge=rate(_MERGE),
        split=rate(_SPLIT),
        out_of_memory=_ordinals(chance) if chance.random() < _OUT_OF_MEMORY else (),
        refuse=(chance.randint(1, 2),) if chance.random() < _REFUSE else (),
        upload=chance.choice((0.02, 0.1)) if chance.random() < _ASKS else 0.0,
    )


def _ordinals(chance: Random) -> tuple[int, ...]:
    """Which ones fail: one of the first, or several in a row."""
    first = chance.randint(1, 20)
    return tuple(range(first, first + chance.choice((1, 1, 2, 5))))


# Hand-overs


def _hand_overs(draft: _Draft, sides: Sequence[Side]) -> None:
    """The hand-overs of both sides; what an application does may then be moved next to them."""
    chance = draft.chance
    earlier: list[When] = []
    for side in sides:
        if earlier and chance.random() < _TOGETHER:
            plan = [_near(chance, when, draft.script.delay_us) for when in earlier]
        elif chance.random() < _BY_EVENT:
            plan = _numbered(chance)
        else:
            plan = _timed(chance, draft.script)
        for down, when in enumerate(sorted(plan, key=lambda when: (when.event, when.at))):
            kind = Upload if down % 2 else Offload
            draft.steps.append(kind(at=when.at, event=when.event, side=side))
        earlier = plan
        draft.moments += plan
    events = [when.event for when in draft.moments if when.event]
    if events:
        for side in SIDES:
            if chance.random() < _APPLICATION_BY_EVENT:
                _count_instead(chance, draft.script, side, events)


def _moves(chance: Random) -> int:
    """How often the connection changes hands."""
    stays = pick(chance, _STAYS)
    return max(0, 2 * stays - (chance.random() < _STAYS_DOWN))


def _numbered(chance: Random) -> list[When]:
    """Hand-overs at numbers of events, many of them close together."""
    number = 1 if chance.random() < _DOWN_AT_ONCE else 1 + int(_LAST_EVENT * chance.random() ** 2)
    plan = []
    for _ in range(_moves(chance)):
        plan.append(When(event=number))
        number += chance.randint(0, 6) if chance.random() < 0.5 else chance.randint(1, 30)
    return plan


def _timed(chance: Random, script: Script) -> list[When]:
    """Hand-overs around what the script does."""
    plan = [_near(chance, When(at=chance.choice(script.moments)), script.delay_us) for _ in range(_moves(chance))]
    if plan and chance.random() < _DOWN_AT_ONCE:
        plan[0] = When(at=0)
    return plan


def _near(chance: Random, when: When, delay_us: int) -> When:
    """Around that moment: a little before it, or after it, rarely long after it."""
    if when.event:
        return When(event=max(1, when.event + chance.randint(-2, 5)))
    early = (2, -chance.randint(0, 2 * delay_us))
    soon = (5, chance.randint(0, 4 * delay_us))
    late = (2, chance.choice((5_000, 50_000, 300_000)))
    return When(at=max(0, when.at + pick(chance, (early, soon, late))))


def _count_instead(chance: Random, script: Script, side: Side, events: Sequence[int]) -> None:
    """What the application of a side does after the start happens at numbers of events, most of them near those of the
    hand-overs.
    """
    later = [n for n, step in enumerate(script.steps) if getattr(step, "side", None) == side and step.at > 0]
    numbers = sorted(max(1, chance.choice(events) + chance.randint(-10, 10)) for _ in later)
    for n, number in zip(later, numbers, strict=True):
        script.steps[n] = msgspec.structs.replace(script.steps[n], at=-1, event=number)


# Trouble


def _bad_network(draft: _Draft, network: Network, ipv6: bool, peer_has_chimney: bool) -> Network:
    """Vices of the network from the start, and what happens to it on the way; one vice at least."""
    chance, steps = draft.chance, draft.steps
    bad = _vices(chance, network)
    before = len(steps)
    if chance.random() < _PARTITION:
        for _ in range(chance.randint(1, 2)):
            when = draft.around()
            of: Literal["a", "b", "both"] = chance.choice(("a", "b", "both"))
            steps.append(Partition(at=when.at, event=when.event, of=of, lasts_us=chance.choice(_PARTITIONS_US)))
    if chance.random() < _CHANGE:
        when = draft.around()
        steps.append(Change(at=when.at, event=when.event, network=_vices(chance, network)))
    if chance.random() < _MTU:
        when = draft.around()
        _mtu(draft, when, chance.choice(_MTUS[ipv6]))
    if chance.random() < _WINDOW and not peer_has_chimney:
        for _ in range(chance.randint(1, 3)):
            when = draft.around()
            steps.append(Window(at=when.at, event=when.event, side="b", size=chance.choice(_WINDOWS)))
    if chance.random() < _GARBAGE:
        for _ in range(chance.randint(1, 4)):
            _garbage(draft)
    if bad == network and len(steps) == before:
        bad = msgspec.structs.replace(bad, loss=chance.choice(_RATES))
    return bad


def _mtu(draft: _Draft, when: When, mtu: int) -> None:
    """The path takes smaller packets; both ends know, or one does, and the other learns of it later, or never."""
    chance = draft.chance
    of: Literal["a", "b", "both"] = chance.choice(("a", "b", "both"))
    draft.steps.append(Mtu(at=when.at, event=when.event, mtu=mtu, of=of))
    if of != "both" and chance.random() < _TOLD_LATER:
        later = _later(chance, when)
        draft.steps.append(Mtu(at=later.at, event=later.event, mtu=mtu, of=OTHER[of]))


def _vices(chance: Random, network: Network) -> Network:
    def rate(likely: float) -> float:
        return chance.choice(_RATES) if chance.random() < likely else 0.0

    narrow = chance.random() < _NARROW
    return msgspec.structs.replace(
        network,
        loss=rate(_LOSS),
        burst=rate(_BURST) / 2,
        burst_length=chance.choice((2, 4, 8)),
        jitter_us=chance.choice((100, 1000)) if chance.random() < _JITTER else 0,
        reorder=rate(_REORDER),
        reorder_us=chance.choice((100, 1000, 5000)),
        duplicate=chance.choice(_DUPLICATE_RATES) if chance.random() < _DUPLICATE else 0.0,
        corrupt=rate(_CORRUPT),
        bandwidth=chance.choice((1_000_000, 10_000_000)) if narrow else 0,
        queue_bytes=chance.choice((0, 3000, 10_000)) if narrow else 0,
    )


def _garbage(draft: _Draft) -> None:
    chance = draft.chance
    when = draft.around()
    draft.steps.append(
        Garbage(
            at=when.at,
            event=when.event,
            to=pick(chance, ((3, SIDES[0]), (1, SIDES[1]))),
            kind=chance.choice(_KINDS),
            offset=chance.choice((0, 0, 1, 100, 1000)),
            amount=chance.choice((0, 1, 100, 1000)),
        )
    )


def _bad_drivers(draft: _Draft, side: Side, layers: Sequence[Layer]) -> None:
    """What drivers do at certain moments, besides their own faults: those that are no plain pass-through."""
    chance, steps = draft.chance, draft.steps
    able = [n for n, layer in enumerate(layers) if layer != Layer()]
    if not able:
        return
    if chance.random() < _HOLD:
        for start in pick(chance, _HOLDS)(draft, side):
            _driver(draft, start, side, chance.choice(able), "hold", "release")
    if chance.random() < _SLOW:
        for start in _before_hand_overs(draft, side):
            _driver(draft, start, side, chance.choice(able), "slow", "release")
    if chance.random() < _DRIVER_PAUSES:
        what: list[Action] = ["pause", "resume"] if chance.random() < 0.5 else ["pause", "upload-all", "resume"]
        _driver(draft, draft.around(), side, chance.choice(able), *what)
    if chance.random() < _DRIVER_UPLOADS:
        when, layer, reason = draft.around(), chance.choice(able), chance.choice(_REASONS)
        steps.append(Driver(at=when.at, event=when.event, side=side, layer=layer, what="upload", reason=reason))


def _before_hand_overs(draft: _Draft, side: Side) -> list[When]:
    """Right before hand-overs of a side, so that they are under way for long. Not before the first one: that makes the
    drivers.
    """
    moves = [step for step in draft.steps if isinstance(step, Offload | Upload) and step.side == side][1:]
    held = draft.chance.sample(moves, draft.chance.randint(1, len(moves))) if moves else []
    return [When(event=max(1, move.event - 1)) if move.event else When(at=max(0, move.at - 100)) for move in held]


def _before_the_end(draft: _Draft, side: Side) -> list[When]:
    """Before the script's last moment, so that the host does not learn for long that the connection has ended."""
    return [When(at=max(0, draft.script.moments[-1] - draft.chance.choice((0, 100, 1000))))]


def _some_time(draft: _Draft, side: Side) -> list[When]:
    return [draft.around()]


_HOLDS: tuple[tuple[int, Callable[[_Draft, Side], list[When]]], ...] = (
    (5, _before_hand_overs),
    (3, _before_the_end),
    (2, _some_time),
)


def _driver(draft: _Draft, start: When, side: Side, layer: int, *what: Action) -> None:
    """A driver does something, and some time later the last of it."""
    stop = _later(draft.chance, start)
    begin = (Driver(at=start.at, event=start.event, side=side, layer=layer, what=action) for action in what[:-1])
    # Before whatever else is done at that moment.
    draft.steps[:0] = begin
    draft.steps.append(Driver(at=stop.at, event=stop.event, side=side, layer=layer, what=what[-1]))


def _later(chance: Random, when: When) -> When:
    """When that ends which begins then."""
    if when.event:
        return When(event=when.event + chance.choice((1, 3, 10, 30)))
    return When(at=when.at + chance.choice((100, 1000, 10_000, 100_000)))


def _bad_target(draft: _Draft, side: Side) -> None:
    """What a target does at certain moments, or the process around it."""
    chance, steps = draft.chance, draft.steps
    if chance.random() < _TARGET_PAUSES:
        start = draft.around()
        stop = _later(chance, start)
        steps.append(Target(at=start.at, event=start.event, side=side, what="pause"))
        if chance.random() < 0.6:
            steps.append(Target(at=start.at, event=start.event, side=side, what="upload-all"))
        steps.append(Target(at=stop.at, event=stop.event, side=side, what="resume"))
    if chance.random() < _TARGET_UPLOADS:
        when, reason = draft.around(), chance.choice(_TARGET_REASONS)
        steps.append(Target(at=when.at, event=when.event, side=side, what="upload", reason=reason))
    if chance.random() < _SHORT:
        start = draft.around()
        stop = _later(chance, start)
        of, nth = chance.choice(ALLOCATIONS), chance.choice((1, 1, 2, 5))
        steps.append(Target(at=start.at, event=start.event, side=side, what="short", of=of, nth=nth))
        steps.append(Target(at=stop.at, event=stop.event, side=side, what="enough"))
    if chance.random() < _FAILURE:
        when = draft.around()
        what: Literal["hardware-failure", "update-failure", "reset", "dies"] = chance.choice(
            ("hardware-failure", "update-failure", "reset", "dies")
        )
        steps.append(Target(at=when.at, event=when.event, side=side, what=what))
    if chance.random() < _DIE:
        when = draft.around()
        steps.append(Die(at=when.at, event=when.event, side=side))
