"""Connections that the target had rather given back, for reasons that the host may ignore (9.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.status import UploadReason
from chimney.target.events import may_suggest_upload, suggest_upload
from chimney.target.objects import TcpObject

if TYPE_CHECKING:
    from chimney.target.adapter import Adapter


class Usage:
    """What a connection had done when the target looked at it."""

    def __init__(self, tcp: TcpObject) -> None:
        stats = tcp.engine.stats
        self.bytes = tcp.sending.end + tcp.delivery.delivered
        self.requests = tcp.sending.requests + tcp.delivery.completed
        self.indications = tcp.delivery.indications
        self.sent = stats.segments_out
        self.retransmitted = stats.retransmitted_segments
        self.received = stats.segments_in
        self.out_of_order = stats.out_of_order
        self.fragments = tcp.path.fragments


def look(target: Adapter) -> None:
    """Compare each connection's usage since the last look with the thresholds; one reason is given at a time."""
    for tcp in list(target.connections.values()):
        before: Usage | None = tcp.usage
        tcp.usage = now = Usage(tcp)
        if before is None or not may_suggest_upload(tcp):
            continue
        reason = _reason(target, before, now)
        if reason is not None:
            suggest_upload(target, tcp, reason)


def _reason(target: Adapter, before: Usage, now: Usage) -> UploadReason | None:
    config = target.config
    moved = now.bytes - before.bytes
    requests = now.requests - before.requests
    if _exceeds(config.drop_permille, now.retransmitted - before.retransmitted, now.sent - before.sent):
        return UploadReason.HIGH_DROP_RATE
    if _exceeds(config.out_of_order_permille, now.out_of_order - before.out_of_order, now.received - before.received):
        return UploadReason.HIGH_OUT_OF_ORDER_PACKETS
    if config.fragments and now.fragments - before.fragments >= config.fragments:
        return UploadReason.HIGH_FRAGMENTATION
    if config.no_preposting_indications and now.indications - before.indications >= config.no_preposting_indications:
        return UploadReason.NO_BUFFER_PREPOSTING
    if config.small_io_bytes and requests and moved < config.small_io_bytes * requests:
        return UploadReason.SMALL_IO
    if config.low_activity_bytes and moved < config.low_activity_bytes:
        return UploadReason.LOW_ACTIVITY
    return None


def _exceeds(permille: int, part: int, whole: int) -> bool:
    return permille > 0 and whole > 0 and part * 1000 >= permille * whole
