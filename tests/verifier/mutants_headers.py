"""Mutants of the rules about headers: tcp.headers, tcp.ip-id, vlan.send, ts.delta and their like."""

import struct

from chimney.ndis.state import walk
from chimney.ndis.status import OffloadStateType, Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim


class Once(LinkShim):
    """Changes one data segment that goes out, the third."""

    seen = 0

    def outgoing(self, segment):
        if segment.payload:
            self.seen += 1
            if self.seen == 3:
                self.change(segment)
        return [segment]

    def change(self, segment):
        raise NotImplementedError


@mutant("tcp.headers", scenario="transfer")
class WrongMac(Once):
    def change(self, segment):
        segment.destination = b"\x02\0\0\0\0\x77"


@mutant("tcp.cached-ip-fields", scenario="transfer")
class WrongHops(Once):
    def change(self, segment):
        segment.ip[8] -= 1


@mutant("tcp.no-fragments", scenario="transfer")
class MayBeFragmented(Once):
    def change(self, segment):
        segment.ip[6] &= ~0x40


@mutant("tcp.ip-id", scenario="transfer")
class TheHostsIdentification(Once):
    def change(self, segment):
        segment.ip[4] &= 0x7F


@mutant("tcp.options.flags", scenario="transfer")
class NoTimestamp(Once):
    def change(self, segment):
        segment.options = b""


@mutant("tcp.options.flags", scenario="transfer")
class WindowNotScaled(Once):
    def change(self, segment):
        segment.window = 0xFFFF


@mutant("vlan.send", scenario="tags")
class TagWithTheFormatBit(Once):
    seen = 2

    def change(self, segment):
        segment.vlan = max(segment.vlan, 0) | 0x1000


@mutant("tcp.rfc.core", scenario="transfer")
class AcknowledgesWhatHasNotCome(Once):
    def change(self, segment):
        segment.ack += 5000


@mutant("tcp.rfc.core", scenario="transfer")
class TakesTheWindowBack(Once):
    def change(self, segment):
        segment.window //= 2


@mutant("tcp.nagle", scenario="nagle")
class TooEager(LinkShim):
    """Cuts every segment in two."""

    def outgoing(self, segment):
        if len(segment.payload) < 2:
            return [segment]
        half = len(segment.payload) // 2
        first = type(segment)(segment.build(), segment.vlan)
        first.payload, segment.payload = segment.payload[:half], segment.payload[half:]
        segment.seq += half
        return [first, segment]


@mutant("ts.delta", scenario="transfer")
class TimestampsGoBack(Once):
    def change(self, segment):
        value, echo = struct.unpack("!II", segment.options[4:12])
        segment.options = segment.options[:4] + struct.pack("!II", (value - 50) & 0xFFFFFFFF, echo)


@mutant("ts.host-delta", scenario="hand-overs")
class AClockOfItsOwn(HostShim):
    """Begins its timestamps anew with every initiate."""

    def initiate_offload(self, tree):
        for block in walk(tree):
            if block.type is OffloadStateType.TCP and block.delegated is not None:
                block.delegated.ts_time = 1
        super().initiate_offload(tree)


@mutant("vlan.support", scenario="tags")
class KnowsNoTags(TargetShim):
    def initiate_offload_complete(self, tree):
        if tree.const is not None and tree.const.vlan_id:
            tree.status = Status.OFFLOAD_VLAN_ENTRIES
        super().initiate_offload_complete(tree)
