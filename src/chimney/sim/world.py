"""Two machines, a network and a clock: whatever happens next, happens here, one event at a time.

An event is a frame that reaches a machine, a timer of a kernel, or a turn of a process. The steps of the script are
done at their moments, which may lie between any two events. A hand-over takes time: while a process is busy with one,
events go on for everybody else, from within `elapse` and `wait`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, NamedTuple, cast

from chimney.host.connection import Connection, Owner
from chimney.host.errors import NotOffloadable, UploadFailed
from chimney.link.base import NEVER
from chimney.link.memory import Clock, Tap
from chimney.sim.agreement import Agreement
from chimney.sim.application import Application, ChimneyApplication, KernelApplication
from chimney.sim.case import (
    SIDES,
    Abort,
    Case,
    Detach,
    Die,
    Driver,
    Nodelay,
    Offload,
    Read,
    Send,
    Shutdown,
    Side,
    Step,
    Target,
    Upload,
    Window,
    Withdraw,
)
from chimney.sim.coverage import cell_of, event_of
from chimney.sim.door import Door
from chimney.sim.invariants import Invariants
from chimney.sim.kernel import ProcessDied
from chimney.sim.machine import Machine
from chimney.sim.network import BadNetwork
from chimney.sim.outcome import Cell, Finding
from chimney.sim.promptness import Promptness
from chimney.sim.trouble import Trouble, make_layers
from chimney.stack import Stack, StackConfig
from chimney.verifier import Mode, Verifier

START = 1_000_000_000
"""When a run begins, in microseconds."""

# A run that takes more events than this goes round in circles.
_MANY_EVENTS = 20_000
# How long the last segments and their answers can be under way.
_LAST_WORDS_US = 3_000_000
_FINDINGS_KEPT = 20
# Drivers, targets and the host have their turns while a hand-over waits for them, and death does not wait.
_AT_ANY_TIME = (Driver, Target, Withdraw, Die)

Note = Callable[[int, int, str, str, str], None]
"""note(number of the event, time in microseconds since the start, side, kind, text)"""


class EndlessRun(Exception):
    """The run is given up: it does not come to an end."""


class World:
    """Everything of one run. `play` lets it happen.

    case      what decides it.
    note_to   called with every line of the log.
    tap       called with every wire segment (see `chimney.link.memory.Tap`).
    verify    whether the verifier runs along.
    """

    def __init__(
        self,
        case: Case,
        note_to: Note | None = None,
        tap: Tap | None = None,
        verify: bool = True,
    ) -> None:
        self.case = case
        self.clock = Clock(START)
        self.chance = Random(case.seed)
        self.note_to = note_to
        self.number = 0
        self.findings: list[Finding] = []
        self.cells: Counter[Cell] = Counter()
        self.broken_off: list[str] = []
        self.hand_overs = 0
        self.verifier = Verifier(self.clock, Mode.COUNT) if verify else None
        self.network = BadNetwork(self.clock, case.seed, case.network, tap)
        self.doors: dict[Side, Door] = {side: Door(side, self) for side in SIDES}
        self.machines: dict[Side, Machine] = {side: Machine(self, side, case.host(side)) for side in SIDES}
        self.connections: dict[Side, Connection] = {}
        self.stacks: dict[Side, Stack] = {}
        self.applications: dict[Side, Application] = {side: self._application(side) for side in SIDES}
        self.trouble = Trouble(self)
        self.invariants = Invariants(self)
        self.promptness = Promptness(self)
        self.agreement = Agreement(self)
        self._busy: dict[Side, int] = {"a": NEVER, "b": NEVER}
        self._wake: dict[Side, int] = {"a": NEVER, "b": NEVER}
        # Steps of the same moment keep their order.
        self._timed = deque(sorted((step for step in case.steps if step.at >= 0), key=lambda step: step.at))
        self._numbered = deque(sorted((step for step in case.steps if step.event), key=lambda step: step.event))
        self._due: deque[Step | _Behave] = deque()
        self._healed = False

    def _application(self, side: Side) -> Application:
        machine = self.machines[side]
        if machine.platform is None:
            return KernelApplication(self, side, machine.tcp)
        host = self.case.host(side)
        config = StackConfig(receive_window=host.receive_window, send_flight=host.send_flight)
        stack = Stack(make_layers(host, machine), config, verifier=self.verifier, platform=machine.platform)
        self.stacks[side] = stack
        self.connections[side] = stack.connection(cast(Any, machine.sock))
        return ChimneyApplication(self, side, self.connections[side])

    # What everybody tells

    @property
    def now(self) -> int:
        """Microseconds since the start."""
        return self.clock.now - START

    def note(self, side: str, kind: str, text: str) -> None:
        """A line for the log."""
        if self.note_to is not None:
            self.note_to(self.number, self.now, side, kind, text)

    def broken(self, kind: str, message: str) -> None:
        """An invariant does not hold."""
        self.note("-", "BAD", f"{kind}: {message}")
        if len(self.findings) < _FINDINGS_KEPT:
            self.findings.append(Finding(kind, message, self.number, self.now))

    def breaks_off(self, side: Side, why: str) -> None:
        """The connection may end before its streams do, and nobody is to blame."""
        self.broken_off.append(f"{side} {why}")

    def restored(self, side: Side) -> None:
        """The kernel of a side has its connection again, and has said nothing yet."""
        self.invariants.restored(side)

    def visit(self, side: Side, event: str) -> None:
        """Count where the connection of ``side`` was when ``event`` happened to it (`chimney.sim.coverage`)."""
        connection = self.connections.get(side)
        if connection is not None:
            self.cells[cell_of(self.machines[side], connection, event)] += 1

    def busy_since(self, side: Side) -> int:
        """Since when the process of a side has been doing something; NEVER if it has nothing to do."""
        return self._busy[side]

    # Time

    def play(self) -> None:
        """Let everything happen, to the end."""
        while not self._healed:
            self.step(NEVER)
        self._finish()
        self.invariants.at_end()

    def elapse(self, microseconds: int) -> None:
        """Time passes while a process is at work: everything else goes on."""
        until = self.clock.now + microseconds
        while self.step(until):
            pass
        self.clock.advance_to(max(until, self.clock.now))

    def wait(self, machine: Machine, until: int) -> None:
        """A process waits, until one of its descriptors is ready or its timer has expired, or until ``until``."""
        assert machine.platform is not None
        while not machine.platform.ready():
            if not self.step(until):
                if until >= NEVER:
                    raise EndlessRun(f"{machine.side} waits for something that never happens")
                self.clock.advance_to(max(until, self.clock.now))
                return

    def step(self, until: int) -> bool:
        """Do what is next, unless that is later than ``until`` on the clock; False: nothing is. For `play`, and for who
        drives a world from outside, one event at a time.
        """
        if self._do_steps():
            return True
        at, act = self._earliest()
        step = START + self._timed[0].at if self._timed else NEVER
        heal = self._heal_at()
        if min(at, step, heal) >= NEVER:
            return False
        if heal <= min(at, step):
            # What nobody can reach any more need not wait.
            if heal > until:
                return False
            self._heal(heal)
            return True
        if min(at, step) > until:
            return False
        if step <= at:
            self.clock.advance_to(max(step, self.clock.now))
            self._due.append(self._timed.popleft())
            return True
        self.clock.advance_to(max(at, self.clock.now))
        self._event(act)
        return True

    def _earliest(self) -> tuple[int, Callable[[], None]]:
        """The next event: when, and what."""
        at, act = NEVER, _nothing
        for side in SIDES:
            machine = self.machines[side]
            found = machine.next_at()
            if found < at:
                at, act = found, machine.softirq
        for side in SIDES:
            found = self._process_at(side)
            if found < at:
                at, act = found, partial(self._turn, side)
        return at, act

    def _process_at(self, side: Side) -> int:
        """When the process of a side runs next: some time after there is something for it to do."""
        if self._busy[side] < NEVER:
            return NEVER
        machine = self.machines[side]
        application = self.applications[side]
        if machine.platform is not None:
            ready = machine.process_at()
        else:
            assert isinstance(application, KernelApplication)
            ready = self.clock.now if application.wants else NEVER
        if ready > self.clock.now:
            self._wake[side] = NEVER
            return ready
        if self._wake[side] == NEVER:
            latency = self.case.host(side).latency_us
            self._wake[side] = self.clock.now + (self.chance.randint(0, latency) if latency else 0)
        return self._wake[side]

    def _event(self, act: Callable[[], None]) -> None:
        self.number += 1
        if self.number > _MANY_EVENTS:
            raise EndlessRun(f"after {self.number} events it is not over")
        act()
        self.invariants.after_event()
        self.promptness.after_event()
        self.agreement.after_event()
        while self._numbered and self._numbered[0].event <= self.number + 1:
            self._due.append(self._numbered.popleft())

    def _turn(self, side: Side) -> None:
        """A process has its turn."""
        self._wake[side] = NEVER
        application = self.applications[side]
        if isinstance(application, KernelApplication):
            self.busily(side, application.run)
            self.machines[side].flush()
            return
        self.busily(side, lambda: self.stacks[side].poll(0.0))

    def busily(self, side: Side, act: Callable[[], None]) -> None:
        """Have the process of a side do something, which may take its time; it does nothing else until that is done."""
        self._busy[side] = began = self.clock.now
        try:
            act()
        except ProcessDied:
            assert self.machines[side].dead
        finally:
            self.promptness.was_busy(side, took_time=self.clock.now > began)
            self._busy[side] = NEVER

    # The script

    def _do_steps(self) -> bool:
        """Do a step that is due, if its process is not busy; whether there was one."""
        for index, step in enumerate(self._due):
            side = getattr(step, "side", None)
            if side is None or self._busy[side] == NEVER or isinstance(step, _AT_ANY_TIME):
                del self._due[index]
                self._do(step)
                return True
        return False

    def _do(self, step: Step | _Behave) -> None:
        if self.note_to is not None:
            self.note(getattr(step, "side", "-"), "do", _said(step))
        side: Side | None = getattr(step, "side", None)
        if self._healed and not isinstance(step, Offload | Upload | _Behave):
            # It comes too late: everybody behaves.
            return
        if isinstance(step, Die):
            self.visit(step.side, event_of(step))
        if side is None or isinstance(step, _AT_ANY_TIME):
            assert not isinstance(step, _Behave)
            self.trouble.do(step)
        elif not self.machines[side].dead:
            self.busily(side, lambda: self._act(side, step))

    def _act(self, side: Side, step: Step | _Behave) -> None:
        """A step that the process of a side does."""
        if isinstance(step, Abort | Detach):
            self.agreement.decided(side)
        application, machine = self.applications[side], self.machines[side]
        match step:
            case Send():
                application.send(step.size)
            case Read():
                application.read(step.size, step.depth, step.push)
            case Shutdown():
                application.shutdown()
            case Abort():
                application.abort()
            case Detach():
                application.detach()
            case Window():
                self._resize(side, step.size)
            case _Behave():
                if machine.platform is None and any(isinstance(step, Window) for step in self.case.steps):
                    self._resize(side, self.case.host(side).receive_buffer)
                application.heal()
            case Nodelay():
                machine.set_nodelay(step.on)
            case Offload():
                self.offload(side)
            case Upload():
                self.upload(side)
            case _:
                raise TypeError(f"{type(step).__name__} is nothing that a process does")
        machine.flush()

    def _resize(self, side: Side, size: int) -> None:
        """The receive buffer of a kernel's socket has so many bytes from now on."""
        self.machines[side].tcp.resize(size)
        self.doors[side].takes_back()

    def offload(self, side: Side) -> None:
        """Down, if that is possible."""
        if self._owner(side) is not Owner.KERNEL:
            return
        self.visit(side, "offload")
        self.agreement.decided(side)
        try:
            self.connections[side].offload()
        except (NotOffloadable, UploadFailed) as refusal:
            self.note(side, "no", str(refusal))
        if self._owner(side) is Owner.TARGET:
            self._count_hand_over(side)

    def upload(self, side: Side) -> None:
        """Up, if it is down."""
        if self._owner(side) is Owner.KERNEL and self.stacks[side].withdrawals.find(self.connections[side]) is not None:
            # It is up already, and stays there from now on.
            self.agreement.decided(side, up=True)
            self.connections[side].upload()
        if self._owner(side) is not Owner.TARGET:
            return
        self.visit(side, "upload")
        self.agreement.decided(side, up=True)
        try:
            self.connections[side].upload()
        except UploadFailed as refusal:
            self.note(side, "no", str(refusal))
        if self._owner(side) is Owner.KERNEL:
            self._count_hand_over(side)

    def _owner(self, side: Side) -> Owner | None:
        """Who has the connection of a side; None if it has no chimney."""
        connection = self.connections.get(side)
        return None if connection is None else connection.owner

    def _count_hand_over(self, side: Side) -> None:
        self.hand_overs += 1
        self.note(side, "own", f"the {self.connections[side].owner.value} has it")

    # The end

    def _heal_at(self) -> int:
        """When everybody begins to behave."""
        if self._healed or self._timed:
            return NEVER
        last = max((step.at for step in self.case.steps if step.at >= 0), default=0)
        return START + last + self.case.grace_us

    def _heal(self, at: int) -> None:
        self.clock.advance_to(max(at, self.clock.now))
        self._healed = True
        self.note("-", "net", "from here on everybody behaves")
        self.network.behave()
        self.trouble.behave()
        # A process that is busy does it when it is done.
        self._due.extend(_Behave(side) for side in SIDES)

    def _finish(self) -> None:
        """Everything must come to its end; then the connections go back to their kernels, and the stacks close."""
        limit = self.clock.now + self.case.quiet_us
        while not self._finished() and self.step(limit):
            pass
        for side, application in self.applications.items():
            # Who has broken off may have done so with an RST that was lost: the other side then waits for ever.
            if not (application.finished or self.machines[side].dead or self.broken_off):
                self.broken("drain", f"{side} is not done {self.case.quiet_us / 1e6:g} s after everybody behaves")
        # The last words are still under way: nobody may answer them with an RST.
        self.elapse(_LAST_WORDS_US)
        for side, stack in self.stacks.items():
            if not self.machines[side].dead:
                self.busily(side, stack.close)
        self.elapse(_LAST_WORDS_US)

    def _finished(self) -> bool:
        return all(self.machines[side].dead or self.applications[side].finished for side in SIDES)


class _Behave(NamedTuple):
    """The application of a side brings its streams to their end."""

    side: Side


def _nothing() -> None:
    raise AssertionError("nothing is going to happen")


def _said(step: object) -> str:
    """A step as a line of the log has it."""
    if isinstance(step, _Behave):
        return "behave"
    words = [type(step).__name__.lower()]
    for name in step.__struct_fields__:  # type: ignore[attr-defined]
        if name not in ("at", "event", "side"):
            words.append(f"{name}={getattr(step, name)}")
    return " ".join(words)
