cimport cython

from chimney.tcp.congestion cimport CongestionControl
from chimney.tcp.recovery cimport Recovery
from chimney.tcp.rtt cimport RttEstimator
from chimney.tcp.scoreboard cimport Scoreboard
from chimney.tcp.segment cimport Segment
from chimney.tcp.send_queue cimport SendQueue
from chimney.tcp.seq cimport add, unwrap
from chimney.tcp.statistics cimport Statistics
from chimney.tcp.tail cimport TailProbe
from chimney.tcp.timer cimport RetransmitTimer
from chimney.tcp.timestamps cimport Timestamps
from chimney.tcp.undo cimport Undo

cdef long long _NEVER
cdef int _FIN
cdef int _PSH
cdef int _ACK
cdef int _OPEN
cdef int _FAST
cdef long long _LEAST_MSS
cdef long long _OVERRIDE_US
cdef long long _LEAST_TRAIN

cdef class Sender:
    cdef public Statistics statistics
    cdef public Timestamps timestamps
    cdef public bint use_timestamps
    cdef public long long remote_mss
    cdef public long long ip_header
    cdef public bint nagle
    cdef public int scale
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
    cdef public CongestionControl congestion
    cdef public Recovery recovery
    cdef public RttEstimator rtt
    cdef public RetransmitTimer timer
    cdef public TailProbe tail
    cdef public Undo undo
    cdef public bint persisting
    cdef public bint probe_due
    cdef public long long override_us
    cdef public long long override_at
    cdef public long long last_sent
    cdef bint _cwnd_limited
    cdef long long _reacted_at
    cdef long long _timed_end
    cdef long long _timed_at

    cdef object _resume_timer(self, long long left, long long now)
    cpdef long long end(self) except -1
    cpdef long long sequence(self, long long position) except -1
    cpdef long long position(self, long long ack) except? -1
    cpdef bint fin_is_acked(self) except -1
    cpdef long long deadline(self) except -1
    cpdef set_path_mtu(self, long long mtu)
    cpdef set_sws_prevention(self, long long microseconds)
    cdef long long _effective_mss(self, long long mtu) except -1

    cpdef bint is_duplicate(self, Segment segment, long long ack) except -1
    @cython.locals(recovery=Recovery, board=Scoreboard, newly="long long", duplicate="long long")
    cpdef on_ack(self, Segment segment, long long ack, bint is_newer, long long now)
    @cython.locals(acked="long long", flight="long long", congestion=CongestionControl, limited=bint)
    cdef object _advance(self, Segment segment, long long ack, long long now)
    @cython.locals(measured="long long")
    cdef object _measure_rtt(self, Segment segment, long long now)
    cdef bint _echo_is_fresh(self, Segment segment) except -1
    @cython.locals(before="long long")
    cdef object _update_window(self, long long wnd, long long now)

    cdef object _enter_recovery(self, long long now)
    cpdef on_ecn_echo(self, long long now)
    @cython.locals(count="long long", before="long long")
    cpdef bint on_timer(self, long long now) except -1
    cdef object _go_back(self)
    cdef object _undo(self, long long now)

    @cython.locals(segment=Segment)
    cpdef Segment next_segment(self, long long now)
    cdef Segment _next_lost(self, long long now)
    cdef bint _probe_tells_of_loss(self) except -1
    @cython.locals(tail=TailProbe, duplicate=bint)
    cdef object _on_tail_acked(self, long long ack, long long flight, long long now)
    cdef object _arm_tail(self, long long now)
    @cython.locals(data="long long", window="long long", start="long long", segment=Segment)
    cdef Segment _next_tail_probe(self, long long now)
    @cython.locals(recovery=Recovery, start="long long", length="long long", room="long long", end="long long", segment=Segment)
    cdef Segment _repair(self, long long now)
    @cython.locals(start="long long", data="long long", window="long long", room="long long", length="long long")
    cdef Segment _next_in_order(self, long long now)
    @cython.locals(length="long long", again=bint, hole="long long", tail="long long")
    cdef long long _length_to_send(self, long long start, long long data, long long allowed, bint cwnd_binds, long long now) except -1
    @cython.locals(eighth="long long")
    cdef bint _train_may_grow(self, long long length) except -1
    cdef bint _nagle_holds(self) except -1
    cdef bint _window_suffices(self, long long start, long long length, long long now) except -1
    @cython.locals(segment=Segment, sent="long long")
    cdef Segment _send(self, long long start, long long length, long long now)

    cdef Segment _next_probe(self, long long now)
    cdef object _start_persisting(self, long long now)
    cdef object _stop_persisting(self)

    @cython.locals(queue=SendQueue, end="long long", data="long long", segment=Segment)
    cdef Segment _build(self, long long start, long long length, long long now)
    @cython.locals(statistics=Statistics)
    cdef object _account(self, Segment segment, long long start, long long end, long long data, long long now)

cpdef long long length_of(Segment segment) except -1
