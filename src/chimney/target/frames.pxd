cimport cython

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
cdef object _IPV4
cdef object _IPV6

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
    cdef public bytes key
    cdef public bint ipv6
    cdef public int start
    cdef public int end
    cdef public int ecn
    cdef public bint fragment
    cdef public bytes addresses

    @cython.locals(size="Py_ssize_t", ether_type=int, version=int, tos=int, total=int, fragment=int, protocol=int, end=int, word="unsigned int", length=int, next_header=int)
    cpdef bint read(self, object data) except -1
    cpdef bint checksums_hold(self, object data) except -1
