"""What a real `Stack` stands on inside a simulation: the machine's clock, its NIC, its kernel, and waiting in virtual
time.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from chimney.host.errors import ChimneyError
from chimney.host.icmp_watch import IcmpWatch
from chimney.host.linux.dump import TcpState
from chimney.host.linux.kernel_side import WaitFor
from chimney.host.listener import Listener
from chimney.host.network import NetworkWatch
from chimney.host.services import Services
from chimney.link.base import NEVER, Link, LinkError
from chimney.sim.case import follows
from chimney.sim.icmp import SimIcmp
from chimney.sim.kernel import ProcessDied, SimSocket
from chimney.sim.kernel_side import SimKernelSide
from chimney.sim.surroundings import SimKernelNetwork
from chimney.sim.tap import TapLink

if TYPE_CHECKING:
    from chimney.sim.machine import Machine

_SECOND_US = 1_000_000


class SimPlatform:
    """A `chimney.platform.Platform` on a `Machine`. Descriptors are level-triggered."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.clock = machine.clock
        self._descriptor = machine.descriptor()
        self._sides: dict[int, SimKernelSide] = {}
        self._links: dict[int, TapLink] = {}
        self._networks: dict[int, SimKernelNetwork | SimIcmp] = {}
        # Descriptor -> (readable, writable), in the order in which they were asked for.
        self._interest: dict[int, tuple[bool, bool]] = {}
        self._armed = NEVER

    def room(self) -> tuple[int, int]:
        return self._machine.receive_room, self._machine.send_room

    def open_link(self, device: str) -> Link:
        machine = self._machine
        if device != machine.device:
            raise LinkError(errno.ENODEV, f"{device}: there is no such network interface here")
        machine.gap()
        link = TapLink(machine, machine.descriptor())
        machine.taps.append(link)
        self._links[link.fileno()] = link
        return link

    def kernel_side(self, sock: Any, receive_window: int, wait_for: WaitFor) -> SimKernelSide:
        if not isinstance(sock, SimSocket) or sock.fileno() < 0 or sock.tcp is None or sock.tcp.state is TcpState.CLOSE:
            raise ChimneyError(f"{sock!r} is no connected socket of a simulated machine")
        side = SimKernelSide(self._machine, sock, receive_window, wait_for)
        self._sides[side.fileno()] = side
        return side

    def listeners(self, services: Services) -> list[Listener]:
        if not follows(self._machine.world.case):
            return []
        network = SimKernelNetwork(self._machine)
        self._networks[network.fileno()] = network
        icmp = SimIcmp(self._machine)
        self._networks[icmp.fileno()] = icmp
        watch = NetworkWatch(services, network)
        return [watch, IcmpWatch(services, icmp, watch)]

    def fileno(self) -> int:
        return self._descriptor

    def interest(self, fd: int, readable: bool, writable: bool) -> None:
        if readable or writable:
            self._interest[fd] = readable, writable
        else:
            self._interest.pop(fd, None)

    def ready(self) -> bool:
        """Whether `wait` would return at once; a process that has died waits for nothing."""
        return self._machine.dead or self.process_at() <= self._machine.clock()

    def process_at(self) -> int:
        """When there is something to do for the process; NEVER if only an event can tell."""
        now: int = self._machine.clock()
        at = self._armed
        for fd, (readable, writable) in self._interest.items():
            link = self._links.get(fd)
            if link is None:
                if self._is_ready(fd, readable, writable):
                    return now
            elif readable and link.readable:
                return now
            elif writable:
                at = min(at, link.writable_at())
        return at

    def wait(self, timeout: float | None) -> list[int]:
        machine = self._machine
        if timeout != 0.0 and not self.ready():
            until = NEVER if timeout is None else machine.clock() + int(timeout * _SECOND_US)
            # Nothing but time passing makes a timer expire, and a full link empty.
            machine.world.wait(machine, min(until, self.process_at()))
            if machine.dead:
                raise ProcessDied
        if self._armed <= machine.clock():
            self._armed = NEVER
        return [fd for fd, wanted in self._interest.items() if self._is_ready(fd, *wanted)]

    def _is_ready(self, fd: int, readable: bool, writable: bool) -> bool:
        link = self._links.get(fd)
        if link is None:
            network = self._networks.get(fd)
            return self._sides[fd].is_ready(readable, writable) if network is None else network.readable
        return (readable and link.readable) or (writable and link.writable())

    def arm(self, deadline_us: int) -> None:
        self._armed = min(self._armed, deadline_us)

    def close(self) -> None:
        self._armed = NEVER
        self._interest.clear()
