"""The switch: one connection of the application, whose requests go through the kernel or through the chimney.

`offload` and `upload` move the connection while requests are posted and data is in flight. The order of the steps is
D7's (docs: *Hand-over*): nothing is acknowledged that could be lost, and at every instant one engine speaks.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chimney.host.chimney_path import ChimneyPath
from chimney.host.ending import error_of, target_error
from chimney.host.errors import ChimneyError, NotOffloadable, UploadFailed
from chimney.host.hand_over import HandOver, Owner
from chimney.host.kernel import KernelSide
from chimney.host.kernel_path import KernelPath
from chimney.host.requests import Callback, ReceiveRequest, Request, SendRequest, ShutdownRequest, TakenSend
from chimney.host.services import Adapter, Services
from chimney.ndis.status import DisconnectFlags

if TYPE_CHECKING:
    from chimney.host.passage import Mistrust

__all__ = ["Connection", "ConnectionInfo", "Owner"]


@dataclass(slots=True)
class ConnectionInfo:
    """Figures of one connection. Bytes are stream bytes: acknowledged by the peer when sent, in sequence when
    received. ``tcp`` is what its present owner tells, by the names and in the units of TCP_INFO (``tcpi_rtt`` ...); its
    counters begin anew with each owner. It is empty during a hand-over, and when the connection is the application's.
    ``withdrawn`` tells why the host has taken the connection up, or why it has not gone down again by itself yet; empty
    otherwise. ``upload_reason`` is the last `UploadReason` for which a target has asked for the upload, whether
    the host had to comply or not; empty if none has.
    """

    owner: str
    withdrawn: str = ""
    upload_reason: str = ""
    offloads: int = 0
    uploads: int = 0
    bytes_sent_kernel: int = 0
    bytes_sent_target: int = 0
    bytes_received_kernel: int = 0
    bytes_received_target: int = 0
    retransmits: int = 0
    offload_seconds: list[float] = field(default_factory=list)
    upload_seconds: list[float] = field(default_factory=list)
    tcp: dict[str, int] = field(default_factory=dict)


class Connection:
    """A connected TCP socket whose I/O goes through the switch; made by `Stack.connection`.

    The socket stays the application's: same object, same descriptor, same options. While the connection is with the
    stack, all its I/O goes through this object. Sends and receives complete in the order posted. If the socket's
    sending half has been closed before, it counts as `shutdown`.
    """

    def __init__(self, services: Services, sock: socket.socket, kernel: KernelSide) -> None:
        self.socket = sock
        self.owner = Owner.KERNEL
        self.sends: deque[SendRequest] = deque()
        self.receives: deque[ReceiveRequest] = deque()
        self.shutdown_request: Request | None = None
        if kernel.has_shut():
            self.shutdown_request = ShutdownRequest(self, memoryview(b""), None)
            self.shutdown_request.done = True
        self.abort_request: Request | None = None
        self.error: OSError | None = None
        # The peer's FIN has come: behind what is unread comes the end of the stream, whatever happens.
        self.stream_ended = False
        # Whether a request has ended with the error: the socket need not tell it any more.
        self._told = False
        self.fin_queued = self.shutdown_request is not None
        self.hand_over_error: ChimneyError | None = None
        self.mistrust: Mistrust | None = None
        self.chimney: ChimneyPath | None = None
        self.services = services
        self._kernel = kernel
        self.kernel_path = KernelPath(self, kernel)
        self.hand_over = HandOver(self, services, kernel)
        # Sends that the target need not have yet, and whether the shutdown waits behind them (send.backlog.hint).
        self._later: deque[SendRequest] = deque()
        self._shutdown_waits = False
        self._feeding = False
        self.figures = ConnectionInfo(Owner.KERNEL.value)
        self.carried_before = (0, 0)

    def __repr__(self) -> str:
        return f"<Connection fd={self.socket.fileno()} with {self.owner.value}>"

    @property
    def offloaded(self) -> bool:
        """True while a target owns the connection."""
        return self.owner is Owner.TARGET

    @property
    def kernel(self) -> KernelSide:
        """The kernel's side of the connection."""
        return self._kernel

    @property
    def has_shut(self) -> bool:
        """Whether the sending half has been closed, as far as this program is concerned: `shutdown` is done."""
        return self.shutdown_request is not None and self.shutdown_request.done

    @property
    def adapter(self) -> Adapter | None:
        """Where the connection was offloaded last; None if it never was."""
        return self.hand_over.adapter

    # Requests

    def post_send(self, data: bytes | bytearray | memoryview, callback: Callback | None = None) -> SendRequest:
        """Send ``data``; it must not change until the request is done. Completes with all bytes, or with an error.

        Raises ValueError for no data, BrokenPipeError after `shutdown`, ChimneyError after `detach`.
        """
        view = _flat(data, "post_send")
        self._check_open("post_send")
        if self.shutdown_request is not None:
            text = f"post_send after shutdown on {self!r}: the sending half has been closed"
            raise BrokenPipeError(errno.EPIPE, text)
        request = SendRequest(self, view, callback)
        self.sends.append(request)
        if self.error is not None:
            self._fail_soon()
        elif self.owner is Owner.TARGET:
            adapter = self.hand_over.adapter
            assert self.chimney is not None and adapter is not None
            if self._later or self.chimney.has_enough:
                self._later.append(request)
            else:
                self.chimney.post_send(request)
                self.services.flush_soon(adapter)
        elif self.owner is Owner.KERNEL:
            self.services.wake(self.kernel_path.run)
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
            adapter = self.hand_over.adapter
            assert self.chimney is not None and adapter is not None
            if not self.chimney.held:
                self.chimney.post_receive(request)
                self.services.flush_soon(adapter)
        elif self.owner is Owner.KERNEL:
            self.services.wake(self.kernel_path.run)
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
            assert self.chimney is not None and self.adapter is not None
            if self._later or self.chimney.held:
                self._shutdown_waits = True
            else:
                self.chimney.post_disconnect(request, DisconnectFlags.GRACEFUL_CLOSE)
                self.services.flush_soon(self.adapter)
        elif self.owner is Owner.KERNEL:
            self.services.wake(self.kernel_path.run)
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
            self.abort_request = ShutdownRequest(self, memoryview(b""), None)
            self.chimney.post_disconnect(self.abort_request, DisconnectFlags.ABORTIVE_CLOSE)
            try:
                self.hand_over.upload()
            finally:
                self.fail(_aborted())
        elif self.owner is Owner.KERNEL:
            self._kernel.abort()
            self.fail(_aborted())
        # The application knows it already.
        self._told = True

    def _check_open(self, call: str) -> None:
        if self.owner is Owner.APPLICATION:
            raise ChimneyError(f"{call} on {self!r}: it was detached; use its socket, or make a new connection of it")

    def _fail_soon(self) -> None:
        """A request was posted on a connection that has failed: it ends behind those before it."""
        if self.owner is Owner.TARGET:
            self.upload_soon()
        else:
            self.services.wake(self.kernel_path.run)

    def getsockopt(self, level: int, option: int) -> int:
        """An option of the socket's, as the application has set it. Raises OSError."""
        return self.socket.getsockopt(level, option) if self._is_detached else self._kernel.getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option of the socket, with effect at once where it is offloaded, too.

        What is set on the socket itself meanwhile takes effect at the next hand-over; SO_KEEPALIVE, filters and devices
        must not be touched there (docs: *Network*). Raises OSError as the socket would, and ChimneyError for an option
        that only a connection in the kernel can have.
        """
        if self._is_detached:
            self.socket.setsockopt(level, option, value)
            return
        self._kernel.setsockopt(level, option, value)
        if self.owner is not Owner.KERNEL:
            self.services.wake(self.hand_over.update_options)

    @property
    def _is_detached(self) -> bool:
        return self.owner is Owner.APPLICATION

    # Completions, from either path

    def send_done(self, request: SendRequest, error: OSError | None = None) -> None:
        """The oldest send has ended."""
        done = self.sends.popleft()
        assert done is request, "sends complete in posting order (send.complete.order)"
        self._note_error(request, error)
        request.complete(error)

    def receive_done(self, request: ReceiveRequest, error: OSError | None = None) -> None:
        """The oldest receive has ended."""
        done = self.receives.popleft()
        assert done is request, "receives complete in posting order (recv.complete.fifo)"
        self._note_error(request, error)
        request.complete(error)

    def shutdown_done(self, request: Request, error: OSError | None = None) -> None:
        """The closing of the sending half has ended."""
        if not request.done:
            self._told = self._told or error is not None
            request.complete(error)

    def _note_error(self, request: Request, error: OSError | None) -> None:
        if error is not None:
            self._told = self._told or not isinstance(request, TakenSend)
            self.error = self.error or error

    def target_error(self) -> OSError:
        """What requests end with that the target has given up."""
        if self.abort_request is not None:
            return _aborted()
        assert self.chimney is not None
        return error_of(target_error(self.chimney))

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
        self.services.hand_over(self, self.hand_over.offload)

    def upload(self) -> None:
        """Move the connection back into the kernel, with everything posted. No-op if it is there already.

        Raises UploadFailed; the target then goes on with the connection, if its state permits. Called from a request's
        callback, it is carried out at the end of the poll under way, and a failure is kept in ``hand_over_error``.
        """
        self._check_open("upload")
        self.services.withdrawals.forget(self)
        self.services.hand_over(self, self.hand_over.upload)

    def upload_soon(self) -> None:
        """The target asked for the upload, or the peer has reset the connection."""
        self.services.hand_over_soon(self, self.hand_over.upload)

    def withdraw(self, reason: str, soon: bool = False) -> None:
        """The host takes the connection up for a reason of its own, soon: it goes down again by itself when `offload`
        is possible again, unless the application has uploaded it meanwhile. ``reason`` is told by `info`.

        With ``soon`` it is tried again at once, otherwise after a while. Nothing if it is not out of the kernel, or is
        on its way up already.
        """
        withdrawals = self.services.withdrawals
        if self.owner in (Owner.TARGET, Owner.OFFLOADING) and withdrawals.find(self) is None:
            withdrawals.add(self, reason, self.services.clock(), soon)
            self.services.hand_over_soon(self, self._go_up)

    def come_back(self) -> None:
        """A hand-over of `NetworkWatch`: the withdrawn connection goes down again if that is possible at once, or up if
        it has stayed below.
        """
        withdrawals = self.services.withdrawals
        if self.error is not None:
            withdrawals.forget(self)
        elif withdrawals.find(self) is not None:
            try:
                if self.owner is Owner.TARGET:
                    self.hand_over.upload()
                else:
                    self.hand_over.offload(patient=False)
            except (NotOffloadable, UploadFailed) as refusal:
                withdrawals.failed(self, str(refusal), self.services.clock(), interrupted=True)

    def _go_up(self) -> None:
        """The upload of a withdrawn connection: nobody has asked for it who wants to know how it went."""
        try:
            self.hand_over.upload()
        except UploadFailed as failure:
            self.services.withdrawals.failed(self, str(failure), self.services.clock(), interrupted=True)

    def post_everything(self) -> None:
        """The target has the connection: what the kernel has not done is its to do."""
        assert self.chimney is not None
        self._later.extend(send for send in self.sends if send.net_buffer_list is None)
        self._post_later()
        for receive in list(self.receives):
            if receive.net_buffer_list is None and not receive.done and not self.chimney.held:
                self.chimney.post_receive(receive)
        if self.shutdown_request is not None and not self.shutdown_request.done:
            if self._later or self.chimney.held:
                self._shutdown_waits = True
            elif self.shutdown_request.net_buffer_list is None:
                self.chimney.post_disconnect(self.shutdown_request, DisconnectFlags.GRACEFUL_CLOSE)

    def resume(self) -> None:
        """The target, which has refused everything for a while, takes requests again: it gets what has been posted
        meanwhile.
        """
        if self.chimney is not None:
            self.chimney.held = False
        if self.owner is Owner.TARGET and self.adapter is not None:
            self.forget_later()
            self.post_everything()
            self.services.flush_soon(self.adapter)

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
            assert self.chimney is not None and self.adapter is not None
            self._post_later()
            ready = not self._later and not self.chimney.held
            if self._shutdown_waits and ready and self.shutdown_request is not None:
                self._shutdown_waits = False
                self.chimney.post_disconnect(self.shutdown_request, DisconnectFlags.GRACEFUL_CLOSE)
            self.services.flush_soon(self.adapter)
        return False

    def _post_later(self) -> None:
        """Post what has waited, as long as the target has not enough."""
        assert self.chimney is not None
        while self._later and not self.chimney.has_enough:
            request = self._later.popleft()
            if not request.done:
                self.chimney.post_send(request)

    def forget_later(self) -> None:
        """The target is to give the connection back: what it has not got yet it will not get."""
        self._later.clear()
        self._shutdown_waits = False

    def kernel_ready(self) -> None:
        """The kernel's socket can be read or written again."""
        if self.owner is Owner.KERNEL:
            self.services.wake(self.kernel_path.run)

    def resume_kernel_path(self) -> None:
        """The kernel has the connection: its requests go on there."""
        self.owner = Owner.KERNEL
        self.kernel_path = KernelPath(self, self._kernel)
        # What the kernel has, nobody has to wait for: a detach comes next, maybe.
        self.kernel_path.finish_sends()
        self.services.wake(self.kernel_path.run)

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
        self.hand_over.upload()
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
            self.hand_over.upload()
        finally:
            self.kernel_path.stop()
            self.owner = Owner.APPLICATION
            if self._told:
                self._kernel.forget_error()
            self.fail(OSError(errno.ECONNABORTED, "the connection was detached"))
            self._kernel.release()
            self.services.forget(self)

    # Figures, and conveniences that drive the stack until their request is done

    def info(self) -> ConnectionInfo:
        """The figures of this connection so far."""
        info = ConnectionInfo(self.owner.value)
        for name in ConnectionInfo.__slots__[1:]:
            value = getattr(self.figures, name)
            setattr(info, name, value.copy() if isinstance(value, list) else value)
        withdrawal = self.services.withdrawals.find(self)
        info.withdrawn = "" if withdrawal is None else withdrawal.reason
        if self.owner is Owner.KERNEL:
            sent, received = self._kernel.bytes_carried()
            info.bytes_sent_kernel += sent - self.carried_before[0]
            info.bytes_received_kernel += received - self.carried_before[1]
            info.tcp = self._kernel.tcp_info()
        elif self.chimney is not None:
            info.bytes_sent_target += self.chimney.bytes_sent
            info.bytes_received_target += self.chimney.bytes_received
            info.retransmits += self.hand_over.retransmitted
            info.tcp = self.hand_over.tcp_info
        return info

    def count_kernel_stretch(self, carried: tuple[int, int]) -> None:
        """The kernel had the connection, and has carried so many bytes in all (sent, received)."""
        self.figures.bytes_sent_kernel += carried[0] - self.carried_before[0]
        self.figures.bytes_received_kernel += carried[1] - self.carried_before[1]

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


def _aborted() -> OSError:
    return OSError(errno.ECONNABORTED, "the application aborted the connection")


def _flat(data: bytes | bytearray | memoryview, call: str) -> memoryview:
    view = memoryview(data).cast("B")
    if not view.nbytes:
        raise ValueError(f"{call} needs at least one byte")
    return view
