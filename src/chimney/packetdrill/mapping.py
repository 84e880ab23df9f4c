"""Numbers of the script and numbers on the wire.

In a SYN a script gives the initial sequence number itself (mostly 0), in all other packets the distance from it. On the
wire both directions begin near the wrap-around, so that every script that transfers some data passes it.
"""

from chimney.packetdrill.errors import Mismatch
from chimney.packetdrill.nodes import Option
from chimney.packetdrill.wire import ACK, SYN, Packet

_MASK = 0xFFFFFFFF
LOCAL_ISN = 0xFFFFF000
"""Our initial sequence number on the wire."""
_REMOTE_ISN = 0xFFFFFC00


class NumberMap:
    """Between the two spaces. local_isn, remote_isn: what the script calls the two initial sequence numbers.

    ecr_scaled: whether an echo that no packet of the script has sent is taken for the time that it tells.
    """

    def __init__(self, ecr_scaled: bool) -> None:
        self.local_isn = 0
        self.remote_isn = 0
        self._ecr_scaled = ecr_scaled
        self._sent_values: dict[int, int] = {}
        self._first: tuple[int, int] | None = None

    def local_shift(self, flags: int = 0) -> int:
        """What to add to one of our numbers in a packet of the script with these flags."""
        return LOCAL_ISN - (self.local_isn if flags & SYN else 0)

    def _remote_shift(self, flags: int) -> int:
        return _REMOTE_ISN - (self.remote_isn if flags & SYN else 0)

    def first_byte(self, flags: int) -> int:
        """The number of the first byte of the peer's stream in a packet of the script with these flags."""
        return (self.remote_isn if flags & SYN else 0) + 1

    def inbound(self, packet: Packet) -> Packet:
        """A packet of the script as it is to arrive. Raises Mismatch for an echo of nothing that was sent."""
        flags = packet.flags
        shift = self.local_shift(flags)
        options = tuple(self._inbound_option(option, flags) for option in packet.options)
        return Packet(
            flags, packet.seq + self._remote_shift(flags) & _MASK,
            packet.ack + shift & _MASK if flags & ACK else packet.ack,
            packet.window, packet.urgent, options, packet.payload, packet.ecn, packet.at, packet.segments,
        )  # fmt: skip

    def _inbound_option(self, option: Option, flags: int) -> Option:
        if option.kind == "sack":
            return Option("sack", tuple(edge + self.local_shift(flags) & _MASK for edge in option.values))
        if option.kind == "TS" and flags & ACK:
            value, echo = option.values
            return Option("TS", (value & _MASK, self._echo(echo)))
        return option

    def _echo(self, echo: int) -> int:
        if echo in self._sent_values:
            return self._sent_values[echo]
        if self._ecr_scaled and self._first is not None:
            return echo - self._first[0] + self._first[1] & _MASK
        if echo == 0:
            return 0
        raise Mismatch(f"no packet with TS val {echo} was expected before, so what is echoed is not known")

    def outbound(self, packet: Packet, script_options: tuple[Option, ...] | None) -> Packet:
        """A packet that left, in the numbers of the script; learns what the script calls its timestamp."""
        flags = packet.flags
        options = tuple(self._outbound_option(option, flags, script_options) for option in packet.options)
        return Packet(
            flags, packet.seq - self.local_shift(flags) & _MASK,
            packet.ack - self._remote_shift(flags) & _MASK if flags & ACK else packet.ack,
            packet.window, packet.urgent, options, packet.payload, packet.ecn, packet.at,
        )  # fmt: skip

    def _outbound_option(self, option: Option, flags: int, script_options: tuple[Option, ...] | None) -> Option:
        if option.kind == "sack":
            return Option("sack", tuple(edge - self._remote_shift(flags) & _MASK for edge in option.values))
        if option.kind != "TS":
            return option
        value, echo = option.values
        expected = next((o for o in script_options or () if o.kind == "TS"), None)
        if expected is not None and expected.values[0] >= 0:
            self._sent_values[expected.values[0]] = value
            if self._first is None:
                self._first = (expected.values[0], value)
        if self._first is None:
            return option
        return Option("TS", (value - self._first[1] + self._first[0] & _MASK, echo))
