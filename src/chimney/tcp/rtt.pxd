cimport cython

cdef class RttEstimator:
    cdef public long long srtt
    cdef public long long rttvar
    cdef public long long min_rto
    cdef public long long max_rto
    @cython.locals(error="long long")
    cpdef sample(self, long long rtt)
    cpdef long long rto(self) except -1
    cpdef long long backed_off(self, long long count) except -1
