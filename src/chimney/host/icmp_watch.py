"""Judges what ICMP messages say about offloaded connections, and has kernel and target act on what is true.

The kernel cannot judge them itself: it does not know which segments are outstanding. A message is believed if the
segment that it quotes is, as the target says (RFC 5927, 4.1); the kernel is then told, and does with it what it does
with a message about a connection of its own: its route learns the path MTU, its socket the error. From the route the
target learns, by `NetworkWatch`. What is about a connection on its way between kernel and target waits until it is
there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chimney.host.chimney_path import blank_delegated
from chimney.host.hand_over import Owner
from chimney.host.icmp import IcmpMessage, Meaning, is_outstanding
from chimney.host.listener import NEVER
from chimney.host.services import Services
from chimney.ndis.state import TcpDelegated

if TYPE_CHECKING:
    from chimney.host.connection import Connection

_BATCH = 64
# What comes faster than this is dropped by the kernel for a while: routers send no more than some hundred a second.
_PER_SECOND = 1000
_BURST = 256
_PER_CONNECTION = 16
_CONNECTIONS = 1024
# How long what waits for a hand-over, or an error that may have been overcome, is left alone.
_HAND_OVER_US = 1_000
_ERROR_US = 1_000_000
# A busy kernel processes what it is told a little later.
_LATER_US = 20_000
# What somebody else has found out about a path is in no hurry, and maybe not true.
_SHARED_US = 200_000
_MOVING = (Owner.OFFLOADING, Owner.UPLOADING)


class Outstanding(NamedTuple):
    """What a target says of a connection: its segments lie from SND.UNA to SND.MAX, and are made for this path MTU."""

    snd_una: int
    snd_max: int
    path_mtu: int

    def covers(self, message: IcmpMessage) -> bool:
        """Whether the message quotes one of them."""
        return is_outstanding(message.seq, self.snd_una, self.snd_max)


Answer = Callable[[Outstanding | None], None]


def ask_target(connection: Connection, answer: Answer) -> None:
    """Query what a target has outstanding of a connection (9.4); `answer` gets None if it does not know."""
    chimney, adapter = connection.chimney, connection.adapter
    if chimney is None or adapter is None:
        answer(None)
        return

    def told(delegated: TcpDelegated | None) -> None:
        mtu = chimney.record.path.cached.path_mtu
        answer(None if delegated is None else Outstanding(delegated.snd_una, delegated.snd_max, mtu))

    adapter.edge.upkeep.query_connection(chimney.record, blank_delegated(), told)


class IcmpSource(Protocol):
    """Where the messages come from."""

    def fileno(self) -> int:
        """The descriptor that is readable when there are some."""

    def listen(self, on: bool) -> None:
        """Hear them, or have them dropped."""

    def read(self, most: int) -> tuple[int, list[IcmpMessage]]:
        """Take in at most so many; how many there were, and those of them that can be read."""

    def close(self) -> None:
        """Give the descriptors back."""


class Routes(Protocol):
    """Who carries over to the targets what the kernel's routes have learnt."""

    def recheck_soon(self) -> None:
        """Look at every offloaded connection's route, beginning in the next turn."""

    def may_have_shrunk(self, connection: Connection) -> None:
        """Look at this connection's path MTU now."""


@dataclass(slots=True)
class IcmpCounters:
    """Messages so far. ``received``: in all. ``strange``: damaged, or about no connection that is offloaded.

    ``ignored``: about a segment that is not outstanding (or that is not known to be), or without news. ``too_big`` and
    ``unreachable`` have been believed.
    """

    received: int = 0
    strange: int = 0
    ignored: int = 0
    too_big: int = 0
    unreachable: int = 0


