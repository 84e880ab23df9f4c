"""A socket call from its start to its return: what carries it out, what the script expects of it, when it gives up."""

from dataclasses import dataclass

from chimney.packetdrill import foreign
from chimney.packetdrill.calls import OPENING, Failure, Function, Invocation, WrongValue
from chimney.packetdrill.errors import Mismatch, ScriptError, Unsupported
from chimney.packetdrill.expressions import ERRNO, describe, name_of_errno, number
from chimney.packetdrill.host import Host
from chimney.packetdrill.nodes import Anything, Event, SocketCall, When
from chimney.packetdrill.polling import POLLING
from chimney.packetdrill.socket_options import OPTIONS
from chimney.packetdrill.transfers import TRANSFERS

_CALLS: dict[str, Function] = {**OPENING, **TRANSFERS, **OPTIONS, **POLLING}
_PATIENCE = 10_000_000
"""How long nothing may happen before a call counts as one that never returns, microseconds."""


@dataclass(slots=True)
class Waiting:
    """A call under way, and when it must be over."""

    event: Event
    invocation: Invocation
    function: Function
    due: int

    def attempt(self) -> tuple[int, int]:
        """What the call returns, and its errno. Raises Blocked if it cannot go on yet, Mismatch for a wrong value."""
        try:
            return self.function(self.invocation), 0
        except Failure as failure:
            return -1, failure.number
        except WrongValue as wrong:
            raise Mismatch(f"{self.invocation.call.name}(): {wrong}", self.event.line) from None
        except (ScriptError, Unsupported) as error:
            # The script may have gone on meanwhile, to another line.
            error.line = error.line or self.event.line
            raise

    def limit(self, now: int) -> int:
        """When nobody waits for it any longer: a while after it should have returned, and after its own time-out."""
        return max(self.due, now, self.invocation.started + self.invocation.timeout) + _PATIENCE

    def never_returns(self, now: int) -> Mismatch:
        """What is wrong if it is still under way at its limit."""
        by = self.due if self.invocation.call.end is not None else self.limit(now)
        return Mismatch(f"{self.invocation.call.name}() does not return by {seconds(by)}", self.event.line)

    def check_result(self, value: int, error: int) -> None:
        """Raises Mismatch if the call returns something else than the script expects."""
        call = self.invocation.call
        if isinstance(call.result, Anything):
            return
        if value != number(call.result):
            wanted = f"{describe(call.result)} {call.errno}".rstrip()
            raise Mismatch(f"{call.name}() returns {result_text(value, error)} instead of {wanted}", self.event.line)
        if call.errno and ERRNO[call.errno] != error:
            raise Mismatch(f"{call.name}() fails with {name_of_errno(error)} instead of {call.errno}", self.event.line)

    def check_time(self, now: int, tolerance: int, percent: float) -> None:
        """Raises Mismatch if a call that may block returns at another time than the script expects."""
        call = self.invocation.call
        allowed = max(tolerance, percent / 100 * (self.due - self.invocation.started))
        if call.end is not None and abs(now - self.due) > allowed:
            raise Mismatch(f"time: {call.name}() returns at {seconds(now)} instead of {seconds(self.due)}",
                           self.event.line)  # fmt: skip


def begin(host: Host, event: Event, call: SocketCall, start: int) -> Waiting:
    """A call begins. Raises Unsupported or ScriptError for one that is not there."""
    function = _CALLS.get(call.name)
    if function is None and call.name in foreign.CALLS:
        raise Unsupported(foreign.CALLS[call.name])
    if function is None:
        raise ScriptError(f"there is no call {call.name}()")
    if call.errno and call.errno not in ERRNO:
        raise ScriptError(f"there is no error {call.errno}")
    due = start
    if call.end is not None:
        due = call.end if event.when is When.ABSOLUTE else start - event.start + call.end
    return Waiting(event, Invocation(host, call), function, due)


def result_text(value: int, error: int) -> str:
    """`3`, or `-1 EAGAIN`."""
    return f"-1 {name_of_errno(error)}" if error else str(value)


def seconds(microseconds: int) -> str:
    """A time as a script writes it."""
    return f"{microseconds / 1_000_000:.6f}"
