cimport cython

from chimney.tcp.congestion cimport CongestionControl
from chimney.tcp.flight cimport Flight, Record, Told
from chimney.tcp.frto cimport Frto
from chimney.tcp.prr cimport Prr
from chimney.tcp.rack cimport Rack
from chimney.tcp.statistics cimport Statistics
from chimney.tcp.timer cimport RetransmitTimer
from chimney.tcp.undo cimport Undo

cdef int _OPEN
cdef int _DISORDER
cdef int _CWR
cdef int _RECOVERY
cdef int _LOSS
cdef long long _MAX_REORDERING

cdef class Recovery:
    cdef public bint sack
    cdef public long long mss
    cdef public long long dup_acks
    cdef public Flight flight
    cdef public Rack rack
    cdef public CongestionControl congestion
    cdef public RetransmitTimer timer
    cdef public Statistics statistics
    cdef public Prr prr
    cdef public Undo undo
    cdef public Frto frto
    cdef public int state
    cdef public long long high
    cdef public bint holds
    cdef public bint reduced
    cdef public long long threshold
    cdef public long long reordering
    cdef long long _recover
    cdef bint _told
    cpdef adopt_duplicates(self)
    cpdef set_threshold(self, long long threshold)
    @cython.locals(count="long long")
    cpdef long long in_flight(self) except? -1
    cpdef bint is_reducing(self) except -1
    cpdef bint may_repeat(self) except -1
    @cython.locals(told=Told)
    cpdef on_ack(self, long long duplicates, long long echo, long long now)
    @cython.locals(told=Told, safe=bint, congestion=CongestionControl)
    cpdef lead_cwnd(self)
    @cython.locals(una="long long")
    cdef object _end_state(self, long long echo, long long now)
    @cython.locals(flight=Flight, window="long long")
    cdef object _find_losses(self, long long now)
    cdef object _judge(self, long long now)
    @cython.locals(flight=Flight, state=int)
    cdef object _settle(self)
    cdef object _enter(self, long long now)
    cdef object _reduce(self, long long now)
    @cython.locals(flight=Flight, window="long long", congestion=CongestionControl)
    cpdef on_reordering_timer(self, long long now)
    @cython.locals(flight=Flight, first=bint, outstanding="long long", is_new=bint)
    cpdef on_timeout(self, long long now)
    cpdef on_everything_lost(self, long long now)
    cpdef on_smaller_mss(self)
    @cython.locals(record=Record)
    cdef bint _excuses_mtu_probe(self) except -1
    cdef object _resend_without_congestion(self)
    cpdef on_congestion_echo(self, long long now)
    cpdef on_tail_loss(self, long long now)
    @cython.locals(flight=Flight, told=Told, frto=Frto)
    cdef object _on_ack_after_timeout(self, long long duplicates, long long echo, long long now)
    cdef object _undo_timeout(self, long long now)
    cdef bint _is_proved(self, long long echo) except -1
    cdef object _undo(self, long long now)
    cdef object _undo_by_duplicates(self, long long now)
    cdef bint _is_late_partially(self, long long echo, long long now) except -1
    @cython.locals(told=Told, late="long long")
    cdef object _note_reordering(self)
    @cython.locals(flight=Flight, told=Told, segments="long long", limit="long long")
    cdef object _count_duplicates(self, long long duplicates)
