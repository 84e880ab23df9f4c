"""Mutants of terminates: hosts that do not wait, and targets that bring back too little, too much, too early."""

from chimney.conformance.drivers import ShortDriver
from chimney.conformance.end import End
from chimney.ndis.buffers import iterate, link, net_buffer_list
from chimney.ndis.errors import Misuse
from chimney.ndis.handle import OFFLOADED
from chimney.ndis.state import TIMER_NOT_RUNNING, TcpDelegated, walk
from chimney.ndis.status import Status, TcpConnectionState, TcpOffloadEvent, UploadReason
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim


def ends_of(tree):
    """The connections of a host's tree."""
    handles = [block.offload_handle for block in walk(tree) if block.offload_handle is not None]
    return [handle.protocol_context for handle in handles if isinstance(handle.protocol_context, End)]


def connections(tree):
    """The blocks of the connections in a target's tree."""
    return [block for block in walk(tree) if isinstance(block.delegated, TcpDelegated)]


# The host


@mutant("terminate.host.control-drained", scenario="hand-overs")
class AsksWhileItTerminates(HostShim):
    def terminate_offload(self, tree):
        for end in ends_of(tree):
            self.query_offload_state(end.query_tree())
        super().terminate_offload(tree)


class NeverHasMemory(ShortDriver):
    def allocate(self, what):
        return not any(entry.handle.phase == OFFLOADED for entry in self.entries)


@mutant("terminate.host.calls-returned", scenario="transfer", drivers=[NeverHasMemory])
class TerminatesFromWithinACall(HostShim):
    def tcp_offload_send_complete(self, net_buffer_list):
        end = net_buffer_list.protocol_reserved.end
        refused = net_buffer_list.status == Status.REQUEST_UPLOAD
        super().tcp_offload_send_complete(net_buffer_list)
        if refused:
            self.terminate_offload(self.side.terminate_tree(end))


@mutant("terminate.host.no-new-io", scenario="hand-overs")
class SendsWhileItTerminates(HostShim):
    def terminate_offload(self, tree):
        super().terminate_offload(tree)
        for end in ends_of(tree):
            self.offload_tcp_send(end.handle, net_buffer_list(b"one more"))


@mutant("terminate.host.refcount", scenario="hand-overs")
class TakesThePathAway(HostShim):
    def terminate_offload(self, tree):
        for end in ends_of(tree):
            try:
                super().terminate_offload(end.terminate_tree(connection=False))
            except Misuse:
                continue
        super().terminate_offload(tree)


@mutant("terminate.buffered.return", scenario="undelivered-data", side=1)
class KeepsTheBuffers(HostShim):
    def offload_tcp_receive_return(self, net_buffer_list):
        """They are not returned."""


@mutant("terminate.segments.not-back", scenario="terminate-waits-for-the-link")
class ForwardsThemBack(HostShim):
    def receive_net_buffer_lists(self, net_buffer_list):
        super().receive_net_buffer_lists(net_buffer_list)
        for end in self.side.ends:
            end.to_forward += end.kept


# The call, and its completion


@mutant("terminate.host-only", scenario="hand-overs")
class CompletesTwice(TargetShim):
    def terminate_offload_complete(self, block_list):
        super().terminate_offload_complete(block_list)
        super().terminate_offload_complete(block_list)


@mutant("terminate.async", scenario="hand-overs")
class CompletesAtOnce(TargetShim):
    def terminate_offload(self, block_list):
        super().terminate_offload(block_list)
        self.flush(self.clock())


class _Completes(TargetShim):
    """Changes what comes back."""

    def terminate_offload_complete(self, block_list):
        for block in connections(block_list):
            self.change(block)
        super().terminate_offload_complete(block_list)


@mutant("terminate.free-after", scenario="hand-overs")
class FreesTooEarly(_Completes):
    def change(self, block):
        block.ndis_offload_handle.miniport_offload_context = None


@mutant("terminate.failure.meaning", scenario="hand-overs")
class FailsForNoReason(_Completes):
    def change(self, block):
        block.status = Status.FAILURE


