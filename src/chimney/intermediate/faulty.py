"""A driver that makes trouble, within what is allowed: for tests of everything above and below it.

It keeps completions and events back, links and cuts lists, runs out of memory, refuses offloads and asks for uploads.
Everything follows from a seed, or from ordinals that a test writes down; nothing depends on time.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from itertools import islice

from chimney.intermediate.base import IntermediateDriver
from chimney.intermediate.edges import DISCONNECT, LowerEdge, OffloadEntry, UpperEdge
from chimney.intermediate.trees import ascend, descend, refuse
from chimney.ndis.buffers import NetBufferList, iterate, link
from chimney.ndis.state import MiniportOffloadBlockList, ProtocolOffloadBlockList, walk
from chimney.ndis.status import Status, UploadReason

When = float | Collection[int]
"""How often something happens: with this probability, or at these ordinals (the first is 1)."""

_EVENT = 0
_TREE = -1
_AT_ONCE = -1
# How many places at the front are dealt out at a time.
_MIXED = 32


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, and when. ``seed`` decides whatever is left to chance.

    delay          completions (data and state) and events that are kept back, for 1 to ``longest`` polls.
    merge, split   where completed lists are linked together, and cut, when they go up. Lists of different connections
                   may change places.
    out_of_memory  allocations of records that fail.
    refuse         initiates that fail with RESOURCES.
    upload         data requests after which the connection's upload is asked for, with one of ``reasons``.
    """

    seed: int = 0
    delay: When = 0.0
    longest: int = 3
    merge: When = 0.0
    split: When = 0.0
    out_of_memory: When = 0.0
    refuse: When = 0.0
    upload: When = 0.0
    reasons: tuple[UploadReason, ...] = (UploadReason.UPLOAD_REQUESTED,)


@dataclass(slots=True, eq=False)
class Kept:
    """Something that waits to go up: a request (``ends`` if it was the last of its list), an event, or a tree."""

    operation: int
    entries: Collection[object]
    nbl: NetBufferList | None = None
    ends: bool = True
    deliver: Callable[[], None] | None = None
    due: int = 0


class Trigger:
    """Says each time whether something happens, and counts how often it did."""

    def __init__(self, when: When, chance: random.Random) -> None:
        self.when = when
        self._chance = chance
        self.asked = 0
        self.happened = 0

    def __call__(self) -> bool:
        self.asked += 1
        if isinstance(self.when, Collection):
            happens = self.asked in self.when
        else:
            happens = self.when > 0 and self._chance.random() < self.when
        self.happened += happens
        return happens


@dataclass(slots=True)
class Triggers:
    """One for each kind of fault; ``happened`` of each tells how often it did."""

    delay: Trigger
    merge: Trigger
    split: Trigger
    out_of_memory: Trigger
    refuse: Trigger
    upload: Trigger


