"""A failing case made small, so that people can read it: fewer steps, fewer vices, rounder numbers.

Each simplification is tried by a run, and kept if the run still fails. The large ones come first: whole kinds of
trouble, the second chimney, halves of the script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from chimney.sim.case import (
    SIDES,
    Abort,
    Case,
    Change,
    Detach,
    Die,
    Driver,
    Garbage,
    Host,
    Layer,
    Mtu,
    Neighbor,
    Network,
    Nodelay,
    Offload,
    Partition,
    PathMtu,
    Read,
    Route,
    Send,
    Shutdown,
    Side,
    Step,
    Target,
    Unplug,
    Upload,
    Window,
    Withdraw,
)

LIMIT = 400
"""How many runs are spent on a case."""

_SURROUNDINGS = (PathMtu, Neighbor, Route, Unplug)
_NETWORK = (Change, Partition, Mtu, Garbage, Window, *_SURROUNDINGS)
_KINDS: tuple[tuple[type, ...], ...] = (
    _NETWORK,
    (Driver, Target, Die),
    _SURROUNDINGS,
    (Withdraw,),
    (Garbage,),
    (Driver,),
    (Target,),
    (Upload,),
    (Abort, Detach),
    (Nodelay, Shutdown),
    (Read,),
    (Send,),
)
# Fields that say what a step or a host is; and the times, whose order must stay.
_KEPT = frozenset({"why", "quiet_us", "chimney", "side", "to", "of", "kind", "what", "at", "event", "steps", "mtu"})
_LEAST = {"size": 1, "mss": 100, "longest": 1, "nth": 1, "burst_length": 1, "reorder_us": 1, "lasts_us": 1}
_LEAST |= dict.fromkeys(("receive_buffer", "send_buffer", "receive_window", "send_flight"), 1000)
_LARGEST_MSS_IPV6 = 1440
# With reads of single bytes a run takes seconds.
_SHORTEST_READ = 100
# When little is left, a step is taken out together with the events that it has caused, or with another seed.
_FEW_STEPS = 12
_EARLIER = (1, 2, 3, 4, 6)
_SEEDS = (0, 1, 2, 3)


class _Enough(Exception):
    """No more runs."""


class _Search:
    """The simplest failing case so far, and what has been tried."""

    def __init__(self, case: Case, fails: Callable[[Case], bool], limit: int) -> None:
        self.best = case
        self._fails = fails
        self._left = limit
        self._tried = {case}

    def tries(self, case: Case) -> bool:
        """Whether ``case`` fails, too; it is the best one then. Raises _Enough."""
        if case in self._tried or not _sensible(case):
            return False
        if not self._left:
            raise _Enough
        self._left -= 1
        self._tried.add(case)
        if not self._fails(case):
            return False
        self.best = case
        return True


def shrink(case: Case, fails: Callable[[Case], bool], limit: int = LIMIT) -> Case:
    """The simplest case that was found for which ``fails`` is true, as it is for ``case``; ``fails`` is called at most
    ``limit`` times. The same arguments give the same case.
    """
    search = _Search(case, fails, limit)
    try:
        # Cases are written in the order of time, which is that in which they are carried out.
        search.tries(_with_steps(case, sorted(case.steps, key=lambda step: (step.event, step.at))))
        before = None
        while before != search.best:
            before = search.best
            for simplify in (_drop_kinds, _drop_parts, _drop_steps, _simplify_fields, _move_together, _round_times):
                simplify(search)
            if search.best == before and len(before.steps) <= _FEW_STEPS:
                _drop_with_consequences(search)
    except _Enough:
        pass
    return search.best


def _sensible(case: Case) -> bool:
    """Whether simpler numbers still make sense together."""
    if case.ipv6 and case.mss > _LARGEST_MSS_IPV6:
        return False
    # A window that is smaller than its unit cannot be said.
    if min(case.a.receive_buffer, case.b.receive_buffer) >> max(case.scale, 0) == 0:
        return False
    drivers = (case.host(step.side).layers[step.layer] for step in case.steps if isinstance(step, Driver))
    # A plain driver can do nothing of its own.
    return all(layer != Layer() for layer in drivers)


# Fewer things


def _with_steps(case: Case, steps: Any) -> Case:
    return msgspec.structs.replace(case, steps=tuple(steps))


def _drop_kinds(search: _Search) -> None:
    """Without any steps of some kinds."""
    for kinds in _KINDS:
        search.tries(_with_steps(search.best, (step for step in search.best.steps if not isinstance(step, kinds))))


def _drop_parts(search: _Search) -> None:
    """With a network, a peer, a host or drivers as simple as can be."""
    search.tries(msgspec.structs.replace(search.best, network=Network()))
    search.tries(_without_second_chimney(search.best, Host()))
    search.tries(_without_second_chimney(search.best, msgspec.structs.replace(search.best.b, chimney=False, layers=())))
    for side in SIDES:
        host = search.best.host(side)
        search.tries(_with_host(search.best, side, Host(chimney=host.chimney, layers=host.layers)))
        for layer in reversed(range(len(host.layers))):
            search.tries(_without_layer(search.best, side, layer))


def _with_host(case: Case, side: Side, host: Host) -> Case:
    return msgspec.structs.replace(case, **{side: host})


def _without_second_chimney(case: Case, peer: Host) -> Case:
    kept = (
        step
        for step in case.steps
        if not (isinstance(step, Offload | Upload | Withdraw | Driver | Target) and step.side == "b")
    )
    return _with_host(_with_steps(case, kept), "b", peer)


def _without_layer(case: Case, side: Side, layer: int) -> Case:
    """Without a driver, and without what it does at certain moments."""
    steps: list[Step] = []
    for step in case.steps:
        if isinstance(step, Driver) and step.side == side and step.layer >= layer:
            if step.layer == layer:
                continue
            step = msgspec.structs.replace(step, layer=step.layer - 1)
        steps.append(step)
    host = case.host(side)
    layers = host.layers[:layer] + host.layers[layer + 1 :]
    return _with_host(_with_steps(case, steps), side, msgspec.structs.replace(host, layers=layers))


def _drop_steps(search: _Search) -> None:
    """Without a half of the steps, a quarter, ... a single one: from the end, for what is late matters least."""
    size = max(1, len(search.best.steps) // 2)
    while True:
        end = len(search.best.steps)
        while end > 0:
            steps = search.best.steps
            search.tries(_with_steps(search.best, steps[: max(0, end - size)] + steps[end:]))
            end -= size
        if size == 1:
            return
        size //= 2


def _drop_with_consequences(search: _Search) -> None:
    """Without a step, where that leaves fewer events before a moment that is given by its number, or where chance takes
    another course.
    """
    for index in reversed(range(len(search.best.steps))):
        steps = search.best.steps
        without = _with_steps(search.best, steps[:index] + steps[index + 1 :])
        earlier = (_earlier(without, events) for events in _EARLIER)
        reseeded = (msgspec.structs.replace(without, seed=seed) for seed in _SEEDS)
        any(search.tries(case) for case in (*earlier, *reseeded))


def _earlier(case: Case, events: int) -> Case:
    """With all numbered moments so many events earlier."""
    return _with_steps(
        case,
        (
            msgspec.structs.replace(step, event=max(1, step.event - events)) if step.event else step
            for step in case.steps
        ),
    )


# Simpler numbers


def _simplify_fields(search: _Search) -> None:
    """Each field at its default, or with a simpler value."""
    for path in list(_paths(search.best)):
        while any(search.tries(_put(search.best, path, value)) for value in _simpler_values(search.best, path)):
            pass


def _paths(value: Any) -> Iterator[tuple[str | int, ...]]:
    """The ways to all fields that have no fields themselves."""
    inner: Iterator[tuple[str | int, Any]]
    if isinstance(value, msgspec.Struct):
        inner = (
            (name, getattr(value, name)) for name in value.__struct_fields__ if name not in _KEPT or name == "steps"
        )
    elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
        inner = iter(enumerate(value))
    else:
        yield ()
        return
    for key, part in inner:
        for path in _paths(part):
            yield key, *path


def _get(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = getattr(value, key) if isinstance(key, str) else value[key]
    return value


def _put(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """``value`` with something else at the end of ``path``."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(key, str):
        return msgspec.structs.replace(value, **{key: _put(getattr(value, key), rest, new)})
    return value[:key] + (_put(value[key], rest, new),) + value[key + 1 :]


