"""Mutants of the rules about timers: timer.*."""

from dataclasses import replace

from chimney.ndis.capabilities import OidRequest, TcpConnectionOffloadParameters
from chimney.ndis.state import TcpCached, TcpDelegated, walk
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState
from chimney.target import TargetConfig
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


class WithOtherVariables(TargetShim):
    """Reads other cached variables of connections than it is given."""

    def __init__(self, inner):
        super().__init__(inner)
        self.given = []

    def change(self, cached):
        raise NotImplementedError

    def _read(self, block_list):
        for block in walk(block_list):
            if isinstance(block.cached, TcpCached):
                self.given.append((block, block.cached))
                block.cached = replace(block.cached)
                self.change(block.cached)

    def _give_back(self):
        for block, cached in self.given:
            block.cached = cached
        self.given.clear()

    def initiate_offload(self, block_list):
        self._read(block_list)
        super().initiate_offload(block_list)

    def initiate_offload_complete(self, block_list):
        self._give_back()
        super().initiate_offload_complete(block_list)

    def update_offload(self, block_list):
        self._read(block_list)
        super().update_offload(block_list)

    def update_offload_complete(self, block_list):
        self._give_back()
        super().update_offload_complete(block_list)


@mutant("timer.keepalive", scenario="keepalives")
class AsksTooSoon(WithOtherVariables):
    def change(self, cached):
        cached.ka_timeout //= 4


@mutant("timer.keepalive", scenario="keepalives")
class AsksTooOften(WithOtherVariables):
    def change(self, cached):
        cached.ka_probe_count = 30


@mutant("timer.keepalive", scenario="keepalives")
class TrustsInSilence(WithOtherVariables):
    def change(self, cached):
        cached.flags = TcpCachedFlags(0)


@mutant("timer.keepalive", scenario="updates-with-flags")
class DoesNotBeginAnew(WithOtherVariables):
    def change(self, cached):
        cached.flags &= ~TcpCachedFlags.KEEP_ALIVE_RESTART


@mutant("timer.fin-wait-2", scenario="fin-wait-2", config=TargetConfig(fin_wait_2_ticks=30_000))
@mutant("timer.fin-wait-2", scenario="fin-wait-2", config=TargetConfig(fin_wait_2_ticks=300_000))
class AnotherTwoMinutes(TargetShim):
    """As configured, it is right in all things but one."""


@mutant("timer.fin-wait-2", scenario="fin-wait-2")
class HearsNoSignOfLife(LinkShim):
    def incoming(self, segment):
        return [] if segment.payload else [segment]


@mutant("timer.fin-wait-2", scenario="fin-wait-2")
class ForgetsToClose(TargetShim):
    def terminate_offload_complete(self, block_list):
        for block in walk(block_list):
            if isinstance(block.delegated, TcpDelegated):
                block.delegated.state = TcpConnectionState.FIN_WAIT_2
        super().terminate_offload_complete(block_list)


@mutant("timer.granularity", scenario="coarse-ticks")
class HasTicksOfItsOwn(WithOtherParameters):
    own = {"ticks_per_second": 1000}


@mutant("timer.push", scenario="requests-in-their-time", side=1)
class PushesSoon(WithOtherParameters):
    own = {"tcp_push_ticks": 20}


@mutant("timer.push", scenario="requests-in-their-time", side=1)
class PushesLate(WithOtherParameters):
    own = {"tcp_push_ticks": 30_000}
