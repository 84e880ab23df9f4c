"""A machine: a NIC, a kernel, and a process that may have a chimney."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.conformance.handshake import IPV4, IPV6, MACS
from chimney.host.kernel import Flow
from chimney.host.linux.dump import TcpState
from chimney.intermediate import IntermediateDriver
from chimney.link.base import NEVER, NO_VLAN
from chimney.link.base import Flow as LinkFlow
from chimney.link.memory import MemoryLink
from chimney.sim.case import OTHER, Host, Side
from chimney.sim.kernel import Kernel, ProcessDied, SimSocket
from chimney.sim.model import ModelTcp, Settings, offered
from chimney.sim.platform import SimPlatform
from chimney.sim.surroundings import Surroundings
from chimney.sim.tap import TapLink, flow_key
from chimney.target import SoftTarget
from chimney.tcp import Connection as Engine
from chimney.tcp.state import State

if TYPE_CHECKING:
    from chimney.sim.world import World

PORTS = (40000, 80)
"""The two ends' ports."""

_ETHERNET = 14
# RFC 9293's names.
_STATES = {
    TcpState.ESTABLISHED: "ESTABLISHED",
    TcpState.FIN_WAIT1: "FIN-WAIT-1",
    TcpState.FIN_WAIT2: "FIN-WAIT-2",
    TcpState.CLOSE_WAIT: "CLOSE-WAIT",
    TcpState.CLOSING: "CLOSING",
    TcpState.LAST_ACK: "LAST-ACK",
    TcpState.TIME_WAIT: "TIME-WAIT",
    TcpState.CLOSE: "CLOSED",
}
_TARGET_STATES = {int(state): state.name.replace("_", "-") for state in State}


