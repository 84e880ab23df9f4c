cimport cython

from chimney.link.base cimport Frame
from chimney.ndis.buffers cimport Mdl, NetBuffer, NetBufferList, NetBufferListPool
from chimney.target.counters cimport Counters
from chimney.target.delivery cimport Delivery
from chimney.target.events cimport consider_backlog, handle_events, request_upload
from chimney.target.frames cimport FrameReader
from chimney.target.objects cimport NeighborObject, TcpObject
from chimney.target.schedule cimport Schedule
from chimney.target.sending cimport Sending
from chimney.target.train cimport Train, wire_segments
from chimney.target.transmission cimport Transmission
from chimney.tcp.connection cimport Connection
from chimney.tcp.segment cimport Segment, parse_segment, read_header

cdef long _SUCCESS
cdef long _FAILURE
cdef long _UPLOAD_IN_PROGRESS
cdef long _REQUEST_ABORTED
cdef int _RECEIVED_URGENT_DATA
cdef int _CLOSED
cdef int _ESTABLISHED
cdef int _CLOSE_WAIT
cdef int _CLOSING
cdef int _TIME_WAIT
cdef int _SYN
cdef int _RST
cdef int _VLAN_ID
cdef int _GROUP_BIT
cdef int _ETHERNET_HEADER
cdef int _CAREFUL_FRAMES

cdef class Datapath(Transmission):
    cdef public dict connections
    cdef public set lent
    cdef public NetBufferListPool chimney_pool
    cdef public NetBufferListPool ordinary_pool
    cdef public Counters ipv4
    cdef public Counters ipv6
    cdef public object allocate
    cdef public long long frames_in
    cdef public long long frames_passed_up
    cdef public long long frame_errors
    cdef public long long frames_dropped
    cdef public bint busy
    cdef public Schedule schedule
    cdef public long long chores_at
    cdef FrameReader _reader
    cdef Train _train
    cdef object _active
    cdef long long _emissions_per_turn
    cdef long long _emissions_per_poll
    cdef bint _backlog
    cdef bint _counts_fragments

    cpdef long long poll(self, long long now, long long limit=*) except -1
    cpdef long long flush(self, long long now) except -1
    cpdef long long poll_at(self) except? -1
    cpdef long long run_operations(self) except -1
    cpdef do_chores(self)
    cpdef touch(self, TcpObject tcp)
    @cython.locals(frames=list, frame=Frame, train=Train)
    cdef long long _receive(self, long long limit) except -1
    @cython.locals(reader=FrameReader, tcp=TcpObject, neighbor=NeighborObject, vlan_id=int, segment=Segment, headers="long long", octets="long long")
    cdef _frame(self, Frame frame)
    @cython.locals(train=Train, tcp=TcpObject, segment=Segment)
    cdef _process_train(self)
    cdef bint _is_joined(self, object data) except -1
    @cython.locals(engine=Connection, before=int)
    cdef bint _segment(self, TcpObject tcp, Segment segment) except -1
    @cython.locals(engine=Connection, segment=Segment)
    cdef _acknowledge_early(self, TcpObject tcp)
    cpdef note_end(self, TcpObject tcp, int before)
    @cython.locals(engine=Connection, delivery=Delivery, received=list)
    cdef _deliver(self, TcpObject tcp)
    cdef _keep_for_host(self, TcpObject tcp, object data)
    @cython.locals(nbl=NetBufferList)
    cpdef indicate_frame(self, object data, long status=*)
    cdef _indicate_corrupt_frame(self, object data)
    cpdef count_fragment(self, object addresses)
    @cython.locals(tcp=TcpObject, done="long long")
    cdef long long _expire(self) except -1
    @cython.locals(tcp=TcpObject, done="long long", share="long long")
    cdef long long _serve(self) except -1
    @cython.locals(delivery=Delivery, sent="long long")
    cdef long long _turn(self, TcpObject tcp) except -1
    @cython.locals(sending=Sending, acked="long long")
    cdef _complete_sends(self, TcpObject tcp)
    @cython.locals(engine=Connection, segment=Segment, sent="long long", before=int)
    cdef long long _dispatch(self, TcpObject tcp) except -1
    @cython.locals(deadline="long long")
    cdef _plan(self, TcpObject tcp)
    @cython.locals(waiting=list, nbl=NetBufferList, first=NetBufferList, last=NetBufferList, segment=Segment, taken=bint)
    cdef _process_forwards(self, TcpObject tcp)
