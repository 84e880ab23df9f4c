cimport cython

from chimney.tcp.black_hole cimport BlackHole
from chimney.tcp.congestion cimport CongestionControl
from chimney.tcp.flight cimport Flight, Record, Told
from chimney.tcp.pacing cimport Pacer
from chimney.tcp.persist cimport Persist
from chimney.tcp.rack cimport Rack
from chimney.tcp.recovery cimport Recovery
from chimney.tcp.rtt cimport RttEstimator
from chimney.tcp.sack cimport read_blocks
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
cdef int _OPEN
cdef int _CWR
cdef long long _LEAST_MSS
cdef long long _OVERRIDE_US
cdef long long _LEAST_TRAIN
cdef long long _LEAST_RENEGING_US
cdef long long _TRAIN_US
cdef long long _LONG_PATH

cdef class Sender:
    cdef public Statistics statistics
    cdef public Timestamps timestamps
    cdef public bint use_timestamps
    cdef public long long remote_mss
    cdef public long long ip_header
    cdef public bint nagle
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
    cdef public long long min_train_segments
    cdef public long long small_end
    cdef public bint probes_tail
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
    cpdef set_sws_prevention(self, long long microseconds)
    @cython.locals(before="long long")
    cpdef set_path_mtu(self, long long mtu)
    @cython.locals(mss="long long", smaller=bint)
    cdef bint _adopt_mss(self) except -1
    cdef long long _effective_mss(self) except -1
    cdef long long _room(self) except -1
    cdef long long _allowed(self) except? -1

    @cython.locals(recovery=Recovery, flight=Flight, told=Told, duplicates="long long", rtt="long long")
    cpdef on_ack(self, Segment segment, long long ack, bint is_newer, long long now)
    cdef object _advance(self, long long ack, long long now)
    cpdef bint is_duplicate(self, Segment segment, long long ack) except -1
    @cython.locals(recovery=Recovery, told=Told)
    cdef bint _is_dubious(self, long long duplicates) except -1
    @cython.locals(told=Told)
    cdef object _on_duplicate_report(self)
    @cython.locals(told=Told, rtt="long long", least="long long")
    cdef long long _measure_rtt(self, Segment segment, long long now) except -2
    cdef bint _echo_is_fresh(self, Segment segment) except -1
    @cython.locals(told=Told, recovery=Recovery, congestion=CongestionControl, delivered="long long", limited=bint)
    cdef object _adapt_cwnd(self, long long rtt, long long now)
    @cython.locals(congestion=CongestionControl)
    cdef object _set_pace(self)
    @cython.locals(told=Told, head=Record)
    cdef object _restart_timers(self, long long ack, long long now)
    @cython.locals(before="long long")
    cdef object _update_window(self, long long wnd, long long now)
    cdef object _go_back(self, long long now)

    @cython.locals(head=Record, length="long long")
    cpdef bint on_timer(self, long long now) except -1
    cpdef bint on_ecn_echo(self, long long now) except -1
    cdef long long _time_out(self) except -1

    @cython.locals(segment=Segment)
    cpdef Segment next_segment(self, long long now)
    @cython.locals(recovery=Recovery, segment=Segment)
    cdef Segment _next_by_priority(self, long long now)
    @cython.locals(record=Record, start="long long", wanted="long long", room="long long", length="long long")
    cdef Segment _next_lost(self, long long now)
    @cython.locals(start="long long", data="long long", window="long long", room="long long", cwnd_binds=bint, length="long long", end="long long")
    cdef Segment _next_in_order(self, long long now)
    @cython.locals(recovery=Recovery)
    cdef bint _may_probe_mtu(self, long long start, long long data, long long window) except -1
    @cython.locals(hole=BlackHole, mss="long long", segment=Segment)
    cdef Segment _next_mtu_probe(self, long long start, long long now)
    @cython.locals(length="long long", burst="long long", again=bint, tail="long long")
    cdef long long _length_to_send(self, long long start, long long data, long long allowed, bint cwnd_binds, long long now) except -1
    @cython.locals(srtt="long long", congestion=CongestionControl, percent="long long", count="long long", halvings="long long", mss="long long")
    cdef object _size_trains(self)
    @cython.locals(eighth="long long")
    cdef bint _train_may_grow(self, long long length, long long burst) except -1
    cdef bint _nagle_holds(self) except -1
    cdef bint _window_suffices(self, long long start, long long length, long long now) except -1
    @cython.locals(again=bint, segment=Segment, state=int, in_flight="long long", limited=bint)
    cdef Segment _send(self, long long start, long long end, long long now)
    @cython.locals(start="long long", segment=Segment, stamp="long long")
    cdef Segment _repeat(self, Record record, long long end, long long now)
    cdef object _left(self, Segment segment, long long count, long long now)

    @cython.locals(recovery=Recovery, calm=bint)
    cdef object _arm_tail(self, long long now)
    cdef object _hush_tail(self)
    @cython.locals(data="long long", window="long long", start="long long", record=Record, segment=Segment)
    cdef Segment _next_tail_probe(self, long long now)
    @cython.locals(tail=TailProbe, told=Told)
    cdef object _on_tail_acked(self, Segment segment, long long ack, long long now)

    @cython.locals(segment=Segment)
    cdef Segment _next_window_probe(self, long long now)

    @cython.locals(queue=SendQueue, data="long long", segment=Segment)
    cdef Segment _build(self, long long start, long long end, long long now)
    @cython.locals(statistics=Statistics)
    cdef object _count(self, Segment segment, long long start, long long data)

cpdef long long length_of(Segment segment) except -1
