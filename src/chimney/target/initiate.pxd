cimport cython

from chimney.target.frames cimport HeaderTemplate
from chimney.target.objects cimport NeighborObject, PathObject, TcpObject

cdef HeaderTemplate _NO_TEMPLATE

cpdef list initiate(object target, object root)
@cython.locals(outcomes=list)
cdef list _row(object target, object block, object parent, list new)
cdef object _visit(object target, object block, object parent, list new)
cdef object _combine(list outcomes)
cdef _abandon(object block)
cdef object _offload(object target, object block, object parent, list new)
@cython.locals(neighbor=NeighborObject)
cdef object _neighbor(object target, object block)
@cython.locals(path=PathObject)
cdef object _path(object target, object block, NeighborObject neighbor)
@cython.locals(tcp=TcpObject)
cdef object _connection(object target, object block, PathObject path)
