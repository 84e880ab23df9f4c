cimport cython

from chimney.link.base cimport Frame
from chimney.target.frames cimport end_of_continuation
from chimney.target.objects cimport TcpObject
from chimney.tcp.segment cimport Segment

cdef int _PSH
cdef int _FLAGS_AT

cdef long long _SEQUENCES


cdef class Train:
    cdef public TcpObject tcp
    cdef public Segment segment
    cdef public list frames
    cdef public int headers
    cdef int _start
    cdef int _payload
    cdef long long _next
    cpdef begin(self, TcpObject tcp, Segment segment, Frame frame, int start, int end)
    @cython.locals(segment=Segment, first=Frame, end=int, length=int)
    cpdef bint take(self, Frame frame) except -1
    @cython.locals(segment=Segment, frame=Frame, fits=bint)
    cpdef close(self, long long room)
    cpdef clear(self)

cpdef long long wire_segments(long long length, long long gso_size) except -1
