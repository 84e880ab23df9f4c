cimport cython

from chimney.target.objects cimport TcpObject

cdef class Schedule:
    cdef list _heap
    cdef long long _order
    cdef long long _scheduled

    cpdef add(self, TcpObject tcp, long long deadline)
    cpdef forget(self, TcpObject tcp)
    @cython.locals(heap=list, deadline="long long", tcp=TcpObject)
    cpdef long long next_at(self) except? -1
    @cython.locals(tcp=TcpObject)
    cpdef TcpObject pop_due(self, long long now)
    cdef _push(self, TcpObject tcp)
    @cython.locals(scheduled=dict, tcp=TcpObject)
    cdef _tidy(self)
