"""What a stack stands on: a clock, links, the kernel's side of a connection, and waiting for any of them.

`LinuxPlatform` is the real one; a simulation brings its own.
"""

from __future__ import annotations

import select
from contextlib import ExitStack, closing
from typing import Any, Protocol

from chimney.host.elsewhere import Elsewhere
from chimney.host.firewall import FirewallWatch
from chimney.host.icmp_watch import IcmpWatch
from chimney.host.kernel import KernelSide
from chimney.host.linux import devices, limits
from chimney.host.linux.icmp import IcmpSockets
from chimney.host.linux.kernel_side import LinuxKernelSide, WaitFor
from chimney.host.linux.monitor import LinuxNetwork
from chimney.host.linux.netfilter import LinuxFirewall
from chimney.host.linux.timer import Timer, monotonic_us
from chimney.host.listener import Listener
from chimney.host.network import NetworkWatch
from chimney.host.services import Services
from chimney.link.base import Link
from chimney.link.packet import PacketLink
from chimney.link.raw import RawSockets


class SocketSide(KernelSide, Protocol):
    """The kernel's side of a connection, and the descriptor that `Platform.wait` tells when it is ready."""

    def fileno(self) -> int:
        """The descriptor that goes with it until it is released."""


class Platform(Protocol):
    """What one stack stands on; times are microseconds of its clock. The stack closes it."""

    def clock(self) -> int:
        """Now. It never goes back."""

    def room(self) -> tuple[int, int]:
        """The bytes of a connection that the kernel can take back as unread, and as sent."""

    def open_link(self, device: str) -> Link:
        """A link on a network interface, closed by the caller. Raises OSError, of which LinkError is one."""

    def kernel_side(self, sock: Any, receive_window: int, wait_for: WaitFor) -> SocketSide:
        """The kernel's side of a connected socket, for which ``receive_window`` bytes may be under way.

        ``wait_for`` is what it calls as `interest`. Raises ChimneyError if ``sock`` is no connected TCP socket.
        """

    def listeners(self, services: Services) -> list[Listener]:
        """What the host hears beside connections and links, closed by the caller. Raises OSError; nothing is
        left open then.
        """

    def fileno(self) -> int:
        """A descriptor that is readable when `wait` would return at once."""

    def interest(self, fd: int, readable: bool, writable: bool) -> None:
        """What `wait` shall tell of a descriptor from now on, replacing what was said before; none of both: nothing."""

    def wait(self, timeout: float | None) -> list[int]:
        """The descriptors that are ready, after at most ``timeout`` seconds (None: for ever, 0: at once).

        Returns as well, maybe with none, when what `arm` asked for is due.
        """

    def arm(self, deadline_us: int) -> None:
        """Have `wait` return at ``deadline_us`` at the latest. It may be earlier; then, arm it again."""

    def close(self) -> None:
        """Give all descriptors of its own back."""


class LinuxPlatform:
    """Linux: epoll, timerfd, packet sockets and TCP_REPAIR."""

    clock = staticmethod(monotonic_us)

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._timer = Timer()
        self._timer_fd = self._timer.fileno()
        self._epoll.register(self._timer_fd, select.EPOLLIN)
        self._interest: dict[int, int] = {}

    def room(self) -> tuple[int, int]:
        return limits.receive_room(), limits.send_room()

    def open_link(self, device: str) -> Link:
        return PacketLink(device)

    def kernel_side(self, sock: Any, receive_window: int, wait_for: WaitFor) -> SocketSide:
        return LinuxKernelSide(sock, receive_window, wait_for)

    def listeners(self, services: Services) -> list[Listener]:
        with ExitStack() as opened:
            # A watch is made when all of them are open: the stack would keep it.
            network = opened.enter_context(closing(LinuxNetwork()))
            icmp = opened.enter_context(closing(IcmpSockets()))
            firewall = opened.enter_context(closing(LinuxFirewall()))
            elsewhere = opened.enter_context(closing(RawSockets()))
            opened.pop_all()
        routes = NetworkWatch(services, network)
        return [
            routes,
            IcmpWatch(services, icmp, routes),
            FirewallWatch(services, firewall),
            Elsewhere(services, elsewhere, devices.arrivals),
        ]

    def fileno(self) -> int:
        return self._epoll.fileno()

    def interest(self, fd: int, readable: bool, writable: bool) -> None:
        mask = (select.EPOLLIN if readable else 0) | (select.EPOLLOUT if writable else 0)
        known = self._interest.get(fd, 0)
        if mask == known:
            return
        # Without interest the descriptor must not be there at all: EPOLLHUP would be reported for a placeholder.
        if not mask:
            self._epoll.unregister(fd)
            del self._interest[fd]
            return
        if known:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._interest[fd] = mask

    def wait(self, timeout: float | None) -> list[int]:
        events = self._epoll.poll(timeout)
        if not events:
            return []
        ready = [fd for fd, _ in events]
        if self._timer_fd in ready:
            ready.remove(self._timer_fd)
            self._timer.expired()
        return ready

    def arm(self, deadline_us: int) -> None:
        self._timer.arm(deadline_us)

    def close(self) -> None:
        self._timer.close()
        self._epoll.close()
