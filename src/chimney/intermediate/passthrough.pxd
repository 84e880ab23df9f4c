from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.driver cimport Miniport, Protocol
from chimney.ndis.handle cimport OffloadHandle

cdef class OffloadEntry:
    cdef public OffloadHandle upper_handle
    cdef public OffloadHandle handle

cdef class CallEntry:
    cdef public object upper
    cdef public list pairs
    cdef public object im_reserved
    cdef public object source_handle

cdef class UpperEdge(Miniport):
    cdef public LowerEdge lower

cdef class LowerEdge(Protocol):
    cdef public UpperEdge upper

cdef class PassThrough:
    cdef public UpperEdge upper
    cdef public LowerEdge lower

cpdef OffloadHandle own_handle(OffloadEntry entry)
cpdef OffloadHandle upper_handle(OffloadHandle handle)
