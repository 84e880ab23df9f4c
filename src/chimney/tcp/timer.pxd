cdef long long _NEVER

cdef class RetransmitTimer:
    cdef public long long max_count
    cdef public long long max_total
    cdef public long long deadline
    cdef public long long started
    cdef public long long count
    cdef public long long backoff
    cdef public long long probe_count
    cdef public long long total
    cpdef start(self, long long now, long long delay)
    cpdef stop(self)
    cpdef bint is_running(self) except -1
    cpdef progress(self)
    cpdef bint expire(self, long long now) except -1
    cpdef bint expire_probe(self) except -1
