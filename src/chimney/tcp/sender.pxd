cimport cython

from chimney.tcp.congestion cimport CongestionControl
from chimney.tcp.flight cimport Flight, Record, Told
from chimney.tcp.recovery cimport Recovery
from chimney.tcp.sack cimport read_blocks
from chimney.tcp.segment cimport Segment
from chimney.tcp.sending cimport Sending
from chimney.tcp.seq cimport add, lt
from chimney.tcp.tail cimport TailProbe

cdef long long _NEVER
cdef int _FIN
cdef int _OPEN
cdef long long _LEAST_RENEGING_US

cdef class Sender(Sending):
    @cython.locals(recovery=Recovery, flight=Flight, told=Told, duplicates="long long", rtt="long long")
    cpdef on_ack(self, Segment segment, long long ack, bint is_newer, bint congested, long long now)
    cdef object _advance(self, long long ack, long long now)
    cpdef bint is_duplicate(self, Segment segment, long long ack) except -1
    @cython.locals(recovery=Recovery, told=Told)
    cdef bint _is_dubious(self, long long duplicates) except -1
    @cython.locals(told=Told)
    cdef object _on_duplicate_report(self)
    @cython.locals(told=Told, rtt="long long", least="long long", longest="long long")
    cdef long long _measure_rtt(self, Segment segment, long long now) except -2
    @cython.locals(told=Told)
    cdef bint _repetition_is_answered(self) except -1
    cdef bint _echo_is_fresh(self, Segment segment) except -1
    @cython.locals(tail=TailProbe, told=Told)
    cdef object _on_tail_acked(self, Segment segment, long long ack, long long now)
    @cython.locals(told=Told, recovery=Recovery, congestion=CongestionControl, delivered="long long", limited=bint)
    cdef object _adapt_cwnd(self, long long rtt, long long now)
    @cython.locals(told=Told, head=Record)
    cdef object _restart_timers(self, long long ack, long long now)
    @cython.locals(before="long long")
    cdef object _update_window(self, long long wnd, long long now)
    cdef object _go_back(self, long long now)
    @cython.locals(head=Record, length="long long", wait="long long")
    cpdef bint on_timer(self, long long now) except -1
