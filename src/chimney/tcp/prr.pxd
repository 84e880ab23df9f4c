cimport cython

cdef class Prr:
    cdef public long long prior
    cdef public long long delivered
    cdef public long long out
    cpdef begin(self, long long cwnd)
    cpdef sent(self, long long count)
    @cython.locals(allowed="long long")
    cpdef long long cwnd(self, long long delivered, bint safe, long long in_flight, long long ssthresh, long long mss) except -1
