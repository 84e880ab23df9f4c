cdef class RateLimiter:
    cdef public long long limit
    cdef public long long interval
    cdef long long _since
    cdef long long _count
    cpdef bint allows(self, long long now) except -1
