"""Mutants of what holds everywhere: ownership, waiting, balance, routing."""

from chimney.conformance.host import Host
from chimney.ndis.buffers import Mdl, NetBufferList, net_buffer_list
from chimney.ndis.errors import Misuse
from chimney.ndis.library import Binding
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim


@mutant("general.switch", scenario="hand-overs")
class SendsToTheWrongOne(HostShim):
    def terminate_offload_complete(self, block_list):
        super().terminate_offload_complete(block_list)
        try:
            self.offload_tcp_send(self.side.ends[0].handle, net_buffer_list(b"too late"))
        except Misuse:
            pass


@mutant("general.target.data-only", scenario="transfer")
class Connects(LinkShim):
    def outgoing(self, segment):
        segment.flags |= 0x02
        return [segment]


@mutant("general.context.dispatch-level", scenario="receive-modes", side=None)
class WaitsInAHandler(HostShim):
    def tcp_offload_receive_complete(self, net_buffer_list):
        super().tcp_offload_receive_complete(net_buffer_list)
        tree = self.side.ends[0].query_tree("delegated")
        self.query_offload_state(tree)
        while not self.took("query"):
            self.side.target.run_operations()


class _KeepsLists(Host):
    def return_lists(self, count=0):
        self.held.clear()


@mutant("general.unload.after-returns", scenario="indications", side=None, host=_KeepsLists)
class HaltsAtOnce(TargetShim):
    def halt(self):
        pass


@mutant("general.complete-exactly-once", scenario="transfer")
class CompletesTwice(TargetShim):
    def tcp_offload_send_complete(self, net_buffer_list):
        super().tcp_offload_send_complete(net_buffer_list)
        try:
            super().tcp_offload_send_complete(net_buffer_list)
        except Misuse:
            pass


@mutant("general.ownership.while-pending", scenario="transfer")
class WritesIntoItsRequest(HostShim):
    def offload_tcp_send(self, handle, net_buffer_list):
        status = super().offload_tcp_send(handle, net_buffer_list)
        buffer = net_buffer_list.first_net_buffer
        buffer.mdl_chain = Mdl(memoryview(bytes(buffer.data_length)))
        return status


@mutant("general.same-nbl", scenario="transfer")
class Copies(Binding):
    def offload_tcp_send(self, handle, net_buffer_list):
        return super().offload_tcp_send(handle, NetBufferList(net_buffer_list.first_net_buffer))
