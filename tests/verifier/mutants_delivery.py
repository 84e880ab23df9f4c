"""Mutants of the delivery algorithm (delivery.*). Side 1 receives."""

from functools import partial

from chimney.intermediate import RECEIVE, PassThrough
from chimney.ndis.buffers import Mdl, NetBuffer, iterate, link, net_buffer_list
from chimney.ndis.status import Status
from tests.verifier.mutants_receive import Receives
from tests.verifier.mutation import mutant
from tests.verifier.shims import LinkShim, TargetShim

mutant = partial(mutant, side=1)

NOT_ACCEPTED = int(Status.OFFLOAD_DATA_NOT_ACCEPTED)
PSH = 0x08


class Indicates(TargetShim):
    """Knows what kind of upcall was made last (``last``), with which verdict, and which connection it was for."""

    last = ""
    handle_of = None

    def tcp_offload_receive_complete(self, net_buffer_list):
        super().tcp_offload_receive_complete(net_buffer_list)
        self.last = "completed"

    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        self.handle_of = ndis_offload_handle
        if self.swallows(net_buffer_list):
            return NOT_ACCEPTED, 0
        verdict = super().tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, status)
        self.last = "accepted" if verdict[0] == Status.SUCCESS else "refused"
        return verdict

    def swallows(self, net_buffer_list):
        """Whether to keep an indication from the host."""
        return False


@mutant("delivery.seg.indicate", scenario="indications-in-their-time")
class NeverIndicates(Indicates):
    def swallows(self, net_buffer_list):
        return True


@mutant("delivery.leftover.indicate", scenario="indications-in-their-time")
class KeepsWhatIsLeft(Indicates):
    """Waits with what a completion has left over."""

    def swallows(self, net_buffer_list):
        return self.last == "completed"


@mutant("delivery.indicated.accepted", scenario="indications-in-their-time")
class IndicatesOnce(Indicates):
    """Does not go on after an accepted indication."""

    def swallows(self, net_buffer_list):
        return self.last == "accepted"


@mutant("delivery.indicated.refused", scenario="indications-in-their-time")
class SkipsWhatWasRefused(Receives):
    """The buffer for refused bytes gets something else."""

    declined = False

    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        verdict = super().tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, status)
        self.declined = verdict[0] == NOT_ACCEPTED
        return verdict

    def change(self, lists):
        if self.declined:
            view = lists[0].first_net_buffer.mdl_chain.view
            view[:] = bytes(view[100:]) + bytes(view[:100])
        return lists


class IndicatesAgain(Indicates):
    """After a refusal: what was refused is indicated once more, when `again` says so."""

    declined = b""

    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        data = b"".join(net_buffer_list.first_net_buffer.views())
        verdict = super().tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, status)
        self.declined = data if self.last == "refused" else b""
        return verdict

    def poll(self, now, limit=64):
        done = super().poll(now, limit)
        if self.declined and self.last == "refused" and self.again():
            nbl = NetBuffer(Mdl(memoryview(self.declined)), 0, len(self.declined))
            self.declined = b""
            self.handlers.tcp_offload_receive_handler(self.handle_of, net_buffer_list(nbl.mdl_chain.view), 0)
        return done

    def again(self):
        return True


@mutant("delivery.seg.append", scenario="indications-in-their-time")
class IndicatesForNewData(IndicatesAgain):
    """A segment behind refused data brings about another indication."""

    def again(self):
        return any(tcp.delivery.buffered_bytes > len(self.declined) for tcp in self.inner.connections.values())


# Requests


@mutant("delivery.seg.place", scenario="requests-in-their-time")
class CompletesTheFirst(Receives):
    """Of the requests that a segment fills one is completed."""

    def change(self, lists):
        return lists[:1]


class HoldsPosts(TargetShim):
    """Passes requests on when `released` says so."""

    def __init__(self, inner):
        super().__init__(inner)
        self.posted = []

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        self.posted.append((offload_context, net_buffer_list))
        return Status.PENDING

    def poll(self, now, limit=64):
        if self.posted and self.released():
            posted, self.posted = self.posted, []
            for context, head in posted:
                super().tcp_offload_receive(context, head)
        return super().poll(now, limit)


@mutant("delivery.post", scenario="indications-in-their-time")
class WaitsForASegment(HoldsPosts):
    """A post alone does not start the algorithm."""

    seen = 0

    def released(self):
        seen, self.seen = self.seen, self.inner.frames_in
        return self.inner.frames_in > seen


@mutant("delivery.run-to-end", scenario="requests-in-their-time")
class StopsHalfWay(TargetShim):
    """Serves one request of a list that is posted; the others have to wait for the next call."""

    def __init__(self, inner):
        super().__init__(inner)
        self.others = []

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        first, *others = [*self.others, *iterate(net_buffer_list)]
        self.others = others
        return super().tcp_offload_receive(offload_context, link([first]))


@mutant("delivery.seg.partial", scenario="requests-in-their-time")
class TakesNothingForPushed(LinkShim):
    def incoming(self, segment):
        segment.flags &= ~PSH
        return [segment]


@mutant("delivery.timer", scenario="requests-in-their-time")
class ExpiresInVain(TargetShim):
    """When the timer expires, the first request is completed, whether there is anything in it or not."""

    def __init__(self, inner):
        super().__init__(inner)
        self.due = []

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        status = super().tcp_offload_receive(offload_context, net_buffer_list)
        self.due.append((self.inner.clock() + offload_context.delivery.push_us, offload_context))
        return status

    def poll(self, now, limit=64):
        done = super().poll(now, limit)
        while self.due and self.due[0][0] <= now:
            delivery = self.due.pop(0)[1].delivery
            if delivery.requests and not delivery.head_filled and not delivery.buffered_bytes:
                nbl = delivery.requests.popleft()
                nbl.status, nbl.tcp_offload_bytes_transferred = Status.SUCCESS, 0
                self.handlers.tcp_offload_receive_complete(nbl)
        return done


# Concurrency


@mutant("delivery.seg.busy", scenario="segments-within-upcalls")
class TakesSegmentsAtOnce(TargetShim):
    """A segment that is forwarded from within an upcall is delivered before that has returned."""

    nested = 0

    def tcp_offload_receive_complete(self, net_buffer_list):
        self.nested += 1
        super().tcp_offload_receive_complete(net_buffer_list)
        self.nested -= 1

    def tcp_offload_forward(self, offload_context, net_buffer_list_):
        if self.nested:
            data = b"".join(net_buffer_list_.first_net_buffer.views())[20:]
            self.handlers.tcp_offload_receive_handler(offload_context.handle, net_buffer_list(data), Status.SUCCESS)
        return super().tcp_offload_forward(offload_context, net_buffer_list_)


@mutant("delivery.combine", scenario="requests-in-their-time")
class FilledOnesOnly(PassThrough):
    """Expects that a partly filled request comes alone."""

    def on_completion(self, lower, operation, net_buffer_list):
        lists = list(iterate(net_buffer_list))
        if operation == RECEIVE and len(lists) > 1:
            lists = [nbl for nbl in lists if not nbl.data_length()]
        super().on_completion(lower, operation, link(lists))
