"""Whether the packet that left is the packet that the script expects, in the numbers of the script."""

from dataclasses import dataclass

from chimney.packetdrill.errors import Unsupported
from chimney.packetdrill.nodes import FOREIGN_OPTIONS, Option, TcpPacket
from chimney.packetdrill.wire import (
    ACK,
    AE,
    CWR,
    ECE,
    ECN_CODES,
    ECN_NAMES,
    ECT0,
    ECT1,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    Packet,
    flags_of,
    letters_of,
    options_text,
)

_COMPARED = FIN | SYN | RST | PSH | ACK | URG | ECE | CWR | AE
_ECN_FIELD = 3
_OF_A_MERGED_ONE = ACK | SYN | RST | URG | ECE


@dataclass(slots=True, frozen=True)
class Rules:
    """What is compared. Every relaxation is asked for by name, and the report names it.

    least_tolerance_us: where a script allows less, this much may a time differ.
    ts_tick_us: microseconds of a tick of our timestamps; 0: their values are not compared (packetdrill's default).
    """

    ignore_push: bool = False
    ignore_window: bool = False
    least_tolerance_us: int = 0
    ts_tick_us: int = 0

    def names(self) -> tuple[str, ...]:
        """What is relaxed, in words."""
        tolerance = f"times within {self.least_tolerance_us} us" if self.least_tolerance_us else ""
        named = (("push", self.ignore_push), ("window", self.ignore_window), (tolerance, bool(tolerance)))
        return tuple(name for name, is_on in named if is_on)


def differences(expected: TcpPacket, actual: Packet, rules: Rules, tolerance_us: int) -> list[str]:
    """Every way in which `actual` is not what was expected, in words; empty if it is.

    Raises Unsupported for an expectation of what the engine does not make.
    """
    _refuse_what_is_not_made(expected)
    found = _flag_differences(expected, actual, rules)
    if actual.seq != expected.seq:
        found.append(f"seq {actual.seq} instead of {expected.seq}")
    if len(actual.payload) != expected.length:
        found.append(f"{len(actual.payload)} bytes instead of {expected.length}")
    if actual.ack != expected.ack:
        found.append(f"ack {actual.ack} instead of {expected.ack if expected.has_ack else 'none'}")
    if expected.window is not None and actual.window != expected.window and not rules.ignore_window:
        found.append(f"win {actual.window} instead of {expected.window}")
    if actual.urgent != expected.urgent:
        found.append(f"urg {actual.urgent} instead of {expected.urgent}")
    return found + _ecn_differences(expected, actual) + _option_differences(expected, actual, rules, tolerance_us)


def _refuse_what_is_not_made(expected: TcpPacket) -> None:
    """What could not be compared would pass whatever the script says."""
    beyond_ecn = expected.tos is not None and expected.tos & ~_ECN_FIELD
    if beyond_ecn or expected.ttl is not None or expected.flow_label is not None:
        raise Unsupported("TTL, flow label and DSCP are the host's, not the engine's")
    if flags_of(expected.flags) & AE:
        raise Unsupported("AccECN")
    if foreign := next((option.kind for option in expected.options or () if option.kind in FOREIGN_OPTIONS), None):
        raise Unsupported(f"the TCP option {foreign}")


def _flag_differences(expected: TcpPacket, actual: Packet, rules: Rules) -> list[str]:
    compared = _COMPARED & ~PSH if rules.ignore_push else _COMPARED
    if (flags_of(expected.flags) ^ actual.flags) & compared:
        return [f"flags {letters_of(actual.flags)} instead of {expected.flags or '-'}"]
    return []


def _ecn_differences(expected: TcpPacket, actual: Packet) -> list[str]:
    if expected.tos is not None and expected.tos & _ECN_FIELD != actual.ecn:
        return [f"ECN field {actual.ecn} instead of that of tos {expected.tos:#x}"]
    if expected.ecn is None:
        return []
    fits = actual.ecn in (ECT0, ECT1) if expected.ecn == "ect01" else actual.ecn == ECN_CODES[expected.ecn]
    return [] if fits else [f"{ECN_NAMES[actual.ecn]} instead of {expected.ecn}"]


def _option_differences(expected: TcpPacket, actual: Packet, rules: Rules, tolerance_us: int) -> list[str]:
    """Kinds in their order, padding included; values, but those of our timestamps only if asked for."""
    if expected.options is None:
        return []
    same = len(expected.options) == len(actual.options) and all(
        _option_fits(e, a, rules, tolerance_us) for e, a in zip(expected.options, actual.options, strict=True)
    )
    if same:
        return []
    return [f"options {options_text(actual.options) or 'none'} instead of {options_text(expected.options) or 'none'}"]


def _option_fits(expected: Option, actual: Option, rules: Rules, tolerance_us: int) -> bool:
    if expected.kind != actual.kind:
        return False
    if expected.kind != "TS":
        return expected.values == actual.values and expected.text == actual.text
    value, echo = expected.values
    if echo >= 0 and echo != actual.values[1]:
        return False
    if value < 0 or rules.ts_tick_us == 0:
        return True
    return abs(_signed(actual.values[0] - value)) * rules.ts_tick_us <= tolerance_us


def _signed(difference: int) -> int:
    return (difference + (1 << 31)) % (1 << 32) - (1 << 31)


def can_be_merged(first: Packet, following: Packet) -> bool:
    """Whether `following` continues what `first` (which may be merged already) began, as segmentation cuts it.

    What is cut into segments leaves at one moment.
    """
    same = not (first.flags ^ following.flags) & _OF_A_MERGED_ONE and first.ecn == following.ecn
    return (
        same
        and following.at == first.at
        and following.seq == first.seq + len(first.payload) & 0xFFFFFFFF
        and (following.ack, following.window) == (first.ack, first.window)
        and len(following.payload) > 0
    )


def merge(first: Packet, following: Packet) -> Packet:
    """One packet for both: number and CWR of the first, all else of the last."""
    flags = following.flags & ~CWR | first.flags & CWR
    return Packet(
        flags, first.seq, following.ack, following.window, following.urgent, following.options,
        first.payload + following.payload, following.ecn, following.at,
        merged=(first.merged or [first]) + [following],
    )  # fmt: skip
