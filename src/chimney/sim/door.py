"""The door of a machine: whatever it puts on the wire, and whatever reaches it, passes here and is checked at once.

A door knows the connection from the wire alone, as its peer does: it shares no code and no state with the engines that
it judges. Positions are counted from the initial sequence numbers and do not wrap, so that 0 is the first byte of a
stream, and a FIN takes the position behind the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from chimney.conformance.wire import ACK, FIN, RST, SYN, read_packet
from chimney.sim.application import pattern
from chimney.sim.case import OTHER, Side
from chimney.sim.log import describe, unwrapped

if TYPE_CHECKING:
    from chimney.sim.world import World

_MASK = 0xFFFFFFFF
_ETHERNET = 14
# Nobody answers so late but for the timer of a delayed acknowledgement, which is 40 ms here.
_DELAYED_US = 30_000
_END, _NOTHING, _TIMESTAMPS, _SACK = 0, 1, 8, 5
# NOP, NOP, kind 8, length 10: how nearly everybody writes timestamps (RFC 7323, appendix A).
_USUAL_TIMESTAMPS = 0x0101080A

_tcp_header = Struct("!HHIIBBH").unpack_from
_timestamps = Struct("!III").unpack_from
_pair = Struct("!II").unpack_from


@dataclass(slots=True)
class Facts:
    """What one side has put on the wire so far. -1: nothing of the kind yet.

    seq_end   the position behind the last byte (or FIN) of its own stream that it has sent.
    ack       the largest position of the peer's stream that it has acknowledged.
    edge      the right edge of its receive window, a position of the peer's stream.
    window    the window of its last segment, in bytes.
    tsval     its largest timestamp, counted on over the wrap; ``tsecr`` is the last one that it has echoed.
    fin       the position of its FIN.
    rst       whether it has sent an RST.
    segments  how many wire segments it has sent.
    speaker   who has sent the last one ("kernel" or "target").
    """

    seq_end: int = 0
    ack: int = 0
    edge: int = -1
    window: int = -1
    tsval: int = -1
    tsecr: int = -1
    fin: int = -1
    rst: bool = False
    segments: int = 0
    speaker: str = ""


class Door:
    """Both ways of one machine.

    facts     what it has emitted; ``heard``: what has arrived here from the peer (a lost segment is in the peer's facts
              alone).
    in_order  how far the peer's stream has arrived here without a gap, its FIN included.
    """

    def __init__(self, side: Side, world: World) -> None:
        case = world.case
        self.side: Side = side
        self.peer: Side = OTHER[side]
        self.facts = Facts()
        self.heard = Facts()
        self.in_order = 0
        self._world = world
        self._own_iss, self._peer_iss = case.iss if side == "a" else case.iss[::-1]
        self._shift = max(case.scale, 0)
        self._timestamps = case.timestamps
        self._sack = case.sack
        self._ip_header = 40 if case.ipv6 else 20
        # What has arrived beyond a gap: start -> end, neither sorted nor merged.
        self._islands: dict[int, int] = {}
        self._garbage: list[bytes] = []
        self._slack = 0
        # When the newest byte arrived in order since a segment has left; -1: none has.
        self._data_at = -1
        # What was said last without data, if nothing has arrived since, and when.
        self._answer = (-1, b"")
        # Whether all that has arrived since it spoke, or before it began to answer that, ends the peer's stream.
        self._only_ends = True
        self._has_spoken = False
        # Whether it knew that the peer had ended when it did itself: then only an acknowledgement is to come.
        self.ends_last = False

    def sequence(self, position: int) -> int:
        """The sequence number of a position in this side's own stream."""
        return (self._own_iss + position) & _MASK

    # What leaves

    def out(self, speaker: str, frame: bytes | bytearray | memoryview) -> None:
        """A wire segment (untagged Ethernet frame) leaves; ``speaker`` is "kernel" or "target"."""
        world = self._world
        facts = self.facts
        owner = world.machines[self.side].owner
        if world.note_to is not None:
            world.note(self.side, "out", f"{speaker:<6} {self._said(frame, self.facts, self._own_iss, self._peer_iss)}")
        if speaker != owner:
            self._broken("one speaker", f"the {speaker} speaks while {f'the {owner}' if owner else 'nobody'} may")
        # What the scale cannot tell may be lost by rounding (RFC 7323, 2.4); a kernel does so with a window that it has
        # just taken over, and no other.
        self._slack = (1 << self._shift) - 1 if speaker == "target" or speaker != facts.speaker else 0
        facts.speaker = speaker
        facts.segments += 1
        tcp = _ETHERNET + self._ip_header
        _, _, sequence, acknowledged, size, flags, window = _tcp_header(frame, tcp)
        data = tcp + (size >> 4) * 4
        if flags & (SYN | RST):
            self._out_special(flags)
            return
        seq_end = facts.seq_end
        start = unwrapped(sequence, self._own_iss, seq_end)
        length = len(frame) - data
        if length:
            self._check_payload(frame, data, start, length)
        end = start + length
        if flags & FIN:
            end += 1
            if facts.fin < 0:
                facts.fin = end - 1
                self.ends_last = 0 <= self.heard.fin < unwrapped(acknowledged, self._peer_iss, facts.ack)
                if end <= seq_end:
                    self._broken("streams", f"a FIN at {end - 1}, after bytes up to {seq_end} had been sent")
            elif facts.fin != end - 1:
                self._broken("streams", f"a FIN at {end - 1}, after one at {facts.fin}")
        elif length and 0 <= facts.fin < end:
            self._broken("streams", f"data up to {end} behind the FIN at {facts.fin}")
        self._count(start, end, length)
        if flags & ACK:
            world.promptness.leaves(self.side, start, end, unwrapped(acknowledged, self._peer_iss, facts.ack))
        # Without a byte it says little: what a kernel takes for sent may never have left (a dump's SND.NXT is a guess).
        if end > seq_end and end > start:
            facts.seq_end = end
        self._check_options(frame, tcp + 20, data)
        self._check_acknowledgement(acknowledged, window, flags)
        # A socket that hears again has been told some things twice: by the wire, and by what was kept. And a socket
        # that is being restored is told one segment after the other, and answers each that it did not need.
        if end == start and (speaker == "target" or (world.machines[self.side].phase and self._only_ends)):
            self._check_answer(bytes(frame[tcp:]))
        self._has_spoken = True

    def _check_answer(self, segment: bytes) -> None:
        """A peer whose last words have been answered is gone: it meets the same answer once more with an RST. So what
        it has repeated meanwhile is answered once, unless there is more to report.
        """
        facts, heard = self.facts, self.heard
        answer = (self._world.clock.now, segment)
        answered = 0 <= facts.fin < heard.ack and 0 <= heard.fin < facts.ack
        peer_is_gone = answered and self._world.doors[self.peer].ends_last
        if answer == self._answer and peer_is_gone:
            self._broken("peer blindness", "answers the peer's last words twice at once")
        self._answer = answer

    def _count(self, start: int, end: int, length: int) -> None:
        """What timers have a machine send is an event of its own."""
        heard, facts = self.heard, self.facts
        if (0 <= heard.edge <= start) if length else end < heard.ack:
            self._world.visit(self.side, "probes")
        elif end > start and end <= facts.seq_end:
            self._world.visit(self.side, "retransmits")
        elif end == start and 0 <= self._data_at <= self._world.clock.now - _DELAYED_US:
            self._world.visit(self.side, "delayed acknowledgement")
        self._data_at = -1

    def _check_payload(self, frame: bytes | bytearray | memoryview, data: int, start: int, length: int) -> None:
        if start < 0 or frame[data:] != pattern(self.side, start, length):
            self._broken("streams", f"other bytes than the application's at {start} to {start + length}")

    def _check_acknowledgement(self, acknowledged: int, window: int, flags: int) -> None:
        facts = self.facts
        if not flags & ACK:
            self._broken("peer blindness", "a segment without acknowledgement")
            return
        ack = unwrapped(acknowledged, self._peer_iss, facts.ack)
        if ack > self.in_order:
            self._broken("ack truth", f"acknowledges {ack}, and only {self.in_order} have arrived")
        if ack < facts.ack:
            # A process that is kept from running for longer than a time-out, between the calls that restore a socket
            # and tell it of the peer's FIN, lets that time-out speak: to the peer, an old acknowledgement.
            machine = self._world.machines[self.side]
            in_repair = machine.phase == "restoring" and machine.sock.repair
            if not (in_repair and ack == self.heard.fin == facts.ack - 1):
                self._broken("monotone acknowledgement", f"acknowledges {ack}, after {facts.ack}")
        else:
            facts.ack = ack
        window <<= self._shift
        edge = ack + window
        if edge < facts.edge:
            # Behind the peer's FIN there is nothing that a window could be for.
            if not 0 <= self.heard.fin < self.in_order and edge + self._slack < facts.edge:
                self._broken("monotone window", f"the right edge goes back to {edge}, after {facts.edge}")
        else:
            facts.edge = edge
        facts.window = window

    def _check_options(self, frame: bytes | bytearray | memoryview, at: int, end: int) -> None:
        facts = self.facts
        if end - at >= 12:
            kind, value, echo = _timestamps(frame, at)
            usual = kind == _USUAL_TIMESTAMPS
            rest = at + 12 if usual else at
        else:
            usual, rest = False, at
        if not usual or rest < end:
            found, has_sack = _options(frame, rest, end)
            if found is not None:
                usual = True
                value, echo = found
            if has_sack and not self._sack:
                self._broken("peer blindness", "a SACK option that was not agreed on")
        if usual != self._timestamps:
            self._broken(
                "peer blindness", "a timestamp that was not agreed on" if usual else "a segment without timestamp"
            )
        elif usual:
            before = facts.tsval
            if before >= 0:
                value = unwrapped(value, 0, before)
                if value < before:
                    self._broken("monotone timestamp", f"the timestamp {value} after {before}")
                    return
            facts.tsval = value
            facts.tsecr = echo

    def _stamp(self, frame: bytes | bytearray | memoryview, at: int, end: int) -> int:
        """The timestamp among TCP options, -1 if there is none."""
        if end - at >= 12:
            kind, value, _ = _timestamps(frame, at)
            if kind == _USUAL_TIMESTAMPS:
                return int(value)
        stamps, _ = _options(frame, at, end)
        return -1 if stamps is None else stamps[0]

    def _out_special(self, flags: int) -> None:
        """SYN or RST."""
        if flags & SYN:
            self._broken("peer blindness", "a SYN on an open connection")
            return
        self.facts.rst = True
        # Who has nothing of a connection answers RST (RFC 9293, 3.10.7.1): after its end, that is as it should be.
        if not self._world.broken_off and self._world.machines[self.side].state != "CLOSED":
            self._broken("peer blindness", "an RST, and nobody has broken the connection off")

    def takes_back(self) -> None:
        """The machine takes back what it has offered: its window may end anywhere from now on, but stays there."""
        self.facts.edge = -1

    # What arrives

    def inject(self, frame: bytes | bytearray | memoryview) -> None:
        """This frame, which is about to arrive, is not the peer's."""
        self._garbage.append(bytes(frame))

    def arrived(self, frame: bytes | bytearray | memoryview, intact: bool = True) -> None:
        """A frame (untagged; a wire segment, or several merged) has reached the machine. ``intact``: its checksums need
        not be looked at.
        """
        said = ""
        self._answer = (-1, b"")
        if self._world.note_to is not None:
            said = self._said(frame, self.heard, self._peer_iss, self._own_iss)
        event = self._event_of(frame, intact)
        if said:
            self._world.note(self.side, "in", f"{event}: {said}")
        self._only_ends = event == "FIN" and (self._only_ends or self._has_spoken)
        self._has_spoken = False
        self._world.visit(self.side, event)

    def _event_of(self, frame: bytes | bytearray | memoryview, intact: bool) -> str:
        """What has arrived, as coverage names it; what is the peer's is noted."""
        if self._garbage and bytes(frame) in self._garbage:
            self._garbage.remove(bytes(frame))
            if _is_valid(frame):
                self._take_true_bytes(frame)
            return "garbage"
        if not intact and not _is_valid(frame):
            return "garbage"
        tcp = _ETHERNET + self._ip_header
        _, _, sequence, acknowledged, size, flags, window = _tcp_header(frame, tcp)
        heard = self.heard
        heard.segments += 1
        if flags & RST:
            heard.rst = True
            return "RST"
        data = tcp + (size >> 4) * 4
        before = heard.seq_end
        start = unwrapped(sequence, self._peer_iss, before)
        length = len(frame) - data
        end = start + length
        event = self._event_of_acknowledgement(acknowledged, window)
        if flags & FIN:
            heard.fin = end
            end += 1
            event = "FIN"
        elif length:
            if start > self.in_order:
                event = "data out of order"
            elif end <= self.in_order:
                event = "data again"
            else:
                event = "data"
        if end > before and end > start:
            heard.seq_end = end
        ack = unwrapped(acknowledged, self._own_iss, heard.ack)
        stamp = self._stamp(frame, tcp + 20, data) if self._timestamps else -1
        self._world.promptness.arrives(self.side, start, end, ack, ack + (window << self._shift), stamp)
        if end > self.in_order and end > start:
            self._take_in(start, end)
            # What is acknowledged with the FIN does not count as delayed.
            self._data_at = -1 if 0 <= heard.fin < self.in_order else self._world.clock.now
        return event

    def _take_true_bytes(self, frame: bytes | bytearray | memoryview) -> None:
        """Whoever sends the right bytes at the right place may be believed: nobody can tell (a receiver that does not
        know the peer's newest timestamp yet cannot tell an old segment, either).
        """
        tcp = _ETHERNET + self._ip_header
        _, _, sequence, _, size, flags, _ = _tcp_header(frame, tcp)
        data = tcp + (size >> 4) * 4
        start = unwrapped(sequence, self._peer_iss, self.in_order)
        end = start + len(frame) - data
        known = start >= 0 and frame[data:] == pattern(self.peer, start, end - start)
        if known and end > max(self.in_order, start) and not flags & (SYN | RST | FIN):
            self._take_in(start, end)

    def _event_of_acknowledgement(self, acknowledged: int, window: int) -> str:
        heard = self.heard
        ack = unwrapped(acknowledged, self._own_iss, heard.ack)
        window <<= self._shift
        if ack > heard.ack:
            event = "acknowledgement" if window else "zero window"
        elif ack == heard.ack and ack + window > heard.edge:
            event = "window update"
        else:
            event = "duplicate acknowledgement"
        if ack >= heard.ack:
            heard.ack = ack
            heard.window = window
            heard.edge = max(heard.edge, ack + window)
        return event

    def _take_in(self, start: int, end: int) -> None:
        islands = self._islands
        if start > self.in_order:
            islands[start] = max(end, islands.get(start, end))
            return
        self.in_order = end
        while islands:
            near = [begin for begin in islands if begin <= self.in_order]
            if not near:
                return
            for begin in near:
                self.in_order = max(self.in_order, islands.pop(begin))

    def _said(self, frame: bytes | bytearray | memoryview, facts: Facts, own_iss: int, other_iss: int) -> str:
        tcp = _ETHERNET + self._ip_header
        return describe(frame, tcp, (own_iss, facts.seq_end), (other_iss, facts.ack), self._shift)

    def _broken(self, kind: str, what: str) -> None:
        self._world.broken(kind, f"{self.side} sends {what}" if what.startswith("a ") else f"{self.side}: {what}")


def _options(frame: bytes | bytearray | memoryview, at: int, end: int) -> tuple[tuple[int, int] | None, bool]:
    """The timestamps (value, echo) among TCP options, and whether there are SACK blocks."""
    stamps, sack = None, False
    while at < end and frame[at] != _END:
        if frame[at] == _NOTHING:
            at += 1
            continue
        length = frame[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            break
        if frame[at] == _TIMESTAMPS and length == 10:
            stamps = _pair(frame, at + 2)
        elif frame[at] == _SACK:
            sack = True
        at += length
    return stamps, sack


def _is_valid(frame: bytes | bytearray | memoryview) -> bool:
    """Whether a receiver can make sense of a frame, and finds its checksums right."""
    packet = read_packet(bytes(frame))
    return packet is not None and packet.valid_tcp and len(packet.payload) >= (packet.payload[12] >> 4) * 4 >= 20
