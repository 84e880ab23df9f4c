"""The log of a run: one line per thing that happens, in fixed columns, the same for the same case on every build."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from chimney.conformance.wire import ACK, FIN

KINDS = {
    "out": "a wire segment leaves; the first word says who speaks",
    "in": "a frame reaches the machine; the first words say what it is to the connection",
    "net": "the network has changed, or has done something to a segment",
    "do": "a step of the case is done",
    "app": "the application has seen something",
    "kern": "the kernel does a step of a hand-over",
    "own": "a hand-over is over; the text says who has the connection now",
    "no": "a hand-over was refused, or has failed; the text says why",
    "drv": "an intermediate driver or the target does something of its own accord",
    "die": "the process is gone",
    "BAD": "an invariant is broken; the text begins with its name",
}
"""What the column *kind* can say."""

FLAGS = {
    "F": "FIN",
    "S": "SYN",
    "R": "RST",
    "P": "PSH",
    "A": "ACK",
    "U": "URG",
}

_MASK = 0xFFFFFFFF
_HALF = 0x80000000
_END, _NOTHING, _SACK, _TIMESTAMPS = 0, 1, 5, 8

_tcp_header = Struct("!HHIIBBH").unpack_from
_pair = Struct("!II").unpack_from

_ROW = "{:>6} {:>12} {:>1} {:<4} {}"
HEADER = _ROW.format("event", "ms", "s", "kind", "what")


_COLUMNS = {
    "event": "number of the event: a frame that arrives, a kernel's timer, a process's turn; 0: before the first",
    "ms": "virtual time since the beginning of the run, in milliseconds",
    "s": "side: a, b, or - for everybody",
    "kind": "what kind of thing it is:",
}
_SEGMENTS = {
    "data START..END": "bytes of the sender's stream, counted from 0; a FIN takes the place behind the last one",
    "at START": "no byte and no FIN; the next one would be this",
    "ack N": "whatever of the peer's stream stands before N has been received",
    "win N": "so many bytes from there on are welcome",
    "ts VALUE/ECHO": "timestamps",
    "sack START..END": "received beyond a gap",
}


def legend() -> list[str]:
    """What every column and code of the log means, a line each."""
    lines = [f"# {name:<6} {meaning}" for name, meaning in _COLUMNS.items()]
    lines += [f"#   {kind:<4} {meaning}" for kind, meaning in KINDS.items()]
    lines.append("# what   for a segment:")
    lines += [f"#   {words:<16} {meaning}" for words, meaning in _SEGMENTS.items()]
    lines.append("#   {:<16} flags: {}".format(f"[{''.join(FLAGS)}]", ", ".join(f"{c} {FLAGS[c]}" for c in FLAGS)))
    return lines


def unwrapped(sequence: int, first: int, near: int) -> int:
    """The position of a sequence number in the stream whose position 0 has the number ``first``: the one that lies next
    to the position ``near``.
    """
    return near + ((sequence - first - near + _HALF) & _MASK) - _HALF


def describe(
    frame: bytes | bytearray | memoryview, tcp: int, own: tuple[int, int], other: tuple[int, int], shift: int
) -> str:
    """What a wire segment says, in a few words.

    tcp         where its TCP header begins.
    own, other  of its sender's stream and of the stream that it acknowledges: the number of position 0, and a position
                that it cannot be far from.
    shift       the window scale.
    """
    there = len(frame) - tcp
    if there < 20:
        return f"{max(there, 0)} bytes that are no TCP segment"
    _, _, sequence, acknowledged, size, flags, window = _tcp_header(frame, tcp)
    data = tcp + (size >> 4) * 4
    if not tcp + 20 <= data <= len(frame):
        return f"a TCP header of {data - tcp} bytes in a segment of {there}"
    start = unwrapped(sequence, *own)
    end = start + len(frame) - data + (flags & FIN)
    words = [f"data {start}..{end}" if end > start else f"at {start}"]
    if flags & ACK:
        words.append(f"ack {unwrapped(acknowledged, *other)}")
    words.append(f"win {window << shift}")
    words.append("[" + "".join(code for bit, code in enumerate(FLAGS) if flags & 1 << bit) + "]")
    return " ".join(words + _options(frame, tcp + 20, data, other))


def _options(frame: bytes | bytearray | memoryview, at: int, end: int, other: tuple[int, int]) -> list[str]:
    words: list[str] = []
    while at < end and frame[at] != _END:
        if frame[at] == _NOTHING:
            at += 1
            continue
        length = frame[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            return [*words, "broken options"]
        if frame[at] == _TIMESTAMPS and length == 10:
            words.append("ts {}/{}".format(*_pair(frame, at + 2)))
        elif frame[at] == _SACK:
            for block in range(at + 2, at + length - 7, 8):
                left, right = _pair(frame, block)
                words.append(f"sack {unwrapped(left, *other)}..{unwrapped(right, *other)}")
        else:
            words.append(f"option {frame[at]}")
        at += length
    return words


class Log:
    """Writes a run's log, line by line, the legend first. ``write`` is called with each line, without its end."""

    def __init__(self, write: Callable[[str], None], *, with_legend: bool = True) -> None:
        self._write = write
        if with_legend:
            for line in legend():
                write(line)
        write(HEADER)

    def note(self, event: int, at: int, side: str, kind: str, text: str) -> None:
        """One line; ``at`` is in microseconds since the beginning of the run."""
        self._write(_ROW.format(event, f"{at // 1000}.{at % 1000:03}", side, kind, text))
