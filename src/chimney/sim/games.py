"""Changes of the network around a connection, drawn beside its case: they come from a stream of chance of their own, so
that a case without any is what it was before there were such changes.

Next hops get other hardware addresses, with news that are early, late or missing; routes move to other gateways, path
MTUs shrink and grow, links and addresses go and come back, and the host takes a connection up for reasons of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from chimney.sim.case import (
    SIDES,
    Abort,
    Case,
    Detach,
    Neighbor,
    Offload,
    PathMtu,
    Route,
    Send,
    Shutdown,
    Side,
    Step,
    Unplug,
    Upload,
    Window,
    Withdraw,
)
from chimney.sim.scripts import pick
from chimney.sim.surroundings import GATEWAYS

PLAYED = 0.25
"""How many cases have such changes."""

# How likely things are.
_NEXT_TO_A_HAND_OVER = 0.6
_BY_EVENT = 0.5  # where the case has hand-overs at numbers of events
_FIRST_SIDE = 0.75  # that it happens to a, where b has a chimney, too
_PEER = 0.1  # that it happens to a b that is its kernel alone
_KNOWN, _OLD_WORKS = 0.7, 0.5
_WANTED_UP = 0.3  # that the application wants up what the host has taken up
_GROWS = 0.5  # that a path which has shrunk takes everything again
_SENDS_ON = 0.7  # that somebody sends after the change, who has not ended

_GAMES = ((1, 1), (2, 2), (1, 3), (1, 5))  # how many changes
_MTUS = {False: (576, 1000, 1400), True: (1280, 1400)}
_MOVES_US = (0, 0, 0, 200, 5_000)
_TOLD_US = (0, 0, 200, 2_000, 50_000, 1_000_000, -1)
_TOO_BIG_TOLD_US = (0, 200, 2_000, -1)
_FORGETS_US = (0, 0, 5_000, 300_000)
_UNPLUGGED_US = (100, 2_000, 20_000, 500_000, 2_000_000)
_LATER_US = (0, 100, 1_000, 10_000, 300_000, 2_000_000)
_GRACES_US = (20_000, 300_000, 3_000_000, 15_000_000)
_LONG_QUIET_US = 400_000_000
_SIZES = (1, 500, 1460, 4000, 9000)
_MOST_BYTES = 12_000


def with_games(case: Case, chance: Random) -> Case:
    """The case, in some draws with changes of the network."""
    if chance.random() >= PLAYED:
        return case
    steps: list[Step] = []
    for _ in range(pick(chance, _GAMES)):
        steps += pick(chance, _KINDS)(chance, case, _moment(chance, case))
    steps += _more_to_say(chance, case, max(step.at for step in steps))
    # What happens at the same moment stays in order.
    ordered = sorted((*case.steps, *steps), key=lambda step: (step.event, step.at))
    grace_us = max(case.grace_us, chance.choice(_GRACES_US))
    if any(isinstance(step, Window) for step in case.steps):
        # Through a window of a byte much goes in that time.
        grace_us = case.grace_us
    played = msgspec.structs.replace(case, steps=tuple(ordered), grace_us=grace_us, follows=True)
    if any(isinstance(step, Neighbor) and step.told_us < 0 for step in steps):
        # Who does nothing but acknowledge has no reason to doubt a next hop until it is stale, which takes half a
        # minute, and the peer's time-out may have become as long as two.
        played = msgspec.structs.replace(played, quiet_us=_LONG_QUIET_US)
    return played


Moment = dict[str, int]
"""A moment as a step has it: ``at`` or ``event``."""


def _moment(chance: Random, case: Case) -> Moment:
    """Next to a hand-over, or some time later than the first step."""
    moves = [step for step in case.steps if isinstance(step, Offload | Upload)]
    if moves and chance.random() < _NEXT_TO_A_HAND_OVER:
        move = chance.choice(moves)
        if move.event:
            return {"event": max(1, move.event + chance.randint(-2, 8))}
        return {"at": max(0, move.at + chance.randint(-1, 10) * case.network.delay_us // 2)}
    last = max((step.event for step in moves), default=0)
    if last and chance.random() < _BY_EVENT:
        return {"event": last + chance.randint(1, 30)}
    return {"at": max(0, chance.choice(case.steps).at) + chance.choice(_LATER_US) if case.steps else 0}


def _later(chance: Random, moment: Moment) -> Moment:
    """Some time after that."""
    if "event" in moment:
        return {"event": moment["event"] + chance.choice((1, 5, 20))}
    return {"at": moment["at"] + chance.choice(_LATER_US)}


def _side(chance: Random, case: Case) -> Side:
    return "b" if chance.random() >= (_FIRST_SIDE if case.b.chimney else 1 - _PEER) else "a"


def _another_mac(chance: Random, case: Case, when: Moment) -> list[Step]:
    moves_us, told_us = chance.choice(_MOVES_US), chance.choice(_TOLD_US)
    return [Neighbor(of=_side(chance, case), moves_us=moves_us, told_us=told_us, **when)]


def _another_route(chance: Random, case: Case, when: Moment) -> list[Step]:
    known, old_works = chance.random() < _KNOWN, chance.random() < _OLD_WORKS
    of, gateway = _side(chance, case), chance.randrange(GATEWAYS)
    return [Route(of=of, gateway=gateway, known=known, old_works=old_works, **when)]


def _path_mtu(chance: Random, case: Case, when: Moment) -> list[Step]:
    mtu, told_us = chance.choice(_MTUS[case.ipv6]), chance.choice(_TOO_BIG_TOLD_US)
    steps: list[Step] = [PathMtu(mtu=mtu, told_us=told_us, forgets_us=chance.choice(_FORGETS_US), **when)]
    if chance.random() < _GROWS:
        steps.append(PathMtu(**_later(chance, when)))
    return steps


def _unplug(chance: Random, case: Case, when: Moment) -> list[Step]:
    lasts_us = chance.choice(_UNPLUGGED_US)
    return [Unplug(of=_side(chance, case), what=chance.choice(("link", "address")), lasts_us=lasts_us, **when)]


def _withdraw(chance: Random, case: Case, when: Moment) -> list[Step]:
    side = _side(chance, case)
    side = side if case.host(side).chimney else "a"
    steps: list[Step] = [Withdraw(side=side, **when)]
    if chance.random() < _WANTED_UP:
        steps.append(Upload(side=side, **_later(chance, when)))
    return steps


_KINDS: tuple[tuple[int, Callable[[Random, Case, Moment], list[Step]]], ...] = (
    (4, _another_mac),
    (4, _another_route),
    (3, _path_mtu),
    (3, _unplug),
    (2, _withdraw),
)


def _more_to_say(chance: Random, case: Case, after: int) -> list[Step]:
    """Who has not ended may send when the network is another one."""
    left = _MOST_BYTES - sum(step.size for step in case.steps if isinstance(step, Send))
    steps: list[Step] = []
    for side in SIDES:
        ends = any(isinstance(step, Shutdown | Abort | Detach) and step.side == side for step in case.steps)
        if ends or chance.random() >= _SENDS_ON:
            continue
        at = max(0, after)
        for _ in range(chance.randint(1, 3)):
            size = chance.choice(_SIZES)
            at += chance.choice(_LATER_US)
            if size <= left:
                left -= size
                steps.append(Send(at=at, side=side, size=size))
    return steps
