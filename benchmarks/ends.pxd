cimport cython

from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.driver cimport Miniport, Protocol
from chimney.ndis.handle cimport OffloadHandle
from chimney.ndis.library cimport Binding

cdef long PENDING

cdef class Target(Miniport):
    cpdef long tcp_offload_send(self, object offload_context, NetBufferList net_buffer_list) except -1

cdef class Host(Protocol):
    cdef public long long completions
    cpdef tcp_offload_send_complete(self, NetBufferList net_buffer_list)

cpdef drive(Binding binding, OffloadHandle handle, NetBufferList head, long count)
