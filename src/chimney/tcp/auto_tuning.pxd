cimport cython

cdef long long _ROOM_SEGMENTS

cdef class AutoTuning:
    cdef public long long size
    cdef public long long limit
    cdef public long long rtt
    cdef public long long space
    cdef long long _mss
    cdef public long long longest
    cdef long long _taken
    cdef long long _since
    cpdef bint is_active(self) except -1
    cpdef bint is_full(self, long long length) except -1
    cpdef measured(self, long long rtt)
    @cython.locals(taken="long long", wanted="long long")
    cpdef long long taken(self, long long count, long long now) except -1