class IcmpWatch:
    """A `chimney.host.listener.Listener`. ``ask(connection, answer)`` has the target say what is outstanding;
    the answer is None if it does not know.
    """

    def __init__(
        self,
        services: Services,
        source: IcmpSource,
        routes: Routes,
        ask: Callable[[Connection, Answer], None] = ask_target,
    ) -> None:
        self.counters = IcmpCounters()
        self._services = services
        self._source = source
        self._routes = routes
        self._ask = ask
        # What has not been judged, by connection; those whose target has been asked.
        self._waiting: dict[Connection, list[IcmpMessage]] = {}
        self._asked: set[Connection] = set()
        # The last error that each connection's socket has been told, until it is overcome.
        self._errors: dict[Connection, IcmpMessage] = {}
        # Those whose routes are to be looked at once more.
        self._shrunk: dict[Connection, None] = {}
        self._judge_at = self._errors_at = self._recheck_at = NEVER
        self._budget = _BURST
        self._budget_at = services.clock()
        # When it listens again.
        self._hearing_at = NEVER

    def fileno(self) -> int:
        return self._source.fileno()

    @property
    def hears(self) -> bool:
        """False while so many messages come that none is listened to."""
        return self._hearing_at == NEVER

    @property
    def errors(self) -> int:
        """Connections whose last error has not been overcome."""
        return len(self._errors)

    def ready(self) -> None:
        count, messages = self._source.read(_BATCH)
        self.counters.received += count
        self.counters.strange += count - len(messages)
        self._spend(count)
        for message in messages:
            self._sort(message)
        # Before the targets send more of what is too big.
        self._look(self._services.clock())

    def _spend(self, count: int) -> None:
        """Who hears too much hears nothing for some time: the path is probed without ICMP, too."""
        now = self._services.clock()
        self._budget = min(_BURST, self._budget + (now - self._budget_at) * _PER_SECOND // 1_000_000) - count
        self._budget_at = now
        if self._budget < 0:
            self._hearing_at = now + (_BURST - self._budget) * 1_000_000 // _PER_SECOND
            self._source.listen(False)

    def _sort(self, message: IcmpMessage) -> None:
        connection = self._services.offloaded.get(message.flow)
        if connection is None:
            self.counters.strange += 1
            unplanned = self._recheck_at == NEVER
            if unplanned and message.meaning is Meaning.TOO_BIG and self._may_share_a_path(message):
                # The kernel judges it, and tells nobody what its route has learnt.
                self._recheck_at = self._services.clock() + _SHARED_US
            return
        waiting = self._waiting.setdefault(connection, [])
        if len(waiting) >= _PER_CONNECTION:
            self.counters.ignored += 1
            return
        waiting.append(message)

    def _may_share_a_path(self, message: IcmpMessage) -> bool:
        remote = message.flow.remote_address
        return any(flow.remote_address == remote for flow in self._services.offloaded)

    def poll_at(self) -> int:
        if self._errors and any(connection.owner is Owner.KERNEL for connection in self._errors):
            return 0
        return min(self._judge_at, self._recheck_at, self._errors_at, self._hearing_at)

    def run(self, now: int) -> None:
        if self._hearing_at <= now:
            self._hearing_at = NEVER
            self._budget, self._budget_at = _BURST, now
            self._source.listen(True)
        if self._recheck_at <= now:
            self._recheck_at = NEVER
            self._routes.recheck_soon()
            for connection in self._shrunk:
                self._routes.may_have_shrunk(connection)
            self._shrunk.clear()
        self._look_after_errors(now)
        self._look(now)

    def _look(self, now: int) -> None:
        self._judge_at = NEVER
        for connection in list(self._waiting):
            self._consider(connection, now)

    def _consider(self, connection: Connection, now: int) -> None:
        if connection.owner is Owner.TARGET:
            self._question(connection)
        elif connection.owner in _MOVING:
            self._judge_at = now + _HAND_OVER_US
        else:
            for message in self._waiting.pop(connection):
                self._tell(connection, message)

    def _question(self, connection: Connection) -> None:
        if connection in self._asked:
            return
        self._asked.add(connection)

        def answer(outstanding: Outstanding | None) -> None:
            self._asked.discard(connection)
            if outstanding is not None:
                self._judge(connection, outstanding)
                return
            self.counters.ignored += len(self._waiting.pop(connection, ()))
            # query.failure: what could not be queried is taken back.
            connection.withdraw("its target does not tell its state")

        self._ask(connection, answer)

    def _judge(self, connection: Connection, outstanding: Outstanding) -> None:
        """The target has said which segments are outstanding, and how large they are."""
        messages = self._waiting.pop(connection, [])
        believed = [m for m in messages if outstanding.covers(m)]
        too_big = [m for m in believed if m.meaning is Meaning.TOO_BIG and m.mtu < outstanding.path_mtu]
        unreachable = [m for m in believed if m.meaning is Meaning.UNREACHABLE]
        self.counters.ignored += len(messages) - len(too_big) - len(unreachable)
        if too_big:
            # The smallest says it all.
            self.counters.too_big += len(too_big)
            self._tell(connection, min(too_big, key=lambda message: message.mtu))
            self._routes.may_have_shrunk(connection)
            self._shrunk[connection] = None
            self._recheck_at = min(self._recheck_at, self._services.clock() + _LATER_US)
        if unreachable:
            self.counters.unreachable += len(unreachable)
            self._on_error(connection, unreachable[-1])
        error = self._errors.get(connection)
        if error is not None and not outstanding.covers(error):
            del self._errors[connection]
            connection.kernel.forget_error()

    def _on_error(self, connection: Connection, message: IcmpMessage) -> None:
        """RFC 1122, 4.2.3.9: no error ends an established connection; it is what a time-out will have been caused by.

        An application that wants to hear of each at once (IP_RECVERR) does, in the kernel.
        """
        if len(self._errors) >= _CONNECTIONS:
            return
        self._errors[connection] = message
        self._errors_at = min(self._errors_at, self._services.clock() + _ERROR_US)
        if connection.kernel.tells_errors():
            connection.withdraw("the network reports an error, which the application wants to hear of (IP_RECVERR)")
        else:
            self._tell(connection, message)

    def _look_after_errors(self, now: int) -> None:
        """An error is overcome when the segment that it was about has arrived; a socket that the kernel got back has
        forgotten it.
        """
        due = self._errors_at <= now
        if due:
            self._errors_at = now + _ERROR_US
        for connection, message in list(self._errors.items()):
            if connection.owner in _MOVING:
                continue
            if connection.owner is not Owner.TARGET:
                del self._errors[connection]
                self._tell(connection, message)
            elif due:
                self._question(connection)
        if not self._errors:
            self._errors_at = NEVER

    def _tell(self, connection: Connection, message: IcmpMessage) -> None:
        if connection.owner is Owner.APPLICATION or connection.error is not None:
            return
        try:
            connection.kernel.icmp(message)
        except OSError:
            # The address has gone, maybe, or a firewall will not have it.
            self.counters.ignored += 1

    def close(self) -> None:
        self._source.close()
