from chimney.host.edge cimport HostEdge
from chimney.host.requests cimport ReceiveRequest, Request, SendRequest
from chimney.ndis.buffers cimport NetBufferList

cdef class ChimneyPath:
    cdef public object connection
    cdef public HostEdge edge
    cdef public object record
    cdef public object initiated
    cdef public bint left_over
    cdef public bint terminating
    cdef public object terminated
    cdef public long long bytes_sent
    cdef public long long bytes_received
    cdef public long long unread_below
    cdef long long _first
    cdef public long long backlog
    cdef public long long outstanding
    cdef public bint peer_closed
    cdef public bint reset
    cdef public bint held
    cdef public long upload_reason
    cdef public bint lost
    cdef tuple _last_event
    cpdef post_send(self, SendRequest request)
    cpdef post_receive(self, ReceiveRequest request)
    cpdef NetBufferList _wrap(self, Request request)
    cpdef send_complete(self, SendRequest request, NetBufferList nbl)
    cpdef receive_complete(self, ReceiveRequest request, NetBufferList nbl)
    cpdef tuple receive_indicate(self, NetBufferList nbl)
    cpdef event(self, long event_type, long information)
