"""A kernel, a target and a stack that do what a test says, around the real switch and the real edge."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from chimney.host.connection import Connection
from chimney.host.edge import HostEdge
from chimney.host.elsewhere import Nowhere
from chimney.host.errors import ChimneyError, NotOffloadable, UploadFailed
from chimney.host.icmp import IcmpMessage
from chimney.host.kernel import Flow, GivenState, Plan, TakenState
from chimney.host.withdrawal import Withdrawals
from chimney.intermediate import PassThrough
from chimney.ndis import Miniport, MiniportOffloadBlockList, NetBufferList, Status, bind
from chimney.ndis.buffers import advance_net_buffer_data_start, iterate, link
from chimney.ndis.state import (
    NeighborConst,
    NeighborDelegated,
    PathConst,
    TcpCached,
    TcpConst,
    TcpDelegated,
    TimerRemainder,
    walk,
)
from chimney.ndis.status import OffloadStateType, TcpCachedFlags, TcpConnectionState, TcpConstFlags

FLOW = Flow(b"\x0a\x00\x00\x01", 80, b"\x0a\x00\x00\x02", 4000)
ISS, IRS = 0xFFFFFF00, 0x7FFFFF00


def views(data: bytes) -> list[memoryview]:
    return [memoryview(data)] if data else []


class ScriptedKernel:
    """Kernel side with a receive queue, a bounded send queue, and a memory of what it was given."""

    def __init__(self, flow: Flow = FLOW) -> None:
        self.flow = flow
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.room = 1 << 20
        self.unsent = b""
        self.ended = False
        self.error: OSError | None = None
        self.shut = self.aborted = self.released = False
        self.refusal: NotOffloadable | None = None
        self.nowhere: NotOffloadable | None = None
        self.plan = Plan(
            flow,
            "eth0",
            "eth0",
            NeighborConst(),
            b"\x02" * 6,
            PathConst(FLOW.local_address, FLOW.remote_address),
            1500,
            FLOW.remote_address,
            2,
            b"\x04" * 6,
        )
        self.failures: list[UploadFailed] = []
        self.given: list[GivenState] = []
        self.injected: list[bytes] = []
        self.told: list[IcmpMessage] = []
        self.wants_errors = False
        self.pending_error = 0
        self.options: dict[tuple[int, int], int | bytes] = {}
        self.interest = (False, False)
        self.state = TcpConnectionState.ESTABLISHED

    def has_shut(self) -> bool:
        return self.shut

    def prepare(self, patient: bool = True) -> Plan:
        return self.where()

    def where(self) -> Plan:
        if self.nowhere is not None:
            raise self.nowhere
        return replace(self.plan, flow=self.flow)

    def take(
        self, plan: Plan, others: Sequence[int] = (), just_before: Callable[[], None] | None = None
    ) -> TakenState:
        if just_before is not None:
            just_before()
        if self.refusal is not None:
            raise self.refusal
        unread = bytes(self.incoming)
        self.incoming.clear()
        delegated = TcpDelegated(
            state=self.state,
            rcv_nxt=IRS,
            rcv_wnd=65535,
            snd_una=ISS,
            snd_nxt=(ISS + len(self.unsent)) & 0xFFFFFFFF,
            snd_max=(ISS + len(self.unsent)) & 0xFFFFFFFF,
            snd_wnd=65535,
            max_snd_wnd=65535,
            send_wl1=IRS,
            c_wnd=14480,
            ss_thresh=0x7FFFFFFF,
            s_rtt=8,
            rtt_var=4,
            ts_recent=0,
            ts_recent_age=0,
            ts_time=0,
            total_rt=0,
            dup_ack_count=0,
            snd_wnd_probe_count=0,
            keep_alive=TimerRemainder(),
            retransmit=TimerRemainder(),
        )
        const = TcpConst(TcpConstFlags.SACK_ENABLED, FLOW.remote_port, FLOW.local_port, 7, 7, 1460)
        cached = TcpCached(TcpCachedFlags(0), 65535)
        return TakenState(const, cached, delegated, views(self.unsent), views(unread), (0, 0))

    def give_back(self, state: GivenState, meanwhile: Callable[[], list[bytes]]) -> None:
        if self.failures:
            raise self.failures.pop()
        self.given.append(state)
        self.injected += meanwhile()
        for view in state.unread:
            self.incoming += view

    def inject(self, packets: list[bytes]) -> None:
        self.injected += packets

    def getsockopt(self, level: int, option: int) -> int:
        return self.options.get((level, option), 0)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self.options[level, option] = value

    def cached(self) -> TcpCached:
        return TcpCached(TcpCachedFlags(0), 65535, ttl_or_hop_limit=self.options.get((0, 2), 64))

    def icmp(self, message: IcmpMessage) -> None:
        self.told.append(message)

    def tells_errors(self) -> bool:
        return self.wants_errors

    def forget_error(self) -> int:
        self.told.clear()
        return self.pending_error

    def send(self, data: memoryview) -> int:
        if self.error is not None:
            raise self.error
        taken = min(len(data), self.room - len(self.outgoing))
        self.outgoing += data[:taken]
        return taken

    def receive_into(self, buffer: memoryview) -> int:
        if self.error is not None:
            raise self.error
        count = min(len(buffer), len(self.incoming))
        if not count:
            return 0 if self.ended else -1
        buffer[:count] = self.incoming[:count]
        del self.incoming[:count]
        return count

    def shutdown(self) -> None:
        self.shut = True

    def abort(self) -> None:
        self.aborted = True

    def bytes_carried(self) -> tuple[int, int]:
        return len(self.outgoing), 0

    def tcp_info(self):
        return {"tcpi_rtt": 1000}

    def wait_for(self, readable: bool, writable: bool) -> None:
        self.interest = (readable, writable)

    def release(self) -> None:
        self.released = True


class ScriptedTarget(Miniport):
    """A miniport edge that records everything, and completes only what the test completes."""

    def __init__(self) -> None:
        super().__init__("scripted target")
        self.initiated: list[MiniportOffloadBlockList] = []
        self.terminated: list[MiniportOffloadBlockList] = []
        self.sends: deque[NetBufferList] = deque()
        self.receives: deque[NetBufferList] = deque()
        self.disconnects: list[tuple[NetBufferList, int]] = []
        self.forwards: list[NetBufferList] = []
        self.returned: list[NetBufferList] = []
        self.answer: Status | None = Status.SUCCESS
        self.terminate_at_once = True
        self.failing_terminates = 0
        self.final: dict[str, object] = {}
        # Operations that the test completes: what they are called, and their trees.
        self.operations: list[tuple[str, MiniportOffloadBlockList]] = []
        self.queries: list[MiniportOffloadBlockList] = []
        self.nic_reachability_delta = 0

    @property
    def tcp_handle(self) -> object:
        return self._tcp(self.initiated[-1]).ndis_offload_handle

    @staticmethod
    def _tcp(tree: MiniportOffloadBlockList) -> MiniportOffloadBlockList:
        return next(b for b in walk(tree) if b.type in (OffloadStateType.TCP, OffloadStateType.TCP_DELEGATED))

    def initiate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.initiated.append(block_list)
        if self.answer is not None:
            self.complete_initiate(self.answer)

    def complete_initiate(self, status: Status) -> None:
        tree = self.initiated[-1]
        for block in walk(tree):
            block.status = status
            if status == Status.SUCCESS and block.miniport_offload_context is None:
                block.miniport_offload_context = object()
        if status == Status.SUCCESS and len(list(walk(tree))) == 3:
            self.sends.extend(iterate(self._tcp(tree).net_buffer_list_chain))
        self.handle.initiate_offload_complete(tree)

    def update_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.operations.append(("update", block_list))

    def invalidate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.operations.append(("invalidate", block_list))

    def query_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.queries.append(block_list)

    def complete_queries(self) -> None:
        """Answer every query."""
        queries, self.queries = self.queries, []
        for tree in queries:
            for block in walk(tree):
                block.status = Status.SUCCESS
                if isinstance(block.delegated, NeighborDelegated):
                    block.delegated.nic_reachability_delta = self.nic_reachability_delta
            self.handle.query_offload_state_complete(tree)

    def complete(self, status: Status = Status.SUCCESS) -> tuple[str, MiniportOffloadBlockList]:
        """Complete the oldest operation; its name and its tree."""
        name, tree = self.operations.pop(0)
        for block in walk(tree):
            block.status = status
        {
            "update": self.handle.update_offload_complete,
            "invalidate": self.handle.invalidate_offload_complete,
            "terminate": self.handle.terminate_offload_complete,
        }[name](tree)
        return name, tree

    def terminate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        if self.terminate_at_once and all(b.type is not OffloadStateType.TCP_DELEGATED for b in walk(block_list)):
            self.operations.append(("terminate", block_list))
            return
        self.terminated.append(block_list)
        if self.failing_terminates:
            self.failing_terminates -= 1
            for block in walk(block_list):
                block.status = Status.FAILURE
            self.handle.terminate_offload_complete(block_list)
        elif self.terminate_at_once:
            self.complete_terminate()

    def complete_terminate(self) -> None:
        """Receives back empty, the sends in the chain, the delegated state as `final` says."""
        tree = self.terminated[-1]
        while self.receives:
            self.complete_receive(b"", Status.UPLOAD_IN_PROGRESS)
        for nbl, _ in self.disconnects:
            nbl.status = int(Status.UPLOAD_IN_PROGRESS)
            self.handle.tcp_offload_disconnect_complete(nbl)
        block = self._tcp(tree)
        delegated = block.delegated
        assert isinstance(delegated, TcpDelegated)
        delegated.state = TcpConnectionState.ESTABLISHED
        delegated.snd_una = delegated.snd_nxt = delegated.snd_max = 0
        for name, value in self.final.items():
            setattr(delegated, name, value)
        for nbl in self.sends:
            nbl.status = int(Status.UPLOAD_IN_PROGRESS)
        block.net_buffer_list_chain = link(self.sends)
        self.sends.clear()
        for node in walk(tree):
            node.status = Status.SUCCESS
        self.handle.terminate_offload_complete(tree)

    def tcp_offload_send(self, offload_context: object, net_buffer_list: NetBufferList) -> int:
        self.sends.extend(iterate(net_buffer_list))
        return int(Status.PENDING)

    def tcp_offload_receive(self, offload_context: object, net_buffer_list: NetBufferList) -> int:
        self.receives.extend(iterate(net_buffer_list))
        return int(Status.PENDING)

    def tcp_offload_disconnect(self, offload_context: object, net_buffer_list: NetBufferList, flags: int) -> int:
        self.disconnects.append((net_buffer_list, flags))
        return int(Status.PENDING)

    def tcp_offload_forward(self, offload_context: object, net_buffer_list: NetBufferList) -> int:
        self.forwards += iterate(net_buffer_list)
        return int(Status.PENDING)

    def tcp_offload_receive_return(self, net_buffer_list: NetBufferList) -> int:
        self.returned += iterate(net_buffer_list)
        return int(Status.SUCCESS)

    def complete_send(self, status: Status = Status.SUCCESS, acknowledged: int | None = None) -> None:
        nbl = self.sends.popleft()
        self._account(nbl, nbl.data_length() if acknowledged is None else acknowledged, status)
        self.handle.tcp_offload_send_complete(nbl)

    def acknowledge_head(self, count: int) -> None:
        """The oldest send, which stays, has so many bytes acknowledged: what a terminate's chain says of it (A38)."""
        self._account(self.sends[0], count, Status.UPLOAD_IN_PROGRESS)

    def complete_receive(self, data: bytes, status: Status = Status.SUCCESS) -> None:
        nbl = self.receives.popleft()
        views = nbl.first_net_buffer.views()
        assert len(views) == 1 and len(data) <= len(views[0])
        views[0][: len(data)] = data
        self._account(nbl, len(data), status)
        self.handle.tcp_offload_receive_complete(nbl)

    def complete_disconnect(self, status: Status = Status.SUCCESS) -> None:
        nbl, _ = self.disconnects.pop(0)
        nbl.status = int(status)
        self.handle.tcp_offload_disconnect_complete(nbl)

    @staticmethod
    def _account(nbl: NetBufferList, count: int, status: Status) -> None:
        nbl.status = int(status)
        nbl.tcp_offload_bytes_transferred = count
        advance_net_buffer_data_start(nbl.first_net_buffer, count)


