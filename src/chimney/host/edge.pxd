from chimney.ndis.driver cimport Protocol

cdef class HostEdge(Protocol):
    cdef public object objects
    cdef public object upkeep
    cdef public object reachability
    cdef public dict takers
    cdef object _reader
    cdef dict _oids_under_way
    cdef public object on_status
