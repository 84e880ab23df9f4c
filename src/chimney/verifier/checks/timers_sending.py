"""The timers of data that is not acknowledged: retransmission, and probing of a closed window (13.5, 14.5).

The retransmission timeout itself is the target's own; what is known is how intervals relate to each other. A live
target may be late, so that what is measured may be longer than what was meant: by `_SLACK_US`, most likely.
"""

from __future__ import annotations

from dataclasses import dataclass

from chimney.ndis.capabilities import TcpConnectionOffloadParameters
from chimney.ndis.crossing import Crossing, Kind
from chimney.ndis.state import NO_RETRANSMISSION_LIMIT, TcpCached
from chimney.ndis.status import TcpCachedFlags, TcpOffloadEvent, UploadReason
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, segment
from chimney.verifier.overdue import Debt
from chimney.verifier.packets import ACK, FIN, RST, Packet
from chimney.verifier.relations import settled
from chimney.verifier.streams import Stream
from chimney.verifier.timing import covers, fin_is_acked, is_at_work, is_plain, microseconds, parameters_of

_SLACK_US = 1_000_000
# Back-off may end here (RFC 6298, 2.5), and no timeout is longer than that.
_LEAST_LIMIT_US = 55_000_000
_LONGEST_US = 120_000_000
# What is sent again sooner was not sent for a timeout.
_LEAST_TIMEOUT_US = 100_000
_EXTRA = 2


@dataclass(slots=True, eq=False)
class _Attempts:
    """How often the segment at ``una`` has been sent again since it is the first one, by a timer (``timed``) and in all
    (``count``); ``since``: when that began. ``high`` ends all that was ever sent. ``handed_over``: attempts and time
    (us) that the host had made before. ``steady``: no variable has been changed meanwhile, nor the next hop, ``way``:
    who waits may try again at once then, and need not count it (in the spirit of RFC 6069, 4). ``newest`` is the
    highest position in the peer's stream where a segment began.
    """

    debt: Debt
    una: int
    high: int
    since: int
    count: int = 0
    timed: int = 0
    last: int = 0
    handed_over: tuple[int, int] = (0, 0)
    cached: object = None
    way: object = None
    newest: int = 0
    steady: bool = True


@dataclass(slots=True, eq=False)
class _Probing:
    """A window that is zero since ``since``: ``probes`` of this round have been sent, the last at ``last``, after
    ``wait`` us. ``first`` is how long the round before (``round`` counts them) waited at first, -1 if that is not
    known; ``known``: when this one has begun. ``spare`` probes of this round need not count.
    """

    debt: Debt
    since: int
    known: bool
    una: int
    round: int = 0
    probes: int = 0
    last: int = 0
    wait: int = 0
    first: int = -1
    spare: int = 0

    def doubt(self) -> None:
        """How long the target has waited, and will wait next, cannot be told."""
        self.known, self.first, self.wait = False, -1, 0


