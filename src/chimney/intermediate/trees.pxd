cimport cython

from chimney.intermediate.base cimport IntermediateDriver
from chimney.intermediate.edges cimport LowerEdge, OffloadEntry, UpperEdge

cdef class CallEntry:
    cdef public UpperEdge upper
    cdef public str operation
    cdef public object tree
    cdef public object im_reserved
    cdef public object source_handle
    cdef public dict owners
    cdef public list created
    cdef public set misplaced
    cdef public list charged
    cdef public list pairs
    cdef public dict waiting

@cython.locals(call=CallEntry, entry=OffloadEntry, lower=LowerEdge, parts=list)
cpdef descend(IntermediateDriver driver, UpperEdge upper, str operation, object tree)
cpdef ascend(IntermediateDriver driver, LowerEdge lower, str operation, object root)
cpdef call_up(CallEntry call)
@cython.locals(lowers=list, parts=list, lower=LowerEdge, entry=OffloadEntry)
cdef list _prepare(IntermediateDriver driver, CallEntry call)
@cython.locals(entry=OffloadEntry, lower=LowerEdge)
cdef _assign(IntermediateDriver driver, CallEntry call, object block, OffloadEntry parent)
@cython.locals(entry=OffloadEntry, own=bint)
cdef object _mirror(IntermediateDriver driver, CallEntry call, object block, LowerEdge lower, bint prune)
cdef object _lower_form(object block, OffloadEntry entry)
@cython.locals(entry=OffloadEntry)
cdef _finish(IntermediateDriver driver, CallEntry call)
@cython.locals(entry=OffloadEntry)
cdef _settle_initiate(IntermediateDriver driver, CallEntry call)
@cython.locals(entry=OffloadEntry)
cdef _settle_terminate(IntermediateDriver driver, CallEntry call)
