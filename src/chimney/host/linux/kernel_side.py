"""The Linux kernel's side of one connection: its socket's plain I/O, and the hand-over in NDIS terms."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

from chimney.host.errors import ChimneyError
from chimney.host.icmp import IcmpMessage
from chimney.host.kernel import GivenState, Plan, TakenState
from chimney.host.linux import conntrack, convert, eligibility, ending, handover, icmp, inject, netfilter
from chimney.host.linux import sockopts as so
from chimney.host.linux.carried import Carried
from chimney.host.linux.dump import FINS, TcpState, read_info
from chimney.host.linux.tcp_info import tcp_info
from chimney.host.linux.timer import monotonic_us
from chimney.ndis.state import TcpCached

# Bytes from which on connection tracking may take a number for an older one.
_RECENT = 1 << 30
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

WaitFor = Callable[[int, bool, bool], None]


class LinuxKernelSide:
    """Implements `host.kernel.KernelSide` on a connected TCP socket.

    It works on a descriptor of its own for the same open socket, so that the application's time-outs do not make its
    calls wait. ``wait_for(fd, readable, writable)`` registers the descriptor with the event loop.
    """

    def __init__(self, sock: socket.socket, receive_window: int, wait_for: WaitFor) -> None:
        if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise ChimneyError(f"{sock!r} is no TCP socket")
        try:
            sock.getpeername()
        except OSError as error:
            raise ChimneyError(f"{sock!r} is not connected: connect or accept first") from error
        self._socket = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
        self._receive_window = receive_window
        self._wait_for = wait_for
        self._passage: netfilter.LinuxPassage | None = None
        self._placeholder: handover.Placeholder | None = None
        self._dying: ending.Dying | None = None
        self._ecn = False
        self._carried = Carried(self._socket)

    def fileno(self) -> int:
        """The descriptor that `wait_for` registers."""
        return self._socket.fileno()

    def has_shut(self) -> bool:
        try:
            state = TcpState(read_info(self._socket).state)
        except (OSError, ValueError):
            # What kind of socket does not tell is refused when it is to be offloaded.
            return False
        return state is not TcpState.CLOSE and FINS.get(state, (False,))[0]

    # Hand-over

    def prepare(self, patient: bool = True) -> Plan:
        return eligibility.plan(self._socket, patient)

    def where(self) -> Plan:
        bound = self._placeholder.device_index if self._placeholder is not None else None
        return eligibility.where(self._socket, bound)

    def take(
        self, plan: Plan, others: Sequence[int] = (), just_before: Callable[[], None] | None = None
    ) -> TakenState:
        self._passage = None
        with netfilter.Examiner.of(self._socket) as examiner:
            self._placeholder = handover.take(self._socket, plan.arrives_on, examiner.check, others, just_before)
        state = self._placeholder.state
        # The kernel does not get it back (TCP_REPAIR has no way); the peer keeps to it all the same.
        self._ecn = state.ecn = self._ecn or state.ecn
        taken = convert.taken(state, self._placeholder, self._receive_window, monotonic_us())
        taken.carried = self._carried.of(state.info)
        return taken

    def passage(self) -> netfilter.LinuxPassage:
        placeholder = self._placeholder
        assert placeholder is not None, "the firewall is asked about a connection that was taken"
        if self._passage is None:
            state = placeholder.state
            self._passage = netfilter.LinuxPassage(self._socket, state.local, state.remote, placeholder.device_index)
        return self._passage

    def give_back(self, state: GivenState, meanwhile: Callable[[], list[bytes]]) -> None:
        placeholder = self._placeholder
        assert placeholder is not None, "only a connection that was taken can be given back"
        taken = placeholder.state
        moved = (state.delegated.rcv_nxt - taken.rcv_nxt) & 0xFFFFFFFF
        if moved > _RECENT or (self._passage is not None and self._passage.acknowledged):
            conntrack.forget_acknowledgements(taken.local, taken.remote)
        returned = placeholder.give_back(convert.given(placeholder.state, state, monotonic_us()), meanwhile)
        assert not returned.unsent, "everything given back counts as sent"
        self._dying = returned.dying
        self._placeholder = None
        self._carried.restored()

    def inject(self, packets: list[bytes]) -> None:
        inject.packets(packets, sock=self._socket)

    # Options

    def getsockopt(self, level: int, option: int) -> int:
        return (self._placeholder or self._socket).getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        (self._placeholder or self._socket).setsockopt(level, option, value)

    def cached(self) -> TcpCached:
        placeholder = self._placeholder
        assert placeholder is not None, "the options of a connection that the kernel has are its own"
        return convert.cached(placeholder.state, placeholder, self._receive_window)

    # ICMP

    def icmp(self, message: IcmpMessage) -> None:
        icmp.tell(self._socket, message, self._placeholder is not None)

    def tells_errors(self) -> bool:
        return icmp.tells_errors(self._socket)

    def forget_error(self) -> int:
        self._see_the_end()
        # Asking for it takes it.
        return self._socket.getsockopt(so.SOL_SOCKET, so.SO_ERROR)

    def _see_the_end(self) -> None:
        if self._dying is not None:
            self._dying.wait(self._socket)
            self._dying = None

    # Plain I/O

    def send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data, _NOW)
        except BlockingIOError:
            return 0

    def receive_into(self, buffer: memoryview) -> int:
        try:
            count = self._socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return -1
        if not count:
            self._carried.ended()
        return count

    def shutdown(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        if self._placeholder is not None:
            self._placeholder.abandon()
            self._placeholder = None
            return
        # Linux answers connect(AF_UNSPEC) on a synchronised connection with an RST (RFC 9293 section 3.10.5).
        so.disconnect(self.fileno())

    def bytes_carried(self) -> tuple[int, int]:
        return self._carried.of(read_info(self._socket))

    def tcp_info(self) -> dict[str, int]:
        return tcp_info(self._socket)

    def wait_for(self, readable: bool, writable: bool) -> None:
        self._wait_for(self.fileno(), readable, writable)

    def release(self) -> None:
        self._see_the_end()
        self._socket.close()
