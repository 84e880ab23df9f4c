cimport cython

cdef long long _TIMEOUTS
cdef long long _NO_LIMIT
cdef tuple _STEPS_IPV4
cdef tuple _STEPS_IPV6

cdef class BlackHole:
    cdef public bint enabled
    cdef public long long limit
    cdef tuple _steps
    cdef long long _next
    cdef long long _since
    cpdef long long mss(self, long long base) except -1
    @cython.locals(step="long long")
    cpdef bint on_timeout(self, long long length, long long mss, long long count) except -1
    cpdef bint on_acked(self, long long length) except -1
    cpdef bint reset(self) except -1
    cdef bint _give_up(self) except -1
