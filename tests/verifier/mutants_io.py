"""Mutants of the rules about the four completions (io.*)."""

from chimney.ndis.buffers import NetBuffer, iterate, link
from chimney.ndis.library import MiniportHandle
from tests.verifier.mutation import mutant
from tests.verifier.shims import TargetShim


@mutant("io.complete.functions", scenario="transfer")
class SendsAsReceives(TargetShim):
    """Completes sends by the function for receives."""

    def tcp_offload_send_complete(self, net_buffer_list):
        self.handlers.tcp_offload_receive_complete(net_buffer_list)


@mutant("io.complete.arguments", scenario="transfer")
class CompletesNothing(TargetShim):
    """Tells that all is done, without a list."""

    def tcp_offload_receive_complete(self, net_buffer_list):
        super().tcp_offload_receive_complete(net_buffer_list)
        self.handlers.tcp_offload_receive_complete(None)


@mutant("io.complete.nbl-shape", scenario="transfer")
class AddsANetBuffer(TargetShim):
    """Hands a receive request back with the bytes that it has had before in a NetBuffer of their own."""

    def tcp_offload_receive_complete(self, net_buffer_list):
        for nbl in iterate(net_buffer_list):
            first = nbl.first_net_buffer
            first.next = NetBuffer(first.mdl_chain, 0, 0)
        super().tcp_offload_receive_complete(net_buffer_list)


@mutant("io.complete.ndis-up", scenario="transfer")
class ForgetsTheHandler(MiniportHandle):
    """Takes a receive completion, and does not tell the driver above."""

    def tcp_offload_receive_complete(self, net_buffer_list):
        pass


@mutant("io.complete.ndis-args", scenario="pipelined-sends")
class TurnsListsRound(MiniportHandle):
    """Gives the driver above the last list as the first."""

    def tcp_offload_send_complete(self, net_buffer_list):
        super().tcp_offload_send_complete(link(reversed(list(iterate(net_buffer_list)))))
