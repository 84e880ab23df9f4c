"""Two simulated machines on a network, and nothing else of a world: no stacks, no applications, no script."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from chimney.conformance import wire
from chimney.conformance.handshake import MACS
from chimney.link.base import NEVER, Flow, Link
from chimney.link.checksum import pseudo_header_sum
from chimney.link.memory import Clock
from chimney.sim.case import SIDES, Case, Host, Side
from chimney.sim.machine import Machine
from chimney.sim.model import ACK, Segment, build
from chimney.sim.network import BadNetwork

START = 1_000_000_000


class RecordingDoor:
    """What has passed: (speaker, frame) out, frames in."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.heard: list[bytes] = []

    def out(self, speaker: str, frame: bytearray) -> None:
        self.sent.append((speaker, bytes(frame)))

    def arrived(self, frame: bytes, intact: bool = True) -> None:
        self.heard.append(frame)


class SmallWorld:
    """As a machine sees `chimney.sim.world.World`. ``gaps``: what is to happen when a machine's process takes its time
    for the first, second, ... step of a hand-over, before that time passes.
    """

    def __init__(self, seed: int = 1, **changes: object) -> None:
        values: dict[str, object] = {"a": Host(chimney=True), "b": Host(), "seed": seed}
        self.case = Case(**(values | changes))  # type: ignore[arg-type]
        self.clock = Clock(START)
        self.chance = Random(seed)
        self.network = BadNetwork(self.clock, seed, self.case.network)
        self.doors = {side: RecordingDoor() for side in SIDES}
        self.machines = {side: Machine(self, side, self.case.host(side)) for side in SIDES}  # type: ignore[arg-type]
        self.notes: list[str] = []
        self.gaps: list[Callable[[], None] | None] = []

    def note(self, side: str, kind: str, text: str) -> None:
        self.notes.append(text)

    def restored(self, side: str) -> None:
        self.notes.append(f"{side} is restored")

    def step(self, until: int) -> bool:
        """The next thing, unless it is later than ``until``."""
        at, machine = min(((machine.next_at(), machine) for machine in self.machines.values()), key=lambda due: due[0])
        if at > until:
            return False
        self.clock.advance_to(max(at, self.clock.now))
        machine.softirq()
        return True

    def run(self, microseconds: int = 1_000_000) -> None:
        """Time passes, and what happens in it happens."""
        until = self.clock.now + microseconds
        while self.step(until):
            pass
        self.clock.advance_to(max(until, self.clock.now))

    def elapse(self, microseconds: int) -> None:
        act = self.gaps.pop(0) if self.gaps else None
        if act is not None:
            act()
        self.run(microseconds)

    def wait(self, machine: Machine, until: int) -> None:
        assert machine.platform is not None
        while not machine.platform.ready():
            if not self.step(until):
                assert until < NEVER, "nothing is ever going to happen"
                self.clock.advance_to(max(until, self.clock.now))
                return

    # Conveniences

    def send(self, side: Side, data: bytes) -> None:
        """The application of a side sends; all of it must find room."""
        machine = self.machines[side]
        assert machine.sock.tcp is not None
        assert machine.sock.tcp.send(data, self.clock.now) == len(data)
        machine.flush()

    def receive(self, side: Side) -> bytes:
        """What the application of a side can read now."""
        machine = self.machines[side]
        tcp = machine.sock.tcp
        assert tcp is not None
        got, buffer = b"", memoryview(bytearray(65536))
        while (count := tcp.receive_into(buffer, self.clock.now)) > 0:
            got += buffer[:count]
            machine.flush()
        return got

    def shutdown(self, side: Side) -> None:
        """The application of a side closes its half, if there still is one."""
        machine = self.machines[side]
        assert machine.sock.tcp is not None
        if machine.state != "CLOSED":
            machine.sock.tcp.shutdown(self.clock.now)
            machine.flush()


def flow_of(machine: Machine) -> Flow:
    """The flow of a machine's connection, as links have it."""
    flow = machine.flow
    return Flow(flow.local_address, flow.local_port, flow.remote_address, flow.remote_port)


def send(machine: Machine, link: Link, payload: bytes, gso_size: int = 0) -> bool:
    """The first segment of machine a's IPv4 connection, as a target gives it to its link."""
    flow = machine.flow
    segment = Segment(machine.settings.iss, machine.settings.irs, ACK, 100)
    tcp = bytearray(build(segment, flow.local_port, flow.remote_port))
    size = len(tcp) + len(payload)
    tcp[16:18] = pseudo_header_sum(flow.local_address, flow.remote_address, size).to_bytes(2, "big")
    packet = wire.ip_packet(flow.local_address, flow.remote_address, bytes(tcp) + payload)
    header = wire.ethernet(MACS[1], MACS[0], wire.ETHER_IPV4, packet[: len(packet) - len(payload)])
    return link.send(header, [memoryview(payload)], 34, 16, gso_size, False)
