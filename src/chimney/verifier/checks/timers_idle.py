"""The timers of a connection on which nothing happens: keepalive, FIN_WAIT_2; and the ticks that all timers count (14).

A live target may be late, and takes the time a little before it reads: only what is early or late by much is a finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chimney.ndis.capabilities import TcpConnectionOffloadParameters
from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import TIMER_NOT_RUNNING, TcpCached, TcpDelegated
from chimney.ndis.status import Status, TcpCachedFlags, TcpConnectionState, TcpOffloadEvent, UploadReason
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, segment, segment_out
from chimney.verifier.overdue import NEVER, Debt
from chimney.verifier.packets import FIN, RST, SYN, Packet
from chimney.verifier.relations import has, settled
from chimney.verifier.streams import Stream, distance
from chimney.verifier.timing import fin_is_acked, is_at_work, is_fresh, is_plain, microseconds, parameters_of

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_EARLY_US = 500_000
_LATE_US = 2_000_000
# Whatever a target may have been kept from its work by.
_FAR_TOO_LATE_US = 30_000_000
_FIN_WAIT_2_US = 120_000_000
_RATE_US = 2_000_000
# So many times too fast or too slow contradicts a clock; what is between may be a packet that had to wait.
_WRONG = 3


@dataclass(slots=True, eq=False)
class _Idle:
    """When what may happen on an idle connection.

    ``probe_from``: no keepalive probe before (us; -1: not known); ``probe`` is due when it has to be sent; ``count``
    have been sent in vain. ``suspicious``: something has come that makes a target ask whether the peer is there
    (16.5); ``doubtful``: something has come that may have been an answer. ``closed_from``: FIN_WAIT_2 does not end
    before (-1: it is in another state), and ``closed`` is due when it has to end. ``next`` is the position that was
    expected last; ``expired``: FIN_WAIT_2 has ended.
    """

    probe: Debt
    closed: Debt
    probe_from: int = -1
    count: int = 0
    suspicious: bool = False
    doubtful: bool = False
    closed_from: int = -1
    next: int = 0
    zero_window: bool = False
    link: str = ""
    expired: bool = False


class IdleTimers(Checks):
    """Keepalive and FIN_WAIT_2."""

    RULES = ("timer.keepalive", "timer.fin-wait-2", "timer.granularity")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._links: dict[int, str] = {}

    # Beginnings

    @enter(Kind.INITIATE_COMPLETE)
    def offloaded(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for item, fresh in zip(operation.objects, operation.new, strict=False):
            if item is not None and item.stream is not None and fresh and item.offloaded:
                self._idle(item, item.stream, crossing.at, operation.call.at)

    def _idle(self, item: ObjectBook, stream: Stream, now: int, asked: int) -> None:
        idle = stream.facts["timers_idle: idle"] = _Idle(
            Debt(stream, self._no_probe, _LATE_US), Debt(stream, self._not_closed, _LATE_US)
        )
        idle.link = self._links.get(item.boundary.number, "")
        idle.next = stream.receive.next
        idle.zero_window = stream.delegated.snd_wnd == 0
        parameters, delegated = parameters_of(self.books, stream), stream.delegated
        if parameters is None:
            return
        left = delegated.keep_alive.timeout_delta
        timeout = self._times(item, parameters)[0]
        if left != TIMER_NOT_RUNNING and not timeout:
            # A host that is suspicious hands that over.
            idle.suspicious = True
        if timeout:
            wait = timeout if left == TIMER_NOT_RUNNING else microseconds(left, parameters)
            idle.count = delegated.keep_alive.count
            idle.probe_from = asked + wait
            self._owe(idle, idle.probe, now + wait)
        if delegated.state is TcpConnectionState.FIN_WAIT_2:
            left = delegated.retransmit.timeout_delta
            wait = _FIN_WAIT_2_US if left == TIMER_NOT_RUNNING else microseconds(left, parameters)
            idle.closed_from = asked + wait
            self._owe(idle, idle.closed, now + wait)

    def _owe(self, idle: _Idle, debt: Debt, due: int) -> None:
        if idle.link:
            self.verifier.debts.owe(debt, idle.link, due)

    def _times(self, item: ObjectBook, parameters: TcpConnectionOffloadParameters) -> tuple[int, int]:
        """KaTimeout and KaInterval in microseconds; 0, 0: keepalive is off."""
        cached = item.cached
        if not isinstance(cached, TcpCached) or not has(cached.flags, TcpCachedFlags.KEEP_ALIVE_ENABLED):
            return 0, 0
        return microseconds(cached.ka_timeout, parameters), microseconds(cached.ka_interval, parameters)

    @enter(Kind.UPDATE_COMPLETE)
    def updated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for asked, view, item in zip(operation.before, operation.after, operation.objects, strict=False):
            idle = None if item is None or item.stream is None else item.stream.facts.get("timers_idle: idle")
            if item is None or item.stream is None or idle is None or view.status != Status.SUCCESS:
                continue
            parameters = parameters_of(self.books, item.stream)
            timeout = 0 if parameters is None else self._times(item, parameters)[0]
            restarted = isinstance(asked.cached, TcpCached) and has(
                asked.cached.flags, TcpCachedFlags.KEEP_ALIVE_RESTART
            )
            idle.count = 0 if restarted else idle.count
            idle.probe_from = operation.call.at + timeout if timeout and restarted else -1
            if timeout:
                self._owe(idle, idle.probe, crossing.at + timeout)
            else:
                idle.probe.settle()

    # Packets

    @segment
    def seen(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        self._links[item.boundary.number] = packet.link
        idle: _Idle | None = stream.facts.get("timers_idle: idle")
        parameters = parameters_of(self.books, stream)
        if idle is None or parameters is None:
            return
        idle.link = packet.link
        timeout, interval = self._times(item, parameters)
        if not packet.incoming:
            self._sent(packet, item, stream, idle, (timeout, interval))
        else:
            self._heard(packet, stream, idle, timeout)

    def _heard(self, packet: Packet, stream: Stream, idle: _Idle, timeout: int) -> None:
        now = packet.at
        if not is_plain(packet):
            idle.suspicious = True
            idle.probe_from = -1
            return
        idle.zero_window = packet.window == 0
        fresh = is_fresh(packet, stream, idle.next)
        if fresh:
            idle.suspicious = idle.doubtful = False
            idle.probe_from = now + timeout if timeout else -1
            idle.count = 0
        else:
            # It may have been an answer, and then the count begins anew, and the wait.
            idle.doubtful = True
        if timeout:
            self._owe(idle, idle.probe, now + timeout)
        idle.next = stream.receive.next
        if not fin_is_acked(stream) or stream.peer_closed:
            idle.closed_from = -1
            idle.closed.settle()
        elif fresh or idle.closed_from < 0:
            idle.closed_from = now + _FIN_WAIT_2_US
            self._owe(idle, idle.closed, now + _FIN_WAIT_2_US)
        else:
            self._owe(idle, idle.closed, now + _FIN_WAIT_2_US)

    def _sent(self, packet: Packet, item: ObjectBook, stream: Stream, idle: _Idle, times: tuple[int, int]) -> None:
        timeout, interval = times
        send = stream.send
        before = not packet.flags & (FIN | RST | SYN) and send.position(packet.seq) == send.acked - 1
        # An acknowledgement in a segment beside the window may have passed it by: then this is no probe.
        unsure = send.acked_surely < send.acked
        if not before or packet.payload_length > 1 or idle.zero_window or unsure:
            if timeout and idle.probe.due < NEVER:
                self._owe(idle, idle.probe, max(idle.probe.due, packet.at + timeout))
            return
        if idle.suspicious or not settled(item) or not is_at_work(stream):
            return
        cached = item.cached
        assert isinstance(cached, TcpCached)
        if not timeout:
            self.check("timer.keepalive", False, "a keepalive probe, and keepalive is off", packet, stream)
            return
        if idle.probe_from >= 0:
            early, wait = idle.probe_from - packet.at, interval if idle.count else timeout
            text = f"a keepalive probe {early} us before its time; the timer has {wait} us"
            self.check("timer.keepalive", early <= _EARLY_US, text, packet, stream)
            self.check("timer.granularity", (wait - early) * _WRONG > wait or early <= _EARLY_US, text, packet, stream)
        idle.count += 1
        text = f"keepalive probe {idle.count} without an answer, {cached.ka_probe_count} are allowed"
        if cached.ka_probe_count and not idle.doubtful:
            self.check("timer.keepalive", idle.count <= cached.ka_probe_count, text, packet, stream)
        idle.probe_from = packet.at + interval
        if interval and idle.count < cached.ka_probe_count:
            self._owe(idle, idle.probe, packet.at + interval)
        else:
            idle.probe.settle()

    @enter(Kind.FORWARD, Kind.FORWARD_COMPLETE)
    def forwarded(self, crossing: Crossing) -> None:
        """The host has received a segment: whatever waits begins anew, sooner or later."""
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            request = entry if crossing.kind is Kind.FORWARD else entry.request
            stream = None if request is None else request.stream
            idle: _Idle | None = None if stream is None else stream.facts.get("timers_idle: idle")
            if stream is None or idle is None:
                continue
            idle.probe_from, idle.doubtful, idle.next = -1, True, stream.receive.next
            for debt, wait in ((idle.probe, self._timeout(stream)), (idle.closed, _FIN_WAIT_2_US)):
                if debt.due < NEVER:
                    self._owe(idle, debt, crossing.at + wait)
            if idle.closed_from >= 0:
                idle.closed_from = 0

    def _timeout(self, stream: Stream) -> int:
        parameters = parameters_of(self.books, stream)
        return 0 if parameters is None or stream.bottom is None else self._times(stream.bottom, parameters)[0]

    # Ends

    @enter(Kind.EVENT)
    def told(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        idle: _Idle | None = None if found is None else found[1].facts.get("timers_idle: idle")
        if found is None or idle is None or crossing.value != TcpOffloadEvent.INDICATE_RETRIEVE:
            return
        item, stream = found
        parameters = parameters_of(self.books, stream)
        if crossing.information != UploadReason.TIMEOUT_EXPIRATION or parameters is None or idle.suspicious:
            return
        cached = item.cached
        on = isinstance(cached, TcpCached) and has(cached.flags, TcpCachedFlags.KEEP_ALIVE_ENABLED)
        if idle.closed_from >= 0 and not on:
            early = idle.closed_from - crossing.at
            late = crossing.at - idle.closed.due
            text = f"FIN_WAIT_2 ends {early} us before its time" if early > 0 else f"FIN_WAIT_2 ends {late} us late"
            self.check("timer.fin-wait-2", early <= _EARLY_US and late <= _FAR_TOO_LATE_US, text, crossing, stream)
            idle.expired = True
        elif on and stream.send.posted + stream.send.fin_posted <= stream.send.acked and settled(item):
            assert isinstance(cached, TcpCached)
            text = f"the target gives up after {idle.count} keepalive probes, {cached.ka_probe_count} are to be sent"
            self.check("timer.keepalive", idle.count >= cached.ka_probe_count, text, crossing, stream)

    @enter(Kind.TERMINATE_COMPLETE)
    def taken_back(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for view, item in zip(operation.after, operation.objects, strict=False):
            idle: _Idle | None = (
                None if item is None or item.stream is None else item.stream.facts.get("timers_idle: idle")
            )
            if idle is None or view.status != Status.SUCCESS:
                continue
            idle.probe.settle()
            idle.closed.settle()
            if idle.expired and isinstance(view.delegated, TcpDelegated):
                state = view.delegated.state
                text = f"after FIN_WAIT_2 has ended, the connection is in {state.name}"
                self.check("timer.fin-wait-2", state is TcpConnectionState.CLOSED, text, crossing, item)

    def _not_closed(self, debt: Debt) -> None:
        stream = debt.stream
        if is_at_work(stream) and settled(stream.bottom):
            text = "FIN_WAIT_2 has lasted for more than 120 seconds, and the upload is not asked for"
            self.check("timer.fin-wait-2", False, text, stream.bottom, stream)

    def _no_probe(self, debt: Debt) -> None:
        stream = debt.stream
        if is_at_work(stream) and settled(stream.bottom) and self._timeout(stream) and self._is_quiet(stream):
            idle: _Idle = stream.facts["timers_idle: idle"]
            text = f"nothing happens, and there is no keepalive probe ({idle.count} have been sent)"
            self.check("timer.keepalive", False, text, stream.bottom, stream)

    def _is_quiet(self, stream: Stream) -> bool:
        """Whether nothing is under way, and both sides may still send."""
        send = stream.send
        open_ = stream.delegated.state is TcpConnectionState.ESTABLISHED and stream.fin_received is None
        return open_ and not send.fin_posted and send.posted <= send.acked and send.handed_over <= send.acked


class Clocks(Checks):
    """The clock of the timestamps, which counts the same ticks as all timers (14.9)."""

    RULES = ("timer.granularity",)

    @enter(Kind.TERMINATE, stage=Stage.HANDLER)
    def ended(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                stream.facts.pop("timers_idle: clock", None)

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        stamps = packet.timestamps
        if stamps is None or not item.offloaded:
            return
        since = stream.facts.setdefault("timers_idle: clock", (packet.at, stamps[0]))
        elapsed = packet.at - since[0]
        if elapsed < _RATE_US:
            return
        stream.facts["timers_idle: clock"] = (packet.at, stamps[0])
        parameters = parameters_of(self.books, stream)
        if parameters is None:
            return
        expected = elapsed * parameters.ticks_per_second // 1_000_000
        ticks = distance(stamps[0], since[1])
        text = f"{ticks} ticks in {elapsed} us, {parameters.ticks_per_second} make a second"
        self.check("timer.granularity", expected < _WRONG * ticks < _WRONG * _WRONG * expected, text, packet, stream)
