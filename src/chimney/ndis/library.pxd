cimport cython

from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.driver cimport Miniport, Protocol
from chimney.ndis.handle cimport OffloadHandle

cdef class Binding:
    cdef public Protocol protocol
    cdef public Miniport miniport
    cdef public int level
    cdef public int below
    cdef public int above
    cdef public bint registered
    cdef public bint closed
    cdef public object hardware_capabilities
    cdef public object current_config
    cdef public object parameters
    cpdef long offload_tcp_send(self, OffloadHandle handle, NetBufferList net_buffer_list) except -1
    cpdef long offload_tcp_receive(self, OffloadHandle handle, NetBufferList net_buffer_list) except -1
    cpdef long offload_tcp_disconnect(self, OffloadHandle handle, NetBufferList net_buffer_list, int flags) except -1
    cpdef long offload_tcp_forward(self, OffloadHandle handle, NetBufferList net_buffer_list) except -1
    cpdef long offload_tcp_receive_return(self, NetBufferList net_buffer_list) except -1

cdef class TcpOffloadEventHandlers:
    cdef public Miniport miniport
    cdef public Protocol protocol
    cdef public Binding binding
    cdef public int below
    cdef public int above
    cpdef tcp_offload_send_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_receive_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_disconnect_complete(self, NetBufferList net_buffer_list)
    cpdef tcp_offload_forward_complete(self, NetBufferList net_buffer_list)
    cpdef tuple tcp_offload_receive_handler(self, OffloadHandle ndis_offload_handle, NetBufferList net_buffer_list, long status)
    cpdef tcp_offload_event_handler(self, OffloadHandle ndis_offload_handle, long event_type, long event_specific_information)

cdef class MiniportHandle(TcpOffloadEventHandlers):
    pass

cdef int _SEND
cdef int _RECEIVE
cdef int _DISCONNECT
cdef int _FORWARD
cdef int _INITIATING
cdef int _IDLE_LEVEL

cpdef object _context(OffloadHandle handle, str call)
@cython.locals(count=int)
cpdef int _claim(NetBufferList head, int below, int above, int operation) except -1
cpdef _set_level(NetBufferList head, int count, int level)
@cython.locals(count=int, mine=bint)
cpdef int _release(NetBufferList head, int below, int above, int operation) except -1
