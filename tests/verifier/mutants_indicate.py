"""Mutants of the rules about receive indications (indicate.*). Side 1 receives."""

from dataclasses import replace
from functools import partial

from chimney.ndis.buffers import iterate, link, net_buffer_list
from chimney.ndis.state import TcpCached, TcpDelegated, walk
from chimney.ndis.status import Status
from tests.verifier.mutants_delivery import IndicatesAgain
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim

mutant = partial(mutant, side=1)

ACCEPTED = int(Status.SUCCESS)
NOT_ACCEPTED = int(Status.OFFLOAD_DATA_NOT_ACCEPTED)
PARTLY = int(Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED)

# What a target indicates


@mutant("indicate.single-nbl", scenario="indications")
class IndicatesTwo(TargetShim):
    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list_, status):
        net_buffer_list_.next = net_buffer_list(b"more")
        return super().tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list_, status)


@mutant("indicate.status", scenario="indications")
class WantsItBack(TargetShim):
    """Indicates with RESOURCES: the host may not keep the list."""

    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        return super().tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, Status.RESOURCES)


@mutant("indicate.size", scenario="indications-with-requests")
class IgnoresTheSize(TargetShim):
    def initiate_offload(self, block_list):
        for block in walk(block_list):
            if isinstance(block.cached, TcpCached):
                block.cached = replace(block.cached, rcv_indication_size=0)
        super().initiate_offload(block_list)


@mutant("indicate.no-repeat", scenario="indications-in-their-time")
class TriesAgain(IndicatesAgain):
    """Indicates refused bytes a second time, although nobody has asked for it."""


@mutant("indicate.requests-first", scenario="indications-in-their-time")
class IndicatesInstead(IndicatesAgain):
    """Answers a request with another indication."""

    posted = False

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        self.posted = self.last == "refused" and net_buffer_list.data_length() > 0
        return super().tcp_offload_receive(offload_context, net_buffer_list)

    def poll(self, now, limit=64):
        if self.posted and self.declined:
            declined, self.declined, self.posted = self.declined, b"", False
            self.handlers.tcp_offload_receive_handler(self.handle_of, net_buffer_list(declined), ACCEPTED)
        return super().poll(now, limit)

    def again(self):
        return False


@mutant("indicate.keep-refused", scenario="indications-in-their-time")
class LosesWhatWasRefused(TargetShim):
    """What the host did not want is gone when the connection goes back."""

    def terminate_offload_complete(self, block_list):
        for block in walk(block_list):
            if isinstance(block.delegated, TcpDelegated):
                block.delegated.buffered_data = None
        super().terminate_offload_complete(block_list)


@mutant("indicate.ack", scenario="indications")
class AcknowledgesTooMuch(LinkShim):
    """Acknowledges what has not come yet."""

    def outgoing(self, segment):
        segment.ack += 5000
        return [segment]


# How a host answers


class Answers(HostShim):
    """A host that changes its verdicts."""

    def tcp_offload_receive_indicate(self, offload_context, net_buffer_list, status):
        verdict, consumed = super().tcp_offload_receive_indicate(offload_context, net_buffer_list, status)
        return self.change(int(verdict), consumed)


@mutant("indicate.accepted", scenario="indications")
class AcceptsLessThanAll(Answers):
    def change(self, verdict, consumed):
        return verdict, consumed - 1 if verdict == ACCEPTED else consumed


@mutant("indicate.refused", scenario="indications")
class RefusesAndTakes(Answers):
    def change(self, verdict, consumed):
        return verdict, 10 if verdict == NOT_ACCEPTED else consumed


@mutant("indicate.partial", scenario="indications")
class TakesAPartOfNothing(Answers):
    def change(self, verdict, consumed):
        return verdict, 0 if verdict == PARTLY else consumed


@mutant("indicate.return-all", scenario="indications")
class KeepsOne(HostShim):
    kept = None

    def offload_tcp_receive_return(self, net_buffer_list):
        lists = list(iterate(net_buffer_list))
        if self.kept is None:
            self.kept = lists.pop(0)
        head = link(lists)
        return Status.SUCCESS if head is None else super().offload_tcp_receive_return(head)


# How a target takes lists back


@mutant("indicate.return.success", scenario="indications")
class ReturnsLater(TargetShim):
    def tcp_offload_receive_return(self, net_buffer_list):
        super().tcp_offload_receive_return(net_buffer_list)
        return Status.PENDING


@mutant("indicate.return.no-completion", scenario="indications")
class CompletesTheReturn(TargetShim):
    def tcp_offload_receive_return(self, net_buffer_list):
        status = super().tcp_offload_receive_return(net_buffer_list)
        self.handlers.tcp_offload_receive_complete(net_buffer_list)
        return status
