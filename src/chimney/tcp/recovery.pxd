cimport cython

from chimney.tcp.scoreboard cimport Scoreboard

cdef int _OPEN
cdef int _FAST
cdef int _LOSS
cdef long long _MAX_THRESHOLD

cdef class Recovery:
    cdef public bint sack
    cdef public long long threshold
    cdef public long long mss
    cdef public Scoreboard scoreboard
    cdef public int phase
    cdef public long long dup_acks
    cdef public long long point
    cdef public long long high_rxt
    cdef public long long pipe
    cdef public long long hole
    cdef public long long hole_end
    cdef public bint forced
    cdef long long _configured_threshold
    cdef long long _lost
    cdef long long _head_mark
    cpdef set_threshold(self, long long threshold)
    cpdef long long in_flight(self, long long una, long long nxt) except -1
    cpdef bint on_duplicate(self, long long una) except -1
    cpdef bint is_lost(self, long long una) except -1
    cpdef enter(self, long long una, long long nxt, long long limit)
    cpdef lose_below(self, long long position)
    @cython.locals(board=Scoreboard, head="long long")
    cpdef measure(self, long long una, long long nxt)
    cpdef bint find_lost(self, long long una) except -1
    cpdef bint find_doubtful(self, long long una) except -1
    cpdef retransmitted(self, long long una, long long start, long long end, long long nxt)
    cpdef on_advance(self, long long una, long long nxt, long long acked)
    cpdef on_timeout(self, long long una, long long limit, long long count)
    cpdef reset(self)
    cpdef on_reordering(self)
    @cython.locals(beyond="long long")
    cdef bint _head_is_lost_again(self) except -1
    cdef long long _delivered(self, long long una, long long nxt) except -1
