from chimney.tcp.seq cimport lt

cdef long long _NONE

cdef class Undo:
    cdef public long long marker
    cdef public long long stamp
    cdef public long long count
    cdef public long long start
    cdef public long long end
    cpdef expect(self, long long una)
    cpdef forget(self)
    cpdef clear_stamp(self)
    cpdef repeated(self, long long start, long long end, long long stamp)
    cpdef duplicate(self, long long start, long long end)
    cpdef bint is_possible(self) except -1
    cpdef bint is_proved_by_duplicates(self) except -1
    cpdef bint is_proved_by_echo(self, long long echo) except -1
