"""A network in memory, with virtual time: for simulations and tests.

A MemoryNetwork is an Ethernet switch with bad manners: what its links send is cut into wire segments, and each of these
may be lost, delayed, overtaken, doubled or damaged. Everything random comes from one seed, all time from one Clock, so
that a run can be repeated to the byte.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from random import Random

from chimney.link.base import ETHERNET_HEADER, NEVER, NO_VLAN, Flow, Frame, Link, LinkError, Statistics
from chimney.link.flows import flow_of, part_of
from chimney.link.gro import Merger
from chimney.link.gso import wire_segments

_NANOSECONDS = 1000  # in a microsecond
_FRAME_OVERHEAD = 24  # bytes: preamble, frame check sequence and the gap between frames
_GARBAGE = b"\xdd"

Tap = Callable[[int, str, str, bytes], None]
"""tap(time in us, name of the link, "out" or "in", the frame as it is on the wire, tag included)."""


class Clock:
    """Virtual time in microseconds. Calling it tells the time."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, microseconds: int) -> int:
        """Lets time pass; returns the new time."""
        return self.advance_to(self.now + microseconds)

    def advance_to(self, time: int) -> int:
        """Sets the time, which must not go back: ValueError."""
        if time < self.now:
            raise ValueError(f"the clock shows {self.now} us and cannot go back to {time}")
        if time >= NEVER:
            raise ValueError("nothing is going to happen any more: the next event is never")
        self.now = time
        return time


