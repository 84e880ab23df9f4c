cimport cython

from chimney.tcp.segment cimport Segment
from chimney.tcp.seq cimport lt

cdef class Undo:
    cdef public bint is_fast
    cdef bint _possible
    cdef bint _watches_echo
    cdef long long _stamp
    cdef long long _bytes
    cdef long long _start
    cdef long long _end
    cpdef expect(self, bint is_fast, bint timestamps)
    cpdef retransmitted(self, long long start, long long end, long long stamp)
    @cython.locals(echo="long long")
    cpdef bint is_proved_by_echo(self, Segment segment) except -1
    cpdef bint is_proved_by_duplicate(self, long long start, long long length) except -1
