cimport cython

from chimney.tcp.black_hole cimport BlackHole
from chimney.tcp.flight cimport Record
from chimney.tcp.recovery cimport Recovery
from chimney.tcp.segment cimport Segment
from chimney.tcp.sender_parts cimport SenderParts

cdef long long _NEVER
cdef int _PSH
cdef int _ACK
cdef int _OPEN
cdef int _CWR
cdef int _IDLE
cdef int _BUSY
cdef int _RWND_LIMITED
cdef int _SNDBUF_LIMITED
cdef long long _LEAST_TRAIN
cdef long long _TRAIN_GAP_US

cdef class Sending(SenderParts):
    @cython.locals(cwnd_binds=bint, unsent="long long", wnd_binds=bint)
    cpdef int held_up_by(self, bint starved) except -1
    @cython.locals(segment=Segment)
    cpdef Segment next_segment(self, long long now)
    @cython.locals(recovery=Recovery, segment=Segment)
    cdef Segment _next_by_priority(self, long long now)
    @cython.locals(record=Record, start="long long", wanted="long long", room="long long", length="long long")
    cdef Segment _next_lost(self, long long now)
    @cython.locals(start="long long", data="long long", window="long long", room="long long", cwnd_binds=bint, length="long long", end="long long")
    cdef Segment _next_in_order(self, long long now)
    @cython.locals(length="long long", burst="long long", again=bint, tail="long long")
    cdef long long _length_to_send(self, long long start, long long data, long long allowed, bint cwnd_binds, long long now) except -1
    @cython.locals(eighth="long long")
    cdef bint _train_may_grow(self, long long length, long long burst, long long now) except -1
    cdef bint _nagle_holds(self) except -1
    cdef bint _nagle_holds_the_end(self) except -1
    cdef bint _window_suffices(self, long long start, long long length, long long now) except -1
    @cython.locals(again=bint, segment=Segment, in_flight="long long", limited=bint, is_all=bint)
    cdef Segment _send(self, long long start, long long end, long long now)
    @cython.locals(start="long long", segment=Segment, stamp="long long")
    cdef Segment _repeat(self, Record record, long long end, long long now)
    cdef object _left(self, Segment segment, long long count, long long now)
    @cython.locals(recovery=Recovery, calm=bint)
    cdef object _arm_tail(self, long long now)
    cdef object _hush_tail(self)
    cdef bint _may_probe_tail(self) except -1
    @cython.locals(data="long long", window="long long", start="long long", record=Record, segment=Segment)
    cdef Segment _next_tail_probe(self, long long now)
    @cython.locals(recovery=Recovery)
    cdef bint _may_probe_mtu(self, long long start, long long data, long long window) except -1
    @cython.locals(hole=BlackHole, mss="long long", segment=Segment)
    cdef Segment _next_mtu_probe(self, long long start, long long now)
    @cython.locals(segment=Segment)
    cdef Segment _next_window_probe(self, long long now)
