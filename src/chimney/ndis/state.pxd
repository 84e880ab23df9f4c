cimport cython

@cython.locals(found=list, rows=list)
cpdef list walk(object block)
cpdef object mirror(object block, object make)
cpdef object to_miniport_form(object block)
cpdef object complete_into_protocol_form(object root)
cpdef object copy_of(object structure)
