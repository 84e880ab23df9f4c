"""What a terminate's completion brings: the delegated state, send data, receive data; and what must be over (9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.buffers import iterate
from chimney.ndis.crossing import BlockView, Crossing, Kind
from chimney.ndis.state import TIMER_NOT_RUNNING, TcpCached, TcpDelegated
from chimney.ndis.status import Status, TcpCachedFlags, TcpConnectionState, TcpOffloadEvent, UploadReason
from chimney.verifier.books import ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, finish
from chimney.verifier.streams import Stream, chain_bytes

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

State = TcpConnectionState
_INDICATIONS = (Kind.RECEIVE_INDICATE, Kind.EVENT)
_COMPLETED = "upload: completed sends"


class Failures(Checks):
    """FAILURE of a terminate, query or invalidate is said of lost state alone, and the event that says so follows."""

    RULES = ("terminate.any-state", "terminate.failure.meaning")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._unexplained: dict[int, tuple[Stream, Crossing, str]] = {}

    @enter(Kind.TERMINATE_COMPLETE, Kind.QUERY_COMPLETE, Kind.INVALIDATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for view, item in zip(operation.after, operation.objects, strict=False):
            if item is not None and item.stream is not None:
                self._ended(crossing, operation.kind, view.status, item.stream)

    def _ended(self, crossing: Crossing, kind: Kind, status: int, stream: Stream) -> None:
        if status == Status.SUCCESS:
            self.exercise("terminate.any-state")
        elif stream.hardware_failure is not None:
            self._explained(kind)
        else:
            closed = stream.graceful or stream.abort or stream.reset or stream.peer_closed
            if kind is Kind.TERMINATE and not closed:
                self._unexplained[id(stream)] = (stream, crossing, "terminate.failure.meaning")
            else:
                self._unexplained[id(stream)] = (stream, crossing, "terminate.any-state")

    def _explained(self, kind: Kind) -> None:
        if kind is Kind.TERMINATE:
            self.exercise("terminate.failure.meaning")

    @enter(Kind.EVENT)
    def told(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if not crossing.boundary.bottom or item is None or item.stream is None:
            return
        failure = crossing.value == TcpOffloadEvent.INDICATE_RETRIEVE
        if failure and crossing.information == UploadReason.HARDWARE_FAILURE:
            _, operation, _ = self._unexplained.pop(id(item.stream), (None, None, ""))
            if operation is not None:
                self._explained(operation.notes.kind)

    @finish
    def ended(self) -> None:
        for stream, crossing, rule in self._unexplained.values():
            self.check(rule, False, "it fails, and no failure of the hardware is indicated", crossing, stream)


class Over(Checks):
    """What must be over when a terminate completes."""

    RULES = ("terminate.complete.io-done", "terminate.complete.indications-done", "terminate.senddata.return")

    @enter(Kind.TERMINATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        handles = {id(item.handle) for item in operation.objects if item is not None}
        running = [
            other
            for other in self.verifier.running
            if other.boundary is crossing.boundary
            and (
                (other.kind in _INDICATIONS and id(other.handle) in handles)
                or (other.kind is Kind.OFFLOAD_EVENT and any(id(b.handle) in handles for b in other.blocks))
            )
        ]
        self.check(
            "terminate.complete.indications-done",
            not running,
            lambda: f"{running[0].function} has not returned yet",
            crossing,
        )
        for view, item in zip(operation.after, operation.objects, strict=False):
            if item is not None and view.status == Status.SUCCESS:
                self._object(crossing, operation, view, item)

    def _object(self, crossing: Crossing, operation: Operation, view: BlockView, item: ObjectBook) -> None:
        left = [request.kind.name.lower() for request in item.requests.values()]
        left += [other.kind.name.lower() for other in item.operations if other is not operation]
        self.check(
            "terminate.complete.io-done",
            not left,
            lambda: f"not completed yet: {', '.join(left[:5])} ({len(left)} in all)",
            crossing,
            item,
        )
        sends = left.count("send")
        strays = len(view.chain) - len(chained(self, crossing, view))
        if view.chain or sends:
            self.check(
                "terminate.senddata.return",
                not sends and not strays,
                lambda: f"{sends} sends do not come back, {strays} lists of the chain were not pending",
                crossing,
                item,
            )

    @enter(*_INDICATIONS)
    def indicated(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and self.books.object(crossing) is None:
            self.check(
                "terminate.complete.indications-done",
                False,
                "an indication for a connection that is not offloaded any more",
                crossing,
            )


def chained(checks: Checks, crossing: Crossing, view: BlockView) -> list[Request]:
    """The sends that come back in the chain of this block."""
    done = checks.books.of(crossing).done
    found = [done.get(id(nbl.nbl)) for nbl in view.chain]
    return [r for r in found if r is not None and r.returned_in_chain and r.completed is crossing]


class Uploads(Checks):
    """The state of each connection that comes back."""

    RULES = (
        "terminate.delegated",
        "terminate.senddata.chain",
        "terminate.senddata.null",
        "terminate.senddata.seq",
        "terminate.buffered",
        "terminate.sack.drop",
        "terminate.flush-ack",
        "terminate.timer-deltas",
    )

    @enter(Kind.SEND_COMPLETE)
    def send_ended(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for entry in crossing.notes:
                if entry.request is not None and entry.view.status == Status.SUCCESS:
                    facts = entry.request.stream.facts
                    facts[_COMPLETED] = max(facts.get(_COMPLETED, 0), entry.request.end)

    @enter(Kind.TERMINATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for view, item in zip(operation.after, operation.objects, strict=False):
            if item is None or item.stream is None or view.status != Status.SUCCESS:
                continue
            if isinstance(view.delegated, TcpDelegated):
                self._sends(crossing, view, view.delegated, item.stream)
                if not item.stream.failed:
                    self._state(crossing, view.delegated, item.stream)
                    self._received(crossing, view.delegated, item, item.stream)
                    self._timers(crossing, view.delegated, item, item.stream)

    # Send data

    def _sends(self, crossing: Crossing, view: BlockView, delegated: TcpDelegated, stream: Stream) -> None:
        requests = chained(self, crossing, view)
        head, tail = delegated.send_data_head, delegated.send_data_tail
        if not requests:
            self.check(
                "terminate.senddata.null",
                not view.chain and head is None and tail is None,
                "no send data is outstanding, and the chain is not null",
                crossing,
                stream,
            )
            return
        orders = [request.order for request in requests]
        self.check(
            "terminate.senddata.chain",
            orders == sorted(orders)
            and all(request.stream is stream and request.kind is Kind.SEND for request in requests)
            and head is view.chain[0].nbl
            and tail is view.chain[-1].nbl,
            lambda: f"the chain has sends {orders} in order of posting, or head and tail do not point at its ends",
            crossing,
            stream,
        )
        send = stream.send
        una, nxt, highest = (send.position(n) for n in (delegated.snd_una, delegated.snd_nxt, delegated.snd_max))
        first, last = requests[0], requests[-1]
        length = sum(nbl.length for nbl in view.chain)
        self.check(
            "terminate.senddata.seq",
            first.start <= una <= first.end and una <= nxt <= highest <= send.posted + 1 and last.end - una == length,
            lambda: (
                f"SndUna, SndNxt, SndMax are {una}, {nxt}, {highest}; the chain has {length} bytes of those from "
                f"{first.start} to {last.end}"
            ),
            crossing,
            stream,
        )

    # Delegated variables

    def _state(self, crossing: Crossing, delegated: TcpDelegated, stream: Stream) -> None:
        send, receive = stream.send, stream.receive
        rcv_nxt = receive.position(delegated.rcv_nxt)
        una, nxt, highest = (send.position(n) for n in (delegated.snd_una, delegated.snd_nxt, delegated.snd_max))
        wrong = []
        if not receive.acknowledged <= rcv_nxt <= receive.next:
            wrong.append(f"RcvNxt {rcv_nxt}, {receive.acknowledged} acknowledged, {receive.next} received")
        if not stream.facts.get(_COMPLETED, 0) <= una <= max(send.acked, 0):
            wrong.append(f"SndUna {una}, {send.acked} acknowledged")
        if not una <= nxt <= highest <= send.posted + 1 or highest < send.sent:
            wrong.append(f"SndNxt {nxt}, SndMax {highest}, {send.sent} sent")
        if not _state_fits(delegated.state, stream, rcv_nxt, una, highest):
            wrong.append(f"State {delegated.state!r}")
        self.check("terminate.delegated", not wrong, lambda: "; ".join(wrong), crossing, stream)

    # Received data

    def _received(self, crossing: Crossing, delegated: TcpDelegated, item: ObjectBook, stream: Stream) -> None:
        receive = stream.receive
        rcv_nxt = receive.position(delegated.rcv_nxt)
        lists = list(iterate(delegated.buffered_data))
        data = chain_bytes(lists)
        end = rcv_nxt - (receive.fin is not None and rcv_nxt > receive.fin)
        content = receive.unsure or bytes(receive.content[: len(data)]) == data
        self.check(
            "terminate.buffered",
            receive.delivered + len(data) == end and content,
            lambda: (
                f"{receive.delivered} bytes were delivered, {len(data)} come back, {end} are acknowledged"
                f"{'' if content else '; they are not what came'}"
            ),
            crossing,
            stream,
        )
        if receive.has_hole:
            self.check(
                "terminate.sack.drop",
                receive.delivered + len(data) <= end and rcv_nxt <= receive.next,
                lambda: f"{receive.delivered + len(data)} bytes went up, the hole begins at {receive.available}",
                crossing,
                stream,
            )
        silent = (
            stream.invalidated is not None or item.invalid is not None or stream.facts.get("closing: blocked", False)
        )
        if not silent:
            self.check(
                "terminate.flush-ack",
                receive.acknowledged >= rcv_nxt,
                lambda: f"{rcv_nxt - receive.acknowledged} bytes below RcvNxt have not been acknowledged",
                crossing,
                stream,
            )

    # Timers

    def _timers(self, crossing: Crossing, delegated: TcpDelegated, item: ObjectBook, stream: Stream) -> None:
        send = stream.send
        una, highest = send.position(delegated.snd_una), send.position(delegated.snd_max)
        retransmit, keep_alive = delegated.retransmit.timeout_delta, delegated.keep_alive.timeout_delta
        wrong = [d for d in (retransmit, keep_alive) if d != TIMER_NOT_RUNNING and not 0 <= d < 1 << 31]
        at_work = stream.mandatory is None and stream.invalidated is None and item.invalid is None
        open_ = delegated.state in (State.ESTABLISHED, State.CLOSE_WAIT)
        message = f"the timers' remainders are {retransmit:#x} and {keep_alive:#x}, "
        if at_work and send.sent_by_target > una and delegated.state not in (State.CLOSED, State.TIME_WAIT):
            ok = not wrong and retransmit != TIMER_NOT_RUNNING
            self.check("terminate.timer-deltas", ok, message + "and data is in flight", crossing, stream)
        elif at_work and open_ and una == highest == send.posted and not send.fin_posted:
            ok = not wrong and retransmit == TIMER_NOT_RUNNING
            self.check("terminate.timer-deltas", ok, message + "and nothing is in flight", crossing, stream)
        cached = item.cached
        enabled = isinstance(cached, TcpCached) and cached.flags & TcpCachedFlags.KEEP_ALIVE_ENABLED
        if at_work and open_ and isinstance(cached, TcpCached) and enabled and cached.ka_timeout:
            ok = keep_alive != TIMER_NOT_RUNNING
            self.check("terminate.timer-deltas", ok, message + "and keepalive is on", crossing, stream)


def _state_fits(state: TcpConnectionState, stream: Stream, rcv_nxt: int, una: int, highest: int) -> bool:
    """Whether a state fits the sequence variables that come with it. CLOSED is anything's end."""
    before = stream.delegated.state
    if state is State.CLOSED or before not in (State.ESTABLISHED, State.CLOSE_WAIT):
        return True
    fin = stream.receive.fin
    closed = before is State.CLOSE_WAIT or (fin is not None and rcv_nxt > fin)
    asked, end = stream.send.fin_posted, stream.send.posted
    if not asked:
        return state is (State.CLOSE_WAIT if closed else State.ESTABLISHED)
    if una > end:
        return state is (State.TIME_WAIT if closed else State.FIN_WAIT_2)
    sent = (State.CLOSING, State.LAST_ACK) if closed else (State.FIN_WAIT_1,)
    if highest > end:
        return state in sent
    # The FIN waits behind other data.
    return state in (*sent, State.CLOSE_WAIT if closed else State.ESTABLISHED)
