cdef class OffloadHandle:
    cdef object __weakref__
    cdef public object protocol_context
    cdef public object miniport_offload_context
    cdef public int phase
