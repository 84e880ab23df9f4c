cimport cython

cdef long long _TIMEOUTS
cdef long long _NO_LIMIT
cdef long long _NEVER
cdef tuple _STEPS_IPV4
cdef tuple _STEPS_IPV6
cdef long long _TRIES
cdef long long _CLOSE_ENOUGH
cdef long long _AGAIN_US
cdef long long _LEAST_WINDOW

cdef class BlackHole:
    cdef public bint enabled
    cdef public long long options
    cdef public long long limit
    cdef public long long candidate
    cdef public long long probe_end
    cdef long long _base
    cdef tuple _steps
    cdef long long _next
    cdef long long _since
    cdef long long _low
    cdef long long _high
    cdef long long _tries
    cdef long long _again_at
    cpdef long long mss(self, long long base) except -1
    @cython.locals(step="long long")
    cpdef bint on_timeout(self, long long length, long long mss, long long count) except -1
    cdef bint _would_cut(self, long long length, long long mss) except -1
    @cython.locals(changed=bint)
    cpdef bint on_acked(self, long long length, long long una, long long now) except -1
    @cython.locals(needed="long long")
    cpdef bint is_due(self, long long mss, long long cwnd, long long in_flight, long long data, long long window) except -1
    @cython.locals(changed=bint)
    cpdef bint on_path_mtu(self, long long before, long long base, long long least) except -1
    @cython.locals(changed=bint)
    cpdef bint reset(self) except -1
    cdef object _limit_to(self, long long size)
    cdef object _found(self, long long size, long long now)
    cdef object _missed(self, long long now)
    cdef object _search(self, long long now)
