"""Hand-overs everywhere: one case, run again and again with a hand-over between any two of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import msgspec

from chimney.sim.case import Case, Offload, Side, Step, Upload
from chimney.sim.outcome import Outcome

STAYS = (0, 1, 2, 3, 5, 8, 13)
"""How many events after one hand-over the next one follows, when two are put into one run."""

# Prime, so that what is far is spread over all that is there.
_STRIDE = 37


def sweep(case: Case, run: Callable[[Case], Outcome], side: Side = "a", stays: Sequence[int] = STAYS) -> Iterator[Case]:
    """Cases that differ from ``case`` in the hand-overs of ``side`` alone; its own ones are left out.

    For each event number n in turn: one that is offloaded at n; one that is offloaded at the first event and uploaded
    at n; and for each k of ``stays`` one that is offloaded at n and uploaded k events later, and one that is offloaded
    at the first event, uploaded at n and offloaded again k events later. One k more is larger than these, and another
    one for each n, so that in all the second point is anywhere. ``run`` is called twice, to learn how many events there
    are in the kernel alone and in the chimney alone.

    Raises ValueError if ``side`` has no chimney.
    """
    if not case.host(side).chimney:
        raise ValueError(f"{side} has no chimney: there is nothing to hand over")
    bare = msgspec.structs.replace(case, steps=_without_hand_overs(case, side))
    down = Offload(event=1, side=side)
    in_kernel = run(bare).events
    in_target = run(_with(bare, down)).events
    offloads = (
        _with(bare, Offload(event=n, side=side), *then)
        for n in range(1, in_kernel + 1)
        for then in ((), *((Upload(event=n + stay, side=side),) for stay in _stays(stays, n, in_kernel)))
    )
    uploads = (
        _with(bare, down, Upload(event=n, side=side), *then)
        for n in range(1, in_target + 1)
        for then in ((), *((Offload(event=n + stay, side=side),) for stay in _stays(stays, n, in_target)))
        # Those are among the offloads already.
        if then or n - 1 not in stays
    )
    return chain(offloads, uploads)


def _stays(near: Sequence[int], n: int, events: int) -> list[int]:
    """How long a connection stays that has moved at ``n``: the near ones, and one that ends anywhere until the end."""
    beyond = max(near, default=0) + 1
    far = events - n - beyond
    return [*near, beyond + n * _STRIDE % far] if far > 0 else [*near]


def _without_hand_overs(case: Case, side: Side) -> tuple[Step, ...]:
    return tuple(step for step in case.steps if not isinstance(step, Offload | Upload) or step.side != side)


def _with(case: Case, *hand_overs: Offload | Upload) -> Case:
    return msgspec.structs.replace(case, steps=(*case.steps, *hand_overs))