def _simpler_values(case: Case, path: tuple[str | int, ...]) -> Iterator[Any]:
    """What a field could have instead, the simplest first; the default is always simplest."""
    owner, name = _get(case, path[:-1]), path[-1]
    assert isinstance(name, str)
    value = getattr(owner, name)
    default = next(field.default for field in msgspec.structs.fields(owner) if field.name == name)
    if value == default:
        return
    if default is not msgspec.NODEFAULT:
        yield default
    if name == "seed":
        yield from (seed for seed in _SEEDS if seed < value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from _simpler(
            value, _SHORTEST_READ if isinstance(owner, Read) and name == "size" else _LEAST.get(name, 0)
        )
    elif isinstance(value, tuple) and value and isinstance(default, tuple):
        yield from _simpler_tuples(value, default)


def _simpler_tuples(value: tuple[int, ...], default: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Shorter ones, if the length is free; otherwise with one element as the default has it."""
    for index, element in enumerate(value):
        if not default:
            yield value[:index] + value[index + 1 :]
        elif element != default[index]:
            yield value[:index] + default[index : index + 1] + value[index + 1 :]


def _simpler(value: int, least: int = 0) -> list[int]:
    """Numbers with fewer digits before the zeros than ``value`` has, or smaller ones with as many."""
    if value <= least:
        return []
    rounded = [_rounded(part, 1) for part in (value // 8, value // 4, value // 2, value)]
    one_digit = 10 ** (len(str(abs(value))) - 1)
    candidates = [least, *rounded, rounded[-1] + one_digit, value - one_digit, _rounded(value, 2)]
    return [number for number in dict.fromkeys(candidates) if number >= least and _weight(number) < _weight(value)]


def _rounded(value: int, digits: int) -> int:
    unit = int(10 ** max(0, len(str(abs(value))) - digits))
    return value // unit * unit


def _weight(value: int) -> tuple[int, int]:
    """How hard a number is to read."""
    return len(str(abs(value)).rstrip("0")), abs(value)


# Earlier, closer together, rounder


def _move_together(search: _Search) -> None:
    """Less time, and fewer events, between one step and the next; whatever follows moves along."""
    for index, step in enumerate(search.best.steps):
        closer = _closer_in_time if step.at >= 0 else _closer_in_events
        while any(search.tries(case) for case in closer(search.best, index)):
            pass


def _closer_in_time(case: Case, index: int) -> Iterator[Case]:
    """``case`` with the step at ``index`` closer to what is before, unless its time becomes harder to read."""
    at = case.steps[index].at
    before = max((step.at for step in case.steps[:index]), default=0)
    for gap in _simpler(at - before):
        if before + gap < at and _weight(before + gap) <= _weight(at):
            yield _with_steps(case, _moved(case.steps, index, "at", before + gap - at))


def _closer_in_events(case: Case, index: int) -> Iterator[Case]:
    event = case.steps[index].event
    before = max((step.event for step in case.steps[:index] if step.event), default=1)
    gap = event - before
    for fewer in (0, gap // 4, gap // 2, gap - 2, gap - 1):
        if 0 <= fewer < gap:
            yield _with_steps(case, _moved(case.steps, index, "event", fewer - gap))


def _moved(steps: tuple[Step, ...], index: int, clock: Literal["at", "event"], by: int) -> Iterator[Step]:
    """The steps, that at ``index`` and all that follow by so much later."""
    least = 0 if clock == "at" else 1
    for number, step in enumerate(steps):
        moment = getattr(step, clock)
        moves = number >= index and moment >= least
        yield msgspec.structs.replace(step, **{clock: moment + by}) if moves else step


def _round_times(search: _Search) -> None:
    """Rounder times, in the order that they have; if one is later than it was, all that follow are."""
    for index in range(len(search.best.steps)):
        steps = search.best.steps
        at = steps[index].at
        least = max((step.at for step in steps[:index]), default=0)
        for new in _simpler(at, least):
            if new > at:
                candidate = _with_steps(search.best, _moved(steps, index, "at", new - at))
            else:
                candidate = _put(search.best, ("steps", index, "at"), new)
            if search.tries(candidate):
                break
