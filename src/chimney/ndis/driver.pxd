from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.handle cimport OffloadHandle
from chimney.ndis.library cimport Binding, MiniportHandle, TcpOffloadEventHandlers

cdef class Miniport:
    cdef object __weakref__
    cdef public str name
    cdef public MiniportHandle handle
    cdef public TcpOffloadEventHandlers handlers
    cdef public object driver
    cdef public int level
    cpdef initiate_offload(self, object block_list)
    cpdef terminate_offload(self, object block_list)
    cpdef update_offload(self, object block_list)
    cpdef invalidate_offload(self, object block_list)
    cpdef query_offload(self, object block_list)
    cpdef long tcp_offload_send(self, object offload_context, NetBufferList net_buffer_list) except -1
    cpdef long tcp_offload_receive(self, object offload_context, NetBufferList net_buffer_list) except -1
    cpdef long tcp_offload_disconnect(self, object offload_context, NetBufferList net_buffer_list, int flags) except -1
    cpdef long tcp_offload_forward(self, object offload_context, NetBufferList net_buffer_list) except -1
    cpdef long tcp_offload_receive_return(self, NetBufferList net_buffer_list) except -1

cdef class Protocol:
    cdef object __weakref__
    cdef public str name
    cdef public Binding binding
    cdef public object driver
    cpdef initiate_offload_complete(self, object block_list)
    cpdef terminate_offload_complete(self, object block_list)
    cpdef update_offload_complete(self, object block_list)
    cpdef invalidate_offload_complete(self, object block_list)
    cpdef query_offload_complete(self, object block_list)
    cpdef tcp_offload_send_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_receive_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_disconnect_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_forward_complete(self, NetBufferList net_buffer_list)
    cpdef tuple tcp_offload_receive_indicate(self, OffloadHandle offload_context, NetBufferList net_buffer_list, long status)
    cpdef tcp_offload_event(self, OffloadHandle offload_context, long event_type, long event_specific_information)
    cpdef indicate_offload_event(self, object block_list, long indication_code)
    cpdef status_ex(self, long status_code, object status_buffer)
    cpdef receive_net_buffer_lists(self, NetBufferList net_buffer_list)
