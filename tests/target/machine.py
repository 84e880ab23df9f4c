"""Two hosts with drivers and targets, over a network in memory and under virtual time; the hosts record everything."""

from __future__ import annotations

import struct

from chimney.intermediate import PassThrough
from chimney.link.base import NEVER, Flow
from chimney.link.memory import Clock, MemoryNetwork
from chimney.ndis import (
    DisconnectFlags,
    OffloadHandle,
    OffloadStateType,
    Protocol,
    ProtocolOffloadBlockList,
    Status,
    bind,
    net_buffer_list,
)
from chimney.ndis.buffers import iterate, link
from chimney.ndis.state import (
    NeighborCached,
    NeighborConst,
    NeighborDelegated,
    PathCached,
    PathConst,
    PathDelegated,
    TcpCached,
    TcpConst,
    TcpDelegated,
    TimerRemainder,
    walk,
)
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState, TcpConstFlags, TcpOffloadEvent
from chimney.target import SoftTarget, TargetConfig

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
IPV4 = (b"\x0a\0\0\x01", b"\x0a\0\0\x02")
IPV6 = (b"\xfd" + bytes(14) + b"\x01", b"\xfd" + bytes(14) + b"\x02")
ISS = (0xFFFFFF00, 0x7FFFFF00)
WINDOW = 1 << 18
SCALE = 7
CONST_FLAGS = TcpConstFlags.TIMESTAMP_ENABLED | TcpConstFlags.SACK_ENABLED | TcpConstFlags.WINDOW_SCALING_ENABLED


def delegated(side: int, **changes) -> TcpDelegated:
    """The state right after the handshake, as one side has it."""
    mine, theirs = ISS[side], ISS[1 - side]
    values = {
        "state": TcpConnectionState.ESTABLISHED,
        "rcv_nxt": theirs,
        "rcv_wnd": WINDOW,
        "snd_una": mine,
        "snd_nxt": mine,
        "snd_max": mine,
        "snd_wnd": WINDOW,
        "max_snd_wnd": WINDOW,
        "send_wl1": theirs,
        "c_wnd": 14600,
        "ss_thresh": 0x7FFFFFFF,
        "s_rtt": 0,
        "rtt_var": 0,
        "ts_recent": 1,
        "ts_recent_age": 0,
        "ts_time": 1,
        "total_rt": 0,
        "dup_ack_count": 0,
        "snd_wnd_probe_count": 0,
        "keep_alive": TimerRemainder(),
        "retransmit": TimerRemainder(),
    }
    return TcpDelegated(**(values | changes))


