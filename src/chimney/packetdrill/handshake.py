"""Opening a connection, which is not the engine's business: SYN, SYN-ACK, and what is agreed in them.

RFC 9293, 3.10.7.2 to 3.10.7.4, and Linux's options, as far as scripts of established connections need it.
"""

from enum import IntEnum

from chimney.packetdrill import engine_config
from chimney.packetdrill.engine_config import LARGEST_UNSCALED, Agreed, SocketOptions
from chimney.packetdrill.nodes import Option
from chimney.packetdrill.settings import Settings
from chimney.packetdrill.wire import ACK, CWR, ECE, RST, SYN, Packet
from chimney.tcp import NEVER

_MASK = 0xFFFFFFFF
_TIMEOUT = 1_000_000
_TRIES = 6


class Progress(IntEnum):
    """How far a handshake is."""

    SYN_SENT = 0
    SYN_RECEIVED = 1
    DONE = 2
    REFUSED = 3
    """The peer has reset it."""
    TIMED_OUT = 4


class Handshake:
    """One handshake. Packets to be sent are appended to `sent`; `deadline` is when `on_timeout` wants to be called.

    rest: once it is done, the packet that completed it, as far as the engine has to see it too.
    """

    def __init__(self, settings: Settings, options: SocketOptions, ipv6: bool, iss: int) -> None:
        self.agreed = Agreed(iss)
        self.progress = Progress.SYN_SENT
        self.sent: list[Packet] = []
        self.deadline = NEVER
        self.rest: Packet | None = None
        self._settings = settings
        self._options = options
        self._tries = 0
        self._sent_at = 0
        self.agreed.our_mss = engine_config.advertised_mss(settings, options, ipv6)
        self.agreed.rcv_wnd = engine_config.initial_window(settings, options, self.agreed.our_mss)

    # What is sent.

    def connect(self, now: int) -> None:
        """Sends a SYN."""
        settings = self._settings
        self._count(now)
        # A SYN that asks for ECN and is lost was perhaps lost for that (RFC 3168, 6.1.1.1).
        flags = SYN | (ECE | CWR if settings.ecn == 1 and self._tries < 3 else 0)
        options = syn_options(
            self.agreed.our_mss,
            settings.sack,
            (engine_config.timestamp(now), 0) if settings.timestamps else None,
            engine_config.window_scale(settings, self._options) if settings.window_scaling else None,
        )
        self.sent.append(Packet(flags, self.agreed.iss, 0, self._field(), 0, options))

    def answer(self, packet: Packet, now: int) -> None:
        """A SYN arrived at a listening socket."""
        self.progress = Progress.SYN_RECEIVED
        self._agree(packet, now)
        self.agreed.ecn = self._settings.ecn > 0 and packet.flags & (ECE | CWR) == ECE | CWR
        self._send_syn_ack(now)

    def _send_syn_ack(self, now: int) -> None:
        agreed = self.agreed
        self._count(now)
        options = syn_options(
            agreed.our_mss,
            agreed.sack,
            (engine_config.timestamp(now), agreed.ts_recent) if agreed.timestamps else None,
            agreed.rcv_wscale if agreed.window_scaling else None,
        )
        flags = SYN | ACK | (ECE if agreed.ecn else 0)
        self.sent.append(Packet(flags, agreed.iss, following(agreed.irs), self._field(), 0, options))

    def _send_ack(self, now: int) -> None:
        agreed = self.agreed
        options: tuple[Option, ...] = ()
        if agreed.timestamps:
            stamp = Option("TS", (engine_config.timestamp(now), agreed.ts_recent))
            options = (Option("nop"), Option("nop"), stamp)
        window = min(agreed.rcv_wnd >> agreed.rcv_wscale, LARGEST_UNSCALED)
        self.sent.append(Packet(ACK, following(agreed.iss), following(agreed.irs), window, 0, options))

    def _count(self, now: int) -> None:
        self._sent_at = now
        self._tries += 1
        self.deadline = now + (_TIMEOUT << self._tries - 1)

    def _field(self) -> int:
        return min(self.agreed.rcv_wnd, LARGEST_UNSCALED)

    def on_timeout(self, now: int) -> None:
        """Nothing came back."""
        if self._tries > _TRIES:
            self.deadline = NEVER
            self.progress = Progress.TIMED_OUT
        elif self.progress is Progress.SYN_SENT:
            self.connect(now)
        else:
            self._send_syn_ack(now)

    # What arrives.

    def receive(self, packet: Packet, now: int) -> None:
        """A packet of the peer."""
        if self.progress is Progress.SYN_SENT:
            self._on_syn_sent(packet, now)
        elif self.progress is Progress.SYN_RECEIVED:
            self._on_syn_received(packet, now)

    def _on_syn_sent(self, packet: Packet, now: int) -> None:
        """RFC 9293, 3.10.7.3."""
        agreed = self.agreed
        acked = packet.flags & ACK != 0 and packet.ack == following(agreed.iss)
        if packet.flags & ACK and not acked:
            if not packet.flags & RST:
                self.sent.append(Packet(RST, packet.ack))
        elif packet.flags & RST:
            if acked:
                self.progress = Progress.REFUSED
        elif packet.flags & SYN:
            self._agree(packet, now)
            if acked:
                agreed.ecn = self._settings.ecn == 1 and packet.flags & (ECE | CWR) == ECE
                self._finish(packet.window, None, now)
                self._send_ack(now)
            else:
                # Both have called at once: RFC 9293, 3.5, figure 8.
                self.progress = Progress.SYN_RECEIVED
                self._tries = 0
                self._send_syn_ack(now)

    def _on_syn_received(self, packet: Packet, now: int) -> None:
        """RFC 9293, 3.10.7.4, as far as it is about SYN-RECEIVED."""
        agreed = self.agreed
        offset = packet.seq - following(agreed.irs) & _MASK
        completes = packet.flags & ACK != 0 and packet.ack == following(agreed.iss)
        if packet.flags & SYN and packet.seq == agreed.irs and completes and not packet.flags & RST:
            self._finish(packet.window, None, now)
        elif packet.flags & SYN and packet.seq == agreed.irs and not packet.flags & (RST | ACK):
            self._send_syn_ack(now)
        elif offset >= max(agreed.rcv_wnd, 1) or packet.flags & SYN:
            if not packet.flags & RST:
                self._send_ack(now)
        elif packet.flags & RST:
            # RFC 5961, 3.2: only an exact hit counts.
            if offset == 0:
                self.progress = Progress.REFUSED
            else:
                self._send_ack(now)
        elif completes:
            self._finish(packet.window << agreed.snd_wscale, packet, now)
        elif packet.flags & ACK:
            self.sent.append(Packet(RST, packet.ack))

    def _agree(self, packet: Packet, now: int) -> None:
        """Takes in what the peer's SYN offers."""
        agreed = self.agreed
        settings = self._settings
        agreed.irs = packet.seq
        if option := packet.option("mss"):
            agreed.peer_mss = option.values[0]
        scale = packet.option("wscale")
        if scale is not None and settings.window_scaling:
            agreed.window_scaling = True
            agreed.snd_wscale = min(scale.values[0], 14)
            agreed.rcv_wscale = engine_config.window_scale(settings, self._options)
        agreed.sack = settings.sack and packet.option("sackOK") is not None
        stamp = packet.option("TS")
        if stamp is not None and settings.timestamps:
            agreed.timestamps = True
            agreed.ts_recent, agreed.ts_at = stamp.values[0], now

    def _finish(self, window: int, packet: Packet | None, now: int) -> None:
        agreed = self.agreed
        if packet is not None:
            stamp = packet.option("TS")
            if stamp is not None and agreed.timestamps and (stamp.values[0] - agreed.ts_recent & _MASK) < 1 << 31:
                agreed.ts_recent, agreed.ts_at = stamp.values[0], now
        agreed.snd_wnd = window
        agreed.rtt_us = max(now - self._sent_at, 1) if self._tries == 1 else 0
        agreed.was_retransmitted = self._tries > 1
        self.rest = packet
        self.deadline = NEVER
        self.progress = Progress.DONE


def syn_options(mss: int, sack: bool, stamp: tuple[int, int] | None, scale: int | None) -> tuple[Option, ...]:
    """The options of a SYN in the order of Linux, in which each begins or ends at a multiple of four."""
    nop = Option("nop")
    options = [Option("mss", (mss,))]
    if stamp is not None:
        options += [Option("sackOK")] if sack else [nop, nop]
        options.append(Option("TS", stamp))
    elif sack:
        options += [nop, nop, Option("sackOK")]
    if scale is not None:
        options += [nop, Option("wscale", (scale,))]
    return tuple(options)


def following(number: int) -> int:
    """The sequence number after this one."""
    return number + 1 & _MASK
