cimport cython

from chimney.tcp.flight cimport Flight, Record
from chimney.tcp.rtt cimport RttEstimator
from chimney.tcp.seq cimport lt

cdef long long _NEVER
cdef long long _SLACK_US
cdef long long _MOST_STEPS
cdef long long _PERSISTENCE
cdef long long _LOOKS

cdef class Rack:
    cdef public RttEstimator estimator
    cdef public long long sent
    cdef public long long end
    cdef public long long rtt
    cdef public long long echo
    cdef public long long reorderings
    cdef public long long steps
    cdef public long long deadline
    cdef bint _advanced
    cdef long long _persist
    cdef long long _round_end
    @cython.locals(rtt="long long")
    cpdef delivered(self, Record record, long long end, bint in_order, long long now)
    cpdef long long window(self, bint in_recovery, bint many) except -1
    @cython.locals(wait="long long", looks="long long", record=Record, newer=Record, left="long long")
    cpdef detect(self, Flight flight, long long window, long long now)
    cpdef bint take_advance(self) except -1
    cpdef look_again(self)
    cpdef stop(self)
    cpdef on_duplicate(self, long long una, long long nxt)
    cpdef on_recovery_end(self)
    cdef object _end_round(self, long long una)
    cdef bint _is_older(self, Record record) except -1
    cdef bint _is_before(self, Record record) except -1
