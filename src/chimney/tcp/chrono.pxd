cdef int _IDLE
cdef int _RWND_LIMITED
cdef int _SNDBUF_LIMITED

cdef class Chrono:
    cdef public int state
    cdef public long long since
    cdef long long _busy
    cdef long long _rwnd
    cdef long long _sndbuf
    cpdef enter(self, int state, long long now)
    cpdef long long busy(self, long long now) except -1
    cpdef long long rwnd_limited(self, long long now) except -1
    cpdef long long sndbuf_limited(self, long long now) except -1
