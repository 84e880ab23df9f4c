cimport cython

from chimney.link.base cimport Frame

cdef int _FIRST_ID
cdef int _LAST_ID
cdef int _CHECKSUM_AT
cdef int _TCP
cdef int _IPV4_HEADER
cdef int _IPV6_HEADER
cdef int _TCP_HEADER
cdef int _FRAGMENT
cdef int _VERSION_4_NO_OPTIONS
cdef int _ETHER_IPV4
cdef int _ETHER_IPV6
cdef int _ECN
cdef int _VERSION_6
cdef int _SEQUENCE_AT
cdef int _SEQUENCE_END
cdef int _FLAGS_AT
cdef int _WINDOW_AT
cdef int _URGENT_AT
cdef int _ACK
cdef int _PSH

cdef class HeaderTemplate:
    cdef public bint ipv6
    cdef public bytearray prefix
    cdef public int tcp_start
    cdef public unsigned int ip_sum
    cdef public unsigned int pseudo_sum
    cdef public int vlan
    cdef public int next_id

    @cython.locals(headers=bytearray, length=int, total=int, identification=int, checksum="unsigned int", pseudo="unsigned int", at=int)
    cpdef bytearray headers(self, bytes tcp_header, long long payload_length, long long segments, int ecn)

cdef class FrameReader:
    cdef public bint ipv6
    cdef public int start
    cdef public int end
    cdef public int ecn
    cdef public bint fragment

    @cython.locals(size="Py_ssize_t", ether_type=int, total=int, end=int, length=int)
    cpdef bint read(self, const unsigned char[::1] data) except -1
    cpdef bytes key(self, Frame frame)
    cpdef bint checksums_hold(self, object data) except -1

@cython.locals(at=int, end=int, here="unsigned int", same=bint)
cpdef int end_of_continuation(
    const unsigned char[::1] first, const unsigned char[::1] other, int tcp, int payload, unsigned int sequence
) except -1

@cython.locals(at=int)
cdef bint _agree(const unsigned char[::1] first, const unsigned char[::1] other, int start, int end) except -1
