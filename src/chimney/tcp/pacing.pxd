cimport cython

cdef long long _NEVER
cdef long long _QUANTUM
cdef long long _SHORT
cdef long long _LEAST_SEGMENTS
cdef long long _UNPACED_SEGMENTS
cdef long long _SLOW_START_PERCENT
cdef long long _AVOIDANCE_PERCENT
cdef long long _MAX_RATE

cdef class Pacer:
    cdef public bint enabled
    cdef public long long mss
    cdef public long long rate
    cdef public long long deadline
    cdef long long _free_at
    cdef long long _srtt
    cdef long long _woken_at
    cdef long long _unpaced
    @cython.locals(percent="long long")
    cpdef update(self, long long cwnd, long long srtt, bint in_slow_start)
    cpdef bint is_held(self, long long now) except -1
    cpdef long long allowance(self, long long now) except -1
    @cython.locals(cost="long long")
    cpdef sent(self, long long count, long long now)
