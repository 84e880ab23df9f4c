cimport cython

from chimney.tcp.ack cimport AckPolicy
from chimney.tcp.keepalive cimport Keepalive
from chimney.tcp.parts cimport Parts
from chimney.tcp.receiver cimport Receiver
from chimney.tcp.segment cimport Segment
from chimney.tcp.sender cimport Sender
from chimney.tcp.window cimport ReceiveWindow

cdef long long _NEVER
cdef int _FIN
cdef int _SYN
cdef int _RST
cdef int _ACK
cdef int _URG
cdef int _ECE
cdef int _CLOSED
cdef int _CLOSING
cdef int _TIME_WAIT
cdef int _NOTHING_NEW
cdef int _IN_ORDER
cdef int _HOLE_FILLED
cdef int _OUT_OF_ORDER
cdef long long _QUICK_FOR_CONGESTION

cdef class Connection(Parts):
    cdef public bint stopped
    cdef public long long window_update_at
    cdef long long _sws_us
    cdef bint _use_timestamps
    cdef bint _use_sack
    cdef bint _challenge_every_syn
    cdef bint _dirty
    cdef bint _reset_pending
    cdef bint _unsaid
    cdef bint _close_called
    cdef bint _repeat_fin
    cdef bint _starved
    cdef long long _now

    @cython.locals(start="long long", ack="long long")
    cpdef process(self, Segment segment, long long now)
    @cython.locals(segment=Segment)
    cpdef Segment dispatch(self, long long now)
    cpdef long long poll_at(self) except -1

    cpdef send(self, object view, bint push=*, bint record_end=*)
    cpdef close(self)
    cpdef abort(self, long long now, bint unsaid=*)
    @cython.locals(window=ReceiveWindow)
    cpdef consume(self, long long count)
    cpdef set_initial_rcv_wnd(self, long long size)
    cpdef update_path_mtu(self, long long mtu)
    cpdef set_nagle(self, bint enabled)
    cpdef set_quick_ack(self, bint enabled)
    cpdef set_starved(self, bint starved)
    cpdef set_keepalive(self, long long timeout, long long interval, long long probes, long long now)
    cpdef set_parameters(self, long long ack_frequency, long long delayed_ack_us, long long max_retransmissions, long long dupack_threshold, long long sws_us)
    cpdef Segment flush_ack(self, long long now)

    @cython.locals(receiver=Receiver)
    cpdef bint is_plain(self, Segment segment) except -1
    cdef bint _is_old_duplicate(self, Segment segment, long long start, long long now) except -1
    @cython.locals(ack="long long")
    cdef bint _is_overtaken_ack(self, Segment segment, long long start) except -1
    @cython.locals(receiver=Receiver)
    cdef bint _is_in_sequence(self, Segment segment, long long start, long long now) except -1
    @cython.locals(exact=bint)
    cdef object _on_reset_or_syn(self, Segment segment, long long start, long long now)
    @cython.locals(sender=Sender)
    cdef bint _is_ack_acceptable(self, long long ack, long long now) except -1
    cdef object _on_acceptable(self, Segment segment, long long start, long long now)
    @cython.locals(sender=Sender, is_newer=bint, before="long long", echoes=bint, congested=bint)
    cdef object _on_ack(self, Segment segment, long long start, long long ack, long long now)
    @cython.locals(window="long long")
    cdef bint _is_newer(self, Segment segment, long long start, long long ack) except -1
    @cython.locals(receiver=Receiver, policy=AckPolicy, verdict=int)
    cdef object _on_data(self, Segment segment, long long start, long long now)
    @cython.locals(is_full=bint, measured="long long")
    cdef object _on_payload(self, Segment segment, long long now)
    cdef object _on_time_wait(self, Segment segment, long long start, long long ack, long long now)
    cdef object _report(self, Segment segment, long long start)
    cdef object _answer_unexpected(self, Segment segment, long long now)
    cdef object _challenge(self, long long now)

    @cython.locals(sender=Sender)
    cdef object _run_timers(self, long long now)
    @cython.locals(window=ReceiveWindow)
    cdef object _run_window_timer(self, long long now)
    @cython.locals(keepalive=Keepalive)
    cdef object _on_keepalive(self, long long now)

    cdef object _move(self, int cause, long long now)
    cdef object _finish(self, int state, int event)
    cdef object _stop(self, int event)

    cdef Segment _next_report(self, long long now)
    @cython.locals(segment=Segment, highest="long long")
    cdef Segment _next_from_sender(self, long long now)
    cdef bint _is_new_data(self, Segment segment, long long highest) except -1
    @cython.locals(segment=Segment)
    cdef Segment _next_keepalive(self, long long now)
    @cython.locals(segment=Segment, wanted=bint, acknowledged="long long")
    cdef Segment _next_reset(self, long long now)
    @cython.locals(segment=Segment)
    cdef Segment _acknowledgement(self, long long now)
    cdef Segment _pure_ack(self, long long now)
    cdef object _add_fin(self, Segment segment)
    @cython.locals(sender=Sender)
    cdef long long _sequence_without_data(self) except -1
    @cython.locals(window=ReceiveWindow)
    cdef Segment _complete(self, Segment segment, long long now)
