"""What the host stack needs from whoever joins the parts: the adapter under a device, and the event loop's turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chimney.host.edge import HostEdge
from chimney.host.kernel import Flow
from chimney.host.withdrawal import Withdrawals
from chimney.ndis.status import TcpConnectionState

if TYPE_CHECKING:
    from chimney.host.connection import Connection
    from chimney.host.elsewhere import Nowhere


class Progress(NamedTuple):
    """How far an offloaded connection is: wire segments since the offload, and what an acknowledgement sent now would
    say (``window`` as it stands in a segment).
    """

    state: TcpConnectionState
    segments_in: int
    segments_out: int
    seq: int
    ack: int
    window: int


class Adapter(Protocol):
    """One network interface with its drivers and target, as the host sees it."""

    edge: HostEdge

    def watch(self, flow: Flow) -> None:
        """Let the flow's frames in from now on, even before it is offloaded. Raises OSError, with nothing changed."""

    def unwatch(self, flow: Flow) -> None:
        """Let the flow's frames in no longer."""

    def keep_out(self, flow: Flow, out: bool) -> None:
        """Let the frames of an offloaded flow in no longer, although it stays offloaded; or let them in again."""

    def run(self) -> int:
        """Process what has arrived, as much as one turn allows, and send what is due; returns how much that was."""

    def drain(self) -> None:
        """Process everything that has arrived up to now."""

    def flush(self) -> None:
        """Send what is due."""

    def retransmitted(self, flow: Flow) -> int:
        """Segments that the target has retransmitted on an offloaded connection so far."""

    def progress(self, flow: Flow) -> Progress | None:
        """How far an offloaded connection is; None if the target does not have it."""

    def found_mtu(self, flow: Flow) -> int:
        """What the target has found the path to take where nobody told it (a black hole): data arrives in packets of so
        many bytes, and did not in larger ones. 0 if there is nothing of the kind.
        """

    def tcp_info(self, flow: Flow) -> dict[str, int]:
        """What the target tells of an offloaded connection, by the names of struct tcp_info; empty if nothing."""


class Services(Protocol):
    """The stack, as a connection sees it.

    ``callbacks`` counts the requests' callbacks that are running, one within the other. ``offloaded`` are the
    connections that are out of the kernel, hand-overs included. ``withdrawals`` are those that go down again by
    themselves, ``elsewhere`` hears them on other interfaces. ``on_adapter`` is called with each adapter that has been
    made.
    """

    callbacks: int
    offloaded: dict[Flow, Connection]
    withdrawals: Withdrawals
    elsewhere: Nowhere
    on_adapter: list[Callable[[Adapter], None]]

    def clock(self) -> int:
        """Now, in microseconds."""

    def adapter(self, device: str) -> Adapter:
        """The adapter of a network interface, made if there is none yet. Raises NotOffloadable."""

    def wake(self, run: Callable[[], bool]) -> None:
        """Call ``run`` in the next poll, and again as long as it returns True."""

    def flush_soon(self, adapter: Adapter) -> None:
        """Let the adapter send what was posted: at the end of the poll under way, or now."""

    def hand_over(self, connection: Connection, action: Callable[[], None]) -> None:
        """Carry a hand-over out when no completion is under way: now, or, from within a callback, at the end of the
        poll under way or in the next one.

        What it raises then is kept in ``connection.hand_over_error``.
        """

    def hand_over_soon(self, connection: Connection, action: Callable[[], None]) -> None:
        """The same, never now: for an indication's handler, which may not wait (general.context.dispatch-level)."""

    def poll(self, timeout: float | None) -> None:
        """Run everything that is due, waiting at most ``timeout`` seconds for work; refused inside a callback."""

    def check_may_wait(self) -> None:
        """Raises ChimneyError inside a callback."""

    def turn(self, timeout: float | None) -> None:
        """The same, for a hand-over that waits for its completion."""

    def callback_failed(self, failure: BaseException) -> None:
        """A callback of the application's raised; it comes out when the work under way is done."""

    def forget(self, connection: Connection) -> None:
        """The connection is the application's alone again."""
