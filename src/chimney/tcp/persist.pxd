cimport cython

from chimney.tcp.rtt cimport RttEstimator
from chimney.tcp.timer cimport RetransmitTimer

cdef class Persist:
    cdef public RetransmitTimer timer
    cdef public RttEstimator rtt
    cdef public bint as_linux
    cdef public bint is_on
    cdef public bint is_due
    cpdef start(self, long long now)
    @cython.locals(timer=RetransmitTimer)
    cpdef answered(self, long long now)
    @cython.locals(timer=RetransmitTimer, doublings="long long")
    cpdef bint expire(self, long long now) except -1
    @cython.locals(due=bint)
    cpdef bint take_probe(self) except -1
    cpdef stop(self)
