"""The way of one connection between the kernel and a target, down and up, and back where a step of it fails.

The order of the steps is D7's (docs: *Hand-over*).
"""

from __future__ import annotations

import errno
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from chimney.host.chimney_path import ChimneyPath
from chimney.host.ending import error_of, judge
from chimney.host.errors import NotOffloadable, UploadFailed
from chimney.host.icmp import IcmpMessage, too_big
from chimney.host.kernel import GivenState, KernelSide, Plan, TakenState
from chimney.host.requests import SendRequest, TakenSend
from chimney.host.segments import KeptSegment, data_beyond, without_repeats
from chimney.host.services import Adapter, Services
from chimney.host.upkeep import is_busy
from chimney.ndis.state import TcpDelegated
from chimney.ndis.status import Status, TcpCachedFlags, TcpConnectionState

if TYPE_CHECKING:
    from chimney.host.connection import Connection

_MASK = 0xFFFFFFFF
# Kept segments are bounded: what is beyond, the peer sends again.
_KEPT_LIMIT = 4096
# A terminate that fails for want of memory is asked for again, in a turn of its own each time.
_TERMINATES = 100
_FIN_IN_FLIGHT = frozenset({TcpConnectionState.FIN_WAIT_1, TcpConnectionState.CLOSING, TcpConnectionState.LAST_ACK})
_FIN_RECEIVED = frozenset({TcpConnectionState.CLOSE_WAIT, TcpConnectionState.CLOSING, TcpConnectionState.LAST_ACK})
_FIN_SENT = _FIN_IN_FLIGHT | {TcpConnectionState.FIN_WAIT_2, TcpConnectionState.TIME_WAIT, TcpConnectionState.CLOSED}


class Owner(Enum):
    """Who owns the connection now."""

    KERNEL = "kernel"
    OFFLOADING = "offloading"
    TARGET = "target"
    UPLOADING = "uploading"
    APPLICATION = "application"


