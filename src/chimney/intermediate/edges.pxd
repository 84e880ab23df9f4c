cimport cython

from chimney.intermediate.base cimport IntermediateDriver
from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.driver cimport Miniport, Protocol
from chimney.ndis.handle cimport OffloadHandle

cdef int _SEND
cdef int _RECEIVE
cdef int _DISCONNECT
cdef int _FORWARD

cdef class OffloadEntry:
    cdef object __weakref__
    cdef public OffloadHandle upper_handle
    cdef public UpperEdge upper
    cdef public LowerEdge lower
    cdef public OffloadHandle handle
    cdef public object type
    cdef public object data
    cdef public long sends_below
    cdef public long receives_below
    cdef public int refusing
    cdef public list held
    cdef public list deferred

cdef class UpperEdge(Miniport):
    cdef public IntermediateDriver owner
    cdef public int index
    cdef public NetBufferList head
    cdef public NetBufferList tail
    @cython.locals(entry=OffloadEntry)
    cpdef long tcp_offload_send(self, object offload_context, NetBufferList net_buffer_list) except -1
    @cython.locals(entry=OffloadEntry)
    cpdef long tcp_offload_receive(self, object offload_context, NetBufferList net_buffer_list) except -1

cdef class LowerEdge(Protocol):
    cdef public IntermediateDriver owner
    cdef public int index
    cdef public NetBufferList head
    cdef public NetBufferList tail
    @cython.locals(entry=OffloadEntry)
    cpdef tuple tcp_offload_receive_indicate(self, OffloadHandle offload_context, NetBufferList net_buffer_list, long status)
    @cython.locals(entry=OffloadEntry)
    cpdef tcp_offload_event(self, OffloadHandle offload_context, long event_type, long event_specific_information)
