"""The grammar of packets: `< [ect0] S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 7>`, and ICMP."""

import re

from chimney.packetdrill.errors import ScriptError, Unsupported
from chimney.packetdrill.lexer import Kind
from chimney.packetdrill.nodes import FOREIGN_OPTIONS, ForeignPacket, IcmpPacket, Option, TcpPacket
from chimney.packetdrill.reader import Reader
from chimney.packetdrill.wire import LETTERS

_ECN = ("noecn", "ect0", "ect1", "ce", "ect01")
_WRAPPED = ("ipv4", "ipv6", "gre", "GREv0", "mpls", "encap")
_SEQUENCES = 1 << 32
ANY_NUMBER = -1
"""`...` where a timestamp stands."""
_ICMP: dict[str, frozenset[str]] = {
    "unreachable": frozenset({
        "net_unreachable", "host_unreachable", "protocol_unreachable", "port_unreachable", "frag_needed",
        "source_route_failed", "net_unknown", "host_unknown", "source_host_isolated", "net_prohibited",
        "host_prohibited", "net_unreachable_for_tos", "host_unreachable_for_tos", "packet_filtered",
        "precedence_violation", "precedence_cutoff",
        "no_route", "admin_prohibited", "not_neighbour", "address_unreachable",
    }),
    "time_exceeded": frozenset({
        "ttl_exceeded_in_transit", "frag_reass_exceeded", "exceeded_hop_limit", "exceeded_frag_time",
    }),
    "parameter_problem": frozenset({"header_field", "unknown_next_header", "unknown_option"}),
    **dict.fromkeys(
        (
            "packet_too_big", "source_quench", "redirect", "echo_request", "echo_reply", "timestamp_request",
            "timestamp_reply", "information_request", "information_reply", "address_mask_request", "address_mask_reply",
        ),
        frozenset(),
    ),
}  # fmt: skip
"""The types of ICMP messages and their codes, IPv4's and IPv6's (RFC 792, RFC 1122, 3.2.2.1, RFC 4443)."""
_NUMBERED_TYPE = re.compile(r"type_\d+")
_NUMBERED_CODE = re.compile(r"code_\d+")
_COUNTED = frozenset("01234567")
"""Where flags stand: the counter that AccECN makes of three of them (draft-ietf-tcpm-accurate-ecn, 3.2.2)."""


def parse_packet(reader: Reader) -> TcpPacket | IcmpPacket | ForeignPacket:
    """A packet, from its direction on. Raises ScriptError."""
    outbound = reader.take().text == ">"
    packet = TcpPacket(outbound=outbound, flags="", seq=0, length=0)
    _ip_info(reader, packet)
    word = reader.peek().text if reader.at_kind(Kind.WORD) else ""
    if word in _WRAPPED or word == "udp":
        _skip_line(reader)
        return ForeignPacket(outbound, word)
    if word == "icmp":
        return _icmp(reader, outbound)
    if reader.at_kind(Kind.INTEGER) and reader.at(">", 1):
        source = reader.integer()
        reader.expect(">")
        packet.ports = (source, reader.integer())
    packet.flags = _flags(reader)
    packet.seq, packet.length = _sequence(reader)
    if reader.accept("ack"):
        packet.ack = _u32(reader)
        packet.has_ack = True
    if reader.accept("win"):
        packet.window = reader.integer()
        if not 0 <= packet.window <= 65535:
            raise reader.fail("a window has 16 bits")
    if reader.accept("urg"):
        packet.urgent = reader.integer()
    if reader.accept("<"):
        packet.options = _options(reader, outbound)
    if reader.at("/"):
        _skip_line(reader)
        return ForeignPacket(outbound, "udp")
    return packet


def _skip_line(reader: Reader) -> None:
    """What is not read is not looked at either: all that stands in this line."""
    line = reader.peek().line
    while not reader.at_kind(Kind.END) and reader.peek().line == line:
        reader.take()


def _ip_info(reader: Reader, packet: TcpPacket) -> None:
    """`[ect0]`, `(tos 0x10)`, `[ttl 64]`, `[flowlabel 0x1]`."""
    closing = {"[": "]", "(": ")"}.get(reader.peek().text, "")
    if not closing or not reader.at_kind(Kind.SYMBOL):
        return
    reader.take()
    while not reader.accept(closing):
        word = reader.take()
        name = word.text.lower()
        if name in _ECN:
            packet.ecn = name
        elif name == "tos":
            packet.tos = reader.integer()
        elif name == "ttl":
            packet.ttl = reader.integer()
        elif name == "flowlabel":
            packet.flow_label = reader.integer()
        else:
            raise ScriptError(f"{word.text!r} is nothing that an IP header has", word.line)
        reader.accept(",")


