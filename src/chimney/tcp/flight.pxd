cimport cython

from chimney.tcp.rack cimport Rack
from chimney.tcp.seq cimport lt

cdef Py_ssize_t _COMPACT
cdef Py_ssize_t _MANY
cdef object _BY_TIME

@cython.freelist(64)
cdef class Record:
    cdef public long long start
    cdef public long long end
    cdef public long long mss
    cdef public long long count
    cdef public long long sent
    cdef public long long stamp
    cdef public bint is_sacked
    cdef public bint is_lost
    cdef public bint is_repeated
    cdef public bint was_repeated
    cdef public bint is_listed
    cdef public Record older
    cdef public Record newer

cdef class Told:
    cdef public long long high
    cdef public long long before
    cdef public long long acked
    cdef public long long sacked
    cdef public long long delivered
    cdef public long long packets
    cdef public long long first_sent
    cdef public long long last_sent
    cdef public long long first_sacked
    cdef public long long last_sacked
    cdef public bint repeated
    cdef public bint original
    cdef public long long lowest
    cdef public long long longest
    cdef public long long lost
    cdef public bint lost_again
    cdef public long long duplicate_start
    cdef public long long duplicate_end
    cdef public long long outstanding
    cdef public long long stamp
    cpdef begin(self, long long high, long long before, long long outstanding)

cdef class Flight:
    cdef public long long max_ranges
    cdef public Rack rack
    cdef public Told told
    cdef public long long una
    cdef public long long end
    cdef public long long packets
    cdef public long long sacked
    cdef public long long sacked_packets
    cdef public long long ranges
    cdef public long long lost
    cdef public long long repeated
    cdef public long long pending
    cdef public long long highest
    cdef public Record oldest
    cdef public Record newest
    cdef list _records
    cdef Py_ssize_t _first
    cdef long long _hint
    cpdef long long in_flight(self) except? -1
    cpdef bint is_full(self) except -1
    @cython.locals(record=Record)
    cpdef add(self, long long end, long long mss, long long count, long long now, bint again)
    @cython.locals(riding="long long")
    cpdef repeat(self, Record record, long long end, long long mss, long long stamp, long long now)
    cpdef begin(self, long long high)
    @cython.locals(records=list, count="Py_ssize_t", first="Py_ssize_t", record=Record)
    cpdef acknowledge(self, long long una, long long now)
    @cython.locals(records=list, index="Py_ssize_t", record=Record, left="long long", right="long long")
    cpdef cover(self, long long start, long long end, long long now)
    @cython.locals(record=Record)
    cpdef uncover(self)
    @cython.locals(length="long long")
    cpdef mark_lost(self, Record record)
    @cython.locals(record=Record)
    cpdef lose_head(self, long long length)
    @cython.locals(head=Record, record=Record)
    cpdef lose_all(self, long long younger)
    @cython.locals(record=Record)
    cpdef lose_longer(self, long long mss)
    @cython.locals(records=list, index="Py_ssize_t", record=Record)
    cpdef Record next_lost(self)
    cpdef Record head(self)
    @cython.locals(record=Record, at="long long")
    cpdef Record tail(self, long long length)
    @cython.locals(told=Told, length="long long")
    cdef object _deliver(self, Record record, long long end, long long now)
    @cython.locals(told=Told, length="long long")
    cdef object _mark_sacked(self, Record record, long long now)
    @cython.locals(records=list, record=Record, before=Record, later="Py_ssize_t")
    cdef bint _adjoins(self, Py_ssize_t index, long long start, long long end) except -1
    @cython.locals(records=list, before=Record, after=Record)
    cdef Py_ssize_t _join(self, Py_ssize_t index) except -1
    @cython.locals(record=Record, before=Record)
    cdef object _absorb(self, Py_ssize_t index)
    @cython.locals(record=Record, rest=Record, riding="long long")
    cdef object _split(self, Py_ssize_t index, long long at)
    @cython.locals(riding="long long")
    cdef object _trim(self, Record record, long long start)
    @cython.locals(count="long long")
    cdef object _recount(self, Record record, long long riding)
    @cython.locals(records=list, low="Py_ssize_t", high="Py_ssize_t", middle="Py_ssize_t", record=Record)
    cdef Py_ssize_t _index(self, long long position) except -1
    @cython.locals(newest=Record)
    cdef object _list(self, Record record)
    cdef object _list_all(self)
    @cython.locals(older=Record, newer=Record)
    cdef object _unlist(self, Record record)

cdef long long _segments(long long length, long long mss) except -1
cdef long long _riding(Record record) except -1