class HandOver:
    """Moves a connection; made with it, and called when no completion is under way (`Services.hand_over`).

    adapter  where the connection was offloaded last; None if it never was. ``plan`` is what the kernel said then.
    """

    def __init__(self, connection: Connection, services: Services, kernel: KernelSide) -> None:
        self.adapter: Adapter | None = None
        self.plan: Plan | None = None
        self._connection = connection
        self._services = services
        self._kernel = kernel
        self._taken: TakenState | None = None
        self._kept: list[KeptSegment] = []

    @property
    def retransmitted(self) -> int:
        """Segments that the target has retransmitted so far of the connection that it has."""
        if self.adapter is None or self.plan is None or self._connection.chimney is None:
            return 0
        return self.adapter.retransmitted(self.plan.flow)

    @property
    def tcp_info(self) -> dict[str, int]:
        """What the target tells of the connection that it has, by the names of struct tcp_info."""
        if self.adapter is None or self.plan is None or self._connection.chimney is None:
            return {}
        return self.adapter.tcp_info(self.plan.flow)

    def keep(self, segment: KeptSegment) -> None:
        """A segment that reached the host while a hand-over is under way."""
        if len(self._kept) < _KEPT_LIMIT:
            self._kept.append(segment.copy())

    def arrived(self, segments: list[KeptSegment]) -> None:
        """Segments that have reached the host while the connection is out of the kernel: kept while a hand-over is
        under way, and forwarded unless the target has passed them up because it does not want them (10.7).
        """
        connection = self._connection
        if connection.owner is not Owner.TARGET:
            for segment in segments:
                self.keep(segment)
        elif foreign := [segment for segment in segments if segment.foreign]:
            assert connection.chimney is not None
            connection.chimney.forward(foreign)

    def _drain(self) -> None:
        """Take in what has arrived up to now, wherever that was."""
        assert self.adapter is not None
        self.adapter.drain()
        self._services.elsewhere.drain()

    # Down

    def offload(self, patient: bool = True) -> None:
        """Move the connection down, with everything posted; nothing if it is not the kernel's. Raises NotOffloadable,
        and UploadFailed if the kernel does not take back what the target refused.

        If ``patient``, it waits some seconds for a next hop that is not known yet.
        """
        connection = self._connection
        if connection.owner is not Owner.KERNEL:
            return
        if connection.error is not None:
            raise NotOffloadable(f"{connection!r} has failed ({connection.error}): there is nothing left to offload")
        connection.kernel_path.finish_sends()
        if connection.mistrust is not None:
            connection.mistrust.check(connection)
        plan = self._kernel.prepare(patient)
        adapter = self._services.adapter(plan.device)
        others = self._services.elsewhere.watch(plan, self.arrived)
        try:
            adapter.watch(plan.flow)
        except OSError as error:
            self._services.elsewhere.unwatch(plan.flow)
            raise NotOffloadable(f"the tap on {plan.device} does not let {connection!r} in: {error}") from error
        withdrawal = self._services.withdrawals.find(connection)
        started = self._services.clock()
        connection.kernel_path.stop()
        self.plan, self.adapter = plan, adapter
        adapter.edge.takers[plan.flow] = self.arrived
        try:
            # The tap has been open for a while: what has come until then is the kernel's.
            taken = self._kernel.take(plan, others, self._drain)
        except (NotOffloadable, UploadFailed):
            # The kernel's in any case, even if it has made a mess of it.
            del adapter.edge.takers[plan.flow]
            self._kept.clear()
            adapter.unwatch(plan.flow)
            self._services.elsewhere.unwatch(plan.flow)
            connection.resume_kernel_path()
            raise
        connection.owner = Owner.OFFLOADING
        self._taken = taken
        connection.count_kernel_stretch(taken.carried)
        self._services.offloaded[plan.flow] = connection
        self._kept = data_beyond(self._kept, taken.delegated.rcv_nxt)
        chained: list[SendRequest] = [TakenSend(connection, view, None) for view in taken.send_data]
        connection.sends.extendleft(reversed(chained))
        status = self._initiate(taken, chained)
        if status != Status.SUCCESS:
            self._undo(taken, chained, status)
        self._enter_target()
        connection.mistrust = None
        now = self._services.clock()
        self._services.withdrawals.down_again(connection, withdrawal, now)
        connection.figures.offloads += 1
        connection.figures.offload_seconds.append((now - started) / 1e6)
        adapter.flush()

    def _initiate(self, taken: TakenState, chained: list[SendRequest]) -> Status:
        """Offload the connection's state; returns what became of its TCP block."""
        assert self.adapter is not None and self.plan is not None
        plan, edge = self.plan, self.adapter.edge
        path = edge.objects.path(plan)
        while path.running or path.neighbor.running:
            # What is being changed may not be linked to.
            self.adapter.flush()
            self._services.turn(None)
            path = edge.objects.path(plan)
        if path.offloaded and path.cached.path_mtu != plan.path_mtu:
            edge.upkeep.changed()
        chimney = self._connection.chimney = ChimneyPath(self._connection, edge, path)
        chimney.initiate(taken, chained)
        self.adapter.flush()
        if chimney.initiated is None:
            while chimney.initiated is None:
                self._services.turn(None)
            # News that came meanwhile were about nobody. (In each turn, this would keep the turns from waiting.)
            edge.upkeep.changed()
        if chimney.left_over:
            # It stays below if this fails, too, and the next connection that needs it finds it there.
            self._terminate()
        return chimney.initiated

    def _enter_target(self) -> None:
        """The initiate has succeeded: what was posted goes down, and so do the segments kept meanwhile."""
        connection = self._connection
        assert connection.chimney is not None and self.adapter is not None and self.plan is not None
        connection.owner = Owner.TARGET
        connection.post_everything()
        kept, self._kept = self._kept, []
        connection.chimney.forward(kept)

    def _undo(self, taken: TakenState, chained: list[SendRequest], status: Status) -> None:
        """The target refused: nothing has moved (9.2, step 13)."""
        for request in chained:
            request.net_buffer_list = None
        try:
            self._give_back(GivenState(taken.delegated, unread=taken.unread))
        except UploadFailed as error:
            self._lost(error)
            raise
        raise NotOffloadable(f"the target refused {self._connection!r}: {status.name}. It goes on in the kernel")

    def update_options(self) -> bool:
        """Tell the target what options the application has changed; True as long as that has to wait."""
        chimney, taken = self._connection.chimney, self._taken
        if self._connection.owner is not Owner.TARGET or chimney is None or taken is None:
            return self._connection.owner is Owner.OFFLOADING
        cached, before = self._kernel.cached(), taken.cached
        if cached == before:
            return False
        if is_busy(chimney.record):
            return True
        orders = replace(cached)
        if cached.initial_rcv_wnd != before.initial_rcv_wnd:
            orders.flags |= TcpCachedFlags.UPDATE_RCV_WND
        taken.cached = cached

        def done(accepted: bool) -> None:
            if not accepted:
                self._connection.withdraw("the target does not take a socket option that has been changed")

        assert self.adapter is not None
        self.adapter.edge.upkeep.update_connection(chimney.record, orders, done)
        self._services.flush_soon(self.adapter)
        return False

    # Up

    def upload(self) -> None:
        """Move the connection up, with everything posted; nothing if it is not the target's. Raises UploadFailed."""
        connection = self._connection
        if connection.owner is not Owner.TARGET:
            return
        assert connection.chimney is not None and self.adapter is not None and self.plan is not None
        self._drain()
        started = self._services.clock()
        retransmits = self.adapter.retransmitted(self.plan.flow)
        found_mtu = self.adapter.found_mtu(self.plan.flow)
        connection.owner = Owner.UPLOADING
        connection.forget_later()
        if not self._terminate():
            self._enter_target()
            self._services.flush_soon(self.adapter)
            raise UploadFailed(f"the drivers below do not give {connection!r} back: it goes on there; try again later")
        figures, chimney = connection.figures, connection.chimney
        figures.retransmits += retransmits
        assert chimney.terminated is not None
        delegated = chimney.terminated.delegated
        assert isinstance(delegated, TcpDelegated)
        unread = chimney.take_buffered()
        aborted = connection.abort_request is not None and connection.abort_request.done
        assert self._taken is not None
        error = judge(connection, delegated, self._taken.cached, self._kernel)
        given = GivenState(delegated, unread=unread, error=error)
        figures.bytes_sent_target += chimney.bytes_sent
        figures.bytes_received_target += chimney.bytes_received
        try:
            self._give_back(given)
        except UploadFailed as error:
            self._offload_again(given, error)
            raise
        if found_mtu and not given.error:
            self._teach_mtu(too_big(self.plan.flow, delegated.snd_max, found_mtu))
        if connection.abort_request is not None and not aborted:
            # The target had no time for its RST (disconnect.host.no-reissue): the kernel sends it.
            self._kernel.abort()
        figures.uploads += 1
        figures.upload_seconds.append((self._services.clock() - started) / 1e6)

    def _teach_mtu(self, message: IcmpMessage) -> None:
        """In a black hole the kernel, which does not look for one unless it is told to, would send nothing that
        arrives.
        """
        try:
            self._kernel.icmp(message)
        except OSError:
            # It is no worse off than without the stay below.
            pass

    def _terminate(self) -> bool:
        """Have the state given back; False if that fails again and again."""
        chimney = self._connection.chimney
        assert chimney is not None and self.adapter is not None
        for _ in range(_TERMINATES):
            while chimney.must_wait:
                self.adapter.flush()
                self._services.turn(None)
            chimney.terminate()
            self.adapter.flush()
            while chimney.terminating:
                self._services.turn(None)
            if chimney.terminated is not None:
                return True
            # A driver that lacks memory has passed nothing down (A24); a target whose hardware has failed keeps the
            # requests until it is asked once more (A6).
            self._services.turn(0.0)
        return False

    def _give_back(self, given: GivenState) -> None:
        """Terminate has completed, or the initiate failed: the kernel's from here on. Raises UploadFailed."""
        connection = self._connection
        if not given.error and given.delegated.state is not TcpConnectionState.CLOSED:
            given.sent = self._sent_part(given.delegated)
        self._kernel.give_back(given, self._arrived)
        # The kernel has the FIN, too, and may have got its acknowledgement.
        connection.fin_queued = given.delegated.state in _FIN_SENT and not given.error
        self._mark_sent(sum(view.nbytes for view in given.sent))
        connection.carried_before = (0, sum(view.nbytes for view in given.unread))
        # The last ones came while the kernel's socket opened up again.
        last = self._arrived()
        self._leave_adapter()
        if last:
            self._inject(last)
        connection.stream_ended = given.delegated.state in _FIN_RECEIVED
        connection.resume_kernel_path()
        if given.error:
            aborted = connection.abort_request is not None
            connection.kernel_path.end(connection.target_error() if aborted else error_of(given.error))

    def _inject(self, packets: list[bytes]) -> None:
        try:
            self._kernel.inject(packets)
        except OSError:
            # No memory, no descriptors: nobody has acknowledged them, so that the peer sends them again.
            pass

    def _leave_adapter(self) -> None:
        assert self.adapter is not None and self.plan is not None
        del self.adapter.edge.takers[self.plan.flow]
        del self._services.offloaded[self.plan.flow]
        self.adapter.unwatch(self.plan.flow)
        self._services.elsewhere.unwatch(self.plan.flow)
        self._connection.chimney = None

    def _offload_again(self, given: GivenState, error: UploadFailed) -> None:
        """The kernel did not take the connection: the target gets it once more, as it gave it away."""
        assert self._taken is not None and self.adapter is not None
        delegated = given.delegated
        if given.error or not delegated.state.offloadable:
            self._lost(error)
            return
        delegated.send_data_head = delegated.send_data_tail = None
        # What came during the terminate is not for the target (terminate.segments.not-back): the peer sends it again.
        self._kept.clear()
        self._connection.owner = Owner.OFFLOADING
        state = TakenState(self._taken.const, self._taken.cached, delegated, [], given.unread, (0, 0))
        if self._initiate(state, list(self._connection.sends)) != Status.SUCCESS:
            self._lost(error)
            return
        self._enter_target()
        # What has been heard of its way meanwhile was about nobody.
        self.adapter.edge.upkeep.changed()
        self._services.flush_soon(self.adapter)

    def _lost(self, error: UploadFailed) -> None:
        """Neither side has the connection any more."""
        for request in self._connection.sends:
            request.net_buffer_list = None
        self._leave_adapter()
        self._kernel.abort()
        self._connection.resume_kernel_path()
        self._connection.fail(OSError(errno.ECONNABORTED, str(error)))

    def _arrived(self) -> list[bytes]:
        """The packets that nobody has processed: the tap has seen them."""
        assert self.adapter is not None
        self._drain()
        kept, self._kept = self._kept, []
        return [bytes(segment.packet) for segment in without_repeats(kept)]

    def _sent_part(self, delegated: TcpDelegated) -> list[memoryview]:
        """The bytes from SND.UNA to SND.MAX, at the head of the sends: the kernel must know them as sent."""
        left = (delegated.snd_max - delegated.snd_una) & _MASK
        if delegated.state in _FIN_IN_FLIGHT and left:
            left -= 1
        parts: list[memoryview] = []
        for request in self._connection.sends:
            if not left:
                break
            parts.append(request.remaining()[:left])
            left -= parts[-1].nbytes
        assert not left, f"{left} bytes in flight belong to no request (terminate.senddata.seq)"
        return parts

    def _mark_sent(self, count: int) -> None:
        """The first ``count`` bytes of the sends are the kernel's."""
        for request in self._connection.sends:
            part = min(count, request.length - request.bytes_transferred)
            request.bytes_transferred += part
            count -= part
