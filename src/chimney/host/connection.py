"""The switch: one connection of the application, whose requests go through the kernel or through the chimney.

`offload` and `upload` move the connection while requests are posted and data is in flight. The order of the steps is
D7's (docs: *Hand-over*): nothing is acknowledged that could be lost, and at every instant one engine speaks.
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from chimney.host.chimney_path import ChimneyPath
from chimney.host.errors import ChimneyError, NotOffloadable, UploadFailed
from chimney.host.kernel import GivenState, KernelSide, Plan, TakenState
from chimney.host.kernel_path import KernelPath
from chimney.host.requests import Callback, ReceiveRequest, Request, SendRequest, ShutdownRequest
from chimney.host.segments import KeptSegment, without_repeats
from chimney.host.services import Adapter, Services
from chimney.ndis.state import TcpDelegated
from chimney.ndis.status import DisconnectFlags, Status, TcpConnectionState, UploadReason

_MASK = 0xFFFFFFFF
# Kept segments are bounded: what is beyond, the peer sends again.
_KEPT_LIMIT = 4096
# A terminate that fails for want of memory is asked for again, in a turn of its own each time.
_TERMINATES = 100
_FIN_IN_FLIGHT = frozenset({TcpConnectionState.FIN_WAIT_1, TcpConnectionState.CLOSING, TcpConnectionState.LAST_ACK})
_FIN_SENT = _FIN_IN_FLIGHT | {TcpConnectionState.FIN_WAIT_2, TcpConnectionState.TIME_WAIT, TcpConnectionState.CLOSED}


class Owner(Enum):
    """Who owns the connection now."""

    KERNEL = "kernel"
    OFFLOADING = "offloading"
    TARGET = "target"
    UPLOADING = "uploading"
    APPLICATION = "application"


@dataclass(slots=True)
class ConnectionInfo:
    """Figures of one connection. Bytes are stream bytes: acknowledged by the peer when sent, in sequence when
    received.
    """

    owner: str
    offloads: int = 0
    uploads: int = 0
    bytes_sent_kernel: int = 0
    bytes_sent_target: int = 0
    bytes_received_kernel: int = 0
    bytes_received_target: int = 0
    retransmits: int = 0
    offload_seconds: list[float] = field(default_factory=list)
    upload_seconds: list[float] = field(default_factory=list)


class Connection:
    """A connected TCP socket whose I/O goes through the switch; made by `Stack.connection`.

    The socket stays the application's: same object, same descriptor, same options. While the connection is with the
    stack, all its I/O goes through this object. Sends and receives complete in the order posted.
    """

    def __init__(self, services: Services, sock: socket.socket, kernel: KernelSide) -> None:
        self.socket = sock
        self.owner = Owner.KERNEL
        self.sends: deque[SendRequest] = deque()
        self.receives: deque[ReceiveRequest] = deque()
        self.shutdown_request: Request | None = None
        self._abort_request: Request | None = None
        self.error: OSError | None = None
        self.fin_queued = False
        self.hand_over_error: ChimneyError | None = None
        self.chimney: ChimneyPath | None = None
        self.services = services
        self._kernel = kernel
        self._kernel_path = KernelPath(self, kernel)
        self._adapter: Adapter | None = None
        self._plan: Plan | None = None
        self._taken: TakenState | None = None
        self._kept: list[KeptSegment] = []
        # Sends that the target need not have yet, and whether the shutdown waits behind them (send.backlog.hint).
        self._later: deque[SendRequest] = deque()
        self._shutdown_waits = False
        self._feeding = False
        self._info = ConnectionInfo(Owner.KERNEL.value)
        self._carried_before = (0, 0)

    def __repr__(self) -> str:
        return f"<Connection fd={self.socket.fileno()} with {self.owner.value}>"

    @property
    def offloaded(self) -> bool:
        """True while a target owns the connection."""
        return self.owner is Owner.TARGET

    @property
    def adapter(self) -> Adapter | None:
        """Where the connection was offloaded last; None if it never was."""
        return self._adapter

    # Requests

    def post_send(self, data: bytes | bytearray | memoryview, callback: Callback | None = None) -> SendRequest:
        """Send ``data``; it must not change until the request is done. Completes with all bytes, or with an error.

        Raises ValueError for no data, BrokenPipeError after `shutdown`, ChimneyError after `detach`.
        """
        view = _flat(data, "post_send")
        self._check_open("post_send")
        if self.shutdown_request is not None:
            raise BrokenPipeError(f"post_send after shutdown on {self!r}: the sending half has been closed")
        request = SendRequest(self, view, callback)
        self.sends.append(request)
        if self.error is not None:
            self._fail_soon()
        elif self.owner is Owner.TARGET:
            assert self.chimney is not None and self._adapter is not None
            if self._later or self.chimney.has_enough:
                self._later.append(request)
            else:
                self.chimney.post_send(request)
                self.services.flush_soon(self._adapter)
        elif self.owner is Owner.KERNEL:
            self.services.wake(self._kernel_path.run)
        return request

    def post_receive(
        self, buffer: bytearray | memoryview, callback: Callback | None = None, *, push: bool = True
    ) -> ReceiveRequest:
        """Fill ``buffer`` with received bytes. Completes with at least one byte, or with none at the end of the stream.

        With ``push`` it completes as soon as the peer pushes; without, when it is full (or the stream or the stay in
        the chimney ends). Raises ValueError for an empty or read-only buffer, ChimneyError after `detach`.
        """
        view = _flat(buffer, "post_receive")
        if view.readonly:
            raise ValueError("post_receive needs a writable buffer, for example a bytearray")
        self._check_open("post_receive")
        request = ReceiveRequest(self, view, callback, push)
        self.receives.append(request)
        if self.error is not None:
            self._fail_soon()
        elif self.owner is Owner.TARGET:
            assert self.chimney is not None and self._adapter is not None
            self.chimney.post_receive(request)
            self.services.flush_soon(self._adapter)
        elif self.owner is Owner.KERNEL:
            self.services.wake(self._kernel_path.run)
        return request

    def shutdown(self, callback: Callback | None = None) -> Request:
        """Close the sending half behind everything posted (a FIN). Raises ChimneyError if that was done already."""
        self._check_open("shutdown")
        if self.shutdown_request is not None:
            raise ChimneyError(f"shutdown on {self!r}, whose sending half has been closed already")
        request = self.shutdown_request = ShutdownRequest(self, memoryview(b""), callback)
        if self.error is not None:
            self._fail_soon()
        elif self.owner is Owner.TARGET:
            assert self.chimney is not None and self._adapter is not None
            if self._later:
                self._shutdown_waits = True
            else:
                self.chimney.post_disconnect(request, DisconnectFlags.GRACEFUL_CLOSE)
                self.services.flush_soon(self._adapter)
        elif self.owner is Owner.KERNEL:
            self.services.wake(self._kernel_path.run)
        return request

    def abort(self) -> None:
        """Reset the connection (an RST); every request ends with ConnectionAbortedError.

        Called from a request's callback, it is carried out at the end of the poll under way. Raises UploadFailed if the
        target keeps what is left of the connection; each later request, `close` too, asks for it once more.
        """
        self._check_open("abort")
        self.services.hand_over(self, self._abort)

    def _abort(self) -> None:
        if self.owner is Owner.TARGET:
            assert self.chimney is not None
            self._abort_request = ShutdownRequest(self, memoryview(b""), None)
            self.chimney.post_disconnect(self._abort_request, DisconnectFlags.ABORTIVE_CLOSE)
            try:
                self._upload()
            finally:
                self.fail(_aborted())
        elif self.owner is Owner.KERNEL:
            self._kernel.abort()
            self.fail(_aborted())

    def _check_open(self, call: str) -> None:
        if self.owner is Owner.APPLICATION:
            raise ChimneyError(f"{call} on {self!r}: it was detached; use its socket, or make a new connection of it")

    def _fail_soon(self) -> None:
        """A request was posted on a connection that has failed: it ends behind those before it."""
        if self.owner is Owner.TARGET:
            self.upload_soon(None)
        else:
            self.services.wake(self._kernel_path.run)

    # Completions, from either path

    def send_done(self, request: SendRequest, error: OSError | None = None) -> None:
        """The oldest send has ended."""
        done = self.sends.popleft()
        assert done is request, "sends complete in posting order (send.complete.order)"
        if error is not None and self.error is None:
            self.error = error
        request.complete(error)

    def receive_done(self, request: ReceiveRequest, error: OSError | None = None) -> None:
        """The oldest receive has ended."""
        done = self.receives.popleft()
        assert done is request, "receives complete in posting order (recv.complete.fifo)"
        if error is not None and self.error is None:
            self.error = error
        request.complete(error)

    def shutdown_done(self, request: Request, error: OSError | None = None) -> None:
        """The closing of the sending half has ended."""
        if not request.done:
            request.complete(error)

    def reset_error(self) -> OSError:
        """What requests end with whose connection was reset in the chimney."""
        if self._abort_request is not None:
            return _aborted()
        return ConnectionResetError("the peer reset the connection while it was offloaded")

    def fail(self, error: OSError) -> None:
        """End every request posted so far with ``error``, in order; what callbacks post meanwhile has its own turn."""
        if self.error is None:
            self.error = error
        for send in list(self.sends):
            if send.net_buffer_list is not None:
                break
            self.send_done(send, error)
        for receive in list(self.receives):
            if receive.net_buffer_list is not None:
                break
            self.receive_done(receive, error)
        if self.shutdown_request is not None and self.shutdown_request.net_buffer_list is None and not self.sends:
            self.shutdown_done(self.shutdown_request, error)

    # Hand-over

    def offload(self) -> None:
        """Move the connection from the kernel to the target, with everything posted. No-op if it is there already.

        Raises NotOffloadable; the connection then works on as it did. Called from a request's callback, it is carried
        out at the end of the poll under way, and a refusal is kept in ``hand_over_error``.
        """
        self._check_open("offload")
        self.services.hand_over(self, self._offload)

    def upload(self) -> None:
        """Move the connection back into the kernel, with everything posted. No-op if it is there already.

        Raises UploadFailed; the target then goes on with the connection, if its state permits. Called from a request's
        callback, it is carried out at the end of the poll under way, and a failure is kept in ``hand_over_error``.
        """
        self._check_open("upload")
        self.services.hand_over(self, self._upload)

    def upload_soon(self, reason: UploadReason | None) -> None:
        """The target asked for the upload (None: because the peer has reset the connection)."""
        self.services.hand_over_soon(self, self._upload)

    def keep(self, segment: KeptSegment) -> None:
        """A segment that reached the host while a hand-over is under way."""
        if len(self._kept) < _KEPT_LIMIT:
            self._kept.append(segment)

    def _offload(self) -> None:
        if self.owner is not Owner.KERNEL:
            return
        if self.error is not None:
            raise NotOffloadable(f"{self!r} has failed ({self.error}): there is nothing left to offload")
        self._kernel_path.finish_sends()
        plan = self._kernel.prepare()
        adapter = self.services.adapter(plan.device)
        adapter.watch(plan.flow)
        started = self.services.clock()
        self._kernel_path.stop()
        try:
            taken = self._kernel.take(plan)
        except NotOffloadable:
            adapter.unwatch(plan.flow)
            self._resume_kernel_path()
            raise
        self.owner, self._plan, self._adapter, self._taken = Owner.OFFLOADING, plan, adapter, taken
        self._count_kernel_stretch(taken.carried)
        adapter.edge.keepers[plan.flow] = self.keep
        chained = [SendRequest(self, view, None) for view in taken.send_data]
        self.sends.extendleft(reversed(chained))
        status = self._initiate(taken, chained)
        if status != Status.SUCCESS:
            self._undo(taken, chained, status)
        self._enter_target()
        self._info.offloads += 1
        self._info.offload_seconds.append((self.services.clock() - started) / 1e6)
        adapter.flush()

    def _initiate(self, taken: TakenState, chained: list[SendRequest]) -> Status:
        """Offload the connection's state; returns what became of its TCP block."""
        assert self._adapter is not None and self._plan is not None
        plan, edge = self._plan, self._adapter.edge
        path = edge.objects.path(plan.neighbor, plan.neighbor_mac, plan.path, plan.path_mtu)
        self.chimney = ChimneyPath(self, edge, path)
        self.chimney.initiate(taken, chained)
        self._adapter.flush()
        while self.chimney.initiated is None:
            self.services.turn(None)
        if self.chimney.left_over:
            # It stays below if this fails, too, and the next connection that needs it finds it there.
            self._terminate()
        return self.chimney.initiated

    def _enter_target(self) -> None:
        """The initiate has succeeded: what was posted goes down, and so do the segments kept meanwhile."""
        assert self.chimney is not None and self._adapter is not None and self._plan is not None
        del self._adapter.edge.keepers[self._plan.flow]
        self.owner = Owner.TARGET
        self._post_everything()
        kept, self._kept = self._kept, []
        self.chimney.forward(kept)

    def _undo(self, taken: TakenState, chained: list[SendRequest], status: Status) -> None:
        """The target refused: nothing has moved (9.2, step 13)."""
        for request in chained:
            request.net_buffer_list = None
        try:
            self._give_back(GivenState(taken.delegated, unread=taken.unread))
        except UploadFailed as error:
            self._lost(error)
            raise
        raise NotOffloadable(f"the target refused {self!r}: {status.name}. It goes on in the kernel")

    def _post_everything(self) -> None:
        assert self.chimney is not None
        self._later.extend(send for send in self.sends if send.net_buffer_list is None)
        self._post_later()
        for receive in list(self.receives):
            if receive.net_buffer_list is None and not receive.done:
                self.chimney.post_receive(receive)
        if self.shutdown_request is not None and not self.shutdown_request.done:
            if self._later:
                self._shutdown_waits = True
            elif self.shutdown_request.net_buffer_list is None:
                self.chimney.post_disconnect(self.shutdown_request, DisconnectFlags.GRACEFUL_CLOSE)

    def feed_soon(self) -> None:
        """The target may want more sends: not from within its upcall, which may be within a send call of ours
        (send.host.serialized).
        """
        if self._later and not self._feeding:
            self._feeding = True
            self.services.wake(self._feed)

    def _feed(self) -> bool:
        self._feeding = False
        if self.owner is Owner.TARGET and self._later and self.error is None:
            assert self.chimney is not None and self._adapter is not None
            self._post_later()
            if self._shutdown_waits and not self._later and self.shutdown_request is not None:
                self._shutdown_waits = False
                self.chimney.post_disconnect(self.shutdown_request, DisconnectFlags.GRACEFUL_CLOSE)
            self.services.flush_soon(self._adapter)
        return False

    def _post_later(self) -> None:
        """Post what has waited, as long as the target has not enough."""
        assert self.chimney is not None
        while self._later and not self.chimney.has_enough:
            request = self._later.popleft()
            if not request.done:
                self.chimney.post_send(request)

    def _upload(self) -> None:
        if self.owner is not Owner.TARGET:
            return
        assert self.chimney is not None and self._adapter is not None and self._plan is not None
        self._adapter.drain()
        started = self.services.clock()
        retransmits = self._adapter.retransmitted(self._plan.flow)
        self.owner = Owner.UPLOADING
        self._later.clear()
        self._shutdown_waits = False
        self._adapter.edge.keepers[self._plan.flow] = self.keep
        if not self._terminate():
            self._enter_target()
            self.services.flush_soon(self._adapter)
            raise UploadFailed(f"the drivers below do not give {self!r} back: it goes on there; try again later")
        self._info.retransmits += retransmits
        assert self.chimney.terminated is not None
        delegated = self.chimney.terminated.delegated
        assert isinstance(delegated, TcpDelegated)
        aborted = self._abort_request is not None and self._abort_request.done
        given = GivenState(delegated, unread=self.chimney.take_buffered(), reset=aborted or self._was_reset(delegated))
        self._info.bytes_sent_target += self.chimney.bytes_sent
        self._info.bytes_received_target += self.chimney.bytes_received
        try:
            self._give_back(given)
        except UploadFailed as error:
            self._offload_again(given, error)
            raise
        if self._abort_request is not None and not aborted:
            # The target had no time for its RST (disconnect.host.no-reissue): the kernel sends it.
            self._kernel.abort()
        self._info.uploads += 1
        self._info.upload_seconds.append((self.services.clock() - started) / 1e6)

    def _was_reset(self, delegated: TcpDelegated) -> bool:
        """Whether the connection has ended without both of its streams having come to their ends; asked when the
        target's buffered data has been taken.
        """
        assert self.chimney is not None
        if delegated.state is not TcpConnectionState.CLOSED:
            return self.chimney.reset
        shut = self.shutdown_request is not None and self.shutdown_request.done
        return self.chimney.reset or not (shut and self.chimney.has_all(delegated))

    def _terminate(self) -> bool:
        """Have the state given back; False if that fails again and again."""
        assert self.chimney is not None and self._adapter is not None
        for _ in range(_TERMINATES):
            self.chimney.terminate()
            self._adapter.flush()
            while self.chimney.terminating:
                self.services.turn(None)
            if self.chimney.terminated is not None:
                return True
            # A driver that lacks memory has passed nothing down (A24); a target whose hardware has failed keeps the
            # requests until it is asked once more (A6).
            self.services.turn(0.0)
        return False

    def _give_back(self, given: GivenState) -> None:
        """Terminate has completed, or the initiate failed: the kernel's from here on. Raises UploadFailed."""
        assert self._adapter is not None and self._plan is not None
        if given.delegated.state is not TcpConnectionState.CLOSED:
            given.sent = self._sent_part(given.delegated)
        self._kernel.give_back(given, self._arrived)
        # The kernel has the FIN, too, and may have got its acknowledgement.
        self.fin_queued = given.delegated.state in _FIN_SENT and not given.reset
        self._mark_sent(sum(view.nbytes for view in given.sent))
        self._carried_before = (0, sum(view.nbytes for view in given.unread))
        # The last ones came while the kernel's socket opened up again.
        last = self._arrived()
        self._leave_adapter()
        if last:
            self._kernel.inject(last)
        if given.reset:
            self.fail(self.reset_error())
        self._resume_kernel_path()

    def _leave_adapter(self) -> None:
        assert self._adapter is not None and self._plan is not None
        del self._adapter.edge.keepers[self._plan.flow]
        self._adapter.unwatch(self._plan.flow)
        self.chimney = None

    def _offload_again(self, given: GivenState, error: UploadFailed) -> None:
        """The kernel did not take the connection: the target gets it once more, as it gave it away."""
        assert self._taken is not None and self._adapter is not None
        delegated = given.delegated
        if given.reset or not delegated.state.offloadable:
            self._lost(error)
            return
        delegated.send_data_head = delegated.send_data_tail = None
        # What came during the terminate is not for the target (terminate.segments.not-back): the peer sends it again.
        self._kept.clear()
        self.owner = Owner.OFFLOADING
        state = TakenState(self._taken.const, self._taken.cached, delegated, [], given.unread, (0, 0))
        if self._initiate(state, list(self.sends)) != Status.SUCCESS:
            self._lost(error)
            return
        self._enter_target()
        self.services.flush_soon(self._adapter)

    def _lost(self, error: UploadFailed) -> None:
        """Neither side has the connection any more."""
        for request in self.sends:
            request.net_buffer_list = None
        self._leave_adapter()
        self._resume_kernel_path()
        self.fail(ConnectionAbortedError(str(error)))

    def _arrived(self) -> list[bytes]:
        """The packets that nobody has processed: the tap has seen them."""
        assert self._adapter is not None
        self._adapter.drain()
        kept, self._kept = self._kept, []
        return [segment.packet for segment in without_repeats(kept)]

    def _sent_part(self, delegated: TcpDelegated) -> list[memoryview]:
        """The bytes from SND.UNA to SND.MAX, at the head of the sends: the kernel must know them as sent."""
        left = (delegated.snd_max - delegated.snd_una) & _MASK
        if delegated.state in _FIN_IN_FLIGHT and left:
            left -= 1
        parts: list[memoryview] = []
        for request in self.sends:
            if not left:
                break
            parts.append(request.remaining()[:left])
            left -= parts[-1].nbytes
        assert not left, f"{left} bytes in flight belong to no request (terminate.senddata.seq)"
        return parts

    def _mark_sent(self, count: int) -> None:
        """The first ``count`` bytes of the sends are the kernel's."""
        for request in self.sends:
            part = min(count, request.length - request.bytes_transferred)
            request.bytes_transferred += part
            count -= part

    def kernel_ready(self) -> None:
        """The kernel's socket can be read or written again."""
        if self.owner is Owner.KERNEL:
            self.services.wake(self._kernel_path.run)

    def _resume_kernel_path(self) -> None:
        self.owner = Owner.KERNEL
        self._kernel_path = KernelPath(self, self._kernel)
        # What the kernel has, nobody has to wait for: a detach comes next, maybe.
        self._kernel_path.finish_sends()
        self.services.wake(self._kernel_path.run)

    def detach(self) -> None:
        """Give the socket back to the application alone: upload, and stop routing requests.

        Raises ChimneyError if sends are still pending (wait for them first), UploadFailed; pending receives end with
        ConnectionAbortedError, and their data stays in the socket.
        """
        self._check_open("detach")
        self.services.hand_over(self, self._detach)

    def close(self) -> None:
        """End the connection as the kernel does when its socket is closed; whatever is pending is given up."""
        if self.owner is not Owner.APPLICATION:
            self.services.hand_over(self, self._close)
        else:
            self.socket.close()

    def release(self) -> None:
        """Upload, end every pending request with ConnectionAbortedError, and stop routing. Raises UploadFailed."""
        if self.owner is not Owner.APPLICATION:
            self.services.hand_over(self, self._release)

    def _detach(self) -> None:
        self._upload()
        if self.sends and self.error is None:
            raise ChimneyError(f"detach on {self!r} with {len(self.sends)} sends pending: wait until they are done")
        self._release()

    def _close(self) -> None:
        try:
            self._release()
        finally:
            self.socket.close()

    def _release(self) -> None:
        if self.owner is Owner.APPLICATION:
            return
        try:
            self._upload()
        finally:
            self._kernel_path.stop()
            self.owner = Owner.APPLICATION
            self.fail(ConnectionAbortedError("the connection was detached"))
            self._kernel.release()
            self.services.forget(self)

    # Figures, and conveniences that drive the stack until their request is done

    def info(self) -> ConnectionInfo:
        """The figures of this connection so far."""
        info = ConnectionInfo(self.owner.value)
        for name in ConnectionInfo.__slots__[1:]:
            value = getattr(self._info, name)
            setattr(info, name, value.copy() if isinstance(value, list) else value)
        if self.owner is Owner.KERNEL:
            sent, received = self._kernel.bytes_carried()
            info.bytes_sent_kernel += sent - self._carried_before[0]
            info.bytes_received_kernel += received - self._carried_before[1]
        elif self.chimney is not None and self._adapter is not None and self._plan is not None:
            info.bytes_sent_target += self.chimney.bytes_sent
            info.bytes_received_target += self.chimney.bytes_received
            info.retransmits += self._adapter.retransmitted(self._plan.flow)
        return info

    def _count_kernel_stretch(self, carried: tuple[int, int]) -> None:
        self._info.bytes_sent_kernel += carried[0] - self._carried_before[0]
        self._info.bytes_received_kernel += carried[1] - self._carried_before[1]

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` and wait until it is done. Raises the OSError that ended it."""
        self.services.check_may_wait()
        if len(data):
            self._wait(self.post_send(data))

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        """Wait for received bytes; returns how many, 0 at the end of the stream. Raises OSError."""
        self.services.check_may_wait()
        request = self.post_receive(buffer)
        self._wait(request)
        return request.bytes_transferred

    def recv(self, size: int) -> bytes:
        """Wait for received bytes, at most ``size``; empty at the end of the stream. Raises OSError."""
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.recv_into(buffer)])

    def _wait(self, request: Request) -> None:
        while not request.done:
            self.services.poll(None)
        if request.error is not None:
            raise request.error


def _aborted() -> ConnectionAbortedError:
    return ConnectionAbortedError("the application aborted the connection")


def _flat(data: bytes | bytearray | memoryview, call: str) -> memoryview:
    view = memoryview(data).cast("B")
    if not view.nbytes:
        raise ValueError(f"{call} needs at least one byte")
    return view
