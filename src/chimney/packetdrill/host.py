"""The host under test: its clock, its connections, its descriptors."""

from dataclasses import replace

from chimney.packetdrill.endpoint import Endpoint, Phase, reset_for
from chimney.packetdrill.engine_config import SocketOptions
from chimney.packetdrill.errors import Mismatch
from chimney.packetdrill.mapping import LOCAL_ISN
from chimney.packetdrill.settings import Settings
from chimney.packetdrill.wire import ACK, RST, SYN, Packet
from chimney.tcp import NEVER

_MANY_PACKETS = 100_000
_MANY_STEPS = 10_000


class Socket:
    """What a descriptor stands for. endpoint: the connection, once there is one; backlog: of a listening socket."""

    def __init__(self, ipv6: bool) -> None:
        self.ipv6 = ipv6
        self.options = SocketOptions()
        self.nonblocking = False
        self.bound = False
        self.listening = False
        self.endpoint: Endpoint | None = None
        self.backlog: list[Endpoint] = []
        self.connect_reported = False
        self.error_reported = 0

    def is_connected(self) -> bool:
        """Whether data can be written, now or after a FIN of the peer."""
        return self.endpoint is not None and self.endpoint.phase is Phase.OPEN


class Host:
    """Everything that a script talks to. `under_test` is what packets of the script belong to, as in packetdrill.

    outbox: packets that have left and were not compared yet.
    """

    def __init__(self, settings: Settings, ipv6: bool) -> None:
        self.settings = settings
        self.ipv6 = ipv6
        self.now = 0
        self.descriptors: dict[int, object] = {}
        self.endpoints: list[Endpoint] = []
        self.under_test: Socket | Endpoint | None = None
        self.outbox: list[Packet] = []
        self._same_time = 0

    # Time.

    def poll_at(self) -> int:
        """The next moment at which anything happens by itself."""
        return min((endpoint.poll_at() for endpoint in self.endpoints), default=NEVER)

    def step(self, until: int) -> bool:
        """Goes on to the next thing that happens, `until` at the latest; whether something did."""
        at = max(self.poll_at(), self.now)
        if at > until:
            self.now = max(self.now, until)
            return False
        self._same_time = self._same_time + 1 if at == self.now else 0
        if self._same_time > _MANY_STEPS:
            raise Mismatch("a timer of the engine is due, and stays due")
        self.now = at
        for endpoint in self.endpoints:
            if endpoint.poll_at() <= self.now:
                endpoint.run_timers(self.now)
        self.collect()
        return True

    def collect(self) -> None:
        """Packets of the connections are put where they are compared."""
        for endpoint in self.endpoints:
            if endpoint.sent:
                self.outbox += endpoint.sent
                endpoint.sent.clear()
        if len(self.outbox) > _MANY_PACKETS:
            raise Mismatch("the engine sends without end")

    # Packets.

    def receive(self, packet: Packet) -> None:
        """A packet arrives now."""
        target = self.under_test
        if isinstance(target, Endpoint) and target.phase is not Phase.CLOSED:
            target.receive(packet, self.now)
        elif packet.flags & (SYN | ACK | RST) == SYN and (listener := self._listener()) is not None:
            self._open(listener, packet)
        elif (reply := reset_for(packet)) is not None:
            reply.at = self.now
            self.outbox.append(reply)
        self.collect()

    def _listener(self) -> Socket | None:
        """The socket that a connection is opened through: it listens on, once the one before is over."""
        sockets = (thing for thing in self.descriptors.values() if isinstance(thing, Socket))
        return next((socket for socket in sockets if socket.listening), None)

    def _open(self, listener: Socket, packet: Packet) -> None:
        """A SYN for a listening socket (RFC 9293, 3.10.7.2)."""
        endpoint = Endpoint(self.settings, replace(listener.options), listener.ipv6, LOCAL_ISN)
        self.add(endpoint)
        listener.backlog.append(endpoint)
        endpoint.answer(packet, self.now)

    def add(self, endpoint: Endpoint) -> None:
        """A connection begins, and is what the script is about from now on."""
        self.endpoints.append(endpoint)
        self.under_test = endpoint

    # Descriptors.

    def descriptor(self, thing: object, wanted: int | None) -> int:
        """A descriptor: whatever number the script expects, for its numbers are names of its own; else a free one."""
        number = 3
        if wanted is not None and wanted >= 0:
            number = wanted
        else:
            while number in self.descriptors:
                number += 1
        self.descriptors[number] = thing
        return number
