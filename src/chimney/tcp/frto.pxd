cdef int _OFF
cdef int _REPEATED
cdef int _PREFERS_NEW
cdef int _WAITS

cdef class Frto:
    cdef public int step
    cpdef begin(self)
    cpdef stop(self)
    cpdef bint is_on(self) except -1
    cpdef advance(self)
    cpdef bint prefers_new(self) except -1
    cpdef sent_new(self)
    cpdef bint waits(self) except -1
