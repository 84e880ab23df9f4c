"""The kernel's firewall judges an offloaded connection, too: what it drops, the host takes back into the kernel.

The target has its segments from the wire, where no firewall stands. But the kernel has its own copy of each, and what
its firewall lets pass is counted where it ends (`Passage.let_in`): where the target hears segments and nothing comes
through, they are dropped. An acknowledgement is sent through the firewall (`Passage.lets_out`) when a connection goes
down, when the rules change, and now and then. The kernel then carries the connection, with the firewall's rules, until
they let it pass again. A connection that the kernel takes only with the peer's last segments in its ears, which the
firewall would drop, stays where it is, and hears nothing until something comes through.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chimney.host.hand_over import Owner
from chimney.host.listener import NEVER
from chimney.host.passage import KernelFirewall, Mistrust, Passage
from chimney.host.services import Progress, Services
from chimney.ndis.status import TcpConnectionState

if TYPE_CHECKING:
    from chimney.host.chimney_path import ChimneyPath
    from chimney.host.connection import Connection
    from chimney.host.kernel import Flow

FIRST_PAUSE_US = 10_000
"""Between two looks at a connection that has just come; it doubles with each look."""
ALERT_PAUSE_US = 1_000
"""The same, after the rules have changed."""
LONGEST_PAUSE_US = 1_000_000
"""Between two looks at a connection whose segments have passed so far."""
ON_THE_WAY_US = 2_000
"""What a segment needs at most from the wire through the firewall."""
LONGEST_DEAF_PAUSE_US = 100_000
"""Between two looks whether something comes through for a connection that is kept from hearing."""
OUTPUT_PAUSE_US = 30_000_000
"""Between two acknowledgements that try whether a connection that sends may still do so."""
RULES_PAUSE_US = 1_000_000
"""Between two looks at rules that tell no news, if that does not take long."""
_RULES_SHARE = 100
_UNPLANNED = -1
# Of the time, that alarms may take.
_ALARM_SHARE = 10
# These the kernel can take without hearing the peer's last segments once more.
_NEEDS_NO_REPLAY = (TcpConnectionState.ESTABLISHED, TcpConnectionState.FIN_WAIT_1)
# The peer is there as long as not both sides have closed.
_OPEN = (*_NEEDS_NO_REPLAY, TcpConnectionState.FIN_WAIT_2, TcpConnectionState.CLOSE_WAIT)
_VISITS_PER_TURN = 32
_MASK = 0xFFFFFFFF


@dataclass(slots=True)
class _Look:
    """What was seen of one connection during one stay out of the kernel, which ``chimney`` stands for.

    ``passed`` is what the firewall had let in when the target had heard ``heard`` (None: not known yet),
    ``heard_since`` what it has heard since, if that is to be compared, at ``judged_at``. ``alert``: the
    rules have changed since the last look; ``kept_out``: the target hears nothing; ``tried``: it was to be withdrawn
    for what it sends; ``muted``: it is kept from hearing for that.
    """

    flow: Flow
    connection: Connection
    chimney: ChimneyPath | None
    at: int = 0
    passed: int | None = None
    heard: int = 0
    heard_since: int = 0
    judged_at: int = 0
    pause: int = FIRST_PAUSE_US
    sent: int = 0
    output_at: int = 0
    tracked_at: int = 0
    tracked: bool = True
    alert: bool = False
    kept_out: bool = False
    tried: bool = False
    muted: bool = False


@dataclass(order=True, slots=True)
class _Visit:
    at: int
    number: int
    look: _Look = field(compare=False)


class FirewallWatch:
    """Looks after the offloaded connections; a `chimney.host.listener.Listener`."""

    def __init__(self, services: Services, firewall: KernelFirewall) -> None:
        self._services = services
        self._firewall = firewall
        self._looks: dict[Connection, _Look] = {}
        self._visits: list[_Visit] = []
        self._number = 0
        self._counted: list[_Look] = []
        self._alarmed: list[_Look] = []
        self._alarm_at = 0
        self._changed = False
        self._rules_at = 0
        self._tracked_for = 0
        self._mistrusted: list[Connection] = []

    def fileno(self) -> int:
        return self._firewall.fileno()

    def ready(self) -> None:
        if self._firewall.read():
            self._changed = True

    def poll_at(self) -> int:
        if self._has_come() or (self._changed and not self._alarmed):
            return 0
        if not self._looks:
            return NEVER
        due = min(self._rules_at, self._visits[0].at) if self._visits else self._rules_at
        return min(due, self._alarm_at) if self._alarmed else due

    def run(self, now: int) -> None:
        self._note_mistrusted()
        self._welcome(now)
        if self._looks and now >= self._rules_at:
            self._look_at_rules(now)
        if self._changed and not self._alarmed:
            self._changed = False
            self._services.withdrawals.try_all(now)
            self._alarmed = list(self._looks.values())
            self._alarm_at = now
        if self._alarmed and now >= self._alarm_at:
            self._alarm(now)
        for _ in range(_VISITS_PER_TURN):
            if not self._visits or self._visits[0].at > now:
                break
            visit = heapq.heappop(self._visits)
            # One that was planned anew meanwhile has another visit.
            if visit.look.at == visit.at:
                self._visit(visit.look, now)
        self._count_what_was_heard(now)

    def close(self) -> None:
        self._firewall.close()

    # Whom to look at, and when

    def _has_come(self) -> bool:
        """Whether somebody is out of the kernel who was not there, or is there anew: who comes last stands last."""
        last = next(reversed(self._services.offloaded.values()), None)
        return last is not None and not self._is_known(last)

    def _is_known(self, connection: Connection) -> bool:
        look = self._looks.get(connection)
        return look is not None and look.chimney is connection.chimney

    def _welcome(self, now: int) -> None:
        """Look at those who have come since the last time."""
        for flow, connection in reversed(self._services.offloaded.items()):
            if self._is_known(connection):
                break
            before = self._looks.get(connection)
            look = self._looks[connection] = _Look(flow, connection, connection.chimney)
            # The kernel may not have taken what it was to carry, which is down again.
            look.tried = before is not None and before.tried and self._is_withdrawn(connection)
            look.output_at = now if look.tried else now + OUTPUT_PAUSE_US
            look.sent = -1 if look.tried else 0
            look.tracked_at = now + self._tracking_pause()
            self._plan(look, now)

    def _plan(self, look: _Look, at: int) -> None:
        look.at = at
        self._number += 1
        heapq.heappush(self._visits, _Visit(at, self._number, look))

    def _look_at_rules(self, now: int) -> None:
        self._changed |= self._firewall.look()
        self._tracked_for = self._firewall.tracked_for()
        took = self._services.clock() - now
        self._rules_at = now + max(RULES_PAUSE_US, _RULES_SHARE * took)

    def _tracking_pause(self) -> int:
        if not self._tracked_for:
            self._tracked_for = self._firewall.tracked_for()
        return self._tracked_for // 3

    def _alarm(self, now: int) -> None:
        """The rules have changed: everybody is looked at, a few at a time, and often for a while."""
        for _ in range(min(_VISITS_PER_TURN, len(self._alarmed))):
            look = self._alarmed.pop()
            look.pause = ALERT_PAUSE_US
            look.output_at = now
            look.sent = -1
            look.alert = True
            self._visit(look, now)
        self._alarm_at = now + _ALARM_SHARE * (self._services.clock() - now)

    def _note_mistrusted(self) -> None:
        waiting = []
        for connection in self._mistrusted:
            if connection.mistrust is not None and connection.owner is Owner.KERNEL:
                connection.mistrust.begin(connection)
            elif connection in self._looks:
                waiting.append(connection)
        self._mistrusted = waiting

    # One look

    def _visit(self, look: _Look, now: int) -> None:
        # Any other visit that is planned is one too many.
        look.at = _UNPLANNED
        connection = look.connection
        if self._looks.get(connection) is not look:
            return
        if self._services.offloaded.get(look.flow) is not connection:
            del self._looks[connection]
            return
        adapter, chimney = connection.adapter, connection.chimney
        if look.chimney is not chimney:
            # The kernel did not take it up, and the target, which has it anew, counts from the beginning.
            look.chimney, look.passed, look.kept_out, look.muted = chimney, None, False, False
        progress = None
        if connection.offloaded and adapter is not None and chimney is not None and not chimney.held:
            progress = adapter.progress(look.flow)
        if progress is None:
            # It is on its way, or has none (its route or its address is gone), or the target does not tell.
            look.passed = None
            self._plan(look, now + look.pause)
            return
        passage = connection.kernel.passage()
        if look.kept_out:
            self._listen_again(look, passage, progress, now)
            self._keep_tracked(look, passage, progress, now)
        elif not self._is_let_in(look, passage, progress, now):
            if progress.state in _NEEDS_NO_REPLAY:
                connection.mistrust = Mistrust()
                self._mistrusted.append(connection)
                self._withdraw(look, "the firewall drops what arrives (its input or prerouting rules)", now)
            else:
                self._keep_out(look, now)
        elif not self._is_let_out(look, passage, progress, now):
            look.output_at, look.sent = now, -1
            if look.tried and progress.state not in _NEEDS_NO_REPLAY:
                # The kernel did not take it. What is not acknowledged keeps the target from sending more.
                self._services.withdrawals.forget(connection)
                look.muted = True
                self._keep_out(look, now)
            else:
                look.tried = True
                self._withdraw(look, "the firewall drops what is to be sent (its output or postrouting rules)", now)
        else:
            self._keep_tracked(look, passage, progress, now)

    def _withdraw(self, look: _Look, reason: str, now: int) -> None:
        look.passed = None
        # It goes up at the end of this turn; where that fails, there is time.
        look.pause = LONGEST_PAUSE_US
        self._plan(look, now + FIRST_PAUSE_US)
        if not self._is_withdrawn(look.connection):
            look.connection.withdraw(reason)

    def _is_withdrawn(self, connection: Connection) -> bool:
        return self._services.withdrawals.find(connection) is not None

    def _keep_out(self, look: _Look, now: int) -> None:
        """The target shall hear no more than the kernel would."""
        adapter = look.connection.adapter
        assert adapter is not None
        adapter.keep_out(look.flow, True)
        look.kept_out = True
        look.pause = FIRST_PAUSE_US
        self._plan(look, now + look.pause)

    def _listen_again(self, look: _Look, passage: Passage, progress: Progress, now: int) -> None:
        """If something has come through meanwhile."""
        adapter = look.connection.adapter
        assert adapter is not None
        if look.muted:
            through = passage.lets_out(progress.seq, progress.ack, progress.window)
        else:
            through = passage.let_in() != look.passed
        if not through:
            look.pause = min(2 * look.pause, LONGEST_DEAF_PAUSE_US)
            self._plan(look, now + look.pause)
            return
        adapter.keep_out(look.flow, False)
        look.kept_out = look.muted = False
        look.pause = FIRST_PAUSE_US
        self._take_stock(look, passage, now)

    def _is_let_in(self, look: _Look, passage: Passage, progress: Progress, now: int) -> bool:
        """False if the target has heard something of which nothing has come through. Plans the next look."""
        alert, look.alert = look.alert, False
        if look.passed is None or (alert and passage.let_in() != look.passed):
            # What passed under the old rules must not hide what the new ones drop.
            self._take_stock(look, passage, now)
        elif look.heard_since and now < look.judged_at:
            self._plan(look, look.judged_at)
        elif look.heard_since:
            if passage.let_in() == look.passed:
                return False
            look.pause = min(2 * look.pause, self._longest_pause())
            self._take_stock(look, passage, now)
        elif progress.segments_in != look.heard:
            # Those that were heard last may be in the firewall still.
            look.heard_since = progress.segments_in - look.heard
            look.judged_at = now + ON_THE_WAY_US
            self._plan(look, look.judged_at)
        else:
            look.pause = min(2 * look.pause, self._longest_pause())
            self._plan(look, now + look.pause)
        return True

    def _take_stock(self, look: _Look, passage: Passage, now: int) -> None:
        """What has passed; what the target has heard is asked at the end of the run."""
        look.passed = passage.let_in()
        look.heard_since = 0
        self._counted.append(look)

    def _count_what_was_heard(self, now: int) -> None:
        """All that had passed is heard before it is counted. Plans the next looks."""
        if not self._counted:
            return
        counted, self._counted = self._counted, []
        # What came on other interfaces is forwarded, and processed at the flush.
        self._services.elsewhere.drain()
        for adapter in {look.connection.adapter for look in counted}:
            if adapter is not None:
                adapter.drain()
                adapter.flush()
        for look in counted:
            adapter = look.connection.adapter
            progress = None if adapter is None else adapter.progress(look.flow)
            look.heard = 0 if progress is None else progress.segments_in
            if look.at == _UNPLANNED:
                self._plan(look, now + look.pause)

    def _longest_pause(self) -> int:
        """So that many connections do not cost more than a hundredth of the time."""
        return max(LONGEST_PAUSE_US, 500 * len(self._looks))

    def _is_let_out(self, look: _Look, passage: Passage, progress: Progress, now: int) -> bool:
        """False if an acknowledgement may not leave, when it is time to try it."""
        if now < look.output_at:
            return True
        look.output_at = now + OUTPUT_PAUSE_US
        if progress.segments_out == look.sent or progress.state not in _OPEN:
            return True
        look.sent = progress.segments_out
        return passage.lets_out(progress.seq, progress.ack, progress.window)

    def _keep_tracked(self, look: _Look, passage: Passage, progress: Progress, now: int) -> None:
        if now < look.tracked_at:
            return
        look.tracked_at = now + self._tracking_pause()
        known = passage.keep_tracked()
        if look.tracked and not known:
            # The kernel's own segments would make the tracker learn it again.
            known = progress.state in _OPEN and passage.lets_out(progress.seq, progress.ack, progress.window)
            known = known and passage.keep_tracked()
        look.tracked = known
