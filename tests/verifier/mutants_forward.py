"""Mutants of forwards: segments that are none of the host's business, at the wrong time, and what becomes of them."""

from chimney.conformance.end import End
from chimney.conformance.wire import read_packet
from chimney.ndis.buffers import iterate, net_buffer_list
from chimney.ndis.errors import Misuse
from chimney.ndis.state import walk
from chimney.ndis.status import Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim

# Requests


@mutant("forward.when", scenario="transfer")
class HasATap(HostShim):
    """Forwards what the target has received as well."""

    seen = 0

    def attend(self):
        done = super().attend()
        world = self.side.world
        for at, name, frame in world.wire[self.seen :]:
            if world.clock() < at + world.network.delay_us:
                break
            self.seen += 1
            packet = read_packet(frame)
            [end] = self.side.ends
            if name != self.side.link.name and len(packet.payload) > 100 and end.offloaded:
                end.forward(packet.payload)
        return done


class _TooMuch(HostShim):
    def forward_something(self, tree):
        """Forward a segment of each connection of a tree."""
        for block in walk(tree):
            end = block.offload_handle.protocol_context if block.offload_handle is not None else None
            if isinstance(end, End):
                try:
                    end.forward(end.segment(0, b"early"))
                except Misuse:
                    continue


@mutant("forward.not-during-offload", scenario="hand-overs")
class DoesNotWaitForTheOffload(_TooMuch):
    def initiate_offload(self, tree):
        super().initiate_offload(tree)
        self.forward_something(tree)


@mutant("forward.not-during-terminate", scenario="hand-overs")
class ForwardsWhileItTerminates(_TooMuch):
    def terminate_offload(self, tree):
        super().terminate_offload(tree)
        self.forward_something(tree)


@mutant("forward.one-segment", scenario="many-forwards", side=1)
class WithAnIpHeader(HostShim):
    def offload_tcp_forward(self, handle, head):
        nbl = head
        while nbl is not None:
            data = b"".join(nbl.first_net_buffer.views())
            nbl.first_net_buffer = net_buffer_list(b"E" + bytes(19) + data).first_net_buffer
            nbl = nbl.next
        return super().offload_tcp_forward(handle, head)


@mutant("forward.queue", scenario="many-forwards", side=1)
class UsesTheMemoryAgain(HostShim):
    def offload_tcp_forward(self, handle, head):
        memory = bytearray(b"".join(head.first_net_buffer.views()))
        head.first_net_buffer = net_buffer_list(memory).first_net_buffer
        status = super().offload_tcp_forward(handle, head)
        memory[:] = bytes(len(memory))
        return status


@mutant("forward.pending-only", scenario="many-forwards", side=1)
class TakenAtOnce(TargetShim):
    def tcp_offload_forward(self, offload_context, net_buffer_list):
        super().tcp_offload_forward(offload_context, net_buffer_list)
        return Status.SUCCESS


# Completions


@mutant("forward.processed", scenario="acknowledged-after-all", side=1)
class DropsForwards(TargetShim):
    """Says that it has processed them."""

    def __init__(self, inner):
        super().__init__(inner)
        self.dropped = []

    def tcp_offload_forward(self, offload_context, net_buffer_list):
        self.dropped.append(net_buffer_list)
        return Status.PENDING

    def poll(self, now, limit=64):
        dropped, self.dropped = self.dropped, []
        for head in dropped:
            for nbl in iterate(head):
                nbl.status = Status.SUCCESS
            self.tcp_offload_forward_complete(head)
        return super().poll(now, limit) + len(dropped)


@mutant("forward.complete.status", scenario="many-forwards", side=1)
class UploadsNothing(TargetShim):
    def tcp_offload_forward_complete(self, net_buffer_list):
        net_buffer_list.status = Status.UPLOAD_IN_PROGRESS
        super().tcp_offload_forward_complete(net_buffer_list)


@mutant("forward.complete.host", scenario="forwards-that-come-back", side=1)
class ForgetsWhatComesBack(HostShim):
    def initiate_offload(self, tree):
        """What came back is forgotten; `End` has taken it into account."""
        for block in walk(tree):
            end = block.offload_handle.protocol_context if block.offload_handle is not None else None
            if isinstance(end, End) and self.took("forward"):
                block.delegated.rcv_nxt -= 600
        super().initiate_offload(tree)


@mutant("forward.complete.batch", scenario="many-forwards", side=1)
class OneCallAtATime(HostShim):
    def tcp_offload_forward_complete(self, head):
        calls = {id(nbl.protocol_reserved) for nbl in iterate(head)}
        assert len(calls) <= 3, "more than was forwarded in one call"
        super().tcp_offload_forward_complete(head)
