cdef class Counters:
    cdef public unsigned long long in_segments
    cdef public unsigned long long out_segments
    cdef public unsigned long long retransmitted_segments
    cdef public unsigned long long out_resets
    cdef public unsigned long long reset_established
    cdef public unsigned long long in_receives
    cdef public unsigned long long in_octets
    cdef public unsigned long long out_requests
    cdef public unsigned long long out_octets
    cdef public unsigned long long out_discards

    cpdef reset_tcp(self)
    cpdef reset_ip(self)
    cpdef arrived(self, unsigned long long datagrams, unsigned long long octets)
    cpdef left(self, unsigned long long datagrams, unsigned long long octets)
