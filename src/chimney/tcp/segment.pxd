cimport cython

from chimney.tcp.options cimport Options, build_options, parse_options

cdef object _HEADER
cdef unsigned int _TIMESTAMP_LAYOUT
cdef int _MINIMUM
cdef int _FIN
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
    cpdef long long length(self) except -1
    @cython.locals(options=bytes, offset=int)
    cpdef bytes header_bytes(self, unsigned int source_port=*, unsigned int destination_port=*)
    cpdef long long header_length(self) except -1

@cython.locals(segment=Segment, size="Py_ssize_t")
cpdef Segment parse_segment(object view, long long segments=*)

@cython.locals(segment=Segment, length="Py_ssize_t")
cpdef Segment read_header(const unsigned char[::1] octets, Py_ssize_t start, Py_ssize_t end, long long segments)

@cython.locals(high="unsigned int")
cdef unsigned int _word(const unsigned char[::1] octets, Py_ssize_t at) noexcept

@cython.locals(options=Options)
cdef object _read_options(Segment segment, const unsigned char[::1] octets, Py_ssize_t at, Py_ssize_t length)
