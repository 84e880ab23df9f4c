from chimney.ndis.buffers cimport NetBufferList

cdef class Request:
    cdef object __weakref__
    cdef public object connection
    cdef public object view
    cdef public long long length
    cdef public object callback
    cdef public long long bytes_transferred
    cdef public object error
    cdef public bint done
    cdef public NetBufferList net_buffer_list
    cpdef complete(self, object error=*)
    cpdef object remaining(self)

cdef class SendRequest(Request):
    pass

cdef class ReceiveRequest(Request):
    cdef public bint push

cdef class ShutdownRequest(Request):
    pass
