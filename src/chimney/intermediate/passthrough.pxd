from chimney.intermediate.base cimport IntermediateDriver

cdef class PassThrough(IntermediateDriver):
    pass
