"""Whether the state that a target reports of a connection agrees with what the wire has shown."""

from __future__ import annotations

from chimney.ndis.state import BACKLOG_UNSUPPORTED, TcpDelegated
from chimney.verifier.streams import Stream


def contradiction(state: TcpDelegated, stream: Stream) -> str:
    """What of ``state`` cannot be, in words; empty if all of it can.

    A frame that has come in need not have been processed yet, so the books bound what is possible from both sides.
    """
    send, receive = stream.send, stream.receive
    una, nxt, most = (send.position(seq) for seq in (state.snd_una, state.snd_nxt, state.snd_max))
    completed = send.requests[0].start if send.requests else send.posted
    # A FIN takes one more sequence number.
    fin = 1
    if not min(completed, send.acked) <= una <= send.acked:
        return f"SndUna {una} bytes from the beginning, {send.acked} are acknowledged, {completed} completed"
    if not una <= nxt <= most:
        return f"SndUna, SndNxt and SndMax at {una}, {nxt}, {most}"
    if not send.sent <= most <= max(send.posted, send.handed_over) + fin:
        return f"SndMax {most} bytes from the beginning, {send.sent} have been sent, {send.posted} posted"
    next_byte = receive.position(state.rcv_nxt)
    if not receive.delivered <= next_byte <= receive.available + fin:
        return f"RcvNxt {next_byte} bytes from the beginning, {receive.delivered} delivered, {receive.available} there"
    backlog = state.receive_backlog_size
    if backlog not in (BACKLOG_UNSUPPORTED, 0) and backlog > receive.available - receive.delivered:
        return f"{backlog} bytes undelivered, {receive.available - receive.delivered} can be"
    return ""
