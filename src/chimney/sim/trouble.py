"""The steps that make trouble: a network that gets worse, drivers and targets that fail, processes that die.

What a driver or a target does on its own account it does in a turn of its process (`Stack.wake`): everything above the
link runs in that one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chimney.intermediate import Bind, Faults, FaultyDriver, IntermediateDriver, Layers, PassThrough
from chimney.ndis.driver import Miniport
from chimney.ndis.status import UploadReason
from chimney.sim import case, garbage
from chimney.target import SoftTarget

if TYPE_CHECKING:
    from chimney.sim.machine import Machine
    from chimney.sim.world import World

TROUBLE = (case.Change, case.Partition, case.Mtu, case.Garbage, case.Driver, case.Target, case.Die)
"""The steps that `Trouble.do` does."""

_SIDES: tuple[case.Side, case.Side] = ("a", "b")
_LARGEST_MTU = 1500


class _Recorded(Layers):
    """`Layers` that tell a machine what has been made for it."""

    def __init__(self, host: case.Host, machine: Machine) -> None:
        super().__init__(*[_maker(layer, machine) for layer in host.layers])
        self.machine = machine

    def __call__(self, device: str, below: Miniport, bind: Bind) -> Miniport:
        assert isinstance(below, SoftTarget)
        self.machine.target = below
        return super().__call__(device, below, bind)


def make_layers(host: case.Host, machine: Machine) -> Layers:
    """The intermediate drivers of a case's host, for `Stack`. When they are made, with the adapter, they are put into
    ``machine.drivers``, the top one first, and the target into ``machine.target``.
    """
    return _Recorded(host, machine)


def _maker(layer: case.Layer, machine: Machine) -> Callable[[str], IntermediateDriver]:
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

    def make(name: str) -> IntermediateDriver:
        driver = PassThrough(name) if layer == case.Layer() else FaultyDriver(name, faults)
        # Layers are made from the lowest one up.
        machine.drivers.insert(0, driver)
        return driver

    return make


class Trouble:
    """Does the steps that make trouble, in a world; `behave` ends it all."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._paused: list[IntermediateDriver] = []

    def do(self, step: case.Step) -> None:
        """Do one step of `TROUBLE`."""
        match step:
            case case.Change():
                self.world.network.change(step.network)
            case case.Partition():
                self._partition(step)
            case case.Mtu():
                self._set_mtu(step.mtu)
            case case.Garbage():
                self._garbage(step)
            case case.Driver():
                self._in_process(step.side, lambda: self._driver(step))
            case case.Target():
                self._in_process(step.side, lambda: self._target(step))
            case case.Die():
                self._die(step.side)
            case _:
                raise TypeError(f"{type(step).__name__} makes no trouble")

    def behave(self) -> None:
        """Everybody behaves from now on: the network, the drivers, the targets."""
        self.world.network.behave()
        self._set_mtu(_LARGEST_MTU)
        for side in _SIDES:
            self._in_process(side, lambda side=side: self._let_go(side))  # type: ignore[misc]

    # The network

    def _partition(self, step: case.Partition) -> None:
        until = self.world.clock.now + step.lasts_us
        for side in _SIDES if step.of == "both" else (step.of,):
            self.world.network.partition(self.world.machines[side].nic, until)

    def _set_mtu(self, mtu: int) -> None:
        """Both kernels know at once; a target learns of it with the next path that it is offloaded to it. Until then
        the link refuses its larger segments, which is as if they were lost.
        """
        for side in _SIDES:
            machine = self.world.machines[side]
            if machine.nic.mtu != mtu:
                machine.nic.mtu = mtu
                machine.mtu_changed(mtu)

    def _garbage(self, step: case.Garbage) -> None:
        frame = garbage.craft(self.world, step)
        if frame is not None:
            self.world.doors[step.to].inject(frame)
            self.world.network.inject(self.world.machines[step.to].nic, frame)

    # The machines

    def _die(self, side: case.Side) -> None:
        self.world.breaks_off(side, "has died")
        self.world.machines[side].die()

    def _in_process(self, side: case.Side, act: Callable[[], None]) -> None:
        """Have something done in a turn of a side's process, if it has a stack."""
        stack = self.world.stacks.get(side)
        if stack is None or self.world.machines[side].dead:
            return

        def run() -> bool:
            act()
            return False

        stack.wake(run)

    def _driver(self, step: case.Driver) -> None:
        drivers = self.world.machines[step.side].drivers
        if step.layer >= len(drivers):
            return
        driver = drivers[step.layer]
        match step.what:
            case "hold":
                if isinstance(driver, FaultyDriver):
                    driver.hold()
            case "release":
                if isinstance(driver, FaultyDriver):
                    driver.release()
            case "upload":
                self._driver_uploads(step.side, driver, UploadReason[step.reason])
            case "pause":
                if driver not in self._paused:
                    self._paused.append(driver)
                    driver.pause()
            case "upload-all":
                if driver.records and not driver.uploading:
                    if driver not in self._paused:
                        self._paused.append(driver)
                    driver.upload_all()
            case "resume":
                self._resume(driver)

    def _resume(self, driver: IntermediateDriver) -> None:
        if driver in self._paused:
            self._paused.remove(driver)
            driver.resume()

    def _driver_uploads(self, side: case.Side, driver: IntermediateDriver, reason: UploadReason) -> None:
        """A driver asks for the connection's upload."""
        if reason.mandatory and not driver.records:
            return
        for entry in driver.entries:
            if entry.connection:
                driver.upload(entry, reason)

    def _target(self, step: case.Target) -> None:
        target = self.world.machines[step.side].target
        if target is None:
            return
        match step.what:
            case "pause":
                if not target.paused:
                    target.pause()
            case "resume":
                if target.paused or target.uploading:
                    target.resume()
            case "upload-all":
                if not target.uploading:
                    target.upload_all()
            case "upload":
                for tcp in list(target.connections.values()):
                    target.request_retrieve(tcp.flow, UploadReason[step.reason])
            case "hardware-failure" | "reset":
                self._lose_state(step.side, target, tell=step.what == "reset")
            case "update-failure":
                for tcp in target.connections.values():
                    target.fail_update(tcp.flow)
            case "short":
                target.allocate = _Shortage(step.of, step.nth)
            case "enough":
                target.allocate = None

    def _lose_state(self, side: case.Side, target: SoftTarget, tell: bool) -> None:
        """The state of all connections is lost; ``tell``: the target notices that itself, and asks for their upload."""
        for tcp in list(target.connections.values()):
            self.world.breaks_off(side, "has lost the state of its connection")
            target.fail_hardware(tcp.flow)
            if tell:
                target.request_retrieve(tcp.flow, UploadReason.HARDWARE_FAILURE)

    def _let_go(self, side: case.Side) -> None:
        machine = self.world.machines[side]
        for driver in machine.drivers:
            if isinstance(driver, FaultyDriver):
                driver.behave()
            self._resume(driver)
        if machine.target is not None:
            machine.target.allocate = None
            if machine.target.paused or machine.target.uploading:
                machine.target.resume()


class _Shortage:
    """`SoftTarget.allocate` when ``of`` has run out, from the ``nth`` time on that it is wanted."""

    def __init__(self, of: str, nth: int) -> None:
        self.of = of
        self.nth = nth
        self.wanted = 0

    def __call__(self, what: str) -> bool:
        if what != self.of:
            return True
        self.wanted += 1
        return self.wanted < self.nth
