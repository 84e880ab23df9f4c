cdef class Frame:
    cdef const unsigned char[::1] octets
    cdef readonly Py_ssize_t size
    cdef public int vlan
    cdef public bint checksum_ok
    cdef public int gso_size
    cdef public int payload
    cdef public int end
    cdef object _memory
    cdef Py_ssize_t _start
    cpdef place(self, object memory, const unsigned char[::1] octets, Py_ssize_t start, Py_ssize_t size)
    cpdef part(self, Py_ssize_t start, Py_ssize_t end)

cdef class Link:
    cdef public str name
    cdef public bytes mac
    cdef public long long mtu

    cpdef long fileno(self) except? -2
    cpdef long pending(self) except -1
    cpdef list receive(self, long limit)
    cpdef release(self)
    cpdef bint send(
        self, object header, list payload, long csum_start, long csum_offset, long gso_size, bint gso_ipv6, int vlan=*
    ) except -1
    cpdef bint writable(self) except -1
    cpdef set_filter(self, object flows)
    cpdef close(self)
