"""Mutants of handles and contexts: names of objects that get mixed up on the way."""

from chimney.intermediate import PassThrough
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.library import Binding, MiniportHandle
from chimney.ndis.state import mirror, to_miniport_form, walk
from chimney.ndis.status import Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import TargetShim


@mutant("handle.context.write-on-success", scenario="transfer")
class NoContext(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in walk(block_list):
            block.miniport_offload_context = None
        super().initiate_offload_complete(block_list)


@mutant("handle.context.untouched-on-failure", scenario="partial-success")
class ContextOfAFailure(TargetShim):
    def initiate_offload_complete(self, block_list):
        for block in walk(block_list):
            if block.status not in (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS):
                block.miniport_offload_context = object()
        super().initiate_offload_complete(block_list)


@mutant("handle.context.lifetime", scenario="pipelined-sends")
class ChangesItsMind(TargetShim):
    def initiate_offload_complete(self, block_list):
        [*_, connection] = walk(block_list)
        self.renamed = connection.ndis_offload_handle
        super().initiate_offload_complete(block_list)

    def tcp_offload_send(self, offload_context, net_buffer_list):
        status = super().tcp_offload_send(offload_context, net_buffer_list)
        self.renamed.miniport_offload_context = object()
        return status


@mutant("handle.ndis.store-tcp-neighbor", scenario="a-silent-neighbor")
class AnotherNeighbor(TargetShim):
    def offload_event_indicate(self, block_list, indication_code):
        block_list.ndis_offload_handle = OffloadHandle(None)
        super().offload_event_indicate(block_list, indication_code)


@mutant("handle.indicate.stored", scenario="indications", side=None)
class AnotherConnection(TargetShim):
    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        handle = OffloadHandle(ndis_offload_handle.protocol_context)
        return super().tcp_offload_receive_handler(handle, net_buffer_list, status)


@mutant("handle.im.own-handle", scenario="transfer")
class PassesTheHandleOn(PassThrough):
    def __init__(self, name):
        super().__init__(name, records=True)

    def call_down(self, entry, operation, net_buffer_list, flags):
        return entry.lower.binding.offload_tcp_send(entry.upper_handle, net_buffer_list)


@mutant("handle.im.entry-lifetime", scenario="pipelined-sends")
class Forgets(PassThrough):
    requests = 0

    def on_request(self, entry, operation, net_buffer_list, flags):
        self.requests += 1
        if self.requests > 2:
            raise KeyError(entry)
        return super().on_request(entry, operation, net_buffer_list, flags)


@mutant("handle.im.context-up", scenario="transfer")
class ContextFromBelow(PassThrough):
    def publish(self, above, entry):
        above.miniport_offload_context = entry.handle.miniport_offload_context


@mutant("handle.ndis.extract-context", scenario="transfer")
class InventsAContext(Binding):
    def offload_tcp_send(self, handle, net_buffer_list):
        return self.miniport.tcp_offload_send(object(), net_buffer_list)


@mutant("handle.ndis.map-blocklist", scenario="transfer")
class InventsAHandle(Binding):
    def initiate_offload(self, block_list):
        tree = mirror(block_list, to_miniport_form)
        tree.ndis_offload_handle = OffloadHandle(None)
        self.miniport.initiate_offload(tree)


@mutant("handle.indicate.upper-context", scenario="indications")
class StraysUpward(MiniportHandle):
    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        handle = OffloadHandle(ndis_offload_handle.protocol_context)
        return self.protocol.tcp_offload_receive_indicate(handle, net_buffer_list, status)