class FaultyDriver(IntermediateDriver):
    """A driver with one upper and one lower edge, and ``faults``.

    `poll` lets time pass: call it in every turn of the event loop. `hold` keeps everything back until `release`,
    however often it is polled. `pause`, `upload_all`, `resume` and `upload` speak to the driver above. What must not be
    overtaken is not: data that is indicated drives what is kept of its connection before it, and so does the end of
    an offload.
    """

    def __init__(self, name: str, faults: Faults | None = None) -> None:
        super().__init__(name, records=True)
        self.faults = faults or Faults()
        self._chance = random.Random(self.faults.seed)
        self.triggers = Triggers(
            *(
                Trigger(getattr(self.faults, kind), self._chance)
                for kind in ("delay", "merge", "split", "out_of_memory", "refuse", "upload")
            )
        )
        self.kept: deque[Kept] = deque()
        self.polls = 0
        self.holding = False
        self._delivering = False
        self._posted: deque[Callable[[], object]] = deque()

    # For the test

    @property
    def pending(self) -> int:
        """How much waits for the turns of `poll`; what is held waits for `release`."""
        return 0 if self.holding else len(self.kept)

    def poll(self) -> None:
        """Time passes: what has been kept long enough goes up."""
        self.polls += 1
        self._let_go()

    def hold(self) -> None:
        """Keep everything that comes up from now on."""
        self.holding = True

    def release(self) -> None:
        """Let everything go up that has been kept, and hold nothing any more."""
        self.holding = False
        for kept in self.kept:
            kept.due = _AT_ONCE
        self._let_go()

    def behave(self) -> None:
        """Make no trouble any more, and let everything go up: for the end of a test."""
        for kind in fields(self.triggers):
            getattr(self.triggers, kind.name).when = 0.0
        self.release()

    @property
    def connections(self) -> list[OffloadEntry]:
        """The entries of the connections that it knows, in the order in which they came."""
        return [entry for entry in self.entries if entry.connection]

    # Faults on the way down

    def allocate(self, what: str) -> bool:
        return not self.triggers.out_of_memory()

    def on_state_request(self, upper: UpperEdge, operation: str, tree: MiniportOffloadBlockList) -> None:
        if self._delivering:
            self._posted.append(lambda: self.on_state_request(upper, operation, tree))
        elif operation == "initiate" and self.triggers.refuse():
            refuse(self, upper, operation, tree)
        else:
            descend(self, upper, operation, tree)

    def on_request(self, entry: OffloadEntry, operation: int, net_buffer_list: NetBufferList, flags: int) -> int:
        if self._delivering:
            self._posted.append(lambda: self.on_request(entry, operation, net_buffer_list, flags))
            return Status.PENDING
        status = self.pass_down(entry, operation, net_buffer_list, flags)
        # The request may have brought the end of its own offload about.
        if self.triggers.upload() and entry in self.entries:
            self.upload(entry, self._chance.choice(self.faults.reasons))
        return status

    # Faults on the way up

    def on_completion(self, lower: LowerEdge, operation: int, net_buffer_list: NetBufferList) -> None:
        lists = []
        for nbl in iterate(net_buffer_list):
            entry = nbl.context.data if nbl.context is not None else None
            assert isinstance(entry, OffloadEntry)
            lists.append(Kept(operation, (entry,), nbl=nbl, ends=nbl.next is None))
        self._keep(*lists)

    def on_event(self, entry: OffloadEntry, event_type: int, information: int) -> None:
        self._keep(Kept(_EVENT, (entry,), deliver=lambda: self.indicate_event(entry, event_type, information)))

    def on_state_completion(self, lower: LowerEdge, operation: str, tree: ProtocolOffloadBlockList) -> None:
        handles = [block.offload_handle for block in walk(tree) if block.offload_handle is not None]
        entries = [handle.protocol_context for handle in handles]
        self._keep(Kept(_TREE, entries, deliver=lambda: ascend(self, lower, operation, tree)))

    def on_indication(self, entry: OffloadEntry, net_buffer_list: NetBufferList, status: int) -> tuple[int, int]:
        last = max((n for n, kept in enumerate(self.kept) if entry in kept.entries), default=-1)
        for kept in islice(self.kept, last + 1):
            kept.due = _AT_ONCE
        self._let_go()
        return self.indicate(entry, net_buffer_list, status)

    def _keep(self, *kept: Kept) -> None:
        """Put what comes up behind what is kept already; nothing overtakes."""
        delayed = self._chance.randint(1, self.faults.longest) if self.triggers.delay() else 0
        for one in kept:
            one.due = self.polls + delayed
            self.kept.append(one)
        self._let_go()

    def _let_go(self) -> None:
        """Pass up what is due, piece by piece. What is posted meanwhile from above is passed down between the pieces,
        as a target would do: the driver below does not know that a completion is being executed.
        """
        while not self._delivering and self.kept and self.kept[0].due <= (_AT_ONCE if self.holding else self.polls):
            self._delivering = True
            try:
                self._deliver_one()
            finally:
                self._delivering = False
            while self._posted and not self._delivering:
                self._posted.popleft()()

    def _deliver_one(self) -> None:
        """Pass up a tree, an event, or a list of requests: linked and cut as chance will have it, in order within each
        connection.
        """
        if self.faults.merge:
            self._mix()
        first = self.kept.popleft()
        if first.deliver is not None:
            first.deliver()
            return
        part = [first]
        while self.kept and self._goes_on(part[-1], self.kept[0]):
            part.append(self.kept.popleft())
        head = link(kept.nbl for kept in part if kept.nbl is not None)
        assert head is not None
        self.complete(first.operation, head)

    def _goes_on(self, last: Kept, following: Kept) -> bool:
        """Whether a list goes on with what follows."""
        limit = _AT_ONCE if self.holding else self.polls
        if following.operation != last.operation or last.operation == DISCONNECT or following.due > limit:
            return False
        return self.triggers.merge() if last.ends else not self.triggers.split()

    def _mix(self) -> None:
        """Deal the places at the front out anew; each connection keeps its order."""
        limit = _AT_ONCE if self.holding else self.polls
        front: list[Kept] = []
        while self.kept and self.kept[0].operation != _TREE and self.kept[0].due <= limit and len(front) < _MIXED:
            front.append(self.kept.popleft())
        owners = [next(iter(kept.entries)) for kept in front]
        queues: dict[object, deque[Kept]] = {}
        for owner, kept in zip(owners, front, strict=True):
            queues.setdefault(owner, deque()).append(kept)
        self._chance.shuffle(owners)
        self.kept.extendleft(reversed([queues[owner].popleft() for owner in owners]))
