"""Mutants of the rules about intermediate drivers (im.*)."""

from dataclasses import replace

from chimney.conformance.drivers import ShortDriver
from chimney.intermediate import IntermediateDriver, Multiplexer
from chimney.intermediate.edges import DISCONNECT, FORWARD, RECEIVE, SEND
from chimney.ndis.buffers import iterate, link, net_buffer_list
from chimney.ndis.library import MiniportHandle
from chimney.ndis.state import NeighborConst, TcpCached, walk
from chimney.ndis.status import Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim

SHORT = "a-driver-without-memory-for-sends"


class Recording(IntermediateDriver):
    """A driver with a record of every request."""

    def __init__(self, name):
        super().__init__(name, records=True)


# Without memory


@mutant("im.send.no-memory.first", scenario=SHORT)
class AsksForNothing(ShortDriver):
    def complete_up(self, upper, operation, net_buffer_list):
        if net_buffer_list.status == Status.REQUEST_UPLOAD:
            net_buffer_list.status = Status.UPLOAD_REQUESTED
        super().complete_up(upper, operation, net_buffer_list)


@mutant("im.send.no-memory.rest", scenario=SHORT)
class AsksEveryTime(ShortDriver):
    def complete_up(self, upper, operation, net_buffer_list):
        for nbl in iterate(net_buffer_list):
            if nbl.status == Status.UPLOAD_REQUESTED:
                nbl.status = Status.REQUEST_UPLOAD
        super().complete_up(upper, operation, net_buffer_list)


@mutant("im.send.no-memory.no-propagate", scenario=SHORT)
class PassesOneDown(ShortDriver):
    """It has room for the first list of each call."""

    def on_request(self, entry, operation, net_buffer_list, flags):
        rest = net_buffer_list.next
        if not self.short or operation != SEND or rest is None:
            return super().on_request(entry, operation, net_buffer_list, flags)
        net_buffer_list.next = None
        self.short = False
        super().on_request(entry, operation, net_buffer_list, flags)
        self.short = True
        return super().on_request(entry, operation, rest, flags)


@mutant("im.send.no-memory.host", scenario=SHORT)
class LeavesItAtThat(HostShim):
    """Does not take a connection back for the sake of a refused send."""

    def tcp_offload_send_complete(self, net_buffer_list):
        super().tcp_offload_send_complete(net_buffer_list)
        for end in self.side.ends:
            end.upload_reason = None


# Requests and completions


@mutant("im.io.same-function", scenario="transfer")
class ForwardsReceives(IntermediateDriver):
    def call_down(self, entry, operation, net_buffer_list, flags):
        return super().call_down(entry, FORWARD if operation == RECEIVE else operation, net_buffer_list, flags)

    def on_request(self, entry, operation, net_buffer_list, flags):
        return self.pass_down(entry, operation, net_buffer_list, flags)


@mutant("im.io.own-handle", scenario="transfer")
class LendsTheHandle(IntermediateDriver):
    """Passes sends down under the handle of the driver above."""

    def on_request(self, entry, operation, net_buffer_list, flags):
        if operation == SEND:
            return entry.lower.binding.offload_tcp_send(entry.upper_handle, net_buffer_list)
        return self.pass_down(entry, operation, net_buffer_list, flags)


@mutant("im.complete.same-function", scenario="transfer")
class SendsAsReceives(IntermediateDriver):
    def on_completion(self, lower, operation, net_buffer_list):
        self.complete(RECEIVE if operation == SEND else operation, net_buffer_list)


@mutant("im.complete.same-nbl", scenario="transfer")
class CompletesCopies(IntermediateDriver):
    """Completes receives with lists of its own."""

    def on_completion(self, lower, operation, net_buffer_list):
        if operation == RECEIVE:
            net_buffer_list = net_buffer_list_like(net_buffer_list)
        self.complete(operation, net_buffer_list)


def net_buffer_list_like(nbl):
    """Another list with the same bytes and figures."""
    copy = net_buffer_list(*nbl.first_net_buffer.views())
    copy.status = nbl.status
    copy.tcp_offload_bytes_transferred = nbl.tcp_offload_bytes_transferred
    copy.protocol_reserved = nbl.protocol_reserved
    return copy


@mutant("im.complete.free-entry", scenario="transfer")
class RemembersForEver(Recording):
    def complete(self, operation, net_buffer_list):
        super().complete(operation, net_buffer_list)
        self.data_entries += 1


@mutant("im.disconnect.propagate", scenario="graceful-close")
class SwallowsDisconnects(IntermediateDriver):
    def on_completion(self, lower, operation, net_buffer_list):
        if operation != DISCONNECT:
            self.complete(operation, net_buffer_list)


@mutant("im.forward-completion.same-nbl", scenario="many-forwards", side=1)
class LosesForwards(IntermediateDriver):
    """Passes the first of several forwards up, and forgets the others."""

    def on_completion(self, lower, operation, net_buffer_list):
        if operation == FORWARD:
            net_buffer_list.next = None
        self.complete(operation, net_buffer_list)


