cimport cython

cdef long long _NEVER
cdef long long _DELAYED_ACK_US
cdef long long _SLACK_US

cdef class TailProbe:
    cdef public long long deadline
    cdef public long long start
    cdef public long long end
    cdef public bint repeated
    cpdef arm(self, long long now, long long srtt, bint is_single, long long limit)
    cpdef sent(self, long long start, long long end, bint repeated)
    cpdef bint is_reported(self, long long start, long long end) except -1
    cpdef stop(self)
