cimport cython

from chimney.link.base cimport Frame, Link
from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.driver cimport Miniport
from chimney.target.delivery cimport Delivery
from chimney.target.frames cimport FrameReader, HeaderTemplate
from chimney.target.objects cimport NeighborObject, TcpObject
from chimney.target.schedule cimport Schedule
from chimney.target.sending cimport Sending
from chimney.tcp.connection cimport Connection
from chimney.tcp.segment cimport Segment, parse_segment

cdef long _SUCCESS
cdef long _UPLOAD_IN_PROGRESS
cdef long _REQUEST_ABORTED
cdef long _INDICATE_RETRIEVE
cdef long _INDICATE_ABORT
cdef int _RESET
cdef int _TIME_WAIT_ENTERED
cdef int _RECEIVED_URGENT_DATA
cdef int _UPLOAD_REQUESTED
cdef dict _UPLOAD_REASONS
cdef int _TIME_WAIT
cdef int _RST
cdef int _SYN
cdef int _CHECKSUM_OFFSET
cdef int _VLAN_ID
cdef int _GROUP_BIT
cdef long long _RETRY_US

cdef class Refused:
    cdef public TcpObject tcp
    cdef public Segment segment

cdef class Datapath(Miniport):
    cdef public Link link
    cdef public object clock
    cdef public object config
    cdef public dict connections
    cdef public set lent
    cdef public object operations
    cdef public long long frames_in
    cdef public long long frames_out
    cdef public long long frames_passed_up
    cdef public long long frame_errors
    cdef public long long frames_dropped
    cdef public long long link_errors
    cdef public long long now
    cdef public bint busy
    cdef public Schedule schedule
    cdef FrameReader _reader
    cdef object _active
    cdef Refused _refused
    cdef long long _retry_at
    cdef list _waiting
    cdef long long _emissions_per_turn
    cdef long long _emissions_per_poll
    cdef long long _stale_us

    cpdef long long poll(self, long long now, long long limit=*) except -1
    cpdef long long flush(self, long long now) except -1
    cpdef long long poll_at(self) except? -1
    cpdef long long run_operations(self) except -1
    cpdef touch(self, TcpObject tcp)
    @cython.locals(frames=list, frame=Frame)
    cdef long long _receive(self, long long limit) except -1
    @cython.locals(reader=FrameReader, tcp=TcpObject, neighbor=NeighborObject, start=int, segments="long long", payload="long long")
    cdef _frame(self, Frame frame)
    @cython.locals(segment=Segment, engine=Connection)
    cdef bint _segment(self, TcpObject tcp, object view, long long segments) except -1
    @cython.locals(engine=Connection, delivery=Delivery, received=list)
    cdef _deliver(self, TcpObject tcp)
    cdef _keep_for_host(self, TcpObject tcp, object data)
    cpdef indicate_frame(self, object data)
    @cython.locals(tcp=TcpObject, done="long long")
    cdef long long _expire(self) except -1
    @cython.locals(tcp=TcpObject, done="long long", share="long long")
    cdef long long _serve(self) except -1
    @cython.locals(delivery=Delivery, sent="long long")
    cdef long long _turn(self, TcpObject tcp) except -1
    @cython.locals(sending=Sending, acked="long long")
    cdef _complete_sends(self, TcpObject tcp)
    @cython.locals(engine=Connection, segment=Segment, sent="long long")
    cdef long long _dispatch(self, TcpObject tcp) except -1
    @cython.locals(deadline="long long")
    cdef _plan(self, TcpObject tcp)
    @cython.locals(template=HeaderTemplate, length="long long", gso_size="long long", count="long long", tcp_header=bytes, reset_status=long)
    cpdef bint emit(self, TcpObject tcp, Segment segment) except -1
    @cython.locals(waiting=Refused)
    cdef _send_refused(self)
    cdef _plan_retry(self)
    cdef _wait_for_link(self, TcpObject tcp)
    @cython.locals(waiting=list, tcp=TcpObject)
    cdef _go_on(self)
    @cython.locals(waiting=Refused)
    cpdef Segment withdraw(self, TcpObject tcp)
    cdef _ask_whether_reachable(self, NeighborObject neighbor)
    cdef _handle_events(self, TcpObject tcp)
    cdef _peer_reset(self, TcpObject tcp)
    cpdef request_upload(self, TcpObject tcp, int reason, bint engine_done)
    @cython.locals(request=NetBufferList)
    cpdef complete_abort(self, TcpObject tcp, long status)
    @cython.locals(waiting=list, nbl=NetBufferList, first=NetBufferList, last=NetBufferList)
    cdef _process_forwards(self, TcpObject tcp)
    cpdef complete_forwards(self, TcpObject tcp, long status)
