cimport cython

from chimney.tcp.options cimport Options, build_options, parse_options

cdef object _HEADER
cdef object _RECEIVED
cdef object _TIMESTAMP
cdef unsigned int _TIMESTAMP_LAYOUT
cdef int _MINIMUM
cdef object _NOTHING

cdef class Segment:
    cdef public unsigned int seq
    cdef public unsigned int ack
    cdef public int flags
    cdef public int window
    cdef public bint has_timestamp
    cdef public unsigned int ts_val
    cdef public unsigned int ts_ecr
    cdef public list sack_blocks
    cdef public object payload
    cdef public list payload_parts
    cdef public long long payload_length
    cdef public long long segments
    cdef public long long mss
    cdef public int ecn
    cdef public bint is_retransmission
    @cython.locals(options=bytes, offset=int)
    cpdef bytes header_bytes(self, unsigned int source_port=*, unsigned int destination_port=*)
    cpdef long long header_length(self) except -1

@cython.locals(segment=Segment, size="Py_ssize_t", length="Py_ssize_t", offset=int)
cpdef Segment parse_segment(object view, long long segments=*)

@cython.locals(options=Options, layout="unsigned int")
cdef object _read_options(Segment segment, object view, Py_ssize_t length)
