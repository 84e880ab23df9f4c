"""Mutants of the rules about segments that a target receives: whose they are, and which must do no harm."""

from chimney.conformance.wire import SYN
from chimney.ndis.status import TcpOffloadEvent, UploadReason
from tests.verifier.mutation import mutant
from tests.verifier.shims import LinkShim, TargetShim

RST, ACK, URG = 0x04, 0x10, 0x20


@mutant("tcp.no-reassembly", scenario="options-and-fragments", side=None)
class KeepsTheOrdinaryToItself(TargetShim):
    def indicate_receive_net_buffer_lists(self, net_buffer_list):
        pass


@mutant("tcp.rx-mac", scenario="own-addresses", side=1)
class TakesWhatIsNotItsOwn(LinkShim):
    """Every frame looks as if it were addressed to the connection."""

    def incoming(self, segment):
        segment.destination = b"\2\0\0\0\0\x77"
        return [segment]


@mutant("tcp.rx-mac", scenario="transfer", side=1)
class DeafToItsOwnAddress(TargetShim):
    """Every third segment is taken for somebody else's."""

    def initialize(self):
        super().initialize()
        self.inner.link = _Deaf(self.inner.link, self.inner)


class _Deaf(LinkShim):
    def __init__(self, inner, target):
        super().__init__(inner)
        self.target, self.seen = target, 0

    def incoming(self, segment):
        self.seen += 1
        if self.seen % 3:
            return [segment]
        self.target.indicate_frame(memoryview(segment.build()))
        return []


@mutant("tcp.closed-data", scenario="segments-in-time-wait", side=1)
class ForgetsLateData(TargetShim):
    def indicate_receive_net_buffer_lists(self, net_buffer_list):
        pass


@mutant("tcp.rst.validation", scenario="resets-that-are-none")
class BelievesEveryReset(LinkShim):
    """Moves an RST within the window to where it is believed."""

    def incoming(self, segment):
        if segment.flags & RST:
            segment.seq -= 10
        return [segment]


@mutant("tcp.rst.validation", scenario="reset-with-receives")
class IgnoresResets(LinkShim):
    def incoming(self, segment):
        return [] if segment.flags & RST else [segment]


@mutant("tcp.syn", scenario="syns")
class IgnoresSyns(LinkShim):
    def incoming(self, segment):
        return [] if segment.flags & SYN else [segment]


@mutant("tcp.syn", scenario="syns")
class ChallengesEverySyn(LinkShim):
    """Answers each SYN with an acknowledgement."""

    last = None

    def outgoing(self, segment):
        self.last = segment
        return [segment]

    def incoming(self, segment):
        if segment.flags & SYN and self.last is not None:
            self.last.payload, self.last.flags = b"", ACK
            self.emit(self.last)
        return [segment]


@mutant("tcp.urgent", scenario="urgent-data", side=1)
class TakesUrgentData(LinkShim):
    def incoming(self, segment):
        segment.flags &= ~URG
        return [segment]


@mutant("tcp.urgent", scenario="transfer")
class InventsUrgentData(TargetShim):
    """Asks for an upload because of urgent data, and there is none."""

    told = False

    def tcp_offload_send_complete(self, net_buffer_list):
        super().tcp_offload_send_complete(net_buffer_list)
        if not self.told:
            self.told = True
            handle = next(iter(self.inner.connections.values())).handle
            self.tcp_offload_event_handler(handle, TcpOffloadEvent.INDICATE_RETRIEVE, UploadReason.RECEIVED_URGENT_DATA)


@mutant("tcp.rst.keepalive", scenario="resets-that-are-none")
class NeverAsks(LinkShim):
    """Sends no probes: segments without data that repeat a sequence number."""

    highest = None

    def outgoing(self, segment):
        if self.highest is None or segment.payload:
            self.highest = segment.end
        probe = (self.highest - segment.seq) & 0xFFFFFFFF in (1, 2) and len(segment.payload) <= 1
        return [] if probe else [segment]


@mutant("vlan.receive", scenario="tags", side=1)
class BlindToTags(LinkShim):
    """Every frame seems to be of the connection's VLAN."""

    def incoming(self, segment):
        segment.vlan = {1021: 77, 1031: 78}.get(segment.destination_port, segment.vlan)
        return [segment]
