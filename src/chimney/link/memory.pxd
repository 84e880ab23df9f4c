from chimney.link.base cimport Link

cdef class Clock:
    cdef public long long now

    cpdef long long advance(self, long long microseconds) except? -1
    cpdef long long advance_to(self, long long time) except? -1

cdef class MemoryNetwork:
    cdef public object clock
    cdef public object random
    cdef public double loss
    cdef public double burst
    cdef public double burst_length
    cdef public long long delay_us
    cdef public long long jitter_us
    cdef public double reorder
    cdef public long long reorder_us
    cdef public double duplicate
    cdef public double corrupt
    cdef public long long mtu
    cdef public long long bandwidth
    cdef public long long queue_bytes
    cdef public bint gro
    cdef public object drop_if
    cdef public object tap
    cdef public object happened
    cdef public long long segments
    cdef public long long lost
    cdef public long long reordered
    cdef public long long duplicated
    cdef public long long corrupted
    cdef dict _links
    cdef long long _order

    cpdef partition(self, MemoryLink sender, long long until)
    cpdef heal(self)
    cpdef long long next_at(self) except? -1
    cpdef arrive(self, MemoryLink receiver, object frame, int vlan=*)
    cdef _tell(self, MemoryLink sender, str what)
    cdef bint _in_burst(self, MemoryLink sender) except -1
    cpdef carry(self, MemoryLink sender, object frame, int vlan, bint intact=*)
    cdef long long _departure(self, MemoryLink sender, long long length) except? -2
    cpdef long long waiting(self, MemoryLink sender) except? -1
    cdef list _receivers(self, MemoryLink sender, object frame)
    cdef _deliver(self, MemoryLink sender, MemoryLink receiver, long long departure, object frame, int vlan, bint intact)

cdef class MemoryLink(Link):
    cdef public MemoryNetwork network
    cdef public long long send_buffer
    cdef public object busy_until_ns
    cdef public long long cut_off_until
    cdef public bint in_burst
    cdef public long long last_arrival
    cdef public list under_way
    cdef object _arrived
    cdef list _lent
    cdef object _flows
    cdef object _addresses
    cdef bint _refused_now
    cdef bint _closed
    cdef long long _received_frames
    cdef long long _received_bytes
    cdef long long _sent_frames
    cdef long long _sent_bytes
    cdef long long _refused

    cpdef long long next_at(self) except? -1
    cdef _settle(self)
