cimport cython

from chimney.tcp.congestion cimport CongestionControl

cdef class CwndUsage:
    cdef public CongestionControl congestion
    cdef public bint restarts
    cdef public long long last_sent
    cdef bint _limited
    cdef long long _most
    cdef long long _window_end
    cdef long long _used
    cdef long long _full_at
    cpdef adopt(self, long long nxt, bint limited)
    @cython.locals(congestion=CongestionControl)
    cpdef bint is_limited(self) except -1
    cpdef acknowledged(self, long long now)
    @cython.locals(before="long long")
    cpdef bint starts(self, long long rto, long long now) except -1
    @cython.locals(flight="long long")
    cpdef sent(self, long long una, long long nxt, bint limited, long long rto, long long now)
