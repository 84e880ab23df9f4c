from chimney.ndis.driver cimport Protocol

cdef class HostEdge(Protocol):
    cdef public object objects
    cdef public dict keepers
    cdef public object on_status
