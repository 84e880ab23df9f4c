cimport cython

from chimney.tcp.black_hole cimport BlackHole
from chimney.tcp.congestion cimport CongestionControl
from chimney.tcp.flight cimport Flight, Record
from chimney.tcp.pacing cimport Pacer
from chimney.tcp.persist cimport Persist
from chimney.tcp.rack cimport Rack
from chimney.tcp.recovery cimport Recovery
from chimney.tcp.rtt cimport RttEstimator
from chimney.tcp.segment cimport Segment
from chimney.tcp.send_queue cimport SendQueue
from chimney.tcp.seq cimport add, unwrap
from chimney.tcp.statistics cimport Statistics
from chimney.tcp.tail cimport TailProbe
from chimney.tcp.timer cimport RetransmitTimer
from chimney.tcp.timestamps cimport Timestamps
from chimney.tcp.usage cimport CwndUsage

cdef long long _NEVER
cdef int _FIN
cdef int _PSH
cdef int _ACK
cdef long long _LEAST_MSS
cdef long long _OVERRIDE_US
cdef long long _TRAIN_US
cdef long long _LONG_PATH
cdef long long _SHORT_PATH_US

cdef class SenderParts:
    cdef public Statistics statistics
    cdef public Timestamps timestamps
    cdef public bint use_timestamps
    cdef public long long remote_mss
    cdef public long long ip_header
    cdef public bint nagle
    cdef public bint minshall
    cdef public int scale
    cdef public long long path_mtu
    cdef public long long mtu_probe_floor
    cdef public BlackHole black_hole
    cdef public long long max_burst
    cdef public long long mss
    cdef public unsigned int base_seq
    cdef public long long una
    cdef public long long nxt
    cdef public long long max
    cdef public long long wnd
    cdef public long long max_wnd
    cdef public SendQueue queue
    cdef public long long fin_length
    cdef public RttEstimator rtt
    cdef public CongestionControl congestion
    cdef public CwndUsage usage
    cdef public Pacer pacer
    cdef public RetransmitTimer timer
    cdef public Persist persist
    cdef public TailProbe tail
    cdef public Rack rack
    cdef public Flight flight
    cdef public Recovery recovery
    cdef public long long delivered
    cdef public long long train
    cdef public long long carried
    cdef public long long min_train_segments
    cdef public long long small_end
    cdef public bint probes_tail
    cdef public bint pushes_probes
    cdef public long long override_us
    cdef public long long override_at
    cdef public long long last_sent
    cdef bint _urgent

    cdef object _resume_timer(self, long long left, long long now)
    cpdef long long end(self) except -1
    cpdef long long sequence(self, long long position) except -1
    cpdef long long position(self, long long ack) except? -1
    cpdef bint fin_is_acked(self) except -1
    @cython.locals(record=Record)
    cpdef long long resumes_at(self) except -1
    @cython.locals(at="long long")
    cpdef long long deadline(self) except -1
    cdef long long _time_out(self) except -1
    @cython.locals(before="long long")
    cpdef set_path_mtu(self, long long mtu)
    cpdef set_sws_prevention(self, long long microseconds)
    @cython.locals(mss="long long", smaller=bint)
    cdef bint _adopt_mss(self) except -1
    cdef long long _effective_mss(self) except -1
    cdef long long _room(self) except -1
    cdef long long _allowed(self) except? -1
    @cython.locals(congestion=CongestionControl)
    cdef object _set_pace(self)
    @cython.locals(srtt="long long", congestion=CongestionControl, percent="long long", count="long long", halvings="long long", mss="long long")
    cdef object _size_trains(self)
    @cython.locals(queue=SendQueue, data="long long", segment=Segment)
    cdef Segment _build(self, long long start, long long end, long long now)
    @cython.locals(statistics=Statistics, again="long long")
    cdef object _count(self, Segment segment, long long start, long long data)
