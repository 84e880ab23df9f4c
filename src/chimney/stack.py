"""The stack: the one place that joins host, intermediate drivers, target and link, and runs them to completion.

An adapter belongs to one network interface, and is made when the first connection over it is offloaded. Everything
runs in the thread that calls `Stack.poll`; `Stack.fileno` tells an event loop when to call it.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from chimney.adapter import Assembly, InterfaceAdapter
from chimney.host.connection import Connection, Owner
from chimney.host.elsewhere import Elsewhere, Nowhere
from chimney.host.errors import ChimneyError, NotOffloadable, UploadFailed
from chimney.host.icmp_watch import IcmpCounters, IcmpWatch
from chimney.host.kernel import Flow
from chimney.host.listener import Listener
from chimney.host.services import Adapter
from chimney.host.withdrawal import Withdrawals
from chimney.intermediate import IntermediateDrivers, Layers, PassThrough, Team
from chimney.link import base as link_base
from chimney.ndis.capabilities import TcpConnectionOffloadParameters
from chimney.platform import LinuxPlatform, Platform
from chimney.statistics import InterfaceStatistics, StatisticsFile, connection_data
from chimney.tcp import NEVER

if TYPE_CHECKING:
    from chimney.verifier import Verifier

__all__ = [
    "ChimneyError",
    "Connection",
    "InterfaceStatistics",
    "IntermediateDrivers",
    "Layers",
    "NotOffloadable",
    "Stack",
    "StackConfig",
    "Team",
    "UploadFailed",
]

# A driver that lacks memory, or keeps a completion back, has so many more turns when the stack is closed.
_LAST_TURNS = 100
# So much is done with busy polling before the kernel's sockets and the caller have their turn.
_BUSY_TURN = 256
# After so much work in a turn there is another one before the stack sleeps.
_RUSH = 8
_VERIFY = "CHIMNEY_VERIFY"
_VERIFY_REPORT = "CHIMNEY_VERIFY_REPORT"
_STATISTICS = "CHIMNEY_STATISTICS"
# A driver has so long for the answer to an OID request, in microseconds.
_OID_PATIENCE_US = 5_000_000


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Settings of a stack.

    ``receive_window`` and ``send_flight`` (bytes) bound what a connection can have under way in the target, so that the
    kernel can take it back: both are lowered to what this process may put into a socket's buffers, and what the kernel
    lets them grow to (tcp_rmem). ``push_ms`` is how long a push-mode receive waits for the peer to push.
    ``neighbor_stale_ms`` without proof that a next hop works, the kernel is asked (NceStaleTicks; 0: never).

    ``busy_poll_us``: before `Stack.poll` goes to sleep after work, it looks for more frames for so long, as the kernel
    does with net.core.busy_poll. 50 to 100 make transfers over short paths faster, where being woken takes as long as
    the round trip, and cost the processor time that is spent looking. 0: it sleeps at once.
    """

    receive_window: int = 2 << 20
    send_flight: int = 2 << 20
    push_ms: int = 10
    neighbor_stale_ms: int = 30_000
    busy_poll_us: int = 0


