"""Mutants of the rules about invalidating."""

from chimney.ndis.state import walk
from chimney.ndis.status import Status, TcpOffloadEvent, UploadReason
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim


@mutant("invalidate.async", scenario="invalidated")
class InvalidatesAtOnce(TargetShim):
    def invalidate_offload(self, block_list):
        super().invalidate_offload(block_list)
        self.inner.flush(self.inner.clock())


@mutant("invalidate.async", scenario="invalidated")
class SendsState(HostShim):
    """State structures in the tree."""

    def invalidate_offload(self, tree):
        tree.cached = self.side.ends[0].cached
        super().invalidate_offload(tree)


@mutant("invalidate.stop-send", scenario="relink-of-an-invalid-neighbor")
class GoesOnSending(TargetShim):
    done = ()

    def invalidate_offload(self, block_list):
        self.done = [*self.done, block_list]

    def poll(self, now, limit=64):
        done, self.done = self.done, ()
        for tree in done:
            for block in walk(tree):
                block.status = Status.SUCCESS
            self.invalidate_offload_complete(tree)
        return super().poll(now, limit) + len(done)


@mutant("invalidate.request-upload", scenario="invalidated-and-left")
class AsksForNothing(TargetShim):
    def tcp_offload_event_handler(self, ndis_offload_handle, event_type, event_specific_information):
        retrieve = event_type == TcpOffloadEvent.INDICATE_RETRIEVE
        if not (retrieve and event_specific_information == UploadReason.INVALID_STATE):
            super().tcp_offload_event_handler(ndis_offload_handle, event_type, event_specific_information)


@mutant("invalidate.keep", scenario="invalidated-and-left")
class Forgets(TargetShim):
    gone = ()

    def invalidate_offload(self, block_list):
        super().invalidate_offload(block_list)
        paths = [block.miniport_offload_context for block in walk(block_list)]
        self.gone = [*paths, *(tcp for path in paths for tcp in getattr(path, "connections", ()))]

    def query_offload(self, block_list):
        self.look_for(block_list)
        super().query_offload(block_list)

    def terminate_offload(self, block_list):
        self.look_for(block_list)
        super().terminate_offload(block_list)

    def look_for(self, block_list):
        if any(block.miniport_offload_context in self.gone for block in walk(block_list)):
            raise KeyError("not found")