class Host(Protocol):
    """A protocol edge that writes everything down, in order, in ``log``: (what, subject, status or information, bytes).

    A completion's subject is its NetBufferList. ``answer`` decides about indications: it takes the bytes and returns
    how many are consumed. ``on`` holds callbacks that run inside the handler of that name, with the subject.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.log: list[tuple[str, object, int, int]] = []
        self.indicated = bytearray()
        self.answer = lambda data: 0
        self.held: list[object] = []
        self.ordinary: list[bytes] = []
        self.on: dict[str, object] = {}
        self.running: set[object] = set()

    def note(self, what, subject, status, count=0):
        self.log.append((what, subject, status, count))
        if what in self.on:
            self.on[what](subject)

    def took(self, what):
        """The entries of one kind, without their name."""
        return [entry[1:] for entry in self.log if entry[0] == what]

    def initiate_offload_complete(self, block_list):
        self.note("initiate", block_list, block_list.status)

    def terminate_offload_complete(self, block_list):
        self.note("terminate", block_list, block_list.status)

    def update_offload_complete(self, block_list):
        self.note("update", block_list, block_list.status)

    def invalidate_offload_complete(self, block_list):
        self.note("invalidate", block_list, block_list.status)

    def query_offload_complete(self, block_list):
        self.note("query", block_list, block_list.status)

    def _completed(self, what, head):
        for nbl in iterate(head):
            nbl.next = None
            self.note(what, nbl, nbl.status, nbl.tcp_offload_bytes_transferred)

    def tcp_offload_send_complete(self, net_buffer_list):
        self._completed("send", net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list):
        assert not self.running, "upcalls of one connection must not nest (recv.complete.no-nesting)"
        self.running.add(net_buffer_list)
        self._completed("receive", net_buffer_list)
        self.running.clear()

    def tcp_offload_disconnect_complete(self, net_buffer_list):
        assert net_buffer_list.next is None
        self._completed("disconnect", net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list):
        self._completed("forward", net_buffer_list)

    def tcp_offload_receive_indicate(self, offload_context, net_buffer_list, status):
        assert not self.running, "upcalls of one connection must not nest (recv.complete.no-nesting)"
        assert net_buffer_list.next is None and status == Status.SUCCESS
        data = b"".join(net_buffer_list.first_net_buffer.views())
        self.running.add(net_buffer_list)
        consumed = self.answer(data)
        self.note("indicate", offload_context, consumed, len(data))
        self.running.clear()
        self.indicated += data[:consumed]
        if consumed == len(data):
            self.held.append(net_buffer_list)
            return Status.SUCCESS, consumed
        return (Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED if consumed else Status.OFFLOAD_DATA_NOT_ACCEPTED), consumed

    def tcp_offload_event(self, offload_context, event_type, event_specific_information):
        self.note(TcpOffloadEvent(event_type).name, offload_context, event_specific_information)

    def indicate_offload_event(self, block_list, indication_code):
        self.note("generic", block_list, indication_code)

    def receive_net_buffer_lists(self, net_buffer_list):
        frame = b"".join(net_buffer_list.first_net_buffer.views())
        self.ordinary.append(frame)
        self.note("frame", frame, 0)


class End:
    """One end of one connection: what the host knows of it, and shortcuts for its requests."""

    def __init__(self, side: Side, port: int, ipv6: bool = False) -> None:
        self.side = side
        self.host = side.host
        addresses = IPV6 if ipv6 else IPV4
        ports = (port, port + 1)
        mine, theirs = side.number, 1 - side.number
        self.flow = Flow(addresses[mine], ports[mine], addresses[theirs], ports[theirs])
        self.handle = OffloadHandle(self)
        self.path_handle = OffloadHandle("path")
        self.neighbor_handle = OffloadHandle("neighbor")
        self.neighbor = NeighborConst()
        self.neighbor_cached = NeighborCached(MACS[theirs])
        self.path_mtu = 1500
        self.const = TcpConst(CONST_FLAGS, ports[theirs], ports[mine], SCALE, SCALE, 1460)
        self.cached = TcpCached(TcpCachedFlags(0), WINDOW)
        self.delegated = delegated(side.number)

    @property
    def ip_type(self):
        return OffloadStateType.IP4 if len(self.flow.local_address) == 4 else OffloadStateType.IP6

    def initiate_tree(self, chain=None):
        """Neighbor, path and connection, each new where its handle is not offloaded."""
        tcp = ProtocolOffloadBlockList(
            type=OffloadStateType.TCP,
            const=self.const,
            cached=self.cached,
            delegated=self.delegated,
            net_buffer_list_chain=chain,
            offload_handle=self.handle,
        )
        if chain is not None:
            self.delegated.send_data_head = chain
            self.delegated.send_data_tail = list(iterate(chain))[-1]
        path = ProtocolOffloadBlockList(type=self.ip_type, offload_handle=self.path_handle, dependent_block_list=tcp)
        if self.path_handle.miniport_offload_context is None:
            path.const = PathConst(self.flow.local_address, self.flow.remote_address)
            path.cached = PathCached(self.path_mtu)
            path.delegated = PathDelegated()
        neighbor = ProtocolOffloadBlockList(
            type=OffloadStateType.NEIGHBOR, offload_handle=self.neighbor_handle, dependent_block_list=path
        )
        if self.neighbor_handle.miniport_offload_context is None:
            neighbor.const, neighbor.cached = self.neighbor, self.neighbor_cached
            neighbor.delegated = NeighborDelegated()
        return neighbor

    def initiate(self, chain=None):
        """Offload; the statuses of neighbor, path and connection, once it has completed."""
        tree = self.initiate_tree(chain)
        self.side.binding.initiate_offload(tree)
        self.side.wait_for("initiate", tree)
        return [block.status for block in walk(tree)]

    def terminate_tree(self, connection=True):
        """Neighbor and path, and the connection above them."""
        tcp = None
        if connection:
            tcp = ProtocolOffloadBlockList(
                type=OffloadStateType.TCP_DELEGATED, delegated=delegated(self.side.number), offload_handle=self.handle
            )
        path = ProtocolOffloadBlockList(
            type=OffloadStateType.IP4_DELEGATED,
            delegated=PathDelegated(),
            offload_handle=self.path_handle,
            dependent_block_list=tcp,
        )
        return ProtocolOffloadBlockList(
            type=OffloadStateType.NEIGHBOR_DELEGATED,
            delegated=NeighborDelegated(),
            offload_handle=self.neighbor_handle,
            dependent_block_list=path,
        )

    def terminate(self):
        """Take connection, path and neighbor back; returns the connection's block; `delegated` is its state then."""
        tree = self.terminate_tree()
        self.side.binding.terminate_offload(tree)
        self.side.wait_for("terminate", tree)
        [tcp] = [block for block in walk(tree) if block.offload_handle is self.handle]
        assert {block.status for block in walk(tree)} == {Status.SUCCESS}
        self.delegated = tcp.delegated
        return tcp

    def send(self, *data: bytes):
        """Post a list of sends, one for each argument."""
        lists = [net_buffer_list(part) for part in data]
        self.side.binding.offload_tcp_send(self.handle, link(lists))
        return lists

    def receive(self, *sizes: int, push: bool = True):
        """Post a list of receives; a list of (NetBufferList, buffer)."""
        pairs = []
        for size in sizes:
            buffer = bytearray(size)
            nbl = net_buffer_list(buffer)
            nbl.tcp_receive_no_push = not push
            pairs.append((nbl, buffer))
        self.side.binding.offload_tcp_receive(self.handle, link([nbl for nbl, _ in pairs]))
        return pairs

    def disconnect(self, data: bytes = b"", flags=DisconnectFlags.GRACEFUL_CLOSE):
        nbl = net_buffer_list(data)
        self.side.binding.offload_tcp_disconnect(self.handle, nbl, flags)
        return nbl

    def forward(self, *segments: bytes):
        lists = [net_buffer_list(segment) for segment in segments]
        self.side.binding.offload_tcp_forward(self.handle, link(lists))
        return lists

    def segment(self, offset, data=b"", *, ack=0, push=True, flags=0x10):
        """A TCP segment from the peer with data from ``offset`` of its stream, acknowledging ``ack`` bytes of ours."""
        mine, theirs = ISS[self.side.number], ISS[1 - self.side.number]
        numbers = (theirs + offset) & 0xFFFFFFFF, (mine + ack) & 0xFFFFFFFF
        flags |= 8 if push else 0
        ports = self.flow.remote_port, self.flow.local_port
        return struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, flags, WINDOW >> SCALE, 0, 0) + data

    @property
    def offloaded(self):
        """The target's own record."""
        return self.side.target.find(self.flow)