class Stack:
    """TCP chimney offload for the sockets of this process.

    ``intermediate_drivers`` stand between the host and each target: so many pass-through drivers, `Layers` of any kind,
    a `Team` of several interfaces, or a function such as `IntermediateDrivers` describes. Use it as a context manager,
    or call `close`: every connection goes back into the kernel. Not thread-safe: one thread, one stack.

    ``verifier`` watches every boundary and link; it may watch several stacks, and is finished by who made it. Without
    one, the environment's CHIMNEY_VERIFY (``abort``, ``warn`` or ``count``) makes one; `close` finishes that, and adds
    its findings to the file that CHIMNEY_VERIFY_REPORT names.

    ``platform`` is what the stack stands on, a `LinuxPlatform` unless one is given; `close` closes it.

    ``icmp`` counts what has been heard of routers about offloaded connections, and believed.
    """

    def __init__(
        self,
        intermediate_drivers: int | IntermediateDrivers = 0,
        config: StackConfig | None = None,
        verifier: Verifier | None = None,
        platform: Platform | None = None,
    ) -> None:
        self._platform = platform or LinuxPlatform()
        self.clock = self._platform.clock
        config = config or StackConfig()
        receive_room, send_room = self._platform.room()
        self.config = replace(
            config,
            receive_window=min(config.receive_window, receive_room),
            send_flight=min(config.send_flight, send_room),
        )
        if isinstance(intermediate_drivers, int):
            intermediate_drivers = Layers(*[PassThrough] * intermediate_drivers)
        self._drivers: IntermediateDrivers = intermediate_drivers
        self._own_verifier = _verifier_from_environment(self._platform) if verifier is None else None
        self.verifier = verifier or self._own_verifier
        self._adapters: dict[str, InterfaceAdapter] = {}
        self._assemblies: list[Assembly] = []
        self._connections: dict[int, Connection] = {}
        self._descriptors: dict[socket.socket, int] = {}
        self._ready: deque[Callable[[], bool]] = deque()
        self._hand_overs: deque[tuple[Connection, Callable[[], None]]] = deque()
        self._failures: list[BaseException] = []
        self.offloaded: dict[Flow, Connection] = {}
        self.withdrawals = Withdrawals()
        self.on_adapter: list[Callable[[Adapter], None]] = []
        self.elsewhere = Nowhere()
        # By descriptor; made with the first adapter.
        self._listeners: dict[int, Listener] | None = None
        self.icmp = IcmpCounters()
        # When the first of them wants to run, as it was known at the end of the last turn.
        self._listen_at = 0
        self._polling = False
        # Whether the last turn had so much to do that links need not wake us: there is more to come.
        self._rushing = False
        self._handing_over = False
        self._closed = False
        self.callbacks = 0
        self._statistics_file = self._file_from_environment()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # For the application

    def connection(self, sock: socket.socket) -> Connection:
        """Take over the I/O of a connected TCP socket; it stays in the kernel until `Connection.offload`.

        Raises ChimneyError if ``sock`` is no connected TCP socket, or is with this stack already, or if the stack has
        been closed.
        """
        self._check_open("connection")
        if sock in self._descriptors:
            raise ChimneyError(f"{sock!r} is with this stack already; use the connection that you have, or detach it")
        kernel = self._platform.kernel_side(sock, self.config.receive_window, self._platform.interest)
        connection = Connection(self, sock, kernel)
        self._descriptors[sock] = kernel.fileno()
        self._connections[kernel.fileno()] = connection
        return connection

    def fileno(self) -> int:
        """A descriptor that is readable when `poll` has something to do."""
        return self._platform.fileno()

    def poll(self, timeout: float | None = 0.0) -> None:
        """Run everything that is due once, waiting at most ``timeout`` seconds (None: for ever) for something to be
        due.

        Raises ChimneyError if called from within a request's callback or after `close`, and what callbacks have raised
        (in a BaseExceptionGroup if there are several), when everything else is done.
        """
        self.check_may_wait()
        self._check_open("poll")
        self.turn(timeout)
        if self._statistics_file is not None:
            self._keep(self._statistics_file.turn)
        self._raise_failures()

    def statistics(self) -> list[InterfaceStatistics]:
        """What has been counted on each interface over which a connection has been offloaded so far (docs/network.md).

        Raises ChimneyError if a driver does not answer; within a request's callback that includes one that takes its
        time.
        """
        return [adapter.statistics(self._oid_wait()) for adapter in self._adapters.values()]

    def reset_statistics(self) -> None:
        """Let the targets' counters begin at zero again (the links' go on). Raises as `statistics` does."""
        for adapter in self._adapters.values():
            adapter.reset_statistics(self._oid_wait())

    def _oid_wait(self) -> Callable[[], None]:
        """What to do while an OID request is pending; raises ChimneyError when that takes too long."""
        last = self.clock() + _OID_PATIENCE_US

        def wait() -> None:
            if self._busy:
                raise ChimneyError("a driver takes its time to answer: ask outside of request callbacks")
            if self.clock() > last:
                raise ChimneyError(f"a driver has not answered within {_OID_PATIENCE_US // 1_000_000} s")
            self._platform.arm(self.clock() + 1000)
            self.turn(None)

        return wait

    @property
    def _busy(self) -> bool:
        """Whether who calls is called by us."""
        return bool(self.callbacks) or self._polling or self._handing_over

    def check_may_wait(self) -> None:
        if self._busy:
            raise ChimneyError(
                "poll (or a blocking call such as recv) inside a request's callback: post the request with a callback "
                "of its own instead"
            )

    def _check_open(self, call: str) -> None:
        if self._closed:
            raise ChimneyError(f"{call} on a stack that has been closed; make a new one")

    def turn(self, timeout: float | None) -> None:
        """`poll`, for a hand-over that waits for its completion."""
        if self._handing_over:
            self._arm()
        if self._ready or (self._hand_overs and not self._handing_over):
            timeout = 0.0
        ready = self._platform.wait(timeout)
        self._polling = True
        listeners = self._listeners or {}
        heard = False
        try:
            for fd in ready:
                connection = self._connections.get(fd)
                if connection is not None:
                    connection.kernel_ready()
                elif fd in listeners:
                    listeners[fd].ready()
                    heard = True
            self._rushing = self._run_adapters(timeout) >= _RUSH
            for assembly in self._assemblies:
                assembly.poll()
            if listeners:
                now = self.clock()
                # Asking each of them takes its time: once in a turn is enough.
                if heard or self._listen_at <= now:
                    for listener in listeners.values():
                        if listener.poll_at() <= now:
                            listener.run(now)
            for _ in range(len(self._ready)):
                run = self._ready.popleft()
                if run():
                    self._ready.append(run)
        finally:
            self._polling = False
        self._carry_out_hand_overs()
        for adapter in self._adapters.values():
            adapter.flush()
        self._arm()

    def _run_adapters(self, timeout: float | None) -> int:
        """With busy polling, as long as there is more to do soon after. How much has been done."""
        busy_poll_us = self.config.busy_poll_us
        if timeout is not None:
            busy_poll_us = min(busy_poll_us, int(timeout * 1_000_000))
        most = _BUSY_TURN if busy_poll_us else 0
        total = 0
        while True:
            done = 0
            for adapter in self._adapters.values():
                done += adapter.run()
            total += done
            if not done or total >= most or not self._more_comes(busy_poll_us):
                return total

    def _more_comes(self, within_us: int) -> bool:
        """Whether there is something to do for an adapter, now or very soon."""
        now = self.clock()
        until = now + within_us
        while now < until:
            for adapter in self._adapters.values():
                if adapter.has_work(now):
                    return True
            now = self.clock()
        return False

    def close(self) -> None:
        """Upload every connection, detach it, and give all descriptors back. Harmless when repeated.

        Raises UploadFailed for connections that the kernel did not take, and what callbacks have raised (in an
        ExceptionGroup if there are several), when everything else is done; ChimneyError if called from within a
        request's callback.
        """
        if self._busy:
            raise ChimneyError("Stack.close inside a request's callback: close it when the poll under way is over")
        if self._closed:
            return
        self._closed = True
        if self._statistics_file is not None:
            self._keep(self._statistics_file.write)
        for connection in list(self._connections.values()):
            try:
                connection.release()
            except BaseException as error:
                # Of a callback's, too: the others come back all the same.
                self._failures.append(error)
        while self._hand_overs:
            self._carry_out_hand_overs()
        self._finish_upkeep()
        self._adapters.clear()
        for listener in (self._listeners or {}).values():
            listener.close()
        self._listeners = None
        for assembly in self._assemblies:
            try:
                assembly.close()
            except BaseException as error:
                self._failures.append(error)
        self._assemblies.clear()
        self._platform.close()
        self._finish_verifier()
        self._raise_failures()

    def _file_from_environment(self) -> StatisticsFile | None:
        path = os.environ.get(_STATISTICS, "")
        if not path:
            return None
        try:
            return StatisticsFile(Path(path), self.clock, self._snapshot)
        except OSError as error:
            raise ChimneyError(f"{_STATISTICS}={path} in the environment: {error}") from error

    def _snapshot(self) -> dict[str, Any]:
        return {
            "interfaces": [asdict(one) for one in self.statistics()],
            "icmp": asdict(self.icmp),
            "connections": [connection_data(connection) for connection in self._connections.values()],
        }

    def _keep(self, write: Callable[[], None]) -> None:
        """Statistics that cannot be kept are no reason to end."""
        try:
            write()
        except (OSError, ChimneyError) as error:
            self._statistics_file = None
            warnings.warn(f"the statistics are not kept any longer: {error}", RuntimeWarning, stacklevel=3)

    def _finish_upkeep(self) -> None:
        """What nothing depends on any more is taken back, and what is under way completes."""
        for _ in range(_LAST_TURNS):
            left = 0
            for adapter in self._adapters.values():
                left += adapter.edge.upkeep.take_back_unused()
                adapter.flush()
            if not left:
                return
            self.turn(0.0)

    def _finish_verifier(self) -> None:
        """One that was given may watch other stacks, and is finished by who gave it."""
        if self._own_verifier is None:
            return
        from chimney.verifier.report import append

        self._own_verifier.finish()
        report = os.environ.get(_VERIFY_REPORT)
        if report:
            append([self._own_verifier], Path(report))

    # Services for the connections

    def adapter(self, device: str) -> Adapter:
        """The adapter of a network interface, made if there is none yet: that takes some ten milliseconds, which a
        server can spend before its first connection. Raises NotOffloadable.
        """
        known = self._adapters.get(device)
        if known is not None and known.link.is_gone():
            self._discard(known)
        found = self._adapters.get(device) or self._make_adapter(device)
        if found.paused:
            raise NotOffloadable(f"the target on {device} takes no connections at present; try again when it resumes")
        return found

    def _discard(self, adapter: InterfaceAdapter) -> None:
        """The interface is another one of the same name. Raises NotOffloadable while connections depend on the old one.
        """
        assembly = next(made for made in self._assemblies if adapter in made.adapters.values())
        old = list(assembly.adapters.values())
        busy = [each for each in old if each.edge.upkeep.take_back_unused()]
        if busy or any(connection.adapter in old for connection in self.offloaded.values()):
            raise NotOffloadable(
                f"the interface {adapter.device} is a new one, and connections have not left the old one yet; try again"
            )
        for each in old:
            self._platform.interest(each.link.fileno(), False, False)
            del self._adapters[each.device]
        self._assemblies.remove(assembly)
        assembly.close()

    def _make_adapter(self, device: str) -> InterfaceAdapter:
        """The adapter of ``device``, and with it those of its team. Raises NotOffloadable."""
        self._listen()
        team = self._drivers.devices if isinstance(self._drivers, Team) else ()
        devices = team if device in team else (device,)
        try:
            made = Assembly(
                devices,
                self._platform,
                self._drivers,
                self.config.send_flight,
                TcpConnectionOffloadParameters(
                    tcp_push_ticks=self.config.push_ms, nce_stale_ticks=self.config.neighbor_stale_ms
                ),
                self._upload_all,
                self.verifier,
            )
        except (OSError, link_base.LinkError) as error:
            raise NotOffloadable(f"no packet tap on interface {' or '.join(devices)}: {error}") from error
        self._assemblies.append(made)
        self._adapters |= made.adapters
        for adapter in made.adapters.values():
            self._platform.interest(adapter.link.fileno(), True, False)
            for heard in self.on_adapter:
                heard(adapter)
        return made.adapters[device]

    def _listen(self) -> None:
        """Open the host's ears. Raises NotOffloadable."""
        if self._listeners is not None:
            return
        try:
            self._listeners = {listener.fileno(): listener for listener in self._platform.listeners(self)}
        except OSError as error:
            raise NotOffloadable(f"the kernel does not tell what happens to addresses and routes: {error}") from error
        for listener in self._listeners.values():
            if isinstance(listener, IcmpWatch):
                self.icmp = listener.counters
            if isinstance(listener, Elsewhere):
                self.elsewhere = listener
                if self.verifier is not None:
                    listener.observer = self.verifier.heard_elsewhere
        for fd in self._listeners:
            self._platform.interest(fd, True, False)

    def wake(self, run: Callable[[], bool]) -> None:
        self._ready.append(run)
        if not self._polling:
            # Somebody may be waiting on the descriptor alone.
            self._platform.arm(0)

    def flush_soon(self, adapter: Adapter) -> None:
        if self.callbacks and not self._polling:
            # Whoever completes requests may be in the middle of flushing: the next poll does it.
            self._platform.arm(0)
        elif not self._polling:
            adapter.flush()
            self._arm()

    def hand_over(self, connection: Connection, action: Callable[[], None]) -> None:
        if self._busy:
            self.hand_over_soon(connection, action)
            return
        self._handing_over = True
        try:
            action()
        finally:
            self._handing_over = False
            self._carry_out_hand_overs()
            self._arm()
        self._raise_failures()

    def hand_over_soon(self, connection: Connection, action: Callable[[], None]) -> None:
        self._hand_overs.append((connection, action))
        if not self._polling:
            self._platform.arm(0)

    def callback_failed(self, failure: BaseException) -> None:
        self._failures.append(failure)

    def _raise_failures(self) -> None:
        failures, self._failures = self._failures, []
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise BaseExceptionGroup("callbacks of requests have raised", failures)

    def forget(self, connection: Connection) -> None:
        self.withdrawals.forget(connection)
        del self._connections[self._descriptors.pop(connection.socket)]

    def _carry_out_hand_overs(self) -> None:
        """What has been asked for so far: one that fails, and is asked for again at once, must not keep the poll."""
        for _ in range(0 if self._handing_over else len(self._hand_overs)):
            connection, action = self._hand_overs.popleft()
            self._handing_over = True
            try:
                action()
            except ChimneyError as error:
                connection.hand_over_error = error
            finally:
                self._handing_over = False

    def _upload_all(self, adapter: InterfaceAdapter) -> None:
        for connection in self._connections.values():
            # One that is on its way down comes back, too, when it has arrived.
            if connection.owner in (Owner.TARGET, Owner.OFFLOADING) and connection.adapter is adapter:
                connection.upload_soon()

    def _arm(self) -> None:
        """Be woken when there is something to do: frames, room to send them, a driver's turn, or a deadline."""
        for adapter in self._adapters.values():
            # Who is woken costs the kernel time with every frame, and often on the core that has the frames to carry.
            self._platform.interest(adapter.link.fileno(), not self._rushing, adapter.target.wants_write)
        wanted = self._rushing or self._ready or (self._hand_overs and not self._handing_over)
        if wanted or any(assembly.pending for assembly in self._assemblies):
            self._listen_at = 0
            self._platform.arm(0)
            return
        self._listen_at = NEVER
        for listener in (self._listeners or {}).values():
            self._listen_at = min(self._listen_at, listener.poll_at())
        deadline = self._listen_at
        for adapter in self._adapters.values():
            deadline = min(deadline, adapter.target.poll_at())
        if deadline < NEVER:
            self._platform.arm(deadline)


def _verifier_from_environment(platform: Platform) -> Verifier | None:
    mode = os.environ.get(_VERIFY, "")
    if not mode:
        return None
    # Imported here: a stack that nobody watches does without the rules.
    from chimney.verifier import Mode, Verifier

    try:
        return Verifier(platform.clock, Mode(mode))
    except ValueError:
        modes = ", ".join(mode.value for mode in Mode)
        raise ChimneyError(f"{_VERIFY}={mode}: give one of {modes}, or leave it unset") from None
