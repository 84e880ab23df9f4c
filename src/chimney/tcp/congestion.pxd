cimport cython

cdef long long _INITIAL_SEGMENTS

cdef class CongestionControl:
    cdef public long long mss
    cdef public long long max_cwnd
    cdef public long long cwnd
    cdef public long long ssthresh
    cdef long long _prior_cwnd
    cdef long long _prior_ssthresh
    @cython.locals(grown="long long")
    cpdef on_ack(self, long long acked, bint limited, long long now, long long srtt)
    cpdef on_loss(self, long long flight, long long now)
    cpdef on_timeout(self, long long flight, long long now, bint first)
    cpdef on_idle(self, long long idle)
    cpdef set_mss(self, long long mss)
    cpdef undo(self)
    cdef object _avoid(self, long long acked, long long now, long long srtt)
    cdef long long _reduced(self, long long flight) except -1
    cdef object _remember(self)
    cdef object _clamp(self)

cdef class Reno(CongestionControl):
    cdef long long _counted
