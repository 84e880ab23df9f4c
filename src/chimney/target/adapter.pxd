from chimney.target.datapath cimport Datapath

cdef class Adapter(Datapath):
    cdef public long long held_until
    cdef public long long look_at
    cdef public object capable
    cdef public set neighbors
    cdef public set paths
    cdef public object source_addresses
    cdef public bint paused
    cdef public bint uploading
    cdef public object power_request
    cdef public bint powered
    cdef public list held
    cdef set _failing_updates

    cpdef do_chores(self)
    cpdef count_fragment(self, object addresses)
    cdef _plan_chores(self)
