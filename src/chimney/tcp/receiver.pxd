cimport cython

from chimney.tcp.reassembly cimport Reassembly
from chimney.tcp.segment cimport Segment
from chimney.tcp.seq cimport unwrap
from chimney.tcp.statistics cimport Statistics
from chimney.tcp.window cimport ReceiveWindow

cdef int _FIN
cdef int _PSH
cdef int _NOTHING_NEW
cdef int _IN_ORDER
cdef int _HOLE_FILLED
cdef int _OUT_OF_ORDER
cdef int _REFUSED
cdef Py_ssize_t _DUPLICATES

cdef class Receiver:
    cdef public Statistics statistics
    cdef public ReceiveWindow window
    cdef public Reassembly reassembly
    cdef public list received
    cdef public bint fin_received
    cdef public long long fin_at
    cdef public list duplicates
    cdef public long long acknowledged
    cdef bint _reports
    cdef Py_ssize_t _max_blocks
    cdef Py_ssize_t _max_parts
    cdef Py_ssize_t _before
    @cython.locals(window=ReceiveWindow)
    cpdef long long position(self, long long seq) except? -1
    @cython.locals(window=ReceiveWindow)
    cpdef bint is_acceptable(self, long long start, long long length) except -1
    cpdef bint is_in_window(self, long long start) except -1
    cpdef bint is_old(self, long long start, long long length) except -1
    @cython.locals(window=ReceiveWindow, end="long long", fin=bint, limit="long long")
    cpdef int accept(self, Segment segment, long long start) except -1
    cdef int _accept_parts(self, Segment segment, long long end) except -1
    @cython.locals(window=ReceiveWindow)
    cdef long long _limit(self, long long start, long long length) except -1
    cdef int _accept_fin(self, long long start, bint fin, long long length) except -1
    @cython.locals(window=ReceiveWindow, reached="long long", verdict=int, count="long long")
    cdef int _deliver(self, long long end) except -1
    @cython.locals(new="long long")
    @cython.locals(fit="long long")
    cdef int _keep(self, long long start, long long end, object data, bint push) except -1
    @cython.locals(window=ReceiveWindow)
    cpdef bint take_fin(self) except -1
    cpdef bint has_something_to_report(self) except -1
    @cython.locals(window=ReceiveWindow, start="long long", end="long long")
    cpdef list sack_blocks(self, Py_ssize_t count)
    cpdef note_old(self, long long start, long long length)
    @cython.locals(reassembly=Reassembly)
    cdef object _note_overlap(self)
    cdef object _note_duplicate(self, long long start, long long end)
