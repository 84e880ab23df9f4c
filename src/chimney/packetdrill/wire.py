"""Packets as bytes, and as what a script says of them.

Sequence numbers are the engine's here; what the script calls them is in mapping.py.
"""

import struct
from dataclasses import dataclass, field

from chimney.packetdrill.nodes import Option

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
AE = 256

_LETTERS = (("F", FIN), ("S", SYN), ("R", RST), ("P", PSH), ("U", URG), ("E", ECE), ("W", CWR), ("A", AE), (".", ACK))
LETTERS = frozenset(letter for letter, _ in _LETTERS)
"""Every flag that a script can name."""
_HEADER = struct.Struct("!HHIIHHHH")
_KINDS = {"eol": 0, "nop": 1, "mss": 2, "wscale": 3, "sackOK": 4, "sack": 5, "TS": 8, "md5": 19, "FO": 34}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_SIZES = {"mss": "!H", "wscale": "!B", "sackOK": "", "TS": "!II"}
_NO_LENGTH = ("nop", "eol")
NOT_ECT, ECT1, ECT0, CE = range(4)
ECN_NAMES = {NOT_ECT: "noecn", ECT1: "ect1", ECT0: "ect0", CE: "ce"}
ECN_CODES = {name: code for code, name in ECN_NAMES.items()}


@dataclass(slots=True)
class Packet:
    """A TCP packet on the wire: the fields of its header, its options in their order, its payload.

    at: the time at which it left, microseconds.
    """

    flags: int
    seq: int
    ack: int = 0
    window: int = 0
    urgent: int = 0
    options: tuple[Option, ...] = ()
    payload: bytes = b""
    ecn: int = NOT_ECT
    at: int = 0
    segments: int = 1
    """Of a packet that arrives: how many a receiving card has merged into it."""
    merged: list["Packet"] = field(default_factory=list)
    """Of a packet that stands for several, as segmentation offload makes them: these."""

    def option(self, kind: str) -> Option | None:
        """The option of that name."""
        return next((option for option in self.options if option.kind == kind), None)


def flags_of(letters: str) -> int:
    """The bits of flags as a script writes them."""
    table = dict(_LETTERS)
    value = 0
    for letter in letters:
        value |= table[letter]
    return value


def letters_of(flags: int) -> str:
    """Flags as a script writes them."""
    return "".join(letter for letter, bit in _LETTERS if flags & bit) or "-"


def header_bytes(packet: Packet) -> bytes:
    """The TCP header with its options, without ports and checksum. Options are padded at their end."""
    options = option_bytes(packet.options)
    options += bytes(-len(options) % 4)
    offset = (20 + len(options)) // 4
    return (
        _HEADER.pack(0, 0, packet.seq, packet.ack, offset << 12 | packet.flags & 0x1FF, packet.window, 0, packet.urgent)
        + options
    )


def option_bytes(options: tuple[Option, ...]) -> bytes:
    """Options as bytes, without padding."""
    built = b""
    for option in options:
        kind = _KINDS.get(option.kind, 254)
        if option.kind in _NO_LENGTH:
            built += bytes((kind,))
            continue
        if option.kind == "sack":
            data = b"".join(struct.pack("!I", edge & 0xFFFFFFFF) for edge in option.values)
        elif option.kind in _SIZES:
            data = struct.pack(_SIZES[option.kind], *option.values)
        else:
            data = bytes.fromhex(option.text) if len(option.text) % 2 == 0 else b""
        built += bytes((kind, 2 + len(data))) + data
    return built


def read_header(data: bytes) -> Packet:
    """The fields of a TCP header, whose options end where it ends."""
    _, _, seq, ack, offset, window, _, urgent = _HEADER.unpack_from(data)
    length = (offset >> 12) * 4
    return Packet(offset & 0x1FF, seq, ack, window, urgent, read_options(data[20:length]))


def read_options(data: bytes) -> tuple[Option, ...]:
    """Options in their order."""
    found: list[Option] = []
    at = 0
    while at < len(data):
        kind = data[at]
        name = _NAMES.get(kind, f"option {kind}")
        if name in _NO_LENGTH:
            found.append(Option(name))
            at += 1
            continue
        length = max(data[at + 1], 2)
        value = data[at + 2 : at + length]
        if name == "sack":
            found.append(Option(name, struct.unpack(f"!{len(value) // 4}I", value)))
        elif name in _SIZES:
            found.append(Option(name, struct.unpack(_SIZES[name], value) if _SIZES[name] else ()))
        else:
            found.append(Option(name, (), value.hex()))
        at += length
    return tuple(found)


def options_text(options: tuple[Option, ...] | None) -> str:
    """Options as a script writes them; empty if there are none."""
    if options is None:
        return "<...>"
    return f"<{','.join(_option_text(option) for option in options)}>" if options else ""


def _option_text(option: Option) -> str:
    if option.kind == "TS":
        return f"TS val {option.values[0]} ecr {option.values[1]}"
    if option.kind == "sack":
        pairs = zip(option.values[::2], option.values[1::2], strict=True)
        return "sack " + " ".join(f"{left}:{right}" for left, right in pairs)
    return " ".join((option.kind, *map(str, option.values), *([option.text] if option.text else [])))


def packet_text(packet: Packet, show_ecn: bool = False) -> str:
    """A packet as a script writes it."""
    length = len(packet.payload)
    ecn = f"[{ECN_NAMES[packet.ecn]}] " if show_ecn or packet.ecn else ""
    parts = [f"{ecn}{letters_of(packet.flags)} {packet.seq}:{packet.seq + length}({length})"]
    if packet.flags & ACK:
        parts.append(f"ack {packet.ack}")
    parts.append(f"win {packet.window}")
    if packet.urgent:
        parts.append(f"urg {packet.urgent}")
    if options := options_text(packet.options):
        parts.append(options)
    return " ".join(parts)
