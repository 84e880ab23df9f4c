cimport cython

from chimney.tcp.seq cimport diff

cdef long long _OUTDATED_US
cdef long long _ABSURD_US
cdef long long _TOLERANCE
cdef long long _LEAST_TICK_US

cdef class Timestamps:
    cdef public unsigned int clock
    cdef public long long started
    cdef public long long ticks_per_second
    cdef public unsigned int recent
    cdef public bint recent_known
    cdef public long long recent_at
    cdef long long _elapsed
    @cython.locals(elapsed="long long")
    cpdef long long value(self, long long now) except -1
    cpdef bint is_old(self, long long ts_val, long long now) except -1
    cpdef bint is_within(self, long long ts_val, long long span) except -1
    cpdef remember(self, long long ts_val, long long now)
    @cython.locals(ticks="long long", measured="long long")
    cpdef long long round_trip(self, long long ts_ecr, long long now) except -2
