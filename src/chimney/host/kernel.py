"""What the host stack needs from the kernel's side of a connection: taking it out, putting it back, and its plain I/O.

`host.linux` implements this on a real socket; a simulator implements it as a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from chimney.host.listener import NEVER
from chimney.ndis.state import NeighborConst, PathConst, TcpCached, TcpConst, TcpDelegated

if TYPE_CHECKING:
    from chimney.host.icmp import IcmpMessage
    from chimney.host.passage import Passage


@dataclass(slots=True, frozen=True)
class Flow:
    """A TCP four-tuple: addresses of 4 or 16 bytes, and ports."""

    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int


@dataclass(slots=True, frozen=True)
class Plan:
    """What is known of a connection before it is cut: where its packets go, and how large they may be.

    ``device`` carries them; ``arrives_on`` is the device that they are said to come from, which differs for a
    connection within the host. ``device_index`` and ``device_mac`` are the kernel's number of the first one, and its
    hardware address. ``next_hop`` is the address of the neighbor, ``neighbor_mac`` its hardware address. The kernel has
    learnt ``path_mtu`` (bytes of IP packet) and forgets it at ``path_mtu_until``, in microseconds of the stack's clock.
    ``elsewhere``: the connection's packets may arrive on other devices as well.
    """

    flow: Flow
    device: str
    arrives_on: str
    neighbor: NeighborConst
    neighbor_mac: bytes
    path: PathConst
    path_mtu: int
    next_hop: bytes
    device_index: int
    device_mac: bytes
    path_mtu_until: int = NEVER
    elsewhere: bool = False


@dataclass(slots=True)
class TakenState:
    """A connection out of the kernel: its TCP state, the queued send data from SND.UNA on, and the unread receive
    data.
    """

    const: TcpConst
    cached: TcpCached
    delegated: TcpDelegated
    send_data: list[memoryview]
    unread: list[memoryview]
    carried: tuple[int, int]


@dataclass(slots=True)
class GivenState:
    """A connection for the kernel: ``sent`` holds the bytes from SND.UNA to SND.MAX, ``unread`` those below RCV.NXT.

    ``error`` is the error number by which the connection has ended in its state, as a socket shows it (ECONNRESET,
    EPIPE, ETIMEDOUT, ECONNABORTED; where ICMP has told why nothing answers, what it said); 0 if it has not.
    """

    delegated: TcpDelegated
    sent: list[memoryview] = field(default_factory=list)
    unread: list[memoryview] = field(default_factory=list)
    error: int = 0


class KernelSide(Protocol):
    """One connection's kernel."""

    def has_shut(self) -> bool:
        """Whether the sending half has been closed: a FIN is sent, or queued."""

    def prepare(self, patient: bool = True) -> Plan:
        """Look at the connection without touching it; raises NotOffloadable.

        If ``patient``, it may wait some seconds for the next hop to tell its hardware address.
        """

    def where(self) -> Plan:
        """Where the connection's packets go now, without any check whether it can be offloaded; never waits.

        ``neighbor_mac`` is empty where the kernel does not know it. Raises NotOffloadable if they go nowhere: there is
        no route, the device is down, the local address is gone.
        """

    def take(
        self, plan: Plan, others: Sequence[int] = (), just_before: Callable[[], None] | None = None
    ) -> TakenState:
        """Cut the connection out; raises NotOffloadable with the connection working as before.

        ``others`` are the numbers of devices where its packets may arrive as well. ``just_before`` is called at the
        last moment when the kernel still processes what arrives.
        """

    def passage(self) -> Passage:
        """The way through the firewall of a connection that was taken, as long as it is."""

    def give_back(self, state: GivenState, meanwhile: Callable[[], list[bytes]]) -> None:
        """Make the connection the kernel's again; raises UploadFailed.

        ``meanwhile`` is called once, and yields the IP packets that arrived until then: the kernel processes them
        before anything newer.
        """

    def getsockopt(self, level: int, option: int) -> int:
        """The application's value of an option. Raises OSError."""

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option, wherever the connection is. Raises OSError, and ChimneyError for one that only a connection in
        the kernel can have.
        """

    def cached(self) -> TcpCached:
        """The cached variables that the options make now, of a connection that is out of the kernel."""

    def inject(self, packets: list[bytes]) -> None:
        """Let the kernel process IP packets of the connection that it has not seen."""

    def icmp(self, message: IcmpMessage) -> None:
        """Let the kernel process an ICMP message about the connection, which it has judged itself or was not able to.

        While the connection is out of the kernel it is believed whatever segment it quotes. Raises OSError.
        """

    def tells_errors(self) -> bool:
        """Whether the application wants to hear of each error at once (IP_RECVERR)."""

    def forget_error(self) -> int:
        """The cause of an error that the connection has survived so far has gone, or the application has been told by
        what error it ended. Returns the error number that the socket would have shown, 0 for none.
        """

    def send(self, data: memoryview) -> int:
        """Queue bytes for sending; returns how many the kernel took, 0 if it has no room. Raises OSError."""

    def receive_into(self, buffer: memoryview) -> int:
        """Read received bytes; returns 0 at the end of the stream, -1 if there are none now. Raises OSError."""

    def shutdown(self) -> None:
        """Queue a FIN behind what was sent. Raises OSError."""

    def abort(self) -> None:
        """Reset the connection; one that is out of the kernel, and that nobody has any more, is given up."""

    def bytes_carried(self) -> tuple[int, int]:
        """Stream bytes acknowledged by the peer and received from it while the kernel has had the connection this
        time.
        """

    def tcp_info(self) -> dict[str, int]:
        """What TCP_INFO tells, by the names of struct tcp_info."""

    def wait_for(self, readable: bool, writable: bool) -> None:
        """Ask for a wake-up when the connection can be read or written; none of both: for none."""

    def release(self) -> None:
        """The connection's socket is the application's alone from here on."""
