cimport cython

from chimney.tcp.congestion cimport CongestionControl
from chimney.tcp.hystart cimport SlowStartExit, tolerance

cdef long long _UNSET
cdef double _C
cdef double _BETA
cdef double _ALPHA
cdef long long _CADENCE
cdef long long _TICK
cdef long long _SLOWEST
cdef long long _UNKNOWN_MAX
cdef long long _LEAST_PER_SEGMENT

cdef class Cubic(CongestionControl):
    cdef public SlowStartExit leaving
    cdef public long long min_rtt
    cdef long long _epoch
    cdef double _w_max
    cdef double _k
    cdef double _origin
    cdef double _w_est
    cdef double _w_prior
    cdef long long _acked
    cdef long long _credit
    cdef long long _per_segment
    cdef long long _most
    cdef long long _computed_at
    cdef long long _computed_for
    cdef long long _goal
    cdef long long _pace
    cdef long long _aimed_at
    cdef bint _queued
    cdef long long _prior_epoch
    cdef double _prior_w_max
    cdef double _prior_k
    cdef double _prior_origin
    cdef double _prior_w_est
    cdef double _prior_w_prior
    cpdef on_timeout(self, long long flight, long long now, bint first)
    cpdef on_idle(self, long long idle, long long rto, long long now)
    cpdef undo(self, long long now)
    cpdef set_mss(self, long long mss)
    @cython.locals(elapsed=double)
    cdef double _converted_k(self, double k, long long epoch, long long mss) except? -1.0
    cdef object _observe(self, long long rtt, long long una, long long nxt, long long now)
    cdef long long _slow_start(self, long long acked) except -1
    @cython.locals(whole="long long")
    cdef object _avoid(self, long long acked, long long srtt, long long now)
    @cython.locals(cwnd=double)
    cdef object _begin(self, long long now)
    @cython.locals(cwnd="long long", reno="long long", room="long long", per="long long")
    cdef object _compute(self, long long now)
    @cython.locals(window=double, room="long long")
    cdef object _aim(self, long long cwnd, long long now)
    @cython.locals(distance=double)
    cdef double _cubic(self, double elapsed) except? -1.0
    @cython.locals(segments="long long", cwnd=double)
    cdef long long _reduced(self, long long flight) except -1
    cdef object _remember(self)

cdef double _converted(double segments, long long before, long long mss) except? -1.0