class MemoryNetwork:
    """A switch that joins MemoryLinks, and its impairments, which can be changed at any time.

    clock         tells the time in microseconds (Clock, or any callable).
    seed          of all chance.
    loss          probability that a wire segment is lost.
    burst         probability that a wire segment of a link begins a burst of losses (Gilbert's model),
    burst_length  of so many segments on average, 1 or more.
    delay_us      time from link to link.
    jitter_us     up to so much is added to the delay, by chance. By itself it does not change the order.
    reorder       probability that a segment is held back, so that later ones can overtake it,
    reorder_us    by 1 to so many microseconds.
    duplicate     probability that a segment arrives twice.
    corrupt       probability that a bit behind the Ethernet header is flipped. Such a frame has `checksum_ok` False.
    mtu           of links that don't say another one, in bytes.
    bandwidth     of each link's way into the network, in bits per second; 0: no limit.
    queue_bytes   with a bandwidth: a segment that finds more than this waiting is dropped; 0: no limit.
    gro           whether links merge what arrives, as LRO or GRO does.
    drop_if       called with the sending link's name and each wire segment; True loses it. For losses that must hit a
                  certain one.
    tap           called with each wire segment, at the sender before the impairments and at the receiver on arrival.

    ``happened``, if it is set, is called with the sending link's name and what has been done to a wire segment: "lost",
    "late", "twice" or "damaged".
    """

    def __init__(
        self,
        clock: Callable[[], int],
        seed: int = 0,
        *,
        loss: float = 0.0,
        burst: float = 0.0,
        burst_length: float = 4.0,
        delay_us: int = 0,
        jitter_us: int = 0,
        reorder: float = 0.0,
        reorder_us: int = 1000,
        duplicate: float = 0.0,
        corrupt: float = 0.0,
        mtu: int = 1500,
        bandwidth: int = 0,
        queue_bytes: int = 0,
        gro: bool = False,
        drop_if: Callable[[str, bytes], bool] | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.clock = clock
        self.random = Random(seed)
        self.loss = loss
        self.burst = burst
        self.burst_length = burst_length
        self.delay_us = delay_us
        self.jitter_us = jitter_us
        self.reorder = reorder
        self.reorder_us = reorder_us
        self.duplicate = duplicate
        self.corrupt = corrupt
        self.mtu = mtu
        self.bandwidth = bandwidth
        self.queue_bytes = queue_bytes
        self.gro = gro
        self.drop_if = drop_if
        self.tap = tap
        self.happened: Callable[[str, str], None] | None = None
        self.segments = 0
        """Wire segments that links have sent."""
        self.lost = 0
        """Those that were lost: by chance, by drop_if, in a full queue, in a partition, or since no link has their
        address."""
        self.reordered = 0
        self.duplicated = 0
        self.corrupted = 0
        self._links: dict[bytes, MemoryLink] = {}
        self._order = 0

    def link(self, name: str, mac: bytes, *, mtu: int = 0, send_buffer: int = 0) -> "MemoryLink":
        """Attaches a link with the Ethernet address `mac` (ValueError if that one is taken).

        send_buffer  with a bandwidth: send() finds no room while more bytes than this wait on the link; 0: there always
                     is.
        """
        if mac in self._links:
            raise ValueError(f"two links cannot share the address {mac.hex(':')}")
        link = MemoryLink(self, name, mac, mtu or self.mtu, send_buffer)
        self._links[mac] = link
        return link

    def alias(self, link: "MemoryLink", mac: bytes) -> None:
        """Frames to `mac` go to `link`, too: an interface with several addresses (ValueError if that one is taken)."""
        if mac in self._links:
            raise ValueError(f"two links cannot share the address {mac.hex(':')}")
        self._links[mac] = link

    def detach(self, link: "MemoryLink") -> None:
        """Takes a link out; what is under way to it is lost. MemoryLink.close calls it."""
        self._links = {mac: other for mac, other in self._links.items() if other is not link}

    def partition(self, sender: "MemoryLink", until: int) -> None:
        """Lose everything that a link sends before a time (microseconds); a partition that lasts longer stays."""
        sender.cut_off_until = max(sender.cut_off_until, until)

    def heal(self) -> None:
        """End all partitions."""
        for link in self._links.values():
            link.cut_off_until = 0

    def next_at(self) -> int:
        """When something is to be done next: a frame can be received, or a link that had no room has some again.

        In microseconds; not later than now if that is already so. NEVER if nothing is under way.
        """
        due = NEVER
        for link in self._links.values():
            due = min(due, link.next_at())
        return due

    def carry(self, sender: "MemoryLink", frame: bytearray, vlan: int, intact: bool = True) -> None:
        """Takes one wire segment from a link, which gives the frame away. MemoryLink.send calls it.

        intact  whether it leaves with checksums that need not be verified where it arrives.
        """
        self.segments += 1
        if self.tap is not None:
            self.tap(self.clock(), sender.name, "out", on_wire(frame, vlan))
        chance = self.random.random
        departure = self._departure(sender, len(frame))
        if (
            departure < 0
            or sender.cut_off_until > self.clock()
            or (self.burst and self._in_burst(sender))
            or (self.drop_if is not None and self.drop_if(sender.name, bytes(frame)))
            or (self.loss and chance() < self.loss)
        ):
            self.lost += 1
            self._tell(sender, "lost")
            return
        receivers = self._receivers(sender, frame)
        if not receivers:
            self.lost += 1
            self._tell(sender, "lost")
        for receiver in receivers:
            # The frame is ours: only those that may be damaged, or overwritten when released, need bytes of their own.
            own = frame if receiver is receivers[-1] else bytearray(frame)
            again = bytearray(frame) if self.duplicate else None
            self._deliver(sender, receiver, departure, own, vlan, intact)
            if again is not None and chance() < self.duplicate:
                self.duplicated += 1
                self._tell(sender, "twice")
                self._deliver(sender, receiver, departure, again, vlan, intact)

    def _tell(self, sender: "MemoryLink", what: str) -> None:
        if self.happened is not None:
            self.happened(sender.name, what)

    def _in_burst(self, sender: "MemoryLink") -> bool:
        """Whether a wire segment falls into a burst of losses."""
        chance = self.random.random
        if not sender.in_burst:
            sender.in_burst = chance() < self.burst
            return sender.in_burst
        sender.in_burst = chance() * self.burst_length >= 1.0
        return sender.in_burst

    def arrive(self, receiver: "MemoryLink", frame: bytearray, vlan: int = NO_VLAN) -> None:
        """Have a frame arrive at a link now, as if from the wire: without impairments, its checksums not verified."""
        self._order += 1
        heappush(receiver.under_way, (self.clock(), self._order, frame, vlan, False))

    def _departure(self, sender: "MemoryLink", length: int) -> int:
        """When the last bit of a frame has left its link, in microseconds; -1 if the queue is full."""
        now = self.clock()
        if not self.bandwidth:
            return now
        if self.queue_bytes and self.waiting(sender) > self.queue_bytes:
            return -1
        start = max(sender.busy_until_ns, now * _NANOSECONDS)
        sender.busy_until_ns = start + (length + _FRAME_OVERHEAD) * 8 * 1_000_000_000 // self.bandwidth
        return -(-sender.busy_until_ns // _NANOSECONDS)

    def waiting(self, sender: "MemoryLink") -> int:
        """The bytes on a link that have not left it yet."""
        return max(0, sender.busy_until_ns - self.clock() * _NANOSECONDS) * self.bandwidth // 8_000_000_000

    def _receivers(self, sender: "MemoryLink", frame: bytearray) -> "list[MemoryLink]":
        if frame[0] & 1:
            return [link for link in dict.fromkeys(self._links.values()) if link is not sender]
        link = self._links.get(bytes(frame[:6]))
        return [] if link is None else [link]

    def _deliver(
        self,
        sender: "MemoryLink",
        receiver: "MemoryLink",
        departure: int,
        frame: bytearray,
        vlan: int,
        intact: bool,
    ) -> None:
        chance = self.random
        arrival = departure + self.delay_us
        if self.jitter_us:
            arrival += chance.randint(0, self.jitter_us)
        if self.reorder and chance.random() < self.reorder:
            self.reordered += 1
            self._tell(sender, "late")
            arrival += chance.randint(1, self.reorder_us)
        else:
            arrival = sender.last_arrival = max(arrival, sender.last_arrival)
        if self.corrupt and chance.random() < self.corrupt:
            self.corrupted += 1
            self._tell(sender, "damaged")
            intact = False
            frame[chance.randrange(ETHERNET_HEADER, len(frame))] ^= 1 << chance.randrange(8)
        self._order += 1
        heappush(receiver.under_way, (arrival, self._order, frame, vlan, intact))


class MemoryLink(Link):
    """A link of a MemoryNetwork, made by MemoryNetwork.link. It behaves as PacketLink does, the filter included.

    Released frames are overwritten with 0xDD, so that nobody comes to rely on memory that a ring would have used again.
    """

    def __init__(self, network: MemoryNetwork, name: str, mac: bytes, mtu: int, send_buffer: int) -> None:
        super().__init__(name, mac, mtu)
        self.network = network
        self.send_buffer = send_buffer
        self.busy_until_ns = 0
        """When the link has put on the wire all it was given (nanoseconds)."""
        self.cut_off_until = 0
        """Until when all it sends is lost (microseconds)."""
        self.in_burst = False
        self.last_arrival = 0
        """When the last frame sent arrives that has not been held back."""
        self.under_way: list[tuple[int, int, bytearray, int, bool]] = []
        """A heap: arrival time, order of sending, frame, VLAN, undamaged."""
        self._arrived: deque[tuple[bytearray, int, bool]] = deque()
        self._lent: list[Frame] = []
        self._flows: frozenset[Flow] | None = frozenset()
        self._addresses: frozenset[tuple[bytes, bytes]] = frozenset()
        self._refused_now = False
        self._closed = False
        self._received_frames = 0
        self._received_bytes = 0
        self._sent_frames = 0
        self._sent_bytes = 0
        self._refused = 0

    def next_at(self) -> int:
        """As MemoryNetwork.next_at, for this link."""
        network = self.network
        if self._arrived:
            return network.clock()
        due = self.under_way[0][0] if self.under_way else NEVER
        if self._refused_now:
            if not network.bandwidth:
                return network.clock()
            excess = network.waiting(self) - self.send_buffer
            due = min(due, network.clock() + max(0, excess * 8_000_000 // network.bandwidth + 1))
        return due

    def pending(self) -> int:
        self._settle()
        return len(self._arrived)

    def receive(self, limit: int) -> list[Frame]:
        self.release()
        if self._closed:
            raise LinkError(errno.EBADF, f"{self.name}: the link is closed")
        self._settle()
        frames = self._lent
        arrived = self._arrived
        gro = self.network.gro
        while arrived and len(frames) < limit:
            if gro:
                merger = Merger(*arrived.popleft())
                while arrived and merger.append(*arrived[0]):
                    arrived.popleft()
                frame = merger.finish()
            else:
                data, vlan, intact = arrived.popleft()
                frame = Frame(memoryview(data), vlan, intact)
            self._received_frames += 1
            self._received_bytes += len(frame.data)
            frames.append(frame)
        return list(frames)

    def release(self) -> None:
        for frame in self._lent:
            frame.data[:] = _GARBAGE * len(frame.data)
        self._lent.clear()

    def send(
        self,
        header: bytes | bytearray | memoryview,
        payload: list[memoryview],
        csum_start: int,
        csum_offset: int,
        gso_size: int,
        gso_ipv6: bool,
        vlan: int = NO_VLAN,
    ) -> bool:
        if self._closed:
            raise LinkError(errno.EBADF, f"{self.name}: the link is closed")
        network = self.network
        if self.send_buffer and network.bandwidth and network.waiting(self) > self.send_buffer:
            self._refused += 1
            self._refused_now = True
            return False
        self._refused_now = False
        segments = wire_segments(header, payload, csum_start, csum_offset, gso_size, gso_ipv6)
        packet = len(segments[0]) - ETHERNET_HEADER
        if packet > self.mtu:
            raise LinkError(
                errno.EMSGSIZE, f"{self.name}: a wire segment of {packet} bytes exceeds the MTU of {self.mtu}"
            )
        self._sent_frames += 1
        self._sent_bytes += len(header) + sum(map(len, payload))
        for segment in segments:
            network.carry(self, segment, vlan)
        return True

    def writable(self) -> bool:
        if self._closed:
            raise LinkError(errno.EBADF, f"{self.name}: the link is closed")
        network = self.network
        if self.send_buffer and network.bandwidth and network.waiting(self) > self.send_buffer:
            return False
        # Whoever asks knows now; next_at() need not tell again, if there is nothing to be sent any more.
        self._refused_now = False
        return True

    def set_filter(self, flows: Iterable[Flow] | None) -> None:
        self._settle()
        self._flows = None if flows is None else frozenset(flows)
        self._addresses = frozenset([(flow.local_address, flow.remote_address) for flow in self._flows or ()])

    @property
    def statistics(self) -> Statistics:
        return Statistics(
            self._received_frames, self._received_bytes, 0, self._sent_frames, self._sent_bytes, self._refused
        )

    def close(self) -> None:
        self._closed = True
        self.release()
        self.under_way.clear()
        self._arrived.clear()
        self.network.detach(self)

    def _settle(self) -> None:
        """Takes in what has arrived by now, through the filter of now."""
        now = self.network.clock()
        tap = self.network.tap
        while self.under_way and self.under_way[0][0] <= now:
            arrival, _, frame, vlan, intact = heappop(self.under_way)
            if tap is not None:
                tap(arrival, self.name, "in", on_wire(frame, vlan))
            if self._flows is None or flow_of(frame) in self._flows or part_of(frame) in self._addresses:
                self._arrived.append((frame, vlan, intact))


def on_wire(frame: bytearray, vlan: int) -> bytes:
    """The frame with its 802.1Q tag, if it has one, where it is on the wire."""
    if vlan < 0:
        return bytes(frame)
    return b"".join((frame[:12], b"\x81\x00", vlan.to_bytes(2, "big"), frame[12:]))
