cimport cython

from chimney.link.base cimport Frame, Link

cdef unsigned int _STATUS_KERNEL
cdef unsigned int _STATUS_USER
cdef unsigned int _STATUS_CSUM_NOT_READY
cdef unsigned int _STATUS_VLAN_VALID
cdef unsigned int _STATUS_CSUM_VALID
cdef unsigned int _NEEDS_CSUM
cdef unsigned int _DATA_VALID
cdef Py_ssize_t _WORD_LENGTH
cdef Py_ssize_t _WORD_KEPT
cdef Py_ssize_t _HALF_MAC
cdef Py_ssize_t _HALF_VLAN
cdef Py_ssize_t _VNET_HEADER
cdef int _GSO_NONE
cdef int _GSO_TCPV4
cdef int _GSO_TCPV6
cdef int _GSO_ECN
cdef int _FLAGS_AT
cdef int _CWR

cdef class PacketLink(Link):
    cdef object _socket
    cdef object _sendmsg
    cdef object _poll
    cdef object _map
    cdef object _ring
    cdef const unsigned char[::1] _octets
    cdef unsigned int[::1] _words
    cdef unsigned short[::1] _halves
    cdef long long[::1] _offsets
    cdef list _frames
    cdef bytearray _vnet
    cdef Py_ssize_t _head
    cdef Py_ssize_t _tail
    cdef Py_ssize_t _lent
    cdef bint _closed
    cdef public object precision
    cdef long long _kernel_drops
    cdef long long _too_large
    cdef long long _received_frames
    cdef long long _received_bytes
    cdef long long _sent_frames
    cdef long long _sent_bytes
    cdef long long _refused

    @cython.locals(words="unsigned int[::1]", offsets="long long[::1]", slots=Py_ssize_t, count=Py_ssize_t)
    cpdef long pending(self) except -1
    @cython.locals(
        frames=list, octets="const unsigned char[::1]", words="unsigned int[::1]", halves="unsigned short[::1]",
        offsets="long long[::1]", head=Py_ssize_t, slots=Py_ssize_t, taken=Py_ssize_t, slot=Py_ssize_t, word=Py_ssize_t,
        half=Py_ssize_t, start=Py_ssize_t, vnet=Py_ssize_t, length=Py_ssize_t, status="unsigned int",
        verified="unsigned int", frame=Frame
    )
    cpdef list receive(self, long limit)
    @cython.locals(words="unsigned int[::1]", offsets="long long[::1]", tail=Py_ssize_t)
    cpdef release(self)
    cdef _give_up(self)
    cdef _map_ring(self, long slots, long largest_frame)
    cdef _bind(self)
    cdef bytes _ioctl(self, long request)
    cdef _attach(self, object program)
    cdef _count_drops(self)
    cdef _check_device(self)
    cdef _failure(self, object error)