class Side:
    """One host with ``drivers`` pass-through drivers above a target."""

    def __init__(self, world: World, number: int, drivers: int, config: TargetConfig) -> None:
        self.number = number
        self.world = world
        self.clock = world.clock
        self.link = world.network.link("ab"[number], MACS[number], send_buffer=world.send_buffer)
        self.target = SoftTarget(f"target {number}", self.link, world.clock, config)
        self.host = Host(f"host {number}")
        below = self.target
        for index in range(drivers):
            driver = PassThrough(f"driver {number}.{index}")
            bind(driver.lower, below)
            below = driver.upper
        self.binding = bind(self.host, below)

    def state(self, operation, tree):
        """A state operation on the binding, and the target's turn, in which it completes."""
        getattr(self.binding, operation)(tree)
        self.target.flush(self.clock())

    def wait_for(self, what, tree):
        """Poll: a state operation completes then, not from within the call. A terminate waits for a full link."""
        assert not self.host.log or self.host.log[-1][1] is not tree, "completed from within the downward call"

        def completions():
            return sum(subject is tree for subject, *_ in self.host.took(what))

        self.target.poll(self.clock())
        if what == "terminate" and not completions():
            self.world.run(until=completions)
        assert completions() == 1, f"{what} completes once"


class World:
    """Two sides, a network between them, and the time."""

    def __init__(self, drivers=0, config=None, seed=1, send_buffer=0, **impairments) -> None:
        self.clock = Clock(1_000_000)
        self.send_buffer = send_buffer
        self.network = MemoryNetwork(self.clock, seed, **impairments)
        self.sides = [Side(self, number, drivers, config or TargetConfig()) for number in (0, 1)]
        self.wire: list[tuple[int, str, bytes]] = []
        self.network.tap = self._tap

    def _tap(self, time, name, direction, frame):
        if direction == "out":
            self.wire.append((time, name, frame))

    def ends(self, port=1000, ipv6=False):
        """Both ends of a connection, not offloaded yet."""
        return [End(side, port, ipv6) for side in self.sides]

    def connect(self, port=1000, ipv6=False):
        """Both ends of a connection, offloaded."""
        ends = self.ends(port, ipv6)
        for end in ends:
            assert set(end.initiate()) == {Status.SUCCESS}
        return ends

    def poll(self):
        """Let both targets do what can be done now, until that is nothing."""
        for _ in range(1000):
            if not sum([side.target.poll(self.clock()) for side in self.sides]):
                return
        raise AssertionError("a target finds work for ever")

    def next_at(self):
        for side in self.sides:
            if not side.target.wants_write:
                side.link.writable()
        return min(self.network.next_at(), *(side.target.poll_at() for side in self.sides))

    def run(self, until=None, duration=None, limit=600_000_000):
        """Let time pass until the condition holds, or for a duration (us), or until nothing happens any more."""
        end = self.clock() + (limit if duration is None else duration)
        self.poll()
        while until is None or not until():
            at = max(self.next_at(), self.clock())
            if at >= NEVER or at > end:
                if duration is not None:
                    self.clock.advance_to(end)
                    self.poll()
                assert until is None, f"not reached at {self.clock()} us"
                return
            self.clock.advance_to(at)
            self.poll()