class Retransmissions(Checks):
    """How often, or for how long, a segment is sent again."""

    RULES = ("timer.retransmit-limit", "timer.persist")

    @segment
    def seen(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        attempts: _Attempts | None = stream.facts.get("timers_sending: attempts")
        if attempts is None:
            attempts = stream.facts["timers_sending: attempts"] = self._begin(packet, item, stream)
        if attempts.cached is not item.cached:
            attempts.cached, attempts.steady = item.cached, False
        way = _way(item)
        if attempts.way is not way:
            attempts.way = way
            self._finds_another_way(stream, attempts)
        if packet.incoming:
            if not is_plain(packet):
                # It may make the target suspicious, and ask whether the peer is there.
                stream.facts["timers_sending: suspicious"] = True
            elif packet.flags & ACK:
                self._heard(packet, stream, attempts)
        elif packet.flags & RST:
            ours = stream.abort is None and stream.reset is None and stream.terminate is None
            if attempts.timed and ours:
                text = f"an RST after {attempts.timed} retransmissions"
                self.check("timer.retransmit-limit", False, text, packet, stream)
        elif "timers_sending: window closed" in stream.facts:
            self._probed(packet, stream, stream.facts["timers_sending: window closed"])
        elif packet.payload_length or packet.flags & FIN:
            self._sent(packet, item, stream, attempts)

    def _begin(self, packet: Packet, item: ObjectBook, stream: Stream) -> _Attempts:
        send, delegated = stream.send, stream.delegated
        parameters = parameters_of(self.books, stream)
        spent = 0 if parameters is None else microseconds(delegated.total_rt, parameters)
        debt = Debt(stream, self._given_up, 2 * _SLACK_US)
        attempts = _Attempts(debt, send.acked, send.handed_over, packet.at, cached=item.cached, way=_way(item))
        attempts.handed_over = (delegated.retransmit.count, spent)
        if delegated.snd_wnd == 0:
            self._window_closes(packet, stream, False)
        return attempts

    def _finds_another_way(self, stream: Stream, attempts: _Attempts) -> None:
        attempts.steady = False
        probing: _Probing | None = stream.facts.get("timers_sending: window closed")
        if probing is not None:
            probing.doubt()
            probing.spare += 1

    def _heard(self, packet: Packet, stream: Stream, attempts: _Attempts) -> None:
        moved = stream.send.acked > attempts.una
        position = stream.receive.position(packet.seq)
        if moved:
            attempts.una = stream.send.acked
            attempts.since, attempts.count, attempts.timed, attempts.steady = packet.at, 0, 0, True
            attempts.handed_over = (0, 0)
            attempts.debt.settle()
        probing: _Probing | None = stream.facts.get("timers_sending: window closed")
        if packet.window:
            if probing is not None:
                del stream.facts["timers_sending: window closed"]
                probing.debt.settle()
                # What is sent from now on is sent for the first time, as far as timers go.
                attempts.since, attempts.count, attempts.timed, attempts.steady = packet.at, 0, 0, False
        elif probing is None:
            attempts.debt.settle()
            if stream.send.position(packet.ack) >= stream.send.acked:
                self._window_closes(packet, stream, True)
        elif stream.send.acked > probing.una:
            # Its round-trip time is news for the timeout.
            probing.una, probing.known, probing.first = stream.send.acked, False, -1
            self._next_round(packet, probing)
        elif position < attempts.newest:
            # An old segment, whose window need not count.
            probing.doubt()
        elif probing.probes:
            self._next_round(packet, probing)
        attempts.newest = max(attempts.newest, position)

    # Retransmission

    def _sent(self, packet: Packet, item: ObjectBook, stream: Stream, attempts: _Attempts) -> None:
        end = stream.send.position(packet.seq) + packet.payload_length + bool(packet.flags & FIN)
        again = attempts.una < attempts.high and covers(packet, stream, attempts.una)
        if again:
            attempts.count += 1
            if packet.at - max(attempts.last, attempts.since) >= _LEAST_TIMEOUT_US:
                attempts.timed += 1
            attempts.last = packet.at
            self.verifier.debts.owe(attempts.debt, packet.link, packet.at + _LONGEST_US)
            self._within_limits(packet, item, stream, attempts)
        elif attempts.una >= attempts.high:
            attempts.since = attempts.last = packet.at
        attempts.high = max(attempts.high, end)

    def _within_limits(self, packet: Packet, item: ObjectBook, stream: Stream, attempts: _Attempts) -> None:
        parameters, cached = parameters_of(self.books, stream), item.cached
        if parameters is None or not isinstance(cached, TcpCached) or not attempts.steady or not settled(item):
            return
        if not attempts.timed or cached.max_rt == NO_RETRANSMISSION_LIMIT:
            return
        if cached.max_rt == 0:
            # A probe for a lost tail, and a fast retransmission, are no time-outs.
            count, most = attempts.timed + attempts.handed_over[0], parameters.tcp_maximum_retransmissions
            text = f"sent again for the {count}th time, {most} is the limit"
            self.check("timer.retransmit-limit", count <= most + _EXTRA, text, packet, stream)
        else:
            most = microseconds(cached.max_rt, parameters)
            spent = packet.at - attempts.since + attempts.handed_over[1]
            text = f"sent again after {spent} us, {most} us is the limit"
            late = spent > most + most // 2 + 5 * _SLACK_US and attempts.timed > _EXTRA
            self.check("timer.retransmit-limit", not late, text, packet, stream)

    @enter(Kind.EVENT)
    def requested(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is None or crossing.value != TcpOffloadEvent.INDICATE_RETRIEVE:
            return
        item, stream = found
        attempts: _Attempts | None = stream.facts.get("timers_sending: attempts")
        if attempts is not None:
            attempts.debt.settle()
        probing: _Probing | None = stream.facts.get("timers_sending: window closed")
        if probing is not None:
            probing.debt.settle()
        if crossing.information != UploadReason.TIMEOUT_EXPIRATION or attempts is None:
            return
        parameters = parameters_of(self.books, stream)
        cached = item.cached
        if parameters is None or not isinstance(cached, TcpCached) or not is_steady(attempts, item, stream):
            return
        if cached.flags & TcpCachedFlags.KEEP_ALIVE_ENABLED:
            # Its probes may have been in vain.
            return
        if fin_is_acked(stream):
            # Nothing is left to be sent: it is the peer's FIN that does not come.
            return
        if probing is not None:
            self._probing_ends(crossing, probing, parameters, cached, stream)
        elif attempts.una < attempts.high:
            self._trying_ends(crossing, attempts, parameters, cached, stream)

    def _trying_ends(
        self,
        crossing: Crossing,
        attempts: _Attempts,
        parameters: TcpConnectionOffloadParameters,
        cached: TcpCached,
        stream: Stream,
    ) -> None:
        count = attempts.count + attempts.handed_over[0]
        spent = crossing.at - attempts.since + attempts.handed_over[1]
        if cached.max_rt == 0:
            most = parameters.tcp_maximum_retransmissions
            text = f"the target gives up after {count} retransmissions of a segment, {most} is the limit"
            ok = count >= most
        elif cached.max_rt == NO_RETRANSMISSION_LIMIT:
            text, ok = "the target gives up, although MaxRT sets no limit", False
        else:
            most = microseconds(cached.max_rt, parameters)
            text = f"the target gives up after {spent} us, {most} us is the limit"
            ok = spent > most - _SLACK_US // 2
        self.check("timer.retransmit-limit", ok, text, crossing, stream)

    @enter(Kind.TERMINATE_COMPLETE)
    def taken_back(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                for name in ("timers_sending: attempts", "timers_sending: window closed"):
                    if name in stream.facts:
                        stream.facts[name].debt.settle()

    def _given_up(self, debt: Debt) -> None:
        if is_at_work(debt.stream):
            text = "a segment is neither sent again any more, nor has the upload been asked for"
            self.check("timer.retransmit-limit", False, text, debt.stream.bottom, debt.stream)

    def _not_probed(self, debt: Debt) -> None:
        stream = debt.stream
        if is_at_work(stream):
            pending = stream.send.posted + stream.send.fin_posted > stream.send.acked
            text = "the peer's window is zero, there is data, and no probe has been sent for long"
            self.check("timer.persist", not pending, text, stream.bottom, stream)

    # The closed window

    def _window_closes(self, packet: Packet, stream: Stream, known: bool) -> None:
        debt = Debt(stream, self._not_probed, 5 * _SLACK_US)
        pending = stream.send.posted > stream.send.acked
        stream.facts["timers_sending: window closed"] = _Probing(debt, packet.at, known and pending, stream.send.acked)
        self.verifier.debts.owe(debt, packet.link, packet.at + _LONGEST_US)

    def _next_round(self, packet: Packet, probing: _Probing) -> None:
        """A probe has been answered: the window is still zero."""
        if probing.probes:
            probing.round += 1
        probing.since, probing.probes, probing.wait, probing.spare = packet.at, 0, 0, 0
        self.verifier.debts.owe(probing.debt, packet.link, packet.at + _LONGEST_US)

    def _probed(self, packet: Packet, stream: Stream, probing: _Probing) -> None:
        position = stream.send.position(packet.seq)
        if position > probing.una or packet.payload_length > 1:
            return
        self.verifier.debts.owe(probing.debt, packet.link, packet.at + _LONGEST_US)
        if not packet.payload_length and not packet.flags & FIN:
            # It may be a keepalive probe, or an acknowledgement.
            return
        now = packet.at
        if not probing.probes:
            waited = now - probing.since
            if probing.known and probing.first >= 0:
                self._waited(packet, stream, waited, probing.first, f"round {probing.round} begins")
            probing.first = waited if probing.known else -1
            probing.known = True
        else:
            waited = now - probing.last
            if probing.probes >= _EXTRA:
                self._waited(packet, stream, waited, probing.wait, f"probe {probing.probes + 1} follows")
            elif not probing.round and probing.first >= 0:
                # RTO at first, and RTO once more.
                ok = probing.first + _SLACK_US >= min(waited, _LEAST_LIMIT_US) // _EXTRA
                text = f"the first probe is sent after {probing.first} us, the next one {waited} us later"
                self.check("timer.persist", ok, text, packet, stream)
            probing.wait = waited
        probing.probes += 1
        probing.last = now
        parameters, item = parameters_of(self.books, stream), stream.bottom
        unlimited = item is None or not isinstance(item.cached, TcpCached) or item.cached.max_rt != 0
        if parameters is not None and not unlimited:
            most = parameters.tcp_maximum_retransmissions
            text = f"{probing.probes} probes without an answer, {most} is the limit"
            self.check("timer.persist", probing.probes <= most + 1 + probing.spare, text, packet, stream)

    def _waited(self, packet: Packet, stream: Stream, waited: int, before: int, what: str) -> None:
        least = min(before + before // 2, _LEAST_LIMIT_US) - _SLACK_US
        text = f"{what} after {waited} us, and the wait before was {before} us: it should double"
        self.check("timer.persist", waited >= least, text, packet, stream)

    def _probing_ends(
        self,
        crossing: Crossing,
        probing: _Probing,
        parameters: TcpConnectionOffloadParameters,
        cached: TcpCached,
        stream: Stream,
    ) -> None:
        count = probing.probes + (0 if probing.round else stream.delegated.retransmit.count)
        most = parameters.tcp_maximum_retransmissions
        text = f"the target gives up after {count} probes of a closed window without an answer, {most} is the limit"
        self.check("timer.persist", count >= most or cached.max_rt != 0, text, crossing, stream)


def _way(item: ObjectBook) -> object:
    """What stands for the next hop as it is now: another one after a relink, and after each update of the neighbor."""
    path = item.parent
    return None if path is None or path.parent is None else path.parent.cached


def is_steady(attempts: _Attempts, item: ObjectBook, stream: Stream) -> bool:
    """Whether the reason for a time-out can be told."""
    return (
        attempts.steady
        and attempts.cached is item.cached
        and settled(item)
        and "timers_sending: suspicious" not in stream.facts
    )
