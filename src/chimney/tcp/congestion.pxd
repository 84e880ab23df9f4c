cimport cython

cdef long long _INITIAL_SEGMENTS
cdef long long _LEAST_SEGMENTS

cdef class CongestionControl:
    cdef public long long mss
    cdef public long long max_cwnd
    cdef public long long cwnd
    cdef public long long ssthresh
    cdef public bint reorders
    cdef long long _prior_cwnd
    cdef long long _prior_ssthresh
    cpdef bint in_slow_start(self) except -1
    cpdef on_ack(self, long long acked, bint limited, long long rtt, long long srtt, long long una, long long nxt, long long now)
    cpdef on_congestion(self, long long flight, long long now)
    cpdef end_recovery(self)
    cpdef on_timeout(self, long long flight, long long now, bint first)
    @cython.locals(restart="long long", halvings="long long")
    cpdef on_idle(self, long long idle, long long rto, long long now)
    cpdef on_unused(self, long long used)
    cpdef set_mss(self, long long mss)
    cpdef undo(self, long long now)
    cdef object _observe(self, long long rtt, long long una, long long nxt, long long now)
    @cython.locals(grown="long long")
    cdef long long _slow_start(self, long long acked) except -1
    cdef object _avoid(self, long long acked, long long srtt, long long now)
    cdef long long _reduced(self, long long flight) except -1
    cdef object _remember(self)
    cdef long long _least(self) except -1
    cdef object _clamp(self)