class Machine:
    """One of the two machines of a world.

    owner    who may send on its connection now: "kernel", "target", or None while nobody may.
    phase    of a hand-over that its kernel is at: "cut", "restoring", or "" for none.
    drivers  the intermediate drivers that its chimney has, the top one first; ``target`` is what is below them.
    surroundings  the way to its peer, and what its kernel knows of it.
    down     whether its network interface is.
    dead     whether its process is.
    receive_room, send_room   what a process may put into a socket's buffers, in bytes.
    """

    def __init__(self, world: World, side: Side, host: Host) -> None:
        case = world.case
        index = 0 if side == "a" else 1
        addresses = IPV6 if case.ipv6 else IPV4
        self.world = world
        self.side: Side = side
        self.name = f"machine {side}"
        self.device = f"eth-{side}"
        self.clock = world.clock
        self.network = world.network
        self.nic = world.network.link(side, MACS[index])
        self.nic.set_filter(None)
        self._gap_us = host.gap_us
        self.receive_room = 4 << 20
        self.send_room = 4 << 20
        self.owner: str | None = "kernel"
        self.phase = ""
        self.drivers: list[IntermediateDriver] = []
        self.target: SoftTarget | None = None
        self.dead = False
        self.taps: list[TapLink] = []
        self._engine: Engine | None = None
        self._descriptors = 3
        self.surroundings = Surroundings(self, MACS[index], MACS[1 - index], addresses[1 - index])
        self.kernel = Kernel(self)
        self.flow = Flow(addresses[index], PORTS[index], addresses[1 - index], PORTS[1 - index])
        self.settings = Settings(
            local_port=PORTS[index],
            remote_port=PORTS[1 - index],
            iss=case.iss[index],
            irs=case.iss[1 - index],
            send_window=offered(case.host(OTHER[side]).receive_buffer),
            scale=case.scale,
            timestamps=case.timestamps,
            sack=case.sack,
            mss=case.mss,
            receive_buffer=host.receive_buffer,
            send_buffer=host.send_buffer,
            nodelay=host.nodelay,
            ts_offset=world.chance.getrandbits(32),
            mtu=self.nic.mtu,
            ipv6=case.ipv6,
            srtt_us=2 * case.network.delay_us,
            young=host.young,
        )
        tcp = ModelTcp(self.settings, self.clock())
        self.sock = SimSocket(self.kernel, self.descriptor(), self.flow, tcp)
        self.kernel.add(self.sock)
        self._link_flow = LinkFlow(
            self.flow.local_address, self.flow.local_port, self.flow.remote_address, self.flow.remote_port
        )
        self.platform = SimPlatform(self) if host.chimney else None

    def descriptor(self) -> int:
        """A new file descriptor."""
        self._descriptors += 1
        return self._descriptors

    @property
    def peer_nic(self) -> MemoryLink:
        """The other machine's NIC."""
        return self.world.machines[OTHER[self.side]].nic

    @property
    def down(self) -> bool:
        """Whether its network interface is."""
        return not self.surroundings.plugged

    @property
    def tcp(self) -> ModelTcp:
        """The kernel's connection, which the kernel must have."""
        assert self.sock.tcp is not None
        return self.sock.tcp

    @property
    def state(self) -> str:
        """Of its connection, whoever has it: a name of RFC 9293."""
        tcp = self.sock.tcp
        if tcp is not None:
            self._engine = None
            return _STATES[tcp.state]
        found = self.target.find(self._link_flow) if self.target is not None else None
        if found is not None:
            self._engine = found.engine
        if self._engine is not None and not self.dead:
            # On its way up the connection stays in the state in which it was given back.
            return _TARGET_STATES[self._engine.state]
        return _STATES[self.sock.last_state]

    # What happens next

    def next_at(self) -> int:
        """When the kernel has something to do: a frame at the NIC, or a timer."""
        frames = self.nic.next_at()
        timers = self.kernel.next_at()
        changes = self.surroundings.next_at()
        earliest = frames if frames < timers else timers
        return earliest if earliest < changes else changes

    def softirq(self) -> None:
        """Do one thing that is due: a change around it, one frame, for every tap that lets it in and for the kernel, or
        one timer.
        """
        if self.surroundings.happen():
            return
        received = self.nic.receive(1)
        if not received:
            self.kernel.expire()
            return
        frame = received[0]
        data = bytes(frame.data)
        checksum_ok, gso_size = frame.checksum_ok, frame.gso_size
        if self.down:
            return
        if data[:6] != self.nic.mac:
            # The last gateway has put it there.
            data = self.nic.mac + data[6:]
        self.world.doors[self.side].arrived(data, checksum_ok)
        key = flow_key(data, _ETHERNET)
        for tap in self.taps:
            tap.arrived(key, data, frame.vlan, checksum_ok, gso_size)
        if self.surroundings.addressed:
            self.kernel.receive(data, _ETHERNET, key, checksum_ok)

    def process_at(self) -> int:
        """When its process wants a turn: at once if a descriptor is ready, or when its timer expires; NEVER if only an
        event can tell.
        """
        if self.platform is None or self.dead:
            return NEVER
        return self.platform.process_at()

    def flush(self) -> None:
        """Something has been done to the socket: let the kernel send what is due."""
        self.kernel.output(self.sock)

    def transmit(self, speaker: str, frame: bytearray, vlan: int = NO_VLAN) -> None:
        """A wire segment leaves; ``speaker`` is "kernel" or "target"."""
        if self.down:
            return
        self.world.doors[self.side].out(speaker, frame)
        self.network.carry(self.nic, frame, vlan)

    def gap(self) -> None:
        """Its process is at a step of a hand-over, which takes some time. Raises ProcessDied."""
        if self._gap_us:
            microseconds = self.world.chance.randint(0, self._gap_us)
            if microseconds:
                self.world.elapse(microseconds)
                if self.dead:
                    raise ProcessDied

    # What happens to it

    def mtu_changed(self, mtu: int) -> None:
        """The NIC's MTU is another one, in bytes, and the kernel knows."""
        self.nic.mtu = mtu
        self.surroundings.mtu_changed()

    def set_nodelay(self, on: bool) -> None:
        """The application sets TCP_NODELAY."""
        self.sock.set_nodelay(on)
        self.flush()

    def die(self) -> None:
        """The process is gone, and whatever it had: the kernel closes its sockets, and answers for it. In the middle of
        a hand-over, `gap` and `SimPlatform.wait` raise ProcessDied then.
        """
        if self.dead:
            return
        self.dead = True
        self.phase = ""
        self.owner = "kernel"
        self.taps.clear()
        self.sock.close_all()
