cimport cython

from chimney.tcp.flight cimport Flight
from chimney.tcp.seq cimport unwrap

@cython.locals(una="long long", index="Py_ssize_t", start="long long", end="long long")
cpdef read_blocks(list blocks, long long una_seq, long long ack, Flight flight, long long now)
cdef bint _is_within(long long start, long long end, tuple block, long long una_seq, long long una)
