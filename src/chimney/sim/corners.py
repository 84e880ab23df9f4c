"""Cases for the corners: what is hardly ever drawn otherwise, since several unlikely things must come together.

Each leads a connection into some state, has a hand-over begin there that takes its time (a driver keeps its completion
back, or the kernel's steps are slow), and lets things happen meanwhile: what the peer may do, what the application may,
trouble with drivers and targets. In some, timers expire just when the hand-over begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Literal

from chimney.sim.case import (
    Abort,
    Case,
    Detach,
    Die,
    Driver,
    Garbage,
    Host,
    Layer,
    Network,
    Offload,
    Partition,
    Read,
    Send,
    Shutdown,
    Side,
    Step,
    Target,
    Upload,
)
from chimney.sim.draw import case_of, mixed
from chimney.sim.games import with_games
from chimney.sim.scripts import SMALL_BUFFER

EVERY = 6
"""One in so many cases is a corner."""

_GAMES = 6

_TIMER_US = 200_000
"""Timers of retransmissions and probes expire at about its multiples."""

# How likely things are.
_DOWN_AT_FIRST = 0.6  # that the target has the connection when the hand-over begins: then it is an upload
_SLOW_PEER = 0.35  # that the peer does not read at first, and has a small buffer
_AT_A_TIMER = 0.3
_SLOW_PEER_AT_A_TIMER = 0.7  # so that there are probes to be sent
_HELD_EARLY, _HELD_LATE = 0.4, 0.5  # that a driver keeps completions back from the start, or from the hand-over on
_SLOW = 0.4  # that a driver passes an initiate on late, while the peer sends
_CUT_OFF, _CUT_OFF_AT_A_TIMER = 0.25, 0.6  # that one side, or both, cannot be heard for a while
_BROKEN_BY_GARBAGE = 0.12  # that somebody's RST with the right number ends the connection, unknown to the peer
_FORGETFUL = 0.4  # that a driver has no memory at some moments
_UPLOAD_AFTERWARDS = 0.5
_READS_AT_LAST = 0.6  # that a slow peer begins to read in the hand-over

_DELAYS_US = (20, 200, 1000)
_GAPS_US = (0, 100, 1000, 20_000, 100_000, 400_000)
_LONG_GAPS_US = (0, 20_000, 400_000, 1_000_000, 5_000_000)
_LATENCIES_US = (0, 0, 200, 50_000)
_LONG_LATENCIES_US = (0, 50_000, 100_000)
_GRACES_US = (2_000, 20_000, 100_000, 600_000)
_LONG_GRACES_US = (100_000, 600_000, 3_000_000, 80_000_000)
_REORDERS_US = (1000, 50_000, 300_000)
_CUTS_US = (2_000, 50_000, 300_000, 1_000_000, 2_000_000)
_SIZES = (10, 500, 1460, 4000)
_FILLING = (500, 1000, 1460, 1460, 4000)  # that fill a small buffer
_SLOW_US = (1_000, 10_000, 50_000)
_SENDERS: tuple[tuple[Side, ...], ...] = ((), ("a",), ("b",), ("a", "b"), ("a", "b"))
_ENDINGS: tuple[tuple[Side, ...], ...] = ((), ("a",), ("b",), ("a", "b"), ("b", "a"), ("a", "b"), ("b", "a"))
_CUT_SIDES: tuple[Literal["a", "b", "both"], ...] = ("a", "b", "both")
_HARMLESS: tuple[Literal["old", "ack-old", "syn", "paws", "random"], ...] = ("old", "ack-old", "syn", "paws", "random")


def drawn(seed: int, index: int) -> Case:
    """Number ``index`` of the cases that ``seed`` stands for: mostly `chimney.sim.draw.case_of`, and some corners; some
    of both with changes of the network.
    """
    case = case_of(seed, index) if index % EVERY else corner(seed, index)
    return with_games(case, Random(mixed(mixed(seed, index), _GAMES)))


def corner(seed: int, index: int) -> Case:
    """Corner number ``index`` of those that ``seed`` stands for."""
    return _Corner(Random(mixed(seed, ~index))).case()


class _Corner:
    """A case in the making; ``now`` goes on as steps are added, in microseconds."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.delay = chance.choice(_DELAYS_US)
        self.round_trip = 2 * self.delay + 10
        self.down = chance.random() < _DOWN_AT_FIRST
        self.at_a_timer = chance.random() < _AT_A_TIMER
        self.slow_peer = chance.random() < (_SLOW_PEER_AT_A_TIMER if self.at_a_timer else _SLOW_PEER)
        self.now = 0
        self.steps: list[Step] = []

    def case(self) -> Case:
        """Everything together."""
        chance = self.chance
        self._opening()
        held = chance.random() < _HELD_EARLY
        if held:
            self._hold(chance.randint(1, 4 * self.delay))
        self._ending()
        self._hand_over(held)
        return Case(
            seed=chance.getrandbits(16),
            a=self._host(),
            b=Host(receive_buffer=SMALL_BUFFER if self.slow_peer else 65536, latency_us=chance.choice((0, 0, 200))),
            network=Network(
                delay_us=self.delay,
                duplicate=chance.choice((0.0, 0.0, 0.3, 1.0)),
                reorder=chance.choice((0.0, 0.0, 0.3)),
                reorder_us=chance.choice(_REORDERS_US),
                jitter_us=chance.choice((0, 500)),
            ),
            timestamps=chance.random() < 0.8,
            steps=tuple(_sensible(sorted(self.steps, key=lambda step: step.at))),
            grace_us=chance.choice(_LONG_GRACES_US if self.at_a_timer else _GRACES_US),
        )

    def _host(self) -> Host:
        chance = self.chance
        first = chance.randint(2, 10)
        shortage = tuple(range(first, first + chance.randint(1, 5))) if chance.random() < _FORGETFUL else ()
        return Host(
            chimney=True,
            # One that can keep things back, that it has not got memory for something among them.
            layers=(Layer(seed=1), Layer(seed=2, out_of_memory=shortage)) if shortage else (Layer(seed=1),),
            gap_us=chance.choice(_LONG_GAPS_US if self.at_a_timer else _GAPS_US),
            latency_us=chance.choice(_LONG_LATENCIES_US if self.at_a_timer else _LATENCIES_US),
            receive_buffer=chance.choice((65536, 65536, 4000)),
        )

    # Until the hand-over

    def _opening(self) -> None:
        """Both read, or do not yet, and send."""
        chance = self.chance
        self.steps += [
            Read(at=0, side="a", depth=chance.choice((0, 1, 2)), size=chance.choice((100, 4096))),
            Read(
                at=0, side="b", depth=0 if self.slow_peer else chance.choice((0, 1, 2)), size=chance.choice((100, 4096))
            ),
        ]
        if self.down:
            self.steps.append(Offload(at=0))
        sizes = _FILLING if self.slow_peer else _SIZES
        for side in chance.choice(_SENDERS):
            self.steps += [Send(at=0, side=side, size=chance.choice(sizes)) for _ in range(chance.randint(1, 3))]

    def _ending(self) -> None:
        """Streams end, one after the other or both at once: that decides the state."""
        chance = self.chance
        self.now = chance.randint(0, 3 * self.round_trip)
        for side in chance.choice(_ENDINGS):
            self.steps.append(Shutdown(at=self.now, side=side))
            self.now += chance.choice((0, self.delay // 2, self.round_trip, 3 * self.round_trip))
        if chance.random() < (_CUT_OFF_AT_A_TIMER if self.at_a_timer else _CUT_OFF):
            begins = chance.randint(max(0, self.now - 2 * self.round_trip), self.now)
            self.steps.append(Partition(at=begins, of=chance.choice(_CUT_SIDES), lasts_us=chance.choice(_CUTS_US)))
        if chance.random() < _BROKEN_BY_GARBAGE:
            self.steps.append(Garbage(at=self.now, to="a", kind="rst-blind", offset=-1))
            self.now += chance.choice((0, self.round_trip))

    # From the hand-over on

    def _hand_over(self, held: bool) -> None:
        chance = self.chance
        if self.at_a_timer:
            self.now += chance.randint(1, 7) * _TIMER_US + chance.randint(-60_000, 60_000)
        else:
            self.now += chance.choice((0, self.delay, self.round_trip, 45_000, _TIMER_US, 2 * _TIMER_US, 3 * _TIMER_US))
        self.now = max(0, self.now + chance.randint(-self.delay, self.delay))
        if not held and chance.random() < _HELD_LATE:
            held = True
            self._hold(self.now)
        for _ in range(chance.choice((0, 0, 1, 2))):
            self.steps.append(self._something(self.now))
        if not self.down and chance.random() < _SLOW:
            self._be_slow()
        self.steps.append(Upload(at=self.now) if self.down else Offload(at=self.now))
        for _ in range(chance.randint(0, 6)):
            self.steps.append(self._something(self._soon()))
        if self.slow_peer and chance.random() < _READS_AT_LAST:
            self.steps.append(Read(at=self._soon(), side="b", depth=2, size=chance.choice((100, 4096))))
        if chance.random() < _UPLOAD_AFTERWARDS:
            at = self._soon()
            if not held and chance.random() < _HELD_LATE:
                self._hold(at)
            self.steps.append(Upload(at=at))

    def _soon(self) -> int:
        """Some time in the hand-over, or soon after it."""
        chance, trip = self.chance, self.round_trip
        later = (0, trip // 2, trip, 2 * trip, 5 * trip, 45_000, _TIMER_US, 5 * _TIMER_US)
        return self.now + chance.choice(later) + chance.randint(0, trip)

    def _hold(self, at: int) -> None:
        self.steps.append(Driver(at=at, layer=0, what="hold"))

    def _be_slow(self) -> None:
        """A driver keeps the initiate for itself for a while: what comes meanwhile nobody knows what to do with but the
        host.
        """
        chance = self.chance
        lasts = chance.choice(_SLOW_US)
        self.steps.append(Driver(at=self.now, layer=0, what="slow"))
        self.steps += [
            Send(at=self.now + chance.randint(0, lasts), side="b", size=chance.choice(_SIZES))
            for _ in range(chance.randint(0, 3))
        ]
        self.steps.append(Driver(at=self.now + lasts, layer=0, what="release"))

    def _something(self, at: int) -> Step:
        """The peer, the application, a driver or the target does something."""
        return self.chance.choices((self._peer, self._application, self._trouble), (5, 2, 3))[0](at)

    def _peer(self, at: int) -> Step:
        chance = self.chance
        steps: tuple[Step, ...] = (
            Send(at=at, side="b", size=chance.choice(_SIZES)),
            Read(at=at, side="b", depth=chance.choice((0, 2, 2)), size=chance.choice((100, 4096))),
            Garbage(at=at, to="a", kind="rst-blind", offset=-1),
            Garbage(at=at, to="a", kind=chance.choice(_HARMLESS), offset=5),
            Shutdown(at=at, side="b"),
            Abort(at=at, side="b"),
            Detach(at=at, side="b"),
            Die(at=at, side="b"),
        )
        return chance.choices(steps, (6, 5, 3, 3, 2, 2, 1, 1))[0]

    def _application(self, at: int) -> Step:
        chance = self.chance
        steps: tuple[Step, ...] = (
            Send(at=at, side="a", size=chance.choice(_SIZES)),
            Read(at=at, side="a", depth=2, size=100),
            Shutdown(at=at, side="a"),
            Abort(at=at, side="a"),
            Detach(at=at, side="a"),
        )
        return chance.choice(steps)

    def _trouble(self, at: int) -> Step:
        chance = self.chance
        kind = chance.random()
        if kind < 0.12:
            return Die(at=at, side="a")
        if kind < 0.5:
            return Driver(at=at, layer=0, what=chance.choice(("hold", "upload", "pause", "resume", "upload-all")))
        what = chance.choice(
            (
                "pause",
                "resume",
                "upload-all",
                "upload",
                "hardware-failure",
                "update-failure",
                "reset",
                "dies",
                "short",
                "enough",
            )
        )
        of = "segment" if what == "short" else ""
        return Target(at=at, what=what, of=of)  # type: ignore[arg-type]  # each of them is one


def _sensible(steps: Iterable[Step]) -> Iterator[Step]:
    """Without what an application would do after its end, and would send or end after the end of its stream."""
    shut: set[Side] = set()
    gone: set[Side] = set()
    for step in steps:
        if isinstance(step, Send | Read | Shutdown | Abort | Detach):
            if step.side in gone or (step.side in shut and isinstance(step, Send | Shutdown)):
                continue
            if isinstance(step, Shutdown):
                shut.add(step.side)
            elif isinstance(step, Abort | Detach):
                gone.add(step.side)
        yield step
