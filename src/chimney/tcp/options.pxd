cimport cython

cdef class Options:
    cdef public bint has_timestamp
    cdef public unsigned int ts_val
    cdef public unsigned int ts_ecr
    cdef public list sack_blocks

@cython.locals(at="Py_ssize_t", end="Py_ssize_t", length="Py_ssize_t", kind=int)
cpdef Options parse_options(bytes data)
cpdef bytes build_options(bint has_timestamp, unsigned int ts_val, unsigned int ts_ecr, list sack_blocks)
