cimport cython

cdef int _COMPACT
cdef int _MAX_PARTS
cdef object _NOTHING

cdef class SendQueue:
    cdef public long long start
    cdef public long long end
    cdef public long long gathered
    cdef public bint pushed
    cdef Py_ssize_t _first
    cdef list _starts
    cdef list _views
    cdef list _pushes
    cdef list _ends
    @cython.locals(length="Py_ssize_t")
    cpdef append(self, object view, bint push, bint record_end=*)
    @cython.locals(count="Py_ssize_t", first="Py_ssize_t")
    cpdef release(self, long long position)
    @cython.locals(index="Py_ssize_t", following="long long")
    cpdef bint ends_at(self, long long position) except -1
    @cython.locals(index="Py_ssize_t", count="Py_ssize_t", offset="long long", left="long long", size="long long", parts=list)
    cpdef list gather(self, long long position, long long length)
