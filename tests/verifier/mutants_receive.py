"""Mutants of the rules about receive requests (recv.*, rx.*). In most scenarios it is side 1 that receives."""

from dataclasses import replace
from functools import partial

from chimney.conformance.world import soft_target
from chimney.intermediate import RECEIVE, PassThrough
from chimney.ndis.buffers import Mdl, NetBuffer, advance_net_buffer_data_start, iterate, link, net_buffer_list
from chimney.ndis.capabilities import Oid, OidRequest
from chimney.ndis.state import TcpDelegated, walk
from chimney.ndis.status import Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim

mutant = partial(mutant, side=1)

PSH = 0x08


def move_start(nb, offset):
    """The data of a NetBuffer begins at ``offset`` of its MDLs from now on."""
    end = nb.data_offset + nb.data_length
    nb.data_offset, nb.data_length = 0, end
    nb.current_mdl, nb.current_mdl_offset = nb.mdl_chain, 0
    advance_net_buffer_data_start(nb, offset)


class Receives(TargetShim):
    """A target whose completed receives are given to `change` before they go up; it returns those that do."""

    def tcp_offload_receive_complete(self, net_buffer_list):
        head = link(self.change(list(iterate(net_buffer_list))))
        if head is not None:
            super().tcp_offload_receive_complete(head)

    def change(self, lists):
        return lists


class CompletesWithinCalls(TargetShim):
    """Delivers what there is from within the receive call, which is its right."""

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        status = super().tcp_offload_receive(offload_context, net_buffer_list)
        self.inner.flush(self.inner.clock())
        return status


def completing_within_calls(side):
    return CompletesWithinCalls(soft_target(side))


# The call


@mutant("recv.pending-only", scenario="transfer")
class ReturnsSuccess(TargetShim):
    def tcp_offload_receive(self, offload_context, net_buffer_list):
        super().tcp_offload_receive(offload_context, net_buffer_list)
        return Status.SUCCESS


@mutant("recv.one-nb", scenario="transfer")
class PostsTwoNetBuffers(HostShim):
    def offload_tcp_receive(self, handle, net_buffer_list):
        more = NetBuffer(Mdl(memoryview(bytearray(10))), 0, 10)
        net_buffer_list.first_net_buffer.next = more
        return super().offload_tcp_receive(handle, net_buffer_list)


@mutant("recv.prefilled", scenario="transfer")
class PrefillsPushRequests(HostShim):
    def offload_tcp_receive(self, handle, net_buffer_list):
        net_buffer_list.tcp_offload_bytes_transferred = 3
        return super().offload_tcp_receive(handle, net_buffer_list)


@mutant("recv.host.serialized", scenario="indications-in-their-time", target=completing_within_calls)
class PostsWithinAPost(HostShim):
    """Answers a completion with the next request, even from within a receive call."""

    answered = 0

    def tcp_offload_receive_complete(self, net_buffer_list):
        end = net_buffer_list.protocol_reserved.end
        super().tcp_offload_receive_complete(net_buffer_list)
        self.answered += 1
        if self.answered < 3:
            end.receive(10)


@mutant("recv.host.pipelined", scenario="requests-in-their-time")
class OneReceiveAtATime(Receives):
    waiting = 0

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        if self.waiting:
            raise RuntimeError("one receive at a time")
        self.waiting += len(list(iterate(net_buffer_list)))
        return super().tcp_offload_receive(offload_context, net_buffer_list)

    def change(self, lists):
        self.waiting -= len(lists)
        return lists


@mutant("recv.complete.reentrant-post", scenario="receive-from-completions")
class NoPostsFromWithin(Receives):
    completing = False

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        if self.completing:
            raise RuntimeError("completing")
        return super().tcp_offload_receive(offload_context, net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list):
        self.completing = True
        super().tcp_offload_receive_complete(net_buffer_list)
        self.completing = False


# Placement and modes


@mutant("recv.use-posted", scenario="requests-in-their-time")
class LooksTooLate(TargetShim):
    """Looks at posted requests half a second later only."""

    def __init__(self, inner):
        super().__init__(inner)
        self.posted = []

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        self.posted.append((self.inner.clock() + 500_000, offload_context, net_buffer_list))
        return Status.PENDING

    def poll(self, now, limit=64):
        while self.posted and self.posted[0][0] <= now:
            super().tcp_offload_receive(*self.posted.pop(0)[1:])
        return super().poll(now, limit)


class OneMode(TargetShim):
    """Takes every request for one of the same mode."""

    no_push = False

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        for nbl in iterate(net_buffer_list):
            nbl.tcp_receive_no_push = self.no_push
        return super().tcp_offload_receive(offload_context, net_buffer_list)


@mutant("recv.nopush.only-full", scenario="receive-non-push")
class AllArePush(OneMode):
    pass


