cimport cython

cdef long long _WINDOW_US
cdef long long _UNKNOWN

cdef class RttEstimator:
    cdef public long long srtt
    cdef public long long rttvar
    cdef public long long min_rto
    cdef public long long max_rto
    cdef long long _least
    cdef long long _least_at
    cdef long long _next
    cdef long long _next_at
    @cython.locals(error="long long")
    cpdef sample(self, long long rtt)
    cpdef note_least(self, long long rtt, long long now)
    cpdef long long min_rtt(self) except -1
    cpdef long long rto(self) except -1
    cpdef long long backed_off(self, long long count) except -1
