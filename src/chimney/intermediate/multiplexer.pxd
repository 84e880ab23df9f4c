from chimney.intermediate.base cimport IntermediateDriver
from chimney.intermediate.edges cimport LowerEdge

cdef class Multiplexer(IntermediateDriver):
    cdef public object choice
    cdef public LowerEdge active
    cdef public bint paused
    cdef public object reported
    cdef public set _out
    cdef public set _leaving
    cdef public LowerEdge _next
    cdef public object _under_way