@mutant("recv.modes", scenario="requests-in-their-time")
class NoneIsPush(OneMode):
    no_push = True


@mutant("recv.complete.filled", scenario="requests-in-their-time")
class TakesItsTime(Receives):
    """Completes filled requests three seconds later."""

    def __init__(self, inner):
        super().__init__(inner)
        self.kept = []

    def change(self, lists):
        self.kept += [(self.inner.clock() + 3_000_000, nbl) for nbl in lists]
        return []

    def poll(self, now, limit=64):
        done = super().poll(now, limit)
        while self.kept and self.kept[0][0] <= now:
            _, nbl = self.kept.pop(0)
            nbl.next = None
            self.handlers.tcp_offload_receive_complete(nbl)
        return done


@mutant("recv.push.complete-partial", scenario="requests-in-their-time")
class TakesAllForPushed(LinkShim):
    def incoming(self, segment):
        if segment.payload:
            segment.flags |= PSH
        return [segment]


class OtherParameters(TargetShim):
    """Takes over other parameters than it is told."""

    changes = {}

    def oid_request(self, request):
        if request.set and request.oid is Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS:
            request = OidRequest(request.oid, replace(request.information, **self.changes), set=True)
        return super().oid_request(request)


@mutant("recv.push.timer-start", scenario="requests-in-their-time")
class NeverStartsTheTimer(OtherParameters):
    changes = {"tcp_push_ticks": 1 << 30}


@mutant("recv.push.restart", scenario="requests-in-their-time")
class LeavesTheTimerAlone(TargetShim):
    """The push timer runs from the first byte."""

    began = None

    def poll(self, now, limit=64):
        done = super().poll(now, limit)
        for tcp in list(self.inner.connections.values()):
            delivery = tcp.delivery
            if not delivery.head_filled:
                self.began = None
            elif self.began is None:
                self.began = now
            elif now >= self.began + delivery.push_us:
                delivery.push_at = now
                delivery.on_timer(now)
        return done


@mutant("recv.zero-length", scenario="indications-in-their-time")
class NothingForNothing(TargetShim):
    """Completes requests of no bytes, and indicates nothing for them."""

    def __init__(self, inner):
        super().__init__(inner)
        self.empty = []

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        if net_buffer_list.data_length():
            return super().tcp_offload_receive(offload_context, net_buffer_list)
        self.empty.append(net_buffer_list)
        return Status.PENDING

    def poll(self, now, limit=64):
        for nbl in self.empty:
            nbl.status = Status.SUCCESS
            self.handlers.tcp_offload_receive_complete(nbl)
        self.empty.clear()
        return super().poll(now, limit)


# Order


@mutant("recv.queue.fifo", scenario="transfer")
class OneIsLate(Receives):
    """The first request comes back after the second."""

    kept = None
    done = False

    def change(self, lists):
        kept, self.kept = self.kept, None
        if not self.done:
            self.done, self.kept = True, lists[0]
            return lists[1:]
        return [*lists, kept] if kept is not None else lists


@mutant("recv.complete.fifo", scenario="requests-in-their-time")
class LastInFirstOut(Receives):
    """The requests of a completion stand in the wrong order."""

    def change(self, lists):
        return lists[::-1]


@mutant("recv.fill.fifo", scenario="transfer")
class LeavesAHole(Receives):
    """The first byte of each buffer stays free, and comes last."""

    def change(self, lists):
        for nbl in lists:
            count = nbl.tcp_offload_bytes_transferred
            view = nbl.first_net_buffer.mdl_chain.view
            view[:count] = bytes(view[count - 1 : count]) + bytes(view[: count - 1])
        return lists


@mutant("rx.order", scenario="indications")
class IndicatesBackwards(TargetShim):
    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list_, status):
        data = b"".join(net_buffer_list_.first_net_buffer.views())
        return super().tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list(data[::-1]), status)


# Completions


@mutant("recv.complete-all", scenario="transfer")
class LosesOne(Receives):
    lost = False

    def change(self, lists):
        lost, self.lost = self.lost, True
        return lists if lost else lists[1:]


@mutant("recv.complete.purpose", scenario="transfer")
class CompletesASend(TargetShim):
    def tcp_offload_receive_complete(self, net_buffer_list):
        self.handlers.tcp_offload_send_complete(net_buffer_list)


@mutant("recv.complete.origin", scenario="transfer")
class CompletesSomethingElse(Receives):
    def change(self, lists):
        return [*lists, net_buffer_list(bytearray(10))]


@mutant("recv.complete.handle", scenario="transfer", side=None)
class CompletesElsewhere(TargetShim):
    """Completes on the handle of the adapter that was made last."""

    adapters = []

    def initialize(self):
        super().initialize()
        self.adapters.append(self)

    def tcp_offload_receive_complete(self, net_buffer_list):
        self.adapters[-1].handlers.tcp_offload_receive_complete(net_buffer_list)