@mutant("terminate.any-state", scenario="in-every-state")
class WantsAnOpenConnection(_Completes):
    def change(self, block):
        if block.delegated.state is not TcpConnectionState.ESTABLISHED:
            block.status = Status.FAILURE


@mutant("terminate.delegated", scenario="hand-overs")
class StaleState(_Completes):
    def change(self, block):
        block.delegated.rcv_nxt -= 1


@mutant("terminate.timer-deltas", scenario="timers-come-along")
class StopsTheTimer(_Completes):
    def change(self, block):
        block.delegated.retransmit.timeout_delta = TIMER_NOT_RUNNING


# What must be over


@mutant("terminate.complete.io-done", scenario="everything-outstanding")
class ReceivesLast(TargetShim):
    def __init__(self, inner):
        super().__init__(inner)
        self.kept = []

    def tcp_offload_receive_complete(self, net_buffer_list):
        if net_buffer_list.status == Status.UPLOAD_IN_PROGRESS:
            self.kept.append(net_buffer_list)
        else:
            super().tcp_offload_receive_complete(net_buffer_list)

    def terminate_offload_complete(self, block_list):
        super().terminate_offload_complete(block_list)
        for kept in self.kept:
            super().tcp_offload_receive_complete(kept)


@mutant("terminate.complete.indications-done", scenario="hand-overs")
class HasTheLastWord(TargetShim):
    def terminate_offload_complete(self, block_list):
        handles = [block.ndis_offload_handle for block in connections(block_list)]
        super().terminate_offload_complete(block_list)
        for handle in handles:
            self.tcp_offload_event_handler(handle, TcpOffloadEvent.INDICATE_RETRIEVE, UploadReason.LOW_ACTIVITY)


# Send data


@mutant("terminate.senddata.return", scenario="everything-outstanding")
class LosesTheChain(_Completes):
    def change(self, block):
        block.net_buffer_list_chain = block.delegated.send_data_head = block.delegated.send_data_tail = None


@mutant("terminate.senddata.chain", scenario="everything-outstanding")
class ReversesTheChain(_Completes):
    def change(self, block):
        lists = list(iterate(block.net_buffer_list_chain))[::-1]
        block.net_buffer_list_chain = link(lists)
        if lists:
            block.delegated.send_data_head, block.delegated.send_data_tail = lists[0], lists[-1]


@mutant("terminate.senddata.null", scenario="undelivered-data", side=1)
class AnEmptySend(_Completes):
    def change(self, block):
        block.delegated.send_data_head = block.delegated.send_data_tail = net_buffer_list(b"")


@mutant("terminate.senddata.seq", scenario="everything-outstanding")
class AnotherFirstByte(_Completes):
    def change(self, block):
        block.delegated.snd_una = block.delegated.snd_nxt


# Received data


@mutant("terminate.buffered", scenario="undelivered-data", side=1)
class DropsTheBuffered(_Completes):
    def change(self, block):
        block.delegated.buffered_data = None


@mutant("terminate.sack.drop", scenario="undelivered-data", side=1)
class BringsWhatIsBehindTheHole(_Completes):
    def change(self, block):
        if block.delegated.buffered_data is not None:
            block.delegated.buffered_data.next = net_buffer_list(b"behind a hole")


@mutant("terminate.flush-ack", scenario="partly-filled", side=1)
class AcknowledgesNothing(LinkShim):
    def outgoing(self, segment):
        return [segment] if segment.payload else []


# Meanwhile and afterwards


@mutant("terminate.stop-timers", scenario="hand-overs")
class SendsOnceMore(LinkShim):
    last = late = None

    def outgoing(self, segment):
        self.last = segment if segment.payload else self.last
        return [segment]

    def set_filter(self, flows):
        flows = list(flows)
        super().set_filter(flows)
        if not flows:
            self.late = self.last

    def receive(self, limit):
        if self.late is not None:
            self.emit(self.late)
            self.late = None
        return super().receive(limit)


@mutant("terminate.segments", scenario="segments-during-terminate", side=1)
class DropsThemMeanwhile(TargetShim):
    def indicate_receive_net_buffer_lists(self, net_buffer_list):
        """They are dropped."""
