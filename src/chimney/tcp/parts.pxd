cimport cython

from chimney.tcp.ack cimport AckPolicy
from chimney.tcp.auto_tuning cimport AutoTuning
from chimney.tcp.challenge cimport Challenges
from chimney.tcp.chrono cimport Chrono
from chimney.tcp.ecn cimport Ecn
from chimney.tcp.keepalive cimport Keepalive
from chimney.tcp.receiver cimport Receiver
from chimney.tcp.sender cimport Sender
from chimney.tcp.seq cimport unwrap
from chimney.tcp.statistics cimport Statistics
from chimney.tcp.timestamps cimport Timestamps
from chimney.tcp.window cimport ReceiveWindow

cdef long long _NEVER
cdef int _FIN_WAIT_2

cdef class Parts:
    cdef public object config
    cdef public int state
    cdef public list events
    cdef public Statistics stats
    cdef public Timestamps timestamps
    cdef public Sender sender
    cdef public Receiver receiver
    cdef public AckPolicy ack_policy
    cdef public Ecn ecn
    cdef public Challenges challenges
    cdef public AutoTuning tuning
    cdef public Keepalive keepalive
    cdef public bint fin_acked
    cdef public long long fin_wait_2_at
    cdef public long long wl1
    cdef public Chrono chrono
    cdef public long long data_received_at
    cdef public long long ack_received_at
    @cython.locals(sender=Sender, window=ReceiveWindow)
    cpdef object export(self, long long now)
