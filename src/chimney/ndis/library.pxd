from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.driver cimport Miniport, Protocol
from chimney.ndis.handle cimport OffloadHandle

cdef class Binding:
    cdef public Protocol protocol
    cdef public Miniport miniport
    cpdef long offload_tcp_send(self, OffloadHandle handle, NetBufferList net_buffer_list) except -1
    cpdef long offload_tcp_receive(self, OffloadHandle handle, NetBufferList net_buffer_list) except -1
    cpdef long offload_tcp_disconnect(self, OffloadHandle handle, NetBufferList net_buffer_list, int flags) except -1
    cpdef long offload_tcp_forward(self, OffloadHandle handle, NetBufferList net_buffer_list) except -1
    cpdef long offload_tcp_receive_return(self, NetBufferList net_buffer_list) except -1

cdef class MiniportHandle:
    cdef public Miniport miniport
    cdef public Protocol protocol
    cpdef tcp_offload_send_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_receive_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_disconnect_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_forward_complete(self, NetBufferList net_buffer_list)
    cpdef tuple tcp_offload_receive_handler(self, OffloadHandle ndis_offload_handle, NetBufferList net_buffer_list, long status)
    cpdef tcp_offload_event_handler(self, OffloadHandle ndis_offload_handle, long event_type, long event_specific_information)

cpdef object _context(OffloadHandle handle, str call)
