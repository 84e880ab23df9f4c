cimport cython

from chimney.tcp.congestion cimport CongestionControl

cdef double _C
cdef double _BETA
cdef double _ALPHA

cdef class Cubic(CongestionControl):
    cdef long long _epoch
    cdef double _w_max
    cdef double _k
    cdef double _w_est
    cdef double _w_prior
    cdef double _credit
    cdef double _prior_w_max
    @cython.locals(cwnd=double, elapsed=double, target=double, segments=double, grown=double, whole="long long")
    cdef object _avoid(self, long long acked, long long now, long long srtt)
    @cython.locals(cwnd=double, used="long long")
    cdef long long _reduced(self, long long flight) except -1
    cdef object _begin(self, double cwnd, long long now)
    @cython.locals(distance=double)
    cdef double _cubic(self, double elapsed) except? -1.0
