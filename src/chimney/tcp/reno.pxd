from chimney.tcp.congestion cimport CongestionControl

cdef class Reno(CongestionControl):
    cdef long long _credit
    cdef object _avoid(self, long long acked, long long srtt, long long now)
    cdef long long _reduced(self, long long flight) except -1
