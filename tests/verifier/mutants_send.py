"""Mutants of the rules about sends (send.*)."""

from dataclasses import replace

from chimney.conformance.world import soft_target
from chimney.ndis.buffers import advance_net_buffer_data_start, iterate, link, net_buffer_list
from chimney.ndis.capabilities import Oid, OidRequest
from chimney.ndis.library import MiniportHandle
from chimney.ndis.status import Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim

PSH = 0x08


def net_buffers(nbl):
    """The NetBuffers of a list."""
    nb = nbl.first_net_buffer
    while nb is not None:
        yield nb
        nb = nb.next


def move_start(nb, offset):
    """The data of a NetBuffer begins at ``offset`` of its MDLs from now on."""
    end = nb.data_offset + nb.data_length
    nb.data_offset, nb.data_length = 0, end
    nb.current_mdl, nb.current_mdl_offset = nb.mdl_chain, 0
    advance_net_buffer_data_start(nb, offset)


class Sends(TargetShim):
    """A target whose completed sends are given to `change` before they go up; it returns those that do."""

    def tcp_offload_send_complete(self, net_buffer_list):
        head = link(self.change(list(iterate(net_buffer_list))))
        if head is not None:
            super().tcp_offload_send_complete(head)

    def change(self, lists):
        return lists


class CompletesWithinCalls(Sends):
    """Completes sends from within the next send call, which is its right (send.complete.any-level)."""

    def __init__(self, inner):
        super().__init__(inner)
        self.kept = []
        self.calls = 0

    def tcp_offload_send(self, offload_context, net_buffer_list):
        status = super().tcp_offload_send(offload_context, net_buffer_list)
        kept, self.kept = self.kept, []
        head = link(kept)
        if head is not None:
            self.handlers.tcp_offload_send_complete(head)
        return status

    def change(self, lists):
        self.kept += lists
        return []


def completing_within_calls(side):
    return CompletesWithinCalls(soft_target(side))


# The call


@mutant("send.pending-only", scenario="transfer")
class ReturnsSuccess(TargetShim):
    def tcp_offload_send(self, offload_context, net_buffer_list):
        super().tcp_offload_send(offload_context, net_buffer_list)
        return Status.SUCCESS


@mutant("send.accept-all", scenario="pipelined-sends")
class RefusesWhatIsTooMuch(TargetShim):
    """Its queue has an end."""

    calls = 0

    def tcp_offload_send(self, offload_context, net_buffer_list):
        self.calls += 1
        if self.calls <= 5:
            return super().tcp_offload_send(offload_context, net_buffer_list)
        for nbl in iterate(net_buffer_list):
            nbl.status = Status.RESOURCES
        self.tcp_offload_send_complete(net_buffer_list)
        return Status.PENDING


@mutant("send.host.pipelined", scenario="pipelined-sends")
class OneSendAtATime(TargetShim):
    sending = False

    def tcp_offload_send(self, offload_context, net_buffer_list):
        if self.sending:
            raise RuntimeError("one send at a time")
        self.sending = True
        return super().tcp_offload_send(offload_context, net_buffer_list)


@mutant("send.host.serialized", scenario="hand-overs", target=completing_within_calls)
class SendsWithinASend(HostShim):
    """Answers a completed send with the next one, even from within a send call."""

    answered = 0

    def tcp_offload_send_complete(self, net_buffer_list):
        [end] = {nbl.protocol_reserved.end for nbl in iterate(net_buffer_list)}
        super().tcp_offload_send_complete(net_buffer_list)
        self.answered += 1
        if self.answered < 5:
            end.send(b"the next one")


# The wire


@mutant("send.fifo", scenario="transfer")
class LastListFirst(TargetShim):
    """Queues the lists of one call in the wrong order."""

    def tcp_offload_send(self, offload_context, net_buffer_list):
        lists = list(iterate(net_buffer_list))
        return super().tcp_offload_send(offload_context, link(reversed(lists)))


@mutant("send.fifo.across-calls", scenario="pipelined-sends")
class SecondCallFirst(TargetShim):
    """Keeps a call back until the next has come."""

    kept = None

    def tcp_offload_send(self, offload_context, net_buffer_list):
        kept, self.kept = self.kept, None
        if kept is None:
            self.kept = net_buffer_list
        else:
            super().tcp_offload_send(offload_context, net_buffer_list)
            super().tcp_offload_send(offload_context, kept)
        return Status.PENDING


