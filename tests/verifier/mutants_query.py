"""Mutants of the rules about queries."""

from chimney.ndis.state import walk
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim


@mutant("query.async", scenario="queries")
class AnswersAtOnce(TargetShim):
    def query_offload(self, block_list):
        super().query_offload(block_list)
        self.inner.flush(self.inner.clock())


@mutant("query.async", scenario="queries")
class AnswersYesterday(TargetShim):
    """Not the current values."""

    def query_offload_state_complete(self, block_list):
        for block in walk(block_list):
            if hasattr(block.delegated, "snd_una"):
                block.delegated.snd_una -= 1000
        super().query_offload_state_complete(block_list)


@mutant("query.async", scenario="queries")
class AnswersHalf(TargetShim):
    """Not every variable."""

    def query_offload(self, block_list):
        self.before = [(block, getattr(block.cached, "ttl_or_hop_limit", 0)) for block in walk(block_list)]
        super().query_offload(block_list)

    def query_offload_state_complete(self, block_list):
        for block, before in self.before:
            if hasattr(block.cached, "ttl_or_hop_limit"):
                block.cached.ttl_or_hop_limit = before
        super().query_offload_state_complete(block_list)


@mutant("query.any-class", scenario="queries")
class NoConstants(TargetShim):
    def query_offload(self, block_list):
        if any(block.const is not None for block in walk(block_list)):
            raise ValueError("you have given me these yourself")
        super().query_offload(block_list)


@mutant("query.failure", scenario="hardware-failures")
class DoesNotMind(HostShim):
    def wants_back(self, end):
        return False
