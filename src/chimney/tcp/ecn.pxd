from chimney.tcp.segment cimport Segment

cdef int _ACK
cdef int _ECE
cdef int _CWR
cdef int _NOT_ECT
cdef int _ECT_0
cdef int _CE

cdef class Ecn:
    cdef public bint enabled
    cdef public bint echoing
    cdef public long long received_ce
    cdef public long long delivered_ce
    cdef public bint seen
    cdef bint _cwr_due
    cdef long long _until
    cpdef bint received(self, Segment segment) except -1
    cpdef bint is_news(self, long long una, long long highest) except -1
    cpdef reacted(self)
    cpdef mark(self, Segment segment, bint is_new_data)