@mutant("send.multi-nb", scenario="transfer")
class LastNetBufferFirst(TargetShim):
    """Takes the NetBuffers of a list from its end."""

    def tcp_offload_send(self, offload_context, net_buffer_list):
        for nbl in iterate(net_buffer_list):
            buffers = list(net_buffers(nbl))
            for before, after in zip(buffers[1:], buffers, strict=False):
                before.next = after
            buffers[0].next = None
            nbl.first_net_buffer = buffers[-1]
        return super().tcp_offload_send(offload_context, net_buffer_list)


@mutant("send.psh", scenario="transfer")
class NeverPushes(LinkShim):
    def outgoing(self, segment):
        segment.flags &= ~PSH
        return [segment]


@mutant("send.sws", scenario="silly-windows")
class HoldsBackForLong(TargetShim):
    """Its SWS timer runs a hundred times as long as the host has set it."""

    def oid_request(self, request):
        if request.set and request.oid == Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS:
            ticks = request.information.tcp_sws_prevention_ticks
            information = replace(request.information, tcp_sws_prevention_ticks=100 * ticks)
            request = OidRequest(request.oid, information, set=True)
        return super().oid_request(request)


# Completions: what, where, with which figures


@mutant("send.complete.origin", scenario="transfer")
class CompletesItsOwn(Sends):
    """Completes a list that nobody has posted."""

    def change(self, lists):
        return [*lists, net_buffer_list(b"from nowhere")]


@mutant("send.complete.handle", scenario="transfer", side=None)
class CompletesElsewhere(Sends):
    """Completes on the handle of the adapter that was made last."""

    adapters = []

    def initialize(self):
        super().initialize()
        self.adapters.append(self)

    def tcp_offload_send_complete(self, net_buffer_list):
        self.adapters[-1].handlers.tcp_offload_send_complete(net_buffer_list)


@mutant("send.complete.void", scenario="transfer")
class ReturnsAStatus(MiniportHandle):
    def tcp_offload_send_complete(self, net_buffer_list):
        super().tcp_offload_send_complete(net_buffer_list)
        return Status.SUCCESS


@mutant("send.complete.any-level", scenario="hand-overs", target=completing_within_calls)
class NotWithinItsCalls(HostShim):
    """Does not tolerate that a send completes while it is calling."""

    calling = False

    def offload_tcp_send(self, handle, net_buffer_list):
        self.calling = True
        try:
            return super().offload_tcp_send(handle, net_buffer_list)
        finally:
            self.calling = False

    def tcp_offload_send_complete(self, net_buffer_list):
        if self.calling:
            raise RuntimeError("not now")
        super().tcp_offload_send_complete(net_buffer_list)


@mutant("send.complete.batch", scenario="pipelined-sends")
class OneCallAtATime(HostShim):
    """Does not tolerate a list that is not what it has posted in one call."""

    posted = ()

    def offload_tcp_send(self, handle, net_buffer_list):
        self.posted = (*self.posted, list(iterate(net_buffer_list)))
        return super().offload_tcp_send(handle, net_buffer_list)

    def tcp_offload_send_complete(self, net_buffer_list):
        if list(iterate(net_buffer_list)) not in self.posted:
            raise RuntimeError("which call is this?")
        super().tcp_offload_send_complete(net_buffer_list)


@mutant("send.complete.status-first", scenario="transfer")
class WritesNoStatus(Sends):
    def __init__(self, inner):
        super().__init__(inner)
        self.found = {}

    def tcp_offload_send(self, offload_context, net_buffer_list):
        self.found.update((nbl, nbl.status) for nbl in iterate(net_buffer_list))
        return super().tcp_offload_send(offload_context, net_buffer_list)

    def change(self, lists):
        for nbl in lists:
            nbl.status = self.found[nbl]
        return lists


@mutant("send.complete.success", scenario="transfer")
class SuccessWhenQueued(Sends):
    """Takes a send for done when it is queued."""

    def tcp_offload_send(self, offload_context, net_buffer_list):
        lists = list(iterate(net_buffer_list))
        views = [net_buffer_list_of(nbl) for nbl in lists]
        super().tcp_offload_send(offload_context, link(views))
        for nbl in lists:
            nbl.status = Status.SUCCESS
            nbl.tcp_offload_bytes_transferred = nbl.data_length()
            for nb in net_buffers(nbl):
                advance_net_buffer_data_start(nb, nb.data_length)
        self.handlers.tcp_offload_send_complete(link(lists))
        return Status.PENDING

    def change(self, lists):
        return []


def net_buffer_list_of(nbl):
    """Another list with the same bytes."""
    return net_buffer_list(*[view for nb in net_buffers(nbl) for view in nb.views()])


