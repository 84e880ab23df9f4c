"""A connection's way through the kernel's firewall while it is out of the kernel, and what the host remembers of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from chimney.host.errors import NotOffloadable

if TYPE_CHECKING:
    from chimney.host.connection import Connection


class Passage(Protocol):
    """The way through the firewall of one connection that is out of the kernel."""

    def let_in(self) -> int:
        """How many of the connection's segments the firewall has let in so far: it judges them all, although the
        target has them from the wire. Counts modulo 2**32, from any number.
        """

    def lets_out(self, seq: int, ack: int, window: int) -> bool:
        """Send an acknowledgement of these numbers through the firewall (``window`` as it stands in a segment); False
        if it may not leave.
        """

    def keep_tracked(self) -> bool:
        """Connection tracking, which does not see what the target sends, shall keep the established connection in mind;
        False if it does not know it.
        """


class KernelFirewall(Protocol):
    """The firewall's rules; none of the calls waits. Times are microseconds."""

    def fileno(self) -> int:
        """The descriptor that is readable when there is news."""

    def read(self) -> bool:
        """Take in news; whether the rules have changed."""

    def look(self) -> bool:
        """Whether those rules have changed that tell no news."""

    def tracked_for(self) -> int:
        """How long connection tracking keeps a connection in mind that it sees only one side of."""

    def close(self) -> None:
        """Give the descriptor back."""


@dataclass(slots=True)
class Mistrust:
    """The firewall has dropped what arrived for a connection, which is the kernel's since.

    ``heard``: the segments that the kernel had heard of it then; None until it has it.
    """

    heard: int | None = None

    def begin(self, connection: Connection) -> None:
        """The kernel has the connection."""
        if self.heard is None:
            self.heard = _heard(connection)

    def check(self, connection: Connection) -> None:
        """Raises NotOffloadable unless the kernel has heard of the peer since."""
        self.begin(connection)
        if _heard(connection) == self.heard:
            raise NotOffloadable(
                f"{connection!r} cannot be offloaded: the firewall drops what arrives for it (its input or prerouting"
                " rules), and nothing has come through since; let it in, and try again when the peer has sent something"
            )


def _heard(connection: Connection) -> int:
    return connection.kernel.tcp_info().get("tcpi_segs_in", 0)
