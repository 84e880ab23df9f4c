"""What happens to a connection, and what the host is told and given back then (11.1, 9.8, 9.9; chapter 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.status import Status, TcpConnectionState, TcpOffloadEvent, UploadReason
from chimney.target.objects import TcpObject
from chimney.tcp.config import NEVER
from chimney.tcp.events import Event

if TYPE_CHECKING:
    from chimney.target.datapath import Datapath

_UPLOAD_IN_PROGRESS = int(Status.UPLOAD_IN_PROGRESS)
_REQUEST_ABORTED = int(Status.REQUEST_ABORTED)
# Each of these ends the engine's work; the host finishes the connection.
_UPLOAD_REASONS = {
    int(Event.SYN): UploadReason.UPLOAD_REQUESTED,
    int(Event.TIMEOUT): UploadReason.TIMEOUT_EXPIRATION,
    int(Event.URGENT): UploadReason.RECEIVED_URGENT_DATA,
    int(Event.CLOSED): UploadReason.UPLOAD_REQUESTED,
}
_HALF_CLOSED = frozenset(
    {TcpConnectionState.FIN_WAIT_1, TcpConnectionState.FIN_WAIT_2, TcpConnectionState.CLOSE_WAIT}
)
_BACKLOG_LEAST = 1 << 16
_BACKLOG_MOST = 1 << 30
_BACKLOG_PAUSE_US = 100_000


def handle_events(target: Datapath, tcp: TcpObject) -> None:
    """Tell the host what its engine reports."""
    events = list(tcp.engine.events)
    tcp.engine.events.clear()
    if not tcp.sending.bounce:
        tcp.sending.complete()
    for event in events:
        if event == Event.RESET:
            peer_reset(target, tcp)
        elif event == Event.FIN_ACKED:
            tcp.path.neighbor.nic_reachable_at = target.now
        elif event == Event.TIME_WAIT:
            request_upload(target, tcp, UploadReason.UPLOAD_REQUESTED, False)
        elif event in _UPLOAD_REASONS:
            request_upload(target, tcp, _UPLOAD_REASONS[event], True)


def peer_reset(target: Datapath, tcp: TcpObject) -> None:
    """An acceptable RST: tell the host at once, and end every request (event.abort.sequence)."""
    tcp.engine_done = True
    target.withdraw(tcp)
    target.handle.tcp_offload_event_handler(tcp.handle, TcpOffloadEvent.INDICATE_ABORT, 0)
    tcp.sending.refusal = tcp.delivery.refusal = _REQUEST_ABORTED
    tcp.sending.fail(_REQUEST_ABORTED)
    tcp.delivery.fail(_REQUEST_ABORTED)
    complete_forwards(target, tcp, _REQUEST_ABORTED)


def request_upload(target: Datapath, tcp: TcpObject, reason: UploadReason, engine_done: bool) -> None:
    """Ask for the connection's upload for a mandatory reason: what is posted from now on is refused (upload.sends)."""
    if tcp.sending.refusal == _REQUEST_ABORTED:
        return
    if tcp.silent or engine_done:
        # No data leaves after the request (upload.mandatory-stop).
        target.withdraw(tcp)
    tcp.upload_reason = reason
    if engine_done:
        tcp.engine_done = True
    refuse_requests(tcp)
    target.handle.tcp_offload_event_handler(tcp.handle, TcpOffloadEvent.INDICATE_RETRIEVE, reason)


def refuse_requests(tcp: TcpObject) -> None:
    """What is posted from now on is not performed: the host is to take the connection back."""
    tcp.sending.refusal = _UPLOAD_IN_PROGRESS
    if not tcp.delivery.refusal:
        tcp.delivery.refusal = _UPLOAD_IN_PROGRESS


def can_go_on(tcp: TcpObject) -> bool:
    """Whether a connection whose requests are refused can take some again. Not if a send or disconnect has been refused
    already, even if that is not complete yet: what is posted behind it must not overtake it.
    """
    return not tcp.engine_done and not tcp.sending.bounce


def accept_requests(tcp: TcpObject) -> None:
    """Requests are performed again: the reason to refuse them has gone, and it `can_go_on`."""
    if tcp.sending.refusal == _UPLOAD_IN_PROGRESS:
        tcp.sending.refusal = 0
    if tcp.delivery.refusal == _UPLOAD_IN_PROGRESS:
        tcp.delivery.accept()


def may_suggest_upload(tcp: TcpObject) -> bool:
    """Whether an upload that the host may decline can be asked for: not of a half-closed connection, and not of one
    that goes back anyway (upload.half-closed, A8).
    """
    going_back = tcp.upload_reason or tcp.terminating or tcp.sending.refusal or tcp.broken
    return not going_back and tcp.engine.state not in _HALF_CLOSED


def suggest_upload(target: Datapath, tcp: TcpObject, reason: UploadReason) -> None:
    """Ask for the connection's upload for a reason that the host may ignore: it goes on (upload.optional-continue)."""
    target.handle.tcp_offload_event_handler(tcp.handle, TcpOffloadEvent.INDICATE_RETRIEVE, reason)


def hardware_failed(target: Datapath, tcp: TcpObject) -> None:
    """An operation has been completed with FAILURE since the connection's state is lost (9.8, hwfail.sequence).

    Its requests stay, those included that are posted from now on, until the host terminates it.
    """
    if tcp.failed:
        return
    tcp.failed = tcp.engine_done = True
    tcp.upload_reason = UploadReason.HARDWARE_FAILURE
    tcp.delivery.push_at = NEVER
    target.withdraw(tcp)
    reason = UploadReason.HARDWARE_FAILURE
    target.handle.tcp_offload_event_handler(tcp.handle, TcpOffloadEvent.INDICATE_RETRIEVE, reason)
    target.handle.tcp_offload_event_handler(tcp.handle, TcpOffloadEvent.INDICATE_ABORT, 0)


def complete_forwards(target: Datapath, tcp: TcpObject, status: int) -> None:
    """End every forward that has not been processed."""
    waiting = tcp.forwards
    tcp.forwards = []
    for nbl in waiting:
        nbl.status = status
        target.handle.tcp_offload_forward_complete(nbl)


def preferred_backlog(tcp: TcpObject) -> int:
    """How many send bytes the host should keep outstanding: two congestion windows, so that there is always something
    to send. What is posted plays no part (event.backlog.throttle).
    """
    return max(_BACKLOG_LEAST, min(2 * tcp.engine.cwnd, _BACKLOG_MOST))


def consider_backlog(target: Datapath, tcp: TcpObject) -> None:
    """Tell the host if the preferred backlog has doubled or halved since it was told last, ten times a second at most
    (event.backlog.throttle).
    """
    tcp.backlog_at = target.now + _BACKLOG_PAUSE_US
    backlog = preferred_backlog(tcp)
    if tcp.backlog // 2 < backlog < tcp.backlog * 2:
        return
    tcp.backlog = backlog
    target.handle.tcp_offload_event_handler(tcp.handle, TcpOffloadEvent.INDICATE_SEND_BACKLOG_CHANGE, backlog)
