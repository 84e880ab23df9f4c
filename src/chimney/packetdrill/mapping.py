"""Numbers of the script and numbers on the wire.

A script counts from 0 in both directions (or from where it says), the engine from its initial sequence numbers. Both
initial numbers are chosen near the wrap-around, so that every script that sends some data passes it.
"""

from chimney.packetdrill.errors import Mismatch
from chimney.packetdrill.nodes import Option
from chimney.packetdrill.wire import Packet

_MASK = 0xFFFFFFFF
LOCAL_ISN = 0xFFFFF000
"""Our initial sequence number on the wire."""

_REMOTE_SHIFT = 0xFFFFFC00


class NumberMap:
    """Between the two spaces. The peer's numbers are taken as the script writes them, shifted by `remote_shift`."""

    def __init__(self, ecr_scaled: bool) -> None:
        self.local_shift = 0
        self.remote_shift = _REMOTE_SHIFT
        self._ecr_scaled = ecr_scaled
        self._sent_values: dict[int, int] = {}
        self._first: tuple[int, int] | None = None

    def set_local_isn(self, script: int) -> None:
        """What the script calls our initial sequence number."""
        self.local_shift = LOCAL_ISN - script

    def inbound(self, packet: Packet) -> Packet:
        """A packet of the script as it is to arrive. Raises Mismatch for an echo of nothing that was sent."""
        options = tuple(self._inbound_option(option, packet) for option in packet.options)
        return Packet(
            packet.flags, packet.seq + self.remote_shift & _MASK,
            packet.ack + self.local_shift & _MASK if packet.flags & 16 else packet.ack,
            packet.window, packet.urgent, options, packet.payload, packet.ecn, packet.at, packet.segments,
        )  # fmt: skip

    def _inbound_option(self, option: Option, packet: Packet) -> Option:
        if option.kind == "sack":
            return Option("sack", tuple(edge + self.local_shift & _MASK for edge in option.values))
        if option.kind == "TS" and packet.flags & 16:
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
        options = tuple(self._outbound_option(option, script_options) for option in packet.options)
        return Packet(
            packet.flags, packet.seq - self.local_shift & _MASK,
            packet.ack - self.remote_shift & _MASK if packet.flags & 16 else packet.ack,
            packet.window, packet.urgent, options, packet.payload, packet.ecn, packet.at,
        )  # fmt: skip

    def _outbound_option(self, option: Option, script_options: tuple[Option, ...] | None) -> Option:
        if option.kind == "sack":
            return Option("sack", tuple(edge - self.remote_shift & _MASK for edge in option.values))
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
