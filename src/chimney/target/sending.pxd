cimport cython

from chimney.ndis.buffers cimport NetBuffer, NetBufferList, advance_net_buffer_data_start
from chimney.ndis.library cimport MiniportHandle
from chimney.tcp.connection cimport Connection

cdef long _SUCCESS

cdef class SendEntry:
    cdef public NetBufferList nbl
    cdef public long long start
    cdef public long long end

cdef class Sending:
    cdef public Connection engine
    cdef public MiniportHandle upcalls
    cdef public object sends
    cdef public object disconnects
    cdef public long long end
    cdef public long long requests
    cdef public bint closed
    cdef public long refusal
    cdef public bint bounce

    @cython.locals(following=NetBufferList, nbl=NetBufferList)
    cpdef post(self, NetBufferList net_buffer_list)
    cpdef disconnect(self, NetBufferList net_buffer_list)
    @cython.locals(acked="long long", first=NetBufferList, last=NetBufferList, entry=SendEntry)
    cpdef complete(self)
    @cython.locals(sends=NetBufferList)
    cpdef fail(self, long status)
    @cython.locals(acked="long long", first=NetBufferList, last=NetBufferList, entry=SendEntry)
    cpdef NetBufferList take_unfinished(self, long status)
    @cython.locals(acked="long long", entry=SendEntry)
    cpdef fail_disconnects(self, long status)
    @cython.locals(length="long long", left="long long", views=list)
    cdef SendEntry _take(self, NetBufferList nbl)

@cython.locals(views=list, left="long long", nb=NetBuffer)
cdef list _views(NetBufferList nbl)

@cython.locals(nbl=NetBufferList, nb=NetBuffer, count="long long", delta="long long")
cdef _finish(SendEntry entry, long long acked, long status)
