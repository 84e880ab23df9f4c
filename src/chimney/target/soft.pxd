cimport cython

from chimney.ndis.buffers cimport NetBufferList
from chimney.target.adapter cimport Adapter
from chimney.target.objects cimport TcpObject

cdef long _PENDING
cdef long _SUCCESS
cdef long _REQUEST_ABORTED
cdef int _INVALID_STATE_REASON
cdef int _GRACEFUL
cdef int _ABORTIVE

cdef class SoftTarget(Adapter):
    cdef dict _watched
    cdef set _kept_out
    cdef object _let_in

    @cython.locals(tcp=TcpObject)
    cpdef long tcp_offload_send(self, object offload_context, NetBufferList net_buffer_list) except -1
    @cython.locals(tcp=TcpObject)
    cpdef long tcp_offload_receive(self, object offload_context, NetBufferList net_buffer_list) except -1
    @cython.locals(tcp=TcpObject)
    cpdef long tcp_offload_disconnect(self, object offload_context, NetBufferList net_buffer_list, int flags) except -1
    @cython.locals(tcp=TcpObject, nbl=NetBufferList, following=NetBufferList)
    cpdef long tcp_offload_forward(self, object offload_context, NetBufferList net_buffer_list) except -1
    @cython.locals(nbl=NetBufferList, following=NetBufferList)
    cpdef long tcp_offload_receive_return(self, NetBufferList net_buffer_list) except -1
