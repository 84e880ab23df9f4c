"""Mutants of block lists: trees of the wrong shape, statuses that are missing, words that belong to others."""

from copy import copy

from chimney.conformance.handshake import MACS
from chimney.intermediate import PassThrough
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.library import Binding
from chimney.ndis.state import ProtocolOffloadBlockList as Block
from chimney.ndis.state import mirror, to_miniport_form, walk
from chimney.ndis.status import OffloadStateType, Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim


def connection(tree):
    """The last connection of a tree."""
    [*_, block] = (block for block in walk(tree) if block.type >= OffloadStateType.TCP_CONST)
    return block


@mutant("bl.next.same-layer", scenario="transfer")
class MixedRow(HostShim):
    def initiate_offload(self, tree):
        tree.next_block = Block(type=OffloadStateType.TCP)
        super().initiate_offload(tree)


@mutant("bl.dependent.next-layer", scenario="transfer")
class LeavesPathsOut(HostShim):
    def initiate_offload(self, tree):
        above = Block(type=OffloadStateType.TCP)
        tree.next_block = Block(type=OffloadStateType.NEIGHBOR, dependent_block_list=above)
        super().initiate_offload(tree)


@mutant("bl.tcp.leaf", scenario="transfer")
class DependsOnAConnection(HostShim):
    def initiate_offload(self, tree):
        connection(tree).dependent_block_list = Block(type=OffloadStateType.TCP)
        super().initiate_offload(tree)


@mutant("bl.type.matches-state", scenario="updates")
class WrongType(HostShim):
    def update_offload(self, tree):
        tree.type = OffloadStateType.TCP_CONST
        super().update_offload(tree)


@mutant("bl.linker.has-dependent", scenario="trees-of-connections")
class EmptyLinker(HostShim):
    def initiate_offload(self, tree):
        first = self.side.ends[0].neighbor_handle
        if first.miniport_offload_context is not None:
            tree.next_block = Block(type=OffloadStateType.NEIGHBOR, offload_handle=first)
        super().initiate_offload(tree)


@mutant("bl.new.has-state", scenario="transfer")
class ForgetsTheState(HostShim):
    def initiate_offload(self, tree):
        connection(tree).cached = None
        super().initiate_offload(tree)


@mutant("bl.port.default", scenario="transfer")
class NumbersPorts(HostShim):
    def initiate_offload(self, tree):
        tree.port_number = 1
        super().initiate_offload(tree)


@mutant("bl.status.every-node", scenario="trees-of-connections")
class ForgetsAStatus(TargetShim):
    def initiate_offload(self, block_list):
        self.unwritten = int(block_list.status)
        super().initiate_offload(block_list)

    def initiate_offload_complete(self, block_list):
        connection(block_list).status = self.unwritten
        super().initiate_offload_complete(block_list)


@mutant("bl.status.binary", scenario="queries")
class NamesAShortage(TargetShim):
    def query_offload_state_complete(self, block_list):
        block_list.status = Status.RESOURCES
        super().query_offload_state_complete(block_list)


@mutant("bl.same-pointer", scenario="updates")
class CompletesACopy(TargetShim):
    def update_offload_complete(self, block_list):
        super().update_offload_complete(copy(block_list))


@mutant("bl.lifetime", scenario="transfer")
class HoldsOn(TargetShim):
    def initiate_offload_complete(self, block_list):
        super().initiate_offload_complete(block_list)
        self.port = connection_of_miniport(block_list).const.local_port


def connection_of_miniport(block):
    """The first block without dependents, found by the links."""
    while block.dependent_block_list is not None:
        block = block.dependent_block_list
    return block


class _Scribbles(TargetShim):
    """Writes into words that are not its own."""

    word = ""

    def terminate_offload_complete(self, block_list):
        setattr(block_list, self.word, self)
        super().terminate_offload_complete(block_list)


@mutant("bl.reserved.protocol", scenario="hand-overs")
class TakesTheProtocolsWord(_Scribbles):
    word = "protocol_reserved"


@mutant("bl.reserved.im", scenario="hand-overs", drivers=1)
class TakesTheDriversWord(_Scribbles):
    word = "im_reserved"


@mutant("bl.source-handle.target", scenario="hand-overs")
class TakesTheSourceHandle(_Scribbles):
    word = "source_handle"


@mutant("bl.source-handle.client", scenario="transfer")
class SetsTheSourceHandle(PassThrough):
    def save(self, call, below):
        super().save(call, below)
        below.source_handle = self


@mutant("bl.scratch", scenario="pipelined-sends")
class ReliesOnScratch(TargetShim):
    """It takes what stands in Scratch for a count of its own."""

    def tcp_offload_send(self, offload_context, net_buffer_list):
        net_buffer_list.scratch = int(net_buffer_list.scratch or 0) + 1
        return super().tcp_offload_send(offload_context, net_buffer_list)


class _Placeholders(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in walk(block_list):
            if block.placeholder:
                self.change(block)
        super().initiate_offload_complete(block_list)


@mutant("bl.placeholder.meaning", scenario="trees-of-connections")
class MakesSomethingOfNothing(_Placeholders):
    def change(self, block):
        block.ndis_offload_handle = OffloadHandle(None)


@mutant("bl.placeholder.success", scenario="trees-of-connections")
class FailsAPlaceholder(_Placeholders):
    def change(self, block):
        block.status = Status.FAILURE


@mutant("bl.linker.meaning", scenario="a-second-next-hop")
class TheFirstNeighborForAll(LinkShim):
    def outgoing(self, segment):
        segment.destination = MACS[1]
        return [segment]


@mutant("bl.linker.status", scenario="partial-success")
class LinkersSucceed(TargetShim):
    def initiate_offload(self, block_list):
        self.linkers = [b for b in walk(block_list) if not b.placeholder and b.miniport_offload_context is not None]
        super().initiate_offload(block_list)

    def initiate_offload_complete(self, block_list):
        for block in self.linkers:
            block.status = Status.SUCCESS
        super().initiate_offload_complete(block_list)


@mutant("bl.new.meaning", scenario="partial-success")
class NeitherNor(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in walk(block_list):
            if block.status == Status.OFFLOAD_TCP_RCV_WINDOW:
                block.status = Status.PENDING
        super().initiate_offload_complete(block_list)


@mutant("bl.nbl-chain.null", scenario="transfer")
class FollowsThePointers(TargetShim):
    def initiate_offload(self, block_list):
        block = connection(block_list)
        if block.net_buffer_list_chain is None:
            block.net_buffer_list_chain = block.delegated.send_data_head
        super().initiate_offload(block_list)


@mutant("bl.ndis.convert", scenario="updates")
class LosesState(Binding):
    def update_offload(self, block_list):
        tree = mirror(block_list, to_miniport_form)
        tree.cached = None
        self.miniport.update_offload(tree)
