cimport cython

from chimney.ndis.buffers cimport NetBufferList
from chimney.target.objects cimport TcpObject
from chimney.target.transmission cimport Transmission

cdef long _UPLOAD_IN_PROGRESS
cdef long _REQUEST_ABORTED
cdef long long _BACKLOG_LEAST
cdef long long _BACKLOG_MOST
cdef long long _BACKLOG_PAUSE_US

@cython.locals(events=list)
cpdef handle_events(Transmission target, TcpObject tcp)
cpdef peer_reset(Transmission target, TcpObject tcp)
cpdef request_upload(Transmission target, TcpObject tcp, object reason, bint engine_done)
cpdef refuse_requests(TcpObject tcp)
cpdef bint can_go_on(TcpObject tcp) except -1
cpdef accept_requests(TcpObject tcp)
cpdef may_suggest_upload(TcpObject tcp)
cpdef suggest_upload(Transmission target, TcpObject tcp, object reason)
cpdef hardware_failed(Transmission target, TcpObject tcp)
@cython.locals(waiting=list, nbl=NetBufferList)
cpdef complete_forwards(Transmission target, TcpObject tcp, long status)
cpdef long long preferred_backlog(TcpObject tcp) except -1
@cython.locals(backlog="long long")
cpdef consider_backlog(Transmission target, TcpObject tcp)