class OnlyAbove(MiniportHandle):
    """NDIS above an intermediate driver."""

    @property
    def above_a_driver(self):
        return self.miniport.level > 0


@mutant("im.disconnect.delivered", scenario="graceful-close", drivers=1)
class DeliversAnotherDisconnect(OnlyAbove):
    def tcp_offload_disconnect_complete(self, net_buffer_list):
        if not self.above_a_driver:
            return super().tcp_offload_disconnect_complete(net_buffer_list)
        return self.protocol.tcp_offload_disconnect_complete(net_buffer_list_like(net_buffer_list))


@mutant("im.forward-completion.delivered", scenario="many-forwards", drivers=1)
class DeliversForwardsBackwards(OnlyAbove):
    def tcp_offload_forward_complete(self, net_buffer_list):
        if self.above_a_driver:
            net_buffer_list = link(reversed(list(iterate(net_buffer_list))))
        super().tcp_offload_forward_complete(net_buffer_list)


@mutant("im.complete.host-gets-same", scenario="transfer", drivers=1)
class DeliversCopies(OnlyAbove):
    def tcp_offload_receive_complete(self, net_buffer_list):
        if not self.above_a_driver:
            return super().tcp_offload_receive_complete(net_buffer_list)
        return self.protocol.tcp_offload_receive_complete(net_buffer_list_like(net_buffer_list))


# Several interfaces


class WrongInterface(Multiplexer):
    """Passes completions of these kinds up by the interface that they have not come by."""

    wrong = ()

    def complete_up(self, upper, operation, net_buffer_list):
        if operation in self.wrong:
            upper = self.uppers[1 - upper.index]
        super().complete_up(upper, operation, net_buffer_list)


@mutant("im.complete.own-handle", scenario="two-hosts-over-a-team")
class SendsElsewhere(WrongInterface):
    wrong = (SEND,)


@mutant("im.disconnect.route", scenario="two-hosts-over-a-team")
class DisconnectsElsewhere(WrongInterface):
    wrong = (DISCONNECT,)


# Indications and events


@mutant("im.indicate.propagate", scenario="indications", side=1)
class NeverAccepts(IntermediateDriver):
    """Tells the driver below that data has been refused, whatever the one above says."""

    def on_indication(self, entry, net_buffer_list, status):
        self.indicate(entry, net_buffer_list, status)
        return Status.OFFLOAD_DATA_NOT_ACCEPTED, 0


@mutant("im.event.propagate", scenario="graceful-close")
class SwallowsEvents(IntermediateDriver):
    def on_event(self, entry, event_type, information):
        pass


# State operations


@mutant("im.state.propagate", scenario="transfer")
class ChangesTheWindow(IntermediateDriver):
    """Offloads connections with half the receive window that they have."""

    def prepare_initiate(self, entry, block):
        if isinstance(block.cached, TcpCached):
            block.cached = replace(block.cached, initial_rcv_wnd=block.cached.initial_rcv_wnd // 2)


@mutant("im.initiate.vlan", scenario="a-driver-that-sets-a-vlan")
class KnowsNoVlan(TargetShim):
    """Refuses to see the VLAN that a driver has put a neighbor into."""

    def initiate_offload(self, block_list):
        for block in walk(block_list):
            if isinstance(block.const, NeighborConst):
                block.const = replace(block.const, vlan_id=0)
        super().initiate_offload(block_list)


@mutant("im.state.save", scenario="transfer")
class SavesNothing(IntermediateDriver):
    """Leaves the word below as it was above."""

    def save(self, call, below):
        super().save(call, below)
        self.call = call
        below.im_reserved = call.im_reserved

    def on_state_completion(self, lower, operation, tree):
        tree.im_reserved = self.call
        super().on_state_completion(lower, operation, tree)


@mutant("im.state.restore", scenario="transfer", stack="pm")
class LeavesItsOwn(IntermediateDriver):
    """Leaves its own word in the tree that goes up."""

    def restore(self, call):
        super().restore(call)
        call.tree.im_reserved = self


@mutant("im.state.complete", scenario="queries")
class KeepsQueries(IntermediateDriver):
    """Does not pass a completed query up."""

    def on_state_completion(self, lower, operation, tree):
        if operation != "query":
            super().on_state_completion(lower, operation, tree)


# Capabilities


@mutant("im.cap.query", scenario="transfer")
class AnswersItself(IntermediateDriver):
    """Says that the parameters are set, and tells nobody below."""

    def on_oid_request(self, upper, request):
        return Status.SUCCESS


@mutant("im.cap.hw-change", scenario="hardware-changes-below-a-team")
class SaysNothing(Multiplexer):
    """Resumes on an adapter that can do less, and does not tell."""

    def _tell_capabilities(self):
        pass
