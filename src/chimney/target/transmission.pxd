cimport cython

from chimney.link.base cimport Link
from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.driver cimport Miniport
from chimney.target.counters cimport Counters
from chimney.target.frames cimport HeaderTemplate
from chimney.target.objects cimport NeighborObject, TcpObject
from chimney.tcp.segment cimport Segment

cdef long _SUCCESS
cdef long _REQUEST_ABORTED
cdef int _FIN
cdef int _RST
cdef int _CHECKSUM_OFFSET
cdef int _ETHERNET_HEADER
cdef long long _RETRY_US
cdef long long _PATIENCE_US
cdef long long _TICKS

cdef class Refused:
    cdef public TcpObject tcp
    cdef public Segment segment

cdef class Transmission(Miniport):
    cdef public Link link
    cdef public object clock
    cdef public object config
    cdef public object operations
    cdef public long long frames_out
    cdef public long long link_errors
    cdef public long long now
    cdef public bint full
    cdef object _refused
    cdef long long _retry_at
    cdef list _waiting
    cdef list _deferred
    cdef long long _deferred_until
    cdef long long _stale_us

    cpdef configure(self, object config)
    cpdef touch(self, TcpObject tcp)
    @cython.locals(template=HeaderTemplate, length="long long", gso_size="long long", count="long long", tcp_header=bytes, headers=bytearray, reset_status=long)
    cpdef bint emit(self, TcpObject tcp, Segment segment) except -1
    @cython.locals(counters=Counters, again="long long")
    cdef _count(self, TcpObject tcp, long long datagrams, long long octets)
    @cython.locals(request=NetBufferList)
    cpdef complete_abort(self, TcpObject tcp, long status)
    cpdef list refused(self)
    cpdef refuse(self, TcpObject tcp, Segment segment)
    cpdef wait_for_link(self, TcpObject tcp)
    cpdef defer(self, object operation)
    @cython.locals(refused=Refused)
    cpdef Segment withdraw(self, TcpObject tcp)
    @cython.locals(waiting=Refused)
    cpdef send_refused(self)
    cpdef long long retry_at(self) except? -1
    cdef _plan_retry(self)
    @cython.locals(waiting=list, tcp=TcpObject)
    cdef _go_on(self)
    cdef _run_deferred(self)
    cdef _ask_whether_reachable(self, NeighborObject neighbor)
