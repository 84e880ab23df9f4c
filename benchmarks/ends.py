"""The two ends of a stack that does nothing but pass requests: a target that completes at once, a host that takes it.

With ``ends.pxd`` beside it, it is compiled when the benchmark starts, so that the ends do not hide what lies between.
"""

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.driver import Miniport, Protocol
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.library import Binding
from chimney.ndis.state import walk

PENDING = 0x103


class Target(Miniport):
    """Takes every object, and completes every send within the call."""

    def initiate_offload(self, block_list):
        for block in walk(block_list):
            block.status = 0
            block.miniport_offload_context = self
        self.handle.initiate_offload_complete(block_list)

    def terminate_offload(self, block_list):
        pass

    def update_offload(self, block_list):
        pass

    def invalidate_offload(self, block_list):
        pass

    def query_offload(self, block_list):
        pass

    def tcp_offload_send(self, offload_context, net_buffer_list):
        self.handle.tcp_offload_send_complete(net_buffer_list)
        return PENDING

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        return PENDING

    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        return PENDING

    def tcp_offload_forward(self, offload_context, net_buffer_list):
        return PENDING

    def tcp_offload_receive_return(self, net_buffer_list):
        return 0


class Host(Protocol):
    """Counts what completes."""

    def __init__(self, name):
        super().__init__(name)
        self.completions = 0

    def initiate_offload_complete(self, block_list):
        pass

    def terminate_offload_complete(self, block_list):
        pass

    def update_offload_complete(self, block_list):
        pass

    def invalidate_offload_complete(self, block_list):
        pass

    def query_offload_complete(self, block_list):
        pass

    def tcp_offload_send_complete(self, net_buffer_list):
        self.completions += 1

    def tcp_offload_receive_complete(self, net_buffer_list):
        pass

    def tcp_offload_disconnect_complete(self, net_buffer_list):
        pass

    def tcp_offload_forward_complete(self, net_buffer_list):
        pass

    def tcp_offload_event(self, offload_context, event_type, event_specific_information):
        pass

    def tcp_offload_receive_indicate(self, offload_context, net_buffer_list, status):
        return 0, 0

    def indicate_offload_event(self, block_list, indication_code):
        pass

    def status_ex(self, status_code, status_buffer):
        pass


def drive(binding: Binding, handle: OffloadHandle, head: NetBufferList, count: int) -> None:
    """Send the list ``count`` times; it is back at once each time."""
    for _ in range(count):
        binding.offload_tcp_send(handle, head)
