cimport cython

cdef class Block:
    cdef public long long start
    cdef public long long end
    cdef public object parts

cdef class Reassembly:
    cdef public Py_ssize_t max_blocks
    cdef public Py_ssize_t max_parts
    cdef public Py_ssize_t parts
    cdef public long long overlap_start
    cdef public long long overlap_end
    cdef list _blocks
    cdef list _starts
    cdef dict _by_growth
    cpdef bint is_empty(self) except -1
    cpdef clear(self)
    @cython.locals(end="long long", first="Py_ssize_t", last="Py_ssize_t", block=Block)
    cpdef long long insert(self, long long start, object data, bint push) except -2
    @cython.locals(new="long long", until="long long", index="Py_ssize_t", block=Block, following=Block)
    cdef long long _merge(self, Py_ssize_t first, Py_ssize_t last, long long start, long long end, object data, bint push) except -2
    @cython.locals(index="Py_ssize_t")
    cpdef bring_forward(self, long long position)
    cdef object _has_grown(self, Block block)
    @cython.locals(index="Py_ssize_t", block=Block)
    cdef object _note_overlap(self, Py_ssize_t first, Py_ssize_t last, long long start, long long end)
    @cython.locals(skip="long long", size="long long", count="Py_ssize_t", block=Block)
    cpdef long long pop(self, long long position, list received) except -1
    @cython.locals(start="long long", block=Block)
    cpdef cut(self, long long position)
    cpdef list ranges(self, Py_ssize_t count)
