"""Mutants of the rules about timers: timer.*."""

from dataclasses import replace

from chimney.ndis.capabilities import OidRequest, TcpConnectionOffloadParameters
from chimney.ndis.state import TcpCached, walk
from chimney.verifier.packets import ACK, RST
from tests.verifier.mutation import mutant
from tests.verifier.shims import LinkShim, TargetShim


class WithOtherParameters(TargetShim):
    """Says yes to the host's parameters, and keeps to its own."""

    own = {}

    def oid_request(self, request):
        wanted = request.information
        if isinstance(wanted, TcpConnectionOffloadParameters):
            request = OidRequest(request.oid, replace(wanted, **self.own), set=True)
        return super().oid_request(request)


@mutant("timer.delack", scenario="patient-acknowledgements", side=1)
class CountsToAHundred(WithOtherParameters):
    own = {"tcp_ack_frequency": 100}


@mutant("timer.delack", scenario="patient-acknowledgements", side=1)
class HasTime(WithOtherParameters):
    own = {"tcp_delayed_ack_ticks": 60_000}


@mutant("timer.delack", scenario="acknowledgements", side=1)
class NeverAcknowledges(LinkShim):
    def outgoing(self, segment):
        return [segment] if segment.payload else []


@mutant("timer.dupack", scenario="duplicates-by-hand")
class WantsTwo(WithOtherParameters):
    own = {"tcp_duplicate_ack_threshold": 2}


@mutant("timer.dupack", scenario="duplicates-by-hand")
class WaitsForTheTimer(WithOtherParameters):
    own = {"tcp_duplicate_ack_threshold": 200}


@mutant("timer.retransmit-limit", scenario="silence")
@mutant("timer.persist", scenario="window-probes")
class NeverTires(WithOtherParameters):
    own = {"tcp_maximum_retransmissions": 15}


@mutant("timer.retransmit-limit", scenario="silence")
@mutant("timer.persist", scenario="window-probes")
class GivesUpSoon(WithOtherParameters):
    own = {"tcp_maximum_retransmissions": 1}


@mutant("timer.retransmit-limit", scenario="silence-by-time")
class CountsInstead(TargetShim):
    """Does not know MaxRT."""

    def initiate_offload(self, block_list):
        for block in walk(block_list):
            if isinstance(block.cached, TcpCached):
                block.cached.max_rt = 0
        super().initiate_offload(block_list)


@mutant("timer.retransmit-limit", scenario="silence")
class ResetsInTheEnd(LinkShim):
    """Answers silence with an RST."""

    highest = None
    again = 0

    def outgoing(self, segment):
        if segment.payload and self.highest == segment.end:
            self.again += 1
            if self.again == 4:
                segment.payload = b""
                segment.flags = RST | ACK
        elif segment.payload:
            self.highest = segment.end
        return [segment]


@mutant("timer.persist", scenario="window-probes")
class HearsNoAnswer(LinkShim):
    """Takes every round for the first one."""

    answers = 0

    def incoming(self, segment):
        self.answers += 1
        return [segment] if self.answers == 1 else []


@mutant("timer.persist", scenario="window-probes")
class ProbesAtOnce(LinkShim):
    last = None

    def outgoing(self, segment):
        self.last = type(segment)(segment.build(), segment.vlan)
        return [segment]

    def incoming(self, segment):
        if not segment.window:
            self.last.seq, self.last.payload = segment.ack, self.last.payload[:1]
            self.emit(self.last)
        return [segment]


@mutant("timer.persist", scenario="window-probes")
class ProbesAllTheTime(TargetShim):
    """Without back-off."""

    def poll(self, now, limit=64):
        for tcp in self.inner.connections.values():
            timer = tcp.engine.sender.timer
            timer.count = min(timer.count, 1)
        return super().poll(now, limit)
