"""Mutants of state: variables that the wrong side changes, sizes and times that mean something else."""

from chimney.conformance.trees import empty_delegated, empty_tcp_cached
from chimney.ndis.state import TcpDelegated, walk
from chimney.ndis.status import OffloadStateType
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim


class _Answers(TargetShim):
    """Changes what is told about connections."""

    def tell(self, block):
        """``block`` is a connection's, in a query or terminate."""

    def _tell(self, block_list):
        for block in walk(block_list):
            if block.type >= OffloadStateType.TCP_CONST and not block.placeholder:
                self.tell(block)

    def query_offload_state_complete(self, block_list):
        self._tell(block_list)
        super().query_offload_state_complete(block_list)

    def terminate_offload_complete(self, block_list):
        self._tell(block_list)
        super().terminate_offload_complete(block_list)


@mutant("state.const.immutable", scenario="queries")
class AnotherPort(_Answers):
    def tell(self, block):
        if block.const is not None:
            block.const.local_port += 1


@mutant("state.cached.host-owned", scenario="queries")
class AnotherHopLimit(_Answers):
    def tell(self, block):
        if block.cached is not None:
            block.cached.ttl_or_hop_limit += 1


@mutant("state.delegated.target-owned", scenario="updates")
class UpdatesEverything(HostShim):
    def update_offload(self, tree):
        if tree.type == OffloadStateType.TCP_CACHED:
            tree.type, tree.delegated = OffloadStateType.TCP, empty_delegated()
        super().update_offload(tree)


@mutant("state.delegated.no-notify", scenario="transfer")
class TellsOfEveryChange(TargetShim):
    def tcp_offload_send(self, offload_context, net_buffer_list):
        status = super().tcp_offload_send(offload_context, net_buffer_list)
        self.tcp_offload_event_handler(offload_context.handle, 9, 0)
        return status


@mutant("state.terminate.delegated-only", scenario="hand-overs")
class ReturnsCachedVariables(TargetShim):
    def terminate_offload_complete(self, block_list):
        block_list.cached = empty_tcp_cached()
        super().terminate_offload_complete(block_list)


class _Sizes(_Answers):
    def tell(self, block):
        if isinstance(block.delegated, TcpDelegated):
            self.size(block.delegated)


@mutant("state.sendbacklog.unsupported", scenario="queries")
class NoSendBacklog(_Sizes):
    def size(self, delegated):
        delegated.send_backlog_size = 0


@mutant("state.rcvbacklog.unsupported", scenario="queries")
class ExaggeratesTheBacklog(_Sizes):
    def size(self, delegated):
        delegated.receive_backlog_size += 100_000


@mutant("state.backlog.query-only", scenario="hand-overs")
class SizesInATerminate(_Sizes):
    def size(self, delegated):
        delegated.send_backlog_size = 5


@mutant("state.rtt.scaled", scenario="a-long-way")
class PlainRoundTrips(_Sizes):
    def size(self, delegated):
        delegated.s_rtt //= 8


@mutant("state.host-posts-to-backlog", scenario="queries")
class KeepsItsBacklog(TargetShim):
    """It completes a request that could take everything, and leaves it empty."""

    asked = False

    def query_offload_state_complete(self, block_list):
        backlog = block_list.delegated.receive_backlog_size if isinstance(block_list.delegated, TcpDelegated) else 0
        self.asked = 0 < backlog < 0xFFFFFFFF
        super().query_offload_state_complete(block_list)

    def tcp_offload_receive_complete(self, net_buffer_list):
        if self.asked:
            net_buffer_list.tcp_offload_bytes_transferred = 0
        super().tcp_offload_receive_complete(net_buffer_list)
