cimport cython

from chimney.tcp.seq cimport add

cdef long long _LARGEST_FIELD

cdef class ReceiveWindow:
    cdef public unsigned int base_seq
    cdef public long long nxt
    cdef public long long edge
    cdef public long long size
    cdef public int scale
    cdef public long long mss
    cdef public long long undelivered
    cdef public bint forced
    cpdef long long sequence(self, long long position) except -1
    cpdef long long available(self) except? -1
    cpdef consume(self, long long count)
    cpdef bint may_advance(self) except -1
    @cython.locals(room="long long")
    cpdef bint is_held_back(self) except -1
    @cython.locals(left="long long", step="long long")
    cpdef bint update_is_due(self) except -1
    @cython.locals(field="long long", edge="long long")
    cpdef long long advertise(self) except -1
    @cython.locals(left="long long", up="long long")
    cdef long long _field_up_to_edge(self) except -1
