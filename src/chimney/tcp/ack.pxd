cimport cython

cdef long long _NEVER
cdef long long _MANY
cdef long long _PAUSE_US

cdef class AckPolicy:
    cdef public long long frequency
    cdef public long long delay
    cdef public long long most_quick
    cdef public long long owed
    cdef public long long pending
    cdef public long long deadline
    cdef public long long quick
    cdef public bint pingpong
    cdef public long long heard_at
    cdef public bint in_trains
    @cython.locals(may_be_probe=bint)
    cpdef received(self, long long segments, long long now, long long rto)
    cpdef heard(self, long long now, long long rto)
    cdef bint _may_be_a_probe(self, long long now) except -1
    cpdef bint is_quick(self) except -1
    cpdef hurry(self)
    cpdef hurry_for(self, long long count)
    cpdef set_quick(self, bint enabled)
    cpdef advanced(self)
    cpdef at_once(self)
    cpdef duplicates(self, long long count)
    cpdef bint is_due(self, long long now) except -1
    cpdef bint is_owed(self) except -1
    cpdef expire(self, long long now)
    cpdef answered(self, long long now)
    cpdef sent(self)