@mutant("send.complete.bytes", scenario="transfer")
class CountsOneLess(Sends):
    def change(self, lists):
        for nbl in lists:
            nbl.tcp_offload_bytes_transferred -= 1
        return lists


@mutant("send.complete.advance", scenario="transfer")
class AdvancesOneNetBuffer(Sends):
    """Moves the data start of the last NetBuffer alone, by all that there is."""

    def change(self, lists):
        for nbl in lists:
            buffers = list(net_buffers(nbl))
            for nb in buffers[:-1]:
                move_start(nb, 0)
        return lists


@mutant("send.complete.advance-delta", scenario="reset-by-the-peer")
class AdvancesToTheEnd(Sends):
    """Moves the data start behind what it has sent, acknowledged or not."""

    def change(self, lists):
        for nbl in lists:
            for nb in net_buffers(nbl):
                advance_net_buffer_data_start(nb, nb.data_length)
        return lists


@mutant("send.complete.keep-mdls", scenario="transfer")
class FreesMdls(Sends):
    def change(self, lists):
        for nbl in lists:
            for nb in net_buffers(nbl):
                nb.mdl_chain = nb.current_mdl
                while nb.mdl_chain is not None and nb.mdl_chain.next is not None:
                    nb.mdl_chain = nb.mdl_chain.next
                if nb.mdl_chain is nb.current_mdl:
                    nb.mdl_chain = None
        return lists


@mutant("send.complete.order", scenario="pipelined-sends")
class LastSendFirst(Sends):
    def change(self, lists):
        return lists[::-1]


# Failures


@mutant("send.complete.failure-meaning", scenario="transfer")
class FailsWhatIsDone(Sends):
    """Does not look whether all is acknowledged."""

    def change(self, lists):
        for nbl in lists:
            nbl.status = Status.UPLOAD_IN_PROGRESS
        return lists


class Failures(Sends):
    """`change_failed` gets the failed ones of a list."""

    def change(self, lists):
        self.change_failed([nbl for nbl in lists if nbl.status != Status.SUCCESS])
        return lists


@mutant("send.complete.fail-rest", scenario="abortive-close")
class LastOneSucceeds(Failures):
    def change_failed(self, lists):
        if len(lists) > 1:
            lists[-1].status = Status.SUCCESS


@mutant("send.complete.one-partial", scenario="abortive-close")
class TwoPartial(Failures):
    def change_failed(self, lists):
        for nbl in lists:
            nbl.tcp_offload_bytes_transferred = 1


@mutant("send.complete.partial-status", scenario="reset-by-the-peer")
class PartialSuccess(Failures):
    def change_failed(self, lists):
        for nbl in lists:
            nbl.status = Status.SUCCESS


@mutant("send.complete.upload", scenario="sends-behind-an-upload-request")
class AbortsUploadedSends(Failures):
    def change_failed(self, lists):
        for nbl in lists:
            nbl.status = Status.REQUEST_ABORTED


@mutant("send.complete.abort", scenario="reset-by-the-peer")
class UploadsAbortedSends(Failures):
    def change_failed(self, lists):
        for nbl in lists:
            nbl.status = Status.UPLOAD_IN_PROGRESS


# The host


@mutant("send.complete.upload-host", scenario="hand-overs")
class ForgetsWhatComesBack(HostShim):
    """Goes on behind the sends that an upload has left to it."""

    def terminate_offload_complete(self, block_list):
        super().terminate_offload_complete(block_list)
        for end in self.side.ends:
            end.unfinished = []


@mutant("send.complete.abort-host", scenario="reset-by-the-peer")
class TriesAgain(HostShim):
    """Posts a send anew that has been aborted."""

    def tcp_offload_send_complete(self, net_buffer_list):
        lists = list(iterate(net_buffer_list))
        super().tcp_offload_send_complete(net_buffer_list)
        for nbl in lists:
            if nbl.status == Status.REQUEST_ABORTED and nbl.data_length():
                self.offload_tcp_send(nbl.protocol_reserved.end.handle, nbl)
                return


@mutant("send.backlog.hint", scenario="backlog")
class PostsMuch(HostShim):
    """Posts everything that it has, whatever the target prefers."""

    def offload_tcp_send(self, handle, net_buffer_list):
        status = super().offload_tcp_send(handle, net_buffer_list)
        for _ in range(20):
            super().offload_tcp_send(handle, self.another(net_buffer_list))
        return status

    def another(self, posted):
        nbl = net_buffer_list_of(posted)
        nbl.protocol_reserved = posted.protocol_reserved
        return nbl
