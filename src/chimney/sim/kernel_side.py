"""The kernel's side of a hand-over on a simulated machine: the steps of `chimney.host.linux.handover` and `restore`.

They are taken one by one, with time between them in which segments arrive and timers expire.

What is modelled, and where it was seen on Linux:

- Until the cover stands, the socket receives and acknowledges what lies in the tap, too.
- Repair mode stops no timer: until the socket is recycled, it may still send.
- A dump tells no TS.Recent, no out-of-order data, no scoreboard; its SND.NXT may be wrong either way.
- The placeholder answers nothing.
- A socket can be restored without a route, and without its address (on Linux in state ESTABLISHED alone); what is
  injected then reaches nobody.
- A socket is restored as ESTABLISHED. FINs, and acknowledgements of our FIN, are replayed, some of them silently.
- Leaving repair mode sends a window probe.
- What arrives from the filter's removal on is heard by the socket, and lies in the tap, too.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from chimney.host.errors import NotOffloadable, UploadFailed
from chimney.host.icmp import IcmpMessage, Meaning
from chimney.host.kernel import GivenState, Plan, TakenState
from chimney.host.linux import convert
from chimney.host.linux.dump import FINS, Endpoint, KernelState, TcpInfo, TcpState, size_of
from chimney.host.linux.kernel_side import WaitFor
from chimney.link.base import NEVER
from chimney.ndis.state import NeighborConst, PathConst, TcpCached
from chimney.sim.firewall import OpenPassage
from chimney.sim.kernel import ProcessDied
from chimney.sim.model import ModelTcp, Segment, Snapshot
from chimney.sim.model.receiver import DELAYED_ACK
from chimney.sim.surroundings import DEVICE_INDEX

if TYPE_CHECKING:
    from chimney.sim.kernel import SimSocket
    from chimney.sim.machine import Machine

_MASK = 0xFFFFFFFF
_FIN, _RST, _ACK = 1, 4, 16
_HAND_OVER = frozenset(FINS) - {TcpState.TIME_WAIT, TcpState.CLOSE}
_FIN_SENT = (TcpState.FIN_WAIT1, TcpState.LAST_ACK)
# How often the dump's SND.NXT counts bytes that have not left, and how often it lacks some that leave before the socket
# is recycled.
_COUNTS_UNSENT = 0.2
_PACED = 0.2
# As `chimney.host.linux.restore`: a longer round trip is not taught to the kernel, which then waits so long.
_LONGEST_LESSON_US = 1000
_UNKNOWN_RTO_US = 3_000_000
# How long somebody waits for an unknown next hop, and how often it looks.
_PATIENCE_US = 3_000_000
_LOOKS_US = 10_000


class SimKernelSide:
    """Implements `host.kernel.KernelSide` on a `SimSocket`."""

    def __init__(self, machine: Machine, sock: SimSocket, receive_window: int, wait_for: WaitFor) -> None:
        sock.duplicate()
        self._machine = machine
        self._socket = sock
        self._descriptor = machine.descriptor()
        self._receive_window = receive_window
        self._wait_for = wait_for
        self._taken: KernelState | None = None

    def fileno(self) -> int:
        """The descriptor that `wait_for` registers."""
        return self._descriptor

    def is_ready(self, readable: bool, writable: bool) -> bool:
        """Whether `Platform.wait` tells of it."""
        tcp = self._socket.tcp
        if tcp is None:
            return False
        # As epoll: the end of it all is told whatever was asked for.
        return (readable and tcp.readable) or (writable and tcp.writable) or tcp.state is TcpState.CLOSE

    def has_shut(self) -> bool:
        tcp = self._socket.tcp
        return tcp is not None and tcp.state is not TcpState.CLOSE and FINS[tcp.state][0]

    # Hand-over

    def prepare(self, patient: bool = True) -> Plan:
        tcp = self._socket.tcp
        if tcp is None or tcp.state not in _HAND_OVER:
            state = "with somebody else" if tcp is None else f"in state {tcp.state.name}"
            raise NotOffloadable(f"{self._socket!r} cannot be offloaded: it is {state}")
        if tcp.error is not None:
            raise NotOffloadable(f"{self._socket!r} cannot be offloaded: an error is pending")
        plan = self.where()
        if not plan.neighbor_mac:
            plan = self._ask(patient)
        return plan

    def _ask(self, patient: bool) -> Plan:
        """Have the next hop tell its hardware address."""
        machine = self._machine
        surroundings = machine.surroundings
        surroundings.ask(surroundings.gateway)
        until = machine.clock() + _PATIENCE_US if patient else 0
        while not (plan := self.where()).neighbor_mac:
            if machine.clock() >= until:
                raise NotOffloadable(f"{self._socket!r} cannot be offloaded: nobody knows its next hop")
            machine.world.elapse(_LOOKS_US)
            if machine.dead:
                raise ProcessDied
        return plan

    def where(self) -> Plan:
        machine = self._machine
        surroundings, flow = machine.surroundings, machine.flow
        if not surroundings.routed:
            raise NotOffloadable(f"{self._socket!r} cannot be offloaded: there is no route to its peer")
        return Plan(
            flow=flow,
            device=machine.device,
            arrives_on=machine.device,
            neighbor=NeighborConst(),
            neighbor_mac=surroundings.neighbor_mac,
            path=PathConst(flow.local_address, flow.remote_address),
            path_mtu=surroundings.path_mtu,
            next_hop=surroundings.next_hop,
            device_index=DEVICE_INDEX,
            device_mac=machine.nic.mac,
            path_mtu_until=surroundings.learnt_until,
        )

    def take(
        self, plan: Plan, others: Sequence[int] = (), just_before: Callable[[], None] | None = None
    ) -> TakenState:
        machine, sock = self._machine, self._socket
        machine.phase = "cut"
        try:
            state = self._cut(just_before)
        finally:
            machine.phase = ""
        self._taken = state
        machine.owner = "target"
        return convert.taken(state, sock, self._receive_window, machine.clock())

    def _cut(self, just_before: Callable[[], None] | None) -> KernelState:
        machine, sock, tcp = self._machine, self._socket, self._machine.tcp
        # A pacing timer may keep back what an acknowledgement has let go, until the state has been read.
        paced = tcp.sender.cwnd if machine.world.chance.random() < _PACED else 0
        tcp.sender.cwnd -= paced
        try:
            self._cover(tcp, just_before)
        except NotOffloadable:
            sock.hears, sock.repair = True, False
            tcp.sender.cwnd += paced
            self._go_on(tcp)
            raise
        tcp.sender.cwnd += paced
        state = self._dump(tcp)
        self._note("the state is read")
        # Its timers go on: what they send now, the dump does not tell.
        if paced:
            self._go_on(tcp)
        machine.gap()
        sock.last_state = tcp.state
        sock.tcp = None
        machine.owner = None
        self._note("the socket is recycled")
        machine.gap()
        return state

    def _cover(self, tcp: ModelTcp, just_before: Callable[[], None] | None) -> None:
        """Until the state can be read."""
        machine, sock = self._machine, self._socket
        # The kernel's socket and the tap both get what arrives now.
        machine.gap()
        if _has_ended(tcp):
            raise NotOffloadable(f"the kernel refused to hand over {sock!r}: it has just ended")
        if just_before is not None:
            just_before()
        sock.hears = False
        self._note("the cover stands")
        machine.gap()
        if tcp.receiver.delayed_at != NEVER and tcp.state in (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT):
            # TCP_QUICKACK: the acknowledgement that is owed goes now.
            tcp.receiver.delayed_at = machine.clock()
            machine.kernel.output(sock)
        sock.repair = True
        machine.gap()
        if _has_ended(tcp):
            # It gave up meanwhile.
            raise NotOffloadable(f"{sock!r} cannot be offloaded: its connection has just ended")

    def _go_on(self, tcp: ModelTcp) -> None:
        tcp.look_again()
        self._machine.kernel.output(self._socket)

    def _dump(self, tcp: ModelTcp) -> KernelState:
        machine = self._machine
        now = machine.clock()
        seen = tcp.snapshot(now)
        settings, flow = tcp.settings, machine.flow
        snd_nxt = seen.snd_nxt
        if snd_nxt != seen.write_seq and machine.world.chance.random() < _COUNTS_UNSENT:
            snd_nxt = seen.write_seq
        return KernelState(
            family=socket.AF_INET6 if settings.ipv6 else socket.AF_INET,
            local=Endpoint(flow.local_address, flow.local_port),
            remote=Endpoint(flow.remote_address, flow.remote_port),
            state=seen.state,
            snd_una=seen.snd_una,
            snd_nxt=snd_nxt,
            write_seq=seen.write_seq,
            rcv_nxt=seen.rcv_nxt,
            snd_wl1=seen.snd_wl1,
            snd_wnd=seen.snd_wnd,
            max_window=seen.max_window,
            rcv_wnd=seen.rcv_wnd,
            rcv_wup=seen.rcv_wup,
            window_scaling=settings.scale > 0,
            snd_wscale=max(settings.scale, 0),
            rcv_wscale=max(settings.scale, 0),
            sack=settings.sack,
            timestamps=settings.timestamps,
            ecn=False,
            mss_clamp=settings.mss,
            # The lowest bit is hidden: the later of the two values it may stand for.
            timestamp=seen.timestamp | 1,
            timestamp_hz=1000,
            read_at=now,
            info=_info(seen),
            send_queue=[memoryview(seen.send_queue)] if seen.send_queue else [],
            receive_queue=[memoryview(seen.receive_queue)] if seen.receive_queue else [],
        )

    def passage(self) -> OpenPassage:
        return OpenPassage()

    def give_back(self, state: GivenState, meanwhile: Callable[[], list[bytes]]) -> None:
        machine, before = self._machine, self._taken
        assert before is not None, "only a connection that was taken can be given back"
        machine.phase = "restoring"
        machine.owner = None
        try:
            self._restore(convert.given(before, state, machine.clock()), meanwhile)
        except UploadFailed:
            machine.owner = "target"
            raise
        finally:
            machine.phase = ""
        self._taken = None

    def _restore(self, state: KernelState, meanwhile: Callable[[], list[bytes]]) -> None:
        machine, sock = self._machine, self._socket
        kernel = machine.kernel
        machine.gap()
        tcp = self._build(state)
        # It lives from here on, in repair mode or not, and hears nothing but what is injected.
        sock.tcp, machine.owner = tcp, "kernel"
        self._note("the socket is restored")
        if not state.error:
            machine.world.restored(machine.side)
        machine.gap()
        shut = not state.error and self._close(tcp, state)
        sock.repair = False
        if not state.error:
            packets = meanwhile()
            sock.hears = True
            kernel.inject(packets)
            sock.hears = False
            machine.gap()
        sock.hears = True
        self._note("the socket hears")
        machine.gap()
        tcp.probe_window(machine.clock())
        kernel.output(sock)
        if state.error or state.state is TcpState.CLOSE:
            return
        if state.state in _FIN_SENT and not shut and tcp.state is not TcpState.CLOSE:
            tcp.shutdown(machine.clock())
            kernel.output(sock)
        machine.gap()

    def _close(self, tcp: ModelTcp, state: KernelState) -> bool:
        """The FINs of a connection that is closing; returns whether ours counts as sent."""
        machine = self._machine
        if state.state in (TcpState.CLOSE_WAIT, TcpState.LAST_ACK):
            self._peer_says(tcp, state, (state.rcv_nxt - 1) & _MASK, state.snd_una, _FIN | _ACK)
            # As seen: a FIN alone is acknowledged when the timer says so.
            tcp.receiver.ack_now = False
            tcp.receiver.delayed_at = machine.clock() + DELAYED_ACK
        sent = state.state in _FIN_SENT and state.snd_nxt == state.write_seq
        if sent:
            tcp.probe_window(machine.clock())
            machine.kernel.output(self._socket)
            _shut_silently(tcp, machine.clock())
        return sent

    def _build(self, state: KernelState) -> ModelTcp:
        """The connection as a socket in repair mode has it, what is replayed silently included."""
        machine = self._machine
        if size_of(state.receive_queue) > machine.receive_room or size_of(state.send_queue) > machine.send_room:
            raise UploadFailed(f"what {self._socket!r} has queued does not fit into the socket's buffers")
        fin = state.fin_sent and not state.fin_acked
        queued = size_of(state.send_queue)
        if not state.error and (state.write_seq - state.snd_una - fin) & _MASK != queued:
            raise UploadFailed(
                f"the state has {queued} bytes to send, its sequence numbers say"
                f" {(state.write_seq - state.snd_una - fin) & _MASK}"
            )
        fin_received = state.fin_received and not state.error
        rcv_nxt = (state.rcv_nxt - fin_received) & _MASK
        snd_una = (state.snd_una - state.fin_acked) & _MASK
        sent = b"" if state.error else b"".join(state.send_queue)
        taught = bool(sent) and not state.fin_acked and 0 < state.srtt_us <= _LONGEST_LESSON_US
        if taught:
            machine.world.elapse(state.srtt_us)
        snapshot = _snapshot(state, rcv_nxt, snd_una, sent, state.srtt_us if taught else 0)
        now = machine.clock()
        nodelay = bool(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        settings = replace(machine.settings, mtu=machine.surroundings.path_mtu, nodelay=nodelay)
        tcp = ModelTcp.restored(settings, snapshot, now)
        if not taught:
            _wait_longer(tcp, now)
        if state.error:
            self._peer_says(tcp, state, rcv_nxt, snd_una, _RST)
        elif state.state is TcpState.CLOSE:
            self._peer_says(tcp, state, rcv_nxt, snd_una, _FIN | _ACK)
            _shut_silently(tcp, now)
            self._peer_says(tcp, state, state.rcv_nxt, state.snd_una, _ACK)
        elif state.state is TcpState.CLOSING or state.fin_acked:
            _shut_silently(tcp, now)
            if state.fin_acked:
                self._peer_says(tcp, state, rcv_nxt, state.snd_una, _ACK)
            if state.fin_received:
                self._peer_says(tcp, state, rcv_nxt, state.snd_una, _FIN | _ACK)
        # Nothing of this leaves.
        tcp.output(now)
        return tcp

    def _peer_says(self, tcp: ModelTcp, state: KernelState, seq: int, ack: int, flags: int) -> None:
        window = min(state.snd_wnd >> state.snd_wscale, 0xFFFF)
        tcp.arrives(Segment(seq, ack, flags, window), self._machine.clock())

    def inject(self, packets: list[bytes]) -> None:
        self._machine.kernel.inject(packets)

    def getsockopt(self, level: int, option: int) -> int:
        return self._socket.getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        assert isinstance(value, int)
        self._socket.setsockopt(level, option, value)

    def cached(self) -> TcpCached:
        assert self._taken is not None
        return convert.cached(self._taken, self._socket, self._receive_window)

    def icmp(self, message: IcmpMessage) -> None:
        if message.meaning is Meaning.TOO_BIG:
            self._machine.surroundings.learn_mtu(message.mtu)

    def tells_errors(self) -> bool:
        return False

    def forget_error(self) -> int:
        return 0

    def _note(self, text: str) -> None:
        self._machine.world.note(self._machine.side, "kern", text)

    # Plain I/O

    def send(self, data: memoryview) -> int:
        tcp = self._connected()
        taken = tcp.send(data, self._machine.clock())
        self._machine.kernel.output(self._socket)
        return taken

    def receive_into(self, buffer: memoryview) -> int:
        tcp = self._connected()
        count = tcp.receive_into(buffer, self._machine.clock())
        if count > 0:
            self._machine.kernel.output(self._socket)
        return count

    def shutdown(self) -> None:
        self._connected().shutdown(self._machine.clock())
        self._machine.kernel.output(self._socket)

    def abort(self) -> None:
        if self._socket.tcp is None:
            self._machine.kernel.remove(self._socket)
            self._socket.hears, self._socket.repair = True, False
            return
        self._socket.tcp.abort(self._machine.clock())
        self._machine.kernel.output(self._socket)

    def _connected(self) -> ModelTcp:
        tcp = self._socket.tcp
        if tcp is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return tcp

    def bytes_carried(self) -> tuple[int, int]:
        tcp = self._socket.tcp
        return (0, 0) if tcp is None else (tcp.sender.bytes_acked, tcp.receiver.bytes_received)

    def tcp_info(self) -> dict[str, int]:
        tcp = self._socket.tcp
        if tcp is None:
            return {}
        sender, mss = tcp.sender, tcp.sender.mss
        return {
            "tcpi_state": int(tcp.state),
            "tcpi_retransmits": sender.retries,
            "tcpi_rto": sender.rto,
            "tcpi_snd_mss": mss,
            "tcpi_rtt": sender.srtt,
            "tcpi_rttvar": sender.rttvar,
            "tcpi_snd_cwnd": max(sender.cwnd // mss, 1),
            "tcpi_total_retrans": sender.retransmitted,
            "tcpi_bytes_acked": sender.bytes_acked,
            "tcpi_bytes_received": tcp.receiver.bytes_received,
            "tcpi_snd_wnd": sender.wnd,
        }

    def wait_for(self, readable: bool, writable: bool) -> None:
        self._wait_for(self._descriptor, readable, writable)

    def release(self) -> None:
        if self._descriptor >= 0:
            self._wait_for(self._descriptor, False, False)
            self._descriptor = -1
            self._socket.release()


def _info(seen: Snapshot) -> TcpInfo:
    return TcpInfo(
        state=seen.state,
        ca_state=0,
        retransmits=seen.retransmits,
        probes=0,
        backoff=0,
        options=0,
        snd_wscale=0,
        rcv_wscale=0,
        rto_us=seen.rto_us,
        ato_us=0,
        snd_mss=seen.snd_mss,
        rcv_mss=0,
        unacked=0,
        sacked=0,
        lost=0,
        retrans=0,
        pmtu=0,
        rcv_ssthresh=0,
        rtt_us=seen.srtt_us,
        rttvar_us=seen.rttvar_us,
        snd_ssthresh=seen.ssthresh,
        snd_cwnd=seen.snd_cwnd,
        advmss=0,
        reordering=0,
        total_retrans=seen.total_retrans,
        bytes_acked=seen.bytes_acked,
        bytes_received=seen.bytes_received,
    )


def _snapshot(state: KernelState, rcv_nxt: int, snd_una: int, sent: bytes, srtt_us: int) -> Snapshot:
    """What repair mode tells the kernel of a connection: as ESTABLISHED, before any FIN."""
    rcv_wup = rcv_nxt if _after(state.rcv_wup, rcv_nxt) else state.rcv_wup
    right_edge = state.rcv_wup + state.rcv_wnd
    if _after(state.rcv_nxt, right_edge):
        right_edge = state.rcv_nxt
    end = (snd_una + len(sent)) & _MASK
    return Snapshot(
        state=TcpState.ESTABLISHED,
        snd_una=snd_una,
        snd_nxt=end,
        write_seq=end,
        rcv_nxt=rcv_nxt,
        snd_wl1=rcv_nxt if _after(state.snd_wl1, rcv_nxt) else state.snd_wl1,
        snd_wnd=state.snd_wnd,
        max_window=max(state.max_window, state.snd_wnd),
        rcv_wnd=(right_edge - rcv_wup) & _MASK,
        rcv_wup=rcv_wup,
        send_queue=sent,
        receive_queue=b"".join(state.receive_queue),
        # Its lowest bit is cleared, upwards.
        timestamp=(state.timestamp + 1) & ~1 & _MASK,
        ts_recent=-1 if state.ts_recent is None else state.ts_recent,
        srtt_us=srtt_us,
    )


def _has_ended(tcp: ModelTcp) -> bool:
    return tcp.state in (TcpState.TIME_WAIT, TcpState.CLOSE)


def _after(a: int, b: int) -> bool:
    return 0 < (a - b) & _MASK < 1 << 31


def _wait_longer(tcp: ModelTcp, now: int) -> None:
    """Without a measured round trip, Linux waits 3 s for what counts as sent."""
    sender = tcp.sender
    sender.rto = _UNKNOWN_RTO_US
    if sender.rto_at != NEVER:
        sender.rto_at = now + _UNKNOWN_RTO_US


def _shut_silently(tcp: ModelTcp, now: int) -> None:
    """A FIN that counts as sent, and does not leave."""
    tcp.shutdown(now)
    sender = tcp.sender
    if sender.nxt == sender.max:
        sender.nxt = sender.write_seq
    sender.max = sender.write_seq
    if sender.rto_at == NEVER:
        sender.rto_at = now + sender.rto
