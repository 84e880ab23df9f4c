"""Runs a script: one event after the other, in virtual time."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from chimney.packetdrill import commands, icmp, waiting
from chimney.packetdrill.calls import Blocked
from chimney.packetdrill.code import CodeRunner
from chimney.packetdrill.compare import Rules, can_be_merged, differences, merge
from chimney.packetdrill.endpoint import Endpoint, Phase
from chimney.packetdrill.errors import Mismatch, ScriptError, Unsupported
from chimney.packetdrill.host import Host
from chimney.packetdrill.mapping import NumberMap
from chimney.packetdrill.nodes import (
    FOREIGN_OPTIONS,
    Code,
    Command,
    Event,
    ForeignPacket,
    IcmpPacket,
    Script,
    SocketCall,
    TcpPacket,
    When,
)
from chimney.packetdrill.normalise import is_freebsd, normalise, receive_window
from chimney.packetdrill.parser import line_of_first_command, parse_script
from chimney.packetdrill.pattern import pattern
from chimney.packetdrill.settings import Settings
from chimney.packetdrill.tcp_options import check_options
from chimney.packetdrill.waiting import result_text, seconds
from chimney.packetdrill.wire import ACK, ECN_CODES, NOT_ECT, SYN, Packet, flags_of, packet_text
from chimney.tcp import NEVER

_SECOND = 1_000_000
_DEFAULT_TOLERANCE = 4000
_DEFAULT_PERCENT = 12.5
_PATIENCE = 2 * _SECOND


class Outcome(StrEnum):
    """How a script ended."""

    PASSED = "passed"
    FAILED = "failed"
    """The engine did something else than the script expects."""
    UNSUPPORTED = "unsupported"
    """The script is about something that is no business of an established connection, or not here."""
    BROKEN = "broken"
    """The script cannot be read."""


@dataclass(slots=True)
class Result:
    """What came of a script. reason: one line, empty if it passed. log: what was injected and what was seen."""

    name: str
    outcome: Outcome
    reason: str = ""
    line: int = 0
    log: list[str] = field(default_factory=list)
    milliseconds: float = 0.0
    relaxed: tuple[str, ...] = ()
    printed: str = ""
    ignored: tuple[str, ...] = ()
    """Commands and settings of the script that are known to make no difference here."""


def run_file(path: Path, **options: object) -> Result:
    """Runs the script in a file; the options are those of `run_text`."""
    return run_text(path.read_text(errors="replace"), str(path), **options)  # type: ignore[arg-type]


def run_text(
    text: str,
    name: str = "script",
    *,
    rules: Rules | None = None,
    freebsd: bool | None = None,
    settings: Settings | None = None,
    prepare: Callable[[Host], None] | None = None,
) -> Result:
    """Runs a script. Whatever goes wrong is in the result, with the line; errors of the engine itself, too.

    freebsd: whether the script goes through the normalising filter; None: if it looks like one of FreeBSD's.
    prepare: called with the host before the first event (tests).
    """
    started = time.perf_counter()
    relaxed = rules or Rules()
    result = Result(name, Outcome.PASSED, relaxed=relaxed.names())
    runner: Runner | None = None
    try:
        chosen = settings or Settings()
        if is_freebsd(text) if freebsd is None else freebsd:
            chosen.receive_window = receive_window(text)
            chosen.bsd_errors = True
            text = normalise(text)
        runner = Runner(parse_script(text), relaxed, chosen, result.log)
        if prepare is not None:
            prepare(runner.host)
        runner.line = line_of_first_command(text)
        runner.run()
    except Unsupported as error:
        result.outcome, result.reason = Outcome.UNSUPPORTED, str(error)
        result.line = error.line or (runner.line if runner else 0)
    except ScriptError as error:
        result.outcome, result.reason = Outcome.BROKEN, str(error)
        result.line = error.line or (runner.line if runner else 0)
    except Mismatch as error:
        result.outcome, result.reason = Outcome.FAILED, str(error)
        result.line = error.line or (runner.line if runner else 0)
    except Exception as error:
        result.outcome, result.reason = Outcome.FAILED, crash_text(error)
        result.line = runner.line if runner else 0
        result.log += traceback.format_exc().splitlines()
    if runner is not None:
        result.printed = runner.code.printed
        result.ignored = tuple(dict.fromkeys(runner.settings.ignored))
    result.milliseconds = (time.perf_counter() - started) * 1000
    return result


class Runner:
    """One run of one script."""

    def __init__(self, script: Script, rules: Rules, settings: Settings, log: list[str]) -> None:
        self.script = script
        self.settings = settings
        self.log = log
        self.line = 0
        self.code = CodeRunner()
        options = script.options
        self.tolerance = max(int(options.get("tolerance_usecs") or _DEFAULT_TOLERANCE), rules.least_tolerance_us)
        self.percent = float(options.get("tolerance_percent") or _DEFAULT_PERCENT)
        self.merged_size = int(options.get("mss") or 0)
        self.strict_segments = "strict_segments" in options
        tick = int(options.get("tcp_ts_tick_usecs") or rules.ts_tick_us)
        self.rules = replace(rules, ts_tick_us=tick)
        if "mtu" in options:
            settings.mtu = int(options["mtu"])
        self.host = Host(settings, options.get("ip_version") == "ipv6")
        self.numbers = NumberMap("tcp_ts_ecr_scaled" in options)
        self.waiting: waiting.Waiting | None = None
        self._last_was_inbound = False
        self._last_time = 0

    def run(self) -> None:
        """Raises Mismatch, Unsupported or ScriptError; returns if the script passes."""
        if self.script.init is not None:
            commands.run(self.script.init.text, self.settings)
        for event in self.script.events:
            self.line = event.line
            self._run_event(event)
        if self.waiting is not None:
            self._await_call()
        self._after_the_end()

    # Time.

    def _run_event(self, event: Event) -> None:
        start, end = self._times(event)
        action = event.action
        if isinstance(action, TcpPacket) and action.outbound:
            self._expect(event, action, start, end)
        elif isinstance(action, TcpPacket):
            self._wait_until(start)
            self._inject(event, action)
        elif isinstance(action, SocketCall):
            self._begin_call(event, action, start)
        elif isinstance(action, IcmpPacket) and not action.outbound:
            self._wait_until(start)
            self._inject_icmp(event, action)
        elif isinstance(action, IcmpPacket | ForeignPacket):
            raise Unsupported(f"packets that are not TCP ({getattr(action, 'protocol', 'icmp')})")
        elif isinstance(action, Command):
            self._wait_until(start)
            commands.run(action.text, self.settings)
            self._apply_route()
        elif isinstance(action, Code):
            self._wait_until(start)
            self.code.run(action.text, self.host)
        self._last_was_inbound = isinstance(action, TcpPacket) and not action.outbound
        self._last_time = start

    def _times(self, event: Event) -> tuple[int, int]:
        """The time of an event in absolute terms: what is relative counts from now.

        Packets that arrive one after the other count from each other, as in packetdrill.
        """
        if event.when in (When.ABSOLUTE, When.ABSOLUTE_RANGE):
            return event.start, event.end
        is_inbound = isinstance(event.action, TcpPacket) and not event.action.outbound
        base = self._last_time if is_inbound and self._last_was_inbound else self.host.now
        return base + event.start, base + event.end

    def _wait_until(self, at: int) -> None:
        """Time goes on; what the engine sends meanwhile is compared when the script comes to it."""
        while self._step(at):
            pass
        if at < self.host.now - self.tolerance:
            self._check_time(at, at, self.host.now, When.ABSOLUTE, "the event")

    def _next_at(self) -> int:
        """The next moment at which anything happens by itself: in the engine, or because a call times out."""
        deadline = self.waiting.invocation.deadline() if self.waiting else NEVER
        return max(min(self.host.poll_at(), deadline), self.host.now)

    def _step(self, until: int) -> bool:
        """Goes on to the next thing that happens, `until` at the latest; whether something did."""
        at = self._next_at()
        self.host.step(min(at, until))
        self._retry_call()
        return at <= until

    def _allowed(self, start: int) -> float:
        return max(self.tolerance, self.percent / 100 * (start - self._last_time))

    def _check_time(self, start: int, end: int, actual: int, when: When, what: str) -> None:
        if when is When.ANY:
            return
        allowed = self._allowed(start)
        if start - allowed <= actual <= end + allowed:
            return
        expected = seconds(start) if end == start else f"{seconds(start)} to {seconds(end)}"
        raise Mismatch(f"time: {what} at {seconds(actual)} instead of {expected} (tolerance {seconds(int(allowed))})")

    # Packets.

    def _inject(self, event: Event, expected: TcpPacket) -> None:
        if expected.ports is not None:
            raise Unsupported("packets with ports of their own")
        ecn = ECN_CODES.get(expected.ecn or "", NOT_ECT)
        if expected.tos is not None:
            ecn = expected.tos & 3
        flags = flags_of(expected.flags)
        options = expected.options or ()
        check_options(options)
        if foreign := next((option.kind for option in options if option.kind in FOREIGN_OPTIONS), None):
            raise Unsupported(f"the TCP option {foreign}")
        if flags & SYN and self._is_opening(flags):
            self.numbers.remote_isn = expected.seq
        payload = pattern(expected.seq - self.numbers.first_byte(flags) & 0xFFFFFFFF, expected.length)
        packet = Packet(flags, expected.seq, expected.ack, expected.window or 0, expected.urgent, options, payload, ecn)
        if self.merged_size > 0:
            packet.segments = max(-(-expected.length // self.merged_size), 1)
        self._note("<", packet)
        self.host.receive(self.numbers.inbound(packet))
        self._retry_call()

    def _is_opening(self, flags: int) -> bool:
        """Whether a SYN that arrives now begins a connection."""
        target = self.host.under_test
        if isinstance(target, Endpoint):
            return target.phase is not Phase.OPEN
        return flags & ACK == 0

    def _inject_icmp(self, event: Event, message: IcmpPacket) -> None:
        self.log.append(f"{seconds(self.host.now):>12} < icmp {message.kind} {message.code}")
        seq = None if message.seq is None else message.seq + self.numbers.local_shift() & 0xFFFFFFFF
        icmp.receive(self.host, message, seq)
        self._retry_call()

    def _expect(self, event: Event, expected: TcpPacket, start: int, end: int) -> None:
        self._learn_isn(expected)
        limit = NEVER - 1 if event.when is When.ANY else max(end, start) + _PATIENCE
        actual = self._next_packet(limit, expected)
        self._note(">", actual)
        while len(actual.payload) < expected.length and not self.strict_segments:
            following = self._next_packet(limit, expected)
            self._note(">", following)
            if not can_be_merged(actual, following):
                raise self._mismatch(expected, [f"and then another one: {packet_text(following)}"], actual, event)
            last = len(actual.merged[-1].payload) if actual.merged else len(actual.payload)
            if len(following.payload) != last and len(following.payload) < expected.length - len(actual.payload):
                raise self._mismatch(expected, [f"and then another size: {packet_text(following)}"], actual, event)
            actual = merge(actual, following)
        found = differences(expected, actual, self.rules, self._timestamp_tolerance(start))
        if found:
            raise self._mismatch(expected, found, actual, event)
        self._check_payload(actual)
        self._check_time(start, end, actual.at, event.when, "the packet left")

    def _timestamp_tolerance(self, start: int) -> int:
        return int(max(self.tolerance, self.percent / 100 * start))

    def _learn_isn(self, expected: TcpPacket) -> None:
        if flags_of(expected.flags) & SYN and isinstance(self.host.under_test, Endpoint):
            self.numbers.local_isn = expected.seq

    def _next_packet(self, limit: int, expected: TcpPacket) -> Packet:
        """The next packet that leaves, in the numbers of the script."""
        while not self.host.outbox:
            if self._next_at() > limit:
                raise Mismatch(f"no packet left by {seconds(min(limit, self.host.now + _PATIENCE))}: "
                               f"expected {_expected_text(expected)}")  # fmt: skip
            self._step(limit)
        return self.numbers.outbound(self.host.outbox.pop(0), expected.options)

    def _mismatch(self, expected: TcpPacket, found: list[str], actual: Packet, event: Event) -> Mismatch:
        self.log.append(f"    expected: {_expected_text(expected)}")
        self.log.append(f"    seen:     {packet_text(actual, expected.ecn is not None)} at {seconds(actual.at)}")
        return Mismatch("; ".join(found) + f" (expected {_expected_text(expected)}, seen {packet_text(actual)})")

    def _check_payload(self, actual: Packet) -> None:
        """The bytes are those that were written at this place of the stream."""
        target = self.host.under_test
        if not isinstance(target, Endpoint) or not actual.payload:
            return
        wire_seq = actual.seq + self.numbers.local_shift() & 0xFFFFFFFF
        position = wire_seq - target.agreed.iss - 1 & 0xFFFFFFFF
        if position < 1 << 31 and actual.payload != pattern(position, len(actual.payload)):
            raise Mismatch(f"the payload from {actual.seq} on is not what was written there")

    def _note(self, direction: str, packet: Packet) -> None:
        at = packet.at if direction == ">" else self.host.now
        self.log.append(f"{seconds(at):>12} {direction} {packet_text(packet)}")

    def _after_the_end(self) -> None:
        """Packets that the script does not expect at all are no failure in packetdrill either; they are noted."""
        for packet in self.host.outbox:
            self.log.append(f"    unexpected after the end: {packet_text(self.numbers.outbound(packet, ()))}")

    def _apply_route(self) -> None:
        icmp.apply_path_mtu(self.host)

    # Calls.

    def _begin_call(self, event: Event, call: SocketCall, start: int) -> None:
        if self.waiting is not None:
            self._await_call()
        self._wait_until(start)
        self.waiting = waiting.begin(self.host, event, call, start)
        self.log.append(f"{seconds(self.host.now):>12}   line {event.line}: {event.source}")
        self._retry_call()
        if call.end is None and self.waiting is not None:
            self._await_call()

    def _retry_call(self) -> None:
        """A call that blocks is tried again, and compared when it returns."""
        call = self.waiting
        if call is None:
            return
        try:
            value, error = call.attempt()
        except Blocked:
            self.host.collect()
            return
        self.host.collect()
        self.waiting = None
        self.log.append(f"{seconds(self.host.now):>12}     {call.invocation.call.name}() = {result_text(value, error)}")
        call.check_result(value, error)
        call.check_time(self.host.now, self.tolerance, self.percent)

    def _await_call(self) -> None:
        """The script goes on only when the call has returned."""
        call = self.waiting
        assert call is not None
        limit = call.limit(self.host.now)
        while self.waiting is not None:
            if self._next_at() > limit:
                raise call.never_returns(self.host.now)
            self._step(limit)


def crash_text(error: Exception) -> str:
    """What to say of an error that nobody has foreseen."""
    return f"{type(error).__name__} in the engine or the interpreter: {error}"


def _expected_text(expected: TcpPacket) -> str:
    from chimney.packetdrill.wire import options_text

    end = expected.seq + expected.length
    text = f"{expected.flags or '-'} {expected.seq}:{end}({expected.length})"
    if expected.ecn:
        text = f"[{expected.ecn}] {text}"
    if "." in expected.flags:
        text += f" ack {expected.ack}"
    if expected.window is not None:
        text += f" win {expected.window}"
    options = options_text(expected.options)
    return f"{text} {options}".rstrip()
