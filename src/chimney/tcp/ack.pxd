cdef long long _NEVER
cdef long long _MANY

cdef class AckPolicy:
    cdef public long long frequency
    cdef public long long delay
    cdef public long long owed
    cdef public long long pending
    cdef public long long deadline
    cpdef received(self, long long segments, long long now)
    cpdef advanced(self)
    cpdef at_once(self)
    cpdef duplicates(self, long long count)
    cpdef bint is_due(self, long long now) except -1
    cpdef bint is_owed(self) except -1
    cpdef sent(self)
