cdef long long _MIN_RTT_THRESH
cdef long long _MAX_RTT_THRESH
cdef long long _MIN_RTT_DIVISOR
cdef long long _N_RTT_SAMPLE
cdef long long _CSS_GROWTH_DIVISOR
cdef long long _CSS_ROUNDS
cdef long long _INFINITY
cdef long long _LOW_WINDOW
cdef long long _ACK_DELTA

cpdef long long tolerance(long long rtt) except -1

cdef class SlowStartExit:
    cdef public long long divisor
    cdef public bint initial_only
    cpdef bint on_ack(self, long long rtt, long long min_rtt, long long cwnd, long long mss, long long una, long long nxt, long long now) except -1
    cpdef reset(self)

cdef class HystartPlusPlus(SlowStartExit):
    cdef long long _window_end
    cdef long long _round_start
    cdef long long _last_round_min
    cdef long long _round_min
    cdef long long _recent_min
    cdef long long _samples
    cdef long long _css_baseline
    cdef long long _css_rounds
    cdef long long _full
    cdef long long _looked_full
    cpdef bint on_ack(self, long long rtt, long long min_rtt, long long cwnd, long long mss, long long una, long long nxt, long long now) except -1
    cpdef reset(self)
    cdef bint _round_ends(self, long long nxt, long long now) except -1
    cdef object _begin_css(self, long long baseline)
    cdef bint _delay_grows(self) except -1
    cdef bint _looks_full(self, long long min_rtt, long long now) except -1
    cdef object _resume_if_spurious(self)

cdef class Hystart(SlowStartExit):
    cdef bint _found
    cdef long long _window_end
    cdef long long _round_start
    cdef long long _last_ack
    cdef long long _round_min
    cdef long long _samples
    cpdef bint on_ack(self, long long rtt, long long min_rtt, long long cwnd, long long mss, long long una, long long nxt, long long now) except -1
    cpdef reset(self)
    cdef bint _train_is_long(self, long long min_rtt, long long now) except -1
