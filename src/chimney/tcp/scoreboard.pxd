cimport cython

from chimney.tcp.seq cimport unwrap

cdef class Scoreboard:
    cdef public Py_ssize_t max_ranges
    cdef public long long total
    cdef public long long duplicate_reported
    cdef public long long duplicate_start
    cdef list _starts
    cdef list _ends
    cpdef clear(self)
    @cython.locals(before="long long", start="long long", end="long long", index="Py_ssize_t")
    cpdef long long update(self, list blocks, long long una_seq, long long una, long long limit) except -1
    @cython.locals(start="long long", end="long long")
    cpdef advance(self, long long una)
    cpdef long long first(self) except -2
    cpdef long long last(self) except -2
    cpdef long long highest(self) except -2
    @cython.locals(count="Py_ssize_t", index="Py_ssize_t", covered="long long", start="long long", end="long long")
    cpdef long long below(self, long long position) except -1
    @cython.locals(index="Py_ssize_t")
    cpdef long long hole_start(self, long long position) except -1
    @cython.locals(index="Py_ssize_t")
    cpdef long long hole_end(self, long long position, long long limit) except -1
    @cython.locals(enough="long long", covered="long long", ranges="Py_ssize_t", index="Py_ssize_t")
    cpdef long long lost_below(self, long long threshold, long long mss) except -2
    @cython.locals(first="Py_ssize_t", last="Py_ssize_t", index="Py_ssize_t")
    cdef object _add(self, long long start, long long end)

cdef bint _within(long long start, long long end, tuple block, long long una_seq, long long una)