class ScriptedStack:
    """Services and adapter in one: `poll` runs what is due, as the real one does."""

    def __init__(self, drivers: int = 0) -> None:
        self.target = ScriptedTarget()
        self.edge = HostEdge("scripted host", lambda code: None, lambda: 0)
        below = self.target
        for number in range(drivers):
            driver = PassThrough(f"driver {number}")
            bind(driver.lower, below)
            below = driver.upper
        bind(self.edge, below)
        self.kernel = ScriptedKernel()
        self.ready: deque[Callable[[], bool]] = deque()
        self.postponed: list[tuple[Connection, Callable[[], None]]] = []
        self.watched: list[Flow] = []
        self.forgotten: list[object] = []
        self.failed: list[BaseException] = []
        self.now = 0
        self.polling = False
        self.callbacks = 0
        self.offloaded: dict[Flow, Connection] = {}
        self.withdrawals = Withdrawals()
        self.elsewhere = Nowhere()
        self.on_adapter: list[Callable[[object], None]] = []
        self.mtu_found = 0
        self.during_poll: list[Callable[[], None]] = []

    def clock(self) -> int:
        self.now += 10
        return self.now

    def adapter(self, device: str) -> ScriptedStack:
        return self

    def watch(self, flow: Flow) -> None:
        self.watched.append(flow)

    def unwatch(self, flow: Flow) -> None:
        self.watched.remove(flow)

    def run(self) -> None:
        self.target.complete_queries()
        for action in self.during_poll[:]:
            self.during_poll.remove(action)
            action()

    drain = run

    def flush(self) -> None:
        pass

    def retransmitted(self, flow: Flow) -> int:
        return 3

    def found_mtu(self, flow: Flow) -> int:
        return self.mtu_found

    def tcp_info(self, flow: Flow) -> dict[str, int]:
        return {"tcpi_rtt": 2000}

    def wake(self, run: Callable[[], bool]) -> None:
        self.ready.append(run)

    def flush_soon(self, adapter: object) -> None:
        pass

    def check_may_wait(self) -> None:
        pass

    def hand_over(self, connection: Connection, action: Callable[[], None]) -> None:
        if self.polling:
            self.postponed.append((connection, action))
        else:
            action()

    def hand_over_soon(self, connection: Connection, action: Callable[[], None]) -> None:
        self.postponed.append((connection, action))

    def poll(self, timeout: float | None = 0.0) -> None:
        self.polling = True
        self.run()
        for _ in range(len(self.ready)):
            run = self.ready.popleft()
            if run():
                self.ready.append(run)
        self.polling = False
        while self.postponed:
            connection, action = self.postponed.pop(0)
            try:
                action()
            except ChimneyError as error:
                connection.hand_over_error = error
        if self.failed:
            raise self.failed.pop()

    def callback_failed(self, failure: BaseException) -> None:
        self.failed.append(failure)

    turn = poll

    def forget(self, connection: object) -> None:
        self.forgotten.append(connection)
