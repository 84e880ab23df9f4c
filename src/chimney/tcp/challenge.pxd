from chimney.tcp.ratelimit cimport RateLimiter

cdef class Challenges:
    cdef bint _reset_challenged
    cdef RateLimiter _syns
    cdef RateLimiter _others
    cpdef calm(self)
    cpdef bint reset(self) except -1
    cpdef bint syn(self, long long now) except -1
    cpdef bint other(self, long long now) except -1
