"""Mutants of the rules about updates."""

from chimney.ndis.state import TcpCached, mirror, walk
from chimney.ndis.status import Status, TcpCachedFlags
from chimney.target.events import refuse_requests
from chimney.target.objects import TcpObject
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim


@mutant("update.async", scenario="updates")
class UpdatesAtOnce(TargetShim):
    def update_offload(self, block_list):
        super().update_offload(block_list)
        self.inner.flush(self.inner.clock())


@mutant("update.cached-only", scenario="updates-change-nothing-else")
class UpdatesConstants(TargetShim):
    def update_offload_complete(self, block_list):
        for block in walk(block_list):
            if isinstance(block.miniport_offload_context, TcpObject):
                block.miniport_offload_context.const.remote_mss -= 100
        super().update_offload_complete(block_list)


@mutant("update.relink", scenario="relinked-elsewhere")
class StaysWhereItIs(TargetShim):
    done = ()

    def update_offload(self, block_list):
        if block_list.dependent_block_list is None:
            super().update_offload(block_list)
        else:
            self.done = [*self.done, block_list]

    def poll(self, now, limit=64):
        done, self.done = self.done, ()
        for tree in done:
            for block in walk(tree):
                block.status = Status.SUCCESS
            self.update_offload_complete(tree)
        return super().poll(now, limit) + len(done)


class WithoutFlag(TargetShim):
    """Does not see one of the flags."""

    flag = TcpCachedFlags(0)

    def update_offload(self, block_list):
        for block in walk(block_list):
            if isinstance(block.cached, TcpCached):
                block.cached.flags &= ~self.flag
        super().update_offload(block_list)


@mutant("update.rcv-window", scenario="updates-change-nothing-else")
class SameWindow(WithoutFlag):
    flag = TcpCachedFlags.UPDATE_RCV_WND


@mutant("update.max-rt", scenario="restarts")
class NoRestart(WithoutFlag):
    flag = TcpCachedFlags.MAX_RT_RESTART


@mutant("update.failure", scenario="an-update-fails-and-all-goes-on")
class GivesUp(TargetShim):
    def update_offload_complete(self, block_list):
        for block in walk(block_list):
            if block.status == Status.FAILURE:
                refuse_requests(block.miniport_offload_context)
        super().update_offload_complete(block_list)


@mutant("update.failure.host", scenario="failed-updates")
class LeavesItThere(HostShim):
    def wants_back(self, end):
        return end.upload_reason != "an operation failed" and super().wants_back(end)


@mutant("update.host.exclusive", scenario="updates")
class UpdatesTwice(HostShim):
    def update_offload(self, tree):
        super().update_offload(tree)
        super().update_offload(mirror(tree, copied))


def copied(block):
    return type(block)(type=block.type, cached=block.cached, offload_handle=block.offload_handle)