def _flags(reader: Reader) -> str:
    """`S`, `P.`, `.`, `SEW.`, `-`; `.` stands for ACK."""
    first = reader.take()
    flags = first.text
    while reader.peek().start == reader.previous().end and not reader.at_kind(Kind.END):
        flags += reader.take().text
    if first.kind is Kind.WORD and reader.accept("."):
        flags += "."
    if flags == "-":
        return ""
    if not set(flags) <= LETTERS | _COUNTED or len(set(flags)) < len(flags):
        raise ScriptError(f"{flags!r} are no TCP flags", first.line)
    if set(flags) & _COUNTED:
        raise Unsupported("AccECN", first.line)
    return flags


def _sequence(reader: Reader) -> tuple[int, int]:
    """`1:1001(1000)`."""
    start = _u32(reader)
    reader.expect(":")
    end = _u32(reader)
    reader.expect("(")
    length = reader.integer()
    reader.expect(")")
    if (start + length) % _SEQUENCES != end % _SEQUENCES:
        raise reader.fail(f"{start}:{end} has not {length} bytes")
    return start % _SEQUENCES, length


def _u32(reader: Reader) -> int:
    value = reader.integer()
    if not 0 <= value <= _SEQUENCES:
        raise reader.fail("a sequence number has 32 bits")
    return value


def _options(reader: Reader, outbound: bool) -> tuple[Option, ...] | None:
    if reader.accept_kind(Kind.ELLIPSIS):
        if not outbound:
            raise reader.fail("`<...>` is for packets that leave")
        reader.expect(">")
        return None
    found: list[Option] = []
    while not reader.accept(">"):
        found.append(_option(reader))
        reader.accept(",")
    return tuple(found)


def _option(reader: Reader) -> Option:
    kind = reader.take()
    name = kind.text
    if name in ("nop", "eol", "sackOK"):
        return Option(name)
    if name in ("mss", "wscale"):
        return Option(name, (reader.integer(),))
    if name == "TS":
        reader.expect("val")
        value = _number_or_any(reader)
        reader.expect("ecr")
        return Option(name, (value, _number_or_any(reader)))
    if name == "sack":
        edges: list[int] = []
        while reader.at_kind(Kind.INTEGER):
            edges.append(reader.integer())
            reader.expect(":")
            edges.append(reader.integer())
        return Option(name, tuple(edges))
    if name in FOREIGN_OPTIONS:
        words: list[str] = []
        while not reader.at(",") and not reader.at(">"):
            words.append(reader.take().text)
        return Option(name, (), " ".join(words))
    raise ScriptError(f"no TCP option {name!r} is known", kind.line)


def _number_or_any(reader: Reader) -> int:
    return ANY_NUMBER if reader.accept_kind(Kind.ELLIPSIS) else reader.integer()


def _icmp(reader: Reader, outbound: bool) -> IcmpPacket:
    """`icmp unreachable frag_needed mtu 1200 [1:1461(1460)]`."""
    reader.take()
    kind = reader.take()
    packet = IcmpPacket(outbound, kind.text, "")
    if kind.text not in _ICMP and not _NUMBERED_TYPE.fullmatch(kind.text):
        raise ScriptError(f"{kind.text!r} is no type of ICMP messages", kind.line)
    if reader.at_kind(Kind.WORD) and not reader.at("mtu") and not reader.at("id"):
        packet.code = reader.take().text
        if packet.code not in _ICMP.get(kind.text, ()) and not _NUMBERED_CODE.fullmatch(packet.code):
            raise ScriptError(f"{packet.code!r} is no code of ICMP {kind.text}", kind.line)
    if reader.accept("mtu"):
        packet.mtu = reader.integer()
    if reader.accept("id"):
        reader.integer()
    if reader.accept("["):
        if reader.at_kind(Kind.WORD):
            raise reader.fail("only TCP segments can be quoted")
        packet.seq, packet.length = _sequence(reader)
        reader.expect("]")
    return packet
