cdef long long _NEVER
cdef long long _SUSPICION_US
cdef long long _DEFAULT_INTERVAL_US
cdef long long _DEFAULT_PROBES

cdef class Keepalive:
    cdef public long long timeout
    cdef public long long interval
    cdef public long long probes
    cdef public long long count
    cdef public bint suspicious
    cdef public bint is_due
    cdef public long long deadline
    cpdef heard(self, long long now)
    cpdef suspect(self, long long now)
    cpdef bint is_exhausted(self) except -1
    cpdef probed(self, long long now)
    cpdef postpone(self, long long now)
