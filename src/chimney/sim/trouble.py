"""The steps that make trouble: a network that gets worse, drivers and targets that fail, processes that die.

What a driver or a target does on its own account it does in a turn of its process (`Stack.wake`): everything above the
link runs in that one thread. So such a step can be done at any time, even while the process waits for something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chimney.host.errors import NotOffloadable
from chimney.intermediate import (
    Bind,
    Faults,
    FaultyDriver,
    IntermediateDriver,
    Layers,
    OffloadEntry,
    PassThrough,
    UpperEdge,
)
from chimney.ndis.driver import Miniport
from chimney.ndis.state import MiniportOffloadBlockList
from chimney.ndis.status import UploadReason
from chimney.sim import case, garbage
from chimney.sim.coverage import event_of
from chimney.sim.surroundings import Surroundings
from chimney.target import SoftTarget

if TYPE_CHECKING:
    from chimney.sim.machine import Machine
    from chimney.sim.world import World

TROUBLE = (
    case.Change,
    case.Partition,
    case.Mtu,
    case.PathMtu,
    case.Neighbor,
    case.Route,
    case.Unplug,
    case.Garbage,
    case.Driver,
    case.Target,
    case.Withdraw,
    case.Die,
)
"""The steps that `Trouble.do` does."""

_LARGEST_MTU = 1500
# A target asks for an upload for these when that has happened, and a verifier knows whether it has.
_NEED_A_CAUSE = (UploadReason.RECEIVED_URGENT_DATA, UploadReason.TIMEOUT_EXPIRATION, UploadReason.INVALID_STATE)


class _Driver(FaultyDriver):
    """A driver that says what it does, and waits in silence while it holds everything back: its stack need not come
    round for it.
    """

    def __init__(self, name: str, faults: Faults, tell: Callable[[str], None]) -> None:
        super().__init__(name, faults)
        self._tell = tell
        self._slow = False
        # What it has not passed down yet.
        self._late: list[tuple[UpperEdge, MiniportOffloadBlockList]] = []

    @property
    def pending(self) -> int:
        return 0 if self.holding else len(self.kept)

    def allocate(self, what: str) -> bool:
        granted = super().allocate(what)
        if not granted:
            self._tell(f"{self.name}: no memory for a {what}")
        return granted

    def be_slow(self) -> None:
        """Keep initiates back on their way down, until `release`: to the target nothing has happened yet."""
        self._slow = True

    def release(self) -> None:
        super().release()
        self._slow = False
        late, self._late = self._late, []
        for upper, tree in late:
            self.on_state_request(upper, "initiate", tree)

    def on_state_request(self, upper: UpperEdge, operation: str, tree: MiniportOffloadBlockList) -> None:
        if self._slow and operation == "initiate":
            self._late.append((upper, tree))
            return
        refused = self.triggers.refuse.happened
        super().on_state_request(upper, operation, tree)
        if self.triggers.refuse.happened > refused:
            self._tell(f"{self.name}: refuses an {operation}")

    def upload(self, entry: OffloadEntry, reason: UploadReason) -> None:
        self._tell(f"{self.name}: asks for the upload, {reason.name}")
        super().upload(entry, reason)


class _RecordedLayers(Layers):
    """`Layers` that tell a machine what has been made for it."""

    def __init__(self, host: case.Host, machine: Machine) -> None:
        super().__init__(*[_maker(layer, machine) for layer in host.layers])
        self._machine = machine

    def __call__(self, device: str, below: Miniport, bind: Bind) -> Miniport:
        assert isinstance(below, SoftTarget)
        self._machine.target = below
        return super().__call__(device, below, bind)


def make_layers(host: case.Host, machine: Machine) -> Layers:
    """The intermediate drivers of a case's host, for `Stack`. When they are made, with the adapter, they are put into
    ``machine.drivers``, the top one first, and the target into ``machine.target``.
    """
    return _RecordedLayers(host, machine)


def _maker(layer: case.Layer, machine: Machine) -> Callable[[str], IntermediateDriver]:
    def make(name: str) -> IntermediateDriver:
        driver = PassThrough(name) if layer == case.Layer() else _faulty(name, layer, machine)
        # Layers are made from the lowest one up.
        machine.drivers.insert(0, driver)
        return driver

    return make


def _faulty(name: str, layer: case.Layer, machine: Machine) -> FaultyDriver:
    faults = Faults(
        seed=layer.seed,
        delay=layer.delay,
        longest=layer.longest,
        merge=layer.merge,
        split=layer.split,
        out_of_memory=layer.out_of_memory or 0.0,
        refuse=layer.refuse or 0.0,
        upload=layer.upload,
    )
    return _Driver(name, faults, lambda text: machine.world.note(machine.side, "drv", text))


class Trouble:
    """Does the steps that make trouble, in a world; `behave` ends it all."""

    def __init__(self, world: World) -> None:
        self.world = world
        # Drivers that have asked for a pause, or for everything back.
        self._paused: list[IntermediateDriver] = []
        self._mtu = {side: world.machines[side].nic.mtu for side in case.SIDES}
        if world.note_to is not None:
            world.network.happened = lambda side, what: world.note(side, "net", what)

    def do(self, step: case.Step) -> None:
        """Do one step of `TROUBLE`. Raises TypeError for others."""
        match step:
            case case.Change():
                self.world.network.change(step.network)
            case case.Partition():
                until = self.world.clock.now + step.lasts_us
                for side in case.SIDES if step.of == "both" else (step.of,):
                    self.world.network.partition(self.world.machines[side].nic, until)
            case case.Mtu():
                self.world.network.limit(step.mtu)
                for side in case.SIDES if step.of == "both" else (step.of,):
                    self._set_mtu(side, step.mtu)
            case case.PathMtu():
                self._limit(step)
            case case.Neighbor():
                self._surroundings(step.of).another_mac(step.moves_us, step.told_us)
            case case.Route():
                self._surroundings(step.of).another_route(step.gateway, step.known, step.old_works)
            case case.Unplug():
                self._surroundings(step.of).unplug(step.what, step.lasts_us)
            case case.Garbage():
                self._inject(step)
            case case.Driver():
                self._in_process(step.side, lambda: self._driver(step), visit=event_of(step))
            case case.Target():
                self._in_process(step.side, lambda: self._target(step), visit=event_of(step))
            case case.Withdraw():
                self._in_process(step.side, lambda: self._withdraw(step.side), adapter=False)
            case case.Die():
                self._die(step.side)
            case _:
                raise TypeError(f"{type(step).__name__} makes no trouble")

    def behave(self) -> None:
        """Everybody behaves from now on: the network, the drivers, the targets."""
        self.world.network.behave()
        for side in case.SIDES:
            self.world.machines[side].surroundings.behave()
            if self.world.machines[side].nic.mtu < self._mtu[side]:
                self._set_mtu(side, self._mtu[side])
            # Trouble may be on its way to a process that has been busy for long, and come before this.
            self._in_process(side, lambda side=side: self._behave(side), adapter=False)  # type: ignore[misc]

    def _set_mtu(self, side: case.Side, mtu: int) -> None:
        """The kernel knows at once, and there is news for the host. Until the target has learnt of it the link does not
        take its larger segments, which is as if they were lost.
        """
        self.world.machines[side].mtu_changed(mtu)

    def _limit(self, step: case.PathMtu) -> None:
        machines = self.world.machines

        def too_big(link: str, frame: bytes) -> None:
            for side in case.SIDES:
                if link == side:
                    machines[side].surroundings.too_big(frame, step.mtu, step.told_us, step.forgets_us)

        self.world.network.limit(step.mtu if step.mtu < _LARGEST_MTU else 0, too_big)

    def _surroundings(self, side: case.Side) -> Surroundings:
        """The way from one machine to the other; from now on it matters to whom frames are sent."""
        machines = self.world.machines

        def leads(link: str, mac: bytes) -> bool:
            return any(link == side and machines[side].surroundings.leads(mac) for side in case.SIDES)

        self.world.network.go_by(leads)
        return machines[side].surroundings

    def _inject(self, step: case.Garbage) -> None:
        frame = garbage.craft(self.world, step)
        if frame is None:
            return
        if garbage.is_deadly(step):
            self.world.breaks_off(step.to, f"has got a {step.kind} that it cannot tell from its peer's")
        if step.kind != "paws":
            # That one is a copy of the peer's, which may be taken.
            self.world.doors[step.to].inject(frame)
        self.world.network.inject(self.world.machines[step.to].nic, frame)

    def _die(self, side: case.Side) -> None:
        self.world.breaks_off(side, "has died")
        self.world.note(side, "die", "the process is gone")
        self.world.machines[side].die()

    # Within a process

    def _withdraw(self, side: case.Side) -> None:
        self.world.note(side, "drv", "the host takes the connection up")
        self.world.agreement.withdrawn(side)
        self.world.connections[side].withdraw("the simulator wants it so")

    def _in_process(self, side: case.Side, act: Callable[[], None], adapter: bool = True, visit: str = "") -> None:
        """Have something done in a turn of a side's process, if that has a stack; ``adapter``: its adapter is made if
        there is none yet.
        """
        stack = self.world.stacks.get(side)
        machine = self.world.machines[side]
        if stack is None or machine.dead:
            return

        def run() -> bool:
            if adapter and machine.target is None:
                try:
                    stack.adapter(machine.device)
                except NotOffloadable:
                    return False
            if visit:
                self.world.visit(side, visit)
            act()
            return False

        stack.wake(run)

    def _driver(self, step: case.Driver) -> None:
        drivers = self.world.machines[step.side].drivers
        if step.layer >= len(drivers):
            return
        driver = drivers[step.layer]
        self.world.note(step.side, "drv", f"{driver.name}: {step.what}")
        match step.what:
            case "hold":
                if isinstance(driver, FaultyDriver):
                    driver.hold()
            case "slow":
                if isinstance(driver, _Driver):
                    driver.be_slow()
            case "release":
                if isinstance(driver, FaultyDriver):
                    driver.release()
            case "upload":
                reason = UploadReason[step.reason]
                if driver.records or not reason.mandatory:
                    for entry in [entry for entry in driver.entries if entry.connection]:
                        driver.upload(entry, reason)
            case "pause":
                self._pauses(driver)
                driver.pause()
            case "upload-all":
                if driver.records:
                    self._pauses(driver)
                    driver.upload_all()
            case "resume":
                self._resume(step.side, driver)

    def _pauses(self, driver: IntermediateDriver) -> None:
        if driver not in self._paused:
            self._paused.append(driver)

    def _resume(self, side: case.Side, driver: IntermediateDriver) -> None:
        """A driver resumes, unless one below it has not: the host would take its word for theirs."""
        if driver not in self._paused:
            return
        self._paused.remove(driver)
        machine = self.world.machines[side]
        lower = machine.drivers[machine.drivers.index(driver) + 1 :]
        target = machine.target
        if (target is not None and (target.paused or target.uploading)) or any(one in self._paused for one in lower):
            driver.uploading = False
        else:
            driver.resume()

    def _target(self, step: case.Target) -> None:
        target = self.world.machines[step.side].target
        assert target is not None
        self.world.note(step.side, "drv", f"{target.name}: {step.what}")
        match step.what:
            case "pause":
                target.pause()
            case "upload-all":
                target.upload_all()
            case "resume":
                if target.paused or target.uploading:
                    target.resume()
            case "upload":
                reason = UploadReason[step.reason]
                for tcp in list(target.connections.values()):
                    if reason not in _NEED_A_CAUSE:
                        target.request_retrieve(tcp.flow, reason)
            case "update-failure":
                for tcp in target.connections.values():
                    target.fail_update(tcp.flow)
            case "hardware-failure" | "reset" | "dies":
                if step.what == "dies" and target.connections:
                    # Not one without a connection: whoever comes later would not know that this one is lost.
                    for tap in self.world.machines[step.side].taps:
                        tap.dies()
                self._lose_state(step.side, target, tell=step.what == "reset")
            case "short":
                target.allocate = _Shortage(step.of, step.nth)
            case "enough":
                target.allocate = None

    def _lose_state(self, side: case.Side, target: SoftTarget, tell: bool) -> None:
        """The state of all connections is lost. ``tell``: the target knows, and asks for their upload; otherwise it
        finds out when the host does.
        """
        for tcp in list(target.connections.values()):
            self.world.breaks_off(side, "has lost the state of its connection")
            target.fail_hardware(tcp.flow)
            if tell:
                target.request_retrieve(tcp.flow, UploadReason.HARDWARE_FAILURE)

    def _behave(self, side: case.Side) -> None:
        machine = self.world.machines[side]
        target = machine.target
        if target is None:
            return
        target.allocate = None
        if target.paused or target.uploading:
            target.resume()
        for driver in reversed(machine.drivers):
            if isinstance(driver, FaultyDriver):
                driver.behave()
            self._resume(side, driver)


class _Shortage:
    """`SoftTarget.allocate` when ``of`` has run out, from the ``nth`` time on that it is wanted."""

    def __init__(self, of: str, nth: int) -> None:
        self._of = of
        self._nth = nth
        self._wanted = 0

    def __call__(self, what: str) -> bool:
        if what != self._of:
            return True
        self._wanted += 1
        return self._wanted < self._nth
