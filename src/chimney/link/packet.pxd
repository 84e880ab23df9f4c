cimport cython

from chimney.link.base cimport Frame, Link

cdef class PacketLink(Link):
    cdef object _socket
    cdef object _sendmsg
    cdef object _poll
    cdef object _map
    cdef object _ring
    cdef object _words
    cdef object _halves
    cdef list _offsets
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

    @cython.locals(
        offsets=list, head=Py_ssize_t, taken=Py_ssize_t, slot=Py_ssize_t, word=Py_ssize_t, half=Py_ssize_t,
        start=Py_ssize_t, vnet=Py_ssize_t, length=Py_ssize_t, status=long
    )
    cpdef long pending(self) except -1
    cpdef list receive(self, long limit)
    @cython.locals(offsets=list, tail=Py_ssize_t, slot=Py_ssize_t)
    cpdef release(self)
    cdef _give_up(self)
    cdef _map_ring(self, long slots, long largest_frame)
    cdef _bind(self)
    cdef bytes _ioctl(self, long request)
    cdef _attach(self, object program)
    cdef _count_drops(self)
    cdef _check_device(self)
    cdef _failure(self, object error)