class WithinACompletion(TargetShim):
    """Does something for a request that is posted from within a completion."""

    completing = False

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        if self.completing:
            self.at_once(offload_context, net_buffer_list)
            return Status.PENDING
        return super().tcp_offload_receive(offload_context, net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list):
        self.completing = True
        super().tcp_offload_receive_complete(net_buffer_list)
        self.completing = False


@mutant("recv.complete.no-nesting", scenario="receive-from-completions")
class CompletesAtOnce(WithinACompletion):
    def at_once(self, offload_context, net_buffer_list):
        for nbl in iterate(net_buffer_list):
            nbl.status, nbl.tcp_offload_bytes_transferred = Status.SUCCESS, 0
        self.handlers.tcp_offload_receive_complete(net_buffer_list)


@mutant("recv.complete.serialized", scenario="receive-from-completions")
class IndicatesMeanwhile(WithinACompletion):
    def at_once(self, offload_context, net_buffer_list_):
        self.handlers.tcp_offload_receive_handler(offload_context.handle, net_buffer_list(b"data"), Status.SUCCESS)


class Sorts(PassThrough):
    """Knows which receives came down together; `accepts` says which of those of a list it passes up."""

    def __init__(self, name):
        super().__init__(name)
        self.together = {}

    def on_request(self, entry, operation, net_buffer_list, flags):
        if operation == RECEIVE:
            lists = list(iterate(net_buffer_list))
            self.together.update((nbl, lists) for nbl in lists)
        return super().on_request(entry, operation, net_buffer_list, flags)

    def on_completion(self, lower, operation, net_buffer_list):
        if operation == RECEIVE:
            net_buffer_list = link(self.accepts(list(iterate(net_buffer_list))))
        if net_buffer_list is not None:
            super().on_completion(lower, operation, net_buffer_list)


@mutant("recv.complete.batch", scenario="receive-from-completions")
class OneCallAtATime(Sorts):
    """Expects a completion to hold the requests of one call."""

    def accepts(self, lists):
        return [nbl for nbl in lists if self.together[nbl] is self.together[lists[0]]]


@mutant("recv.complete.split", scenario="transfer")
class WholeCallsOnly(Sorts):
    """Expects the requests of a call to come back together."""

    def accepts(self, lists):
        return [nbl for nbl in lists if all(other in lists for other in self.together[nbl])]


@mutant("recv.complete.prepare", scenario="transfer")
class LeavesTheStatus(Receives):
    def __init__(self, inner):
        super().__init__(inner)
        self.statuses = {}

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        self.statuses.update((nbl, nbl.status) for nbl in iterate(net_buffer_list))
        return super().tcp_offload_receive(offload_context, net_buffer_list)

    def change(self, lists):
        for nbl in lists:
            nbl.status = self.statuses[nbl]
        return lists


@mutant("recv.complete.bytes", scenario="transfer")
class OneByteLess(Receives):
    def change(self, lists):
        for nbl in lists:
            nbl.tcp_offload_bytes_transferred = max(0, nbl.tcp_offload_bytes_transferred - 1)
        return lists


@mutant("recv.complete.advance", scenario="transfer")
class LeavesTheStart(Receives):
    def change(self, lists):
        for nbl in lists:
            move_start(nbl.first_net_buffer, 0)
        return lists


# Statuses


class EndsWell(Receives):
    """Receives that should end with ``status`` end with success."""

    status = 0

    def change(self, lists):
        for nbl in lists:
            if nbl.status == self.status:
                nbl.status = Status.SUCCESS
        return lists


@mutant("recv.after-fin", scenario="requests-at-the-end")
class TakesRequestsAfterTheEnd(EndsWell):
    status = Status.INVALID_STATE


@mutant("recv.complete.aborted", scenario="reset-with-receives", side=None)
class ConcealsTheAbort(EndsWell):
    status = Status.REQUEST_ABORTED


@mutant("recv.complete.upload", scenario="partly-filled", side=None)
class ConcealsTheUpload(EndsWell):
    status = Status.UPLOAD_IN_PROGRESS


@mutant("recv.complete.success", scenario="hand-overs")
class TellsWhatWas(TargetShim):
    """RcvNxt is that of the initiate for ever."""

    def __init__(self, inner):
        super().__init__(inner)
        self.first = {}

    def initiate_offload(self, block_list):
        for block in walk(block_list):
            if isinstance(block.delegated, TcpDelegated):
                self.first[block.ndis_offload_handle] = block.delegated.rcv_nxt
        super().initiate_offload(block_list)

    def terminate_offload_complete(self, block_list):
        for block in walk(block_list):
            if isinstance(block.delegated, TcpDelegated):
                block.delegated.rcv_nxt = self.first[block.ndis_offload_handle]
        super().terminate_offload_complete(block_list)
