cdef class Mdl:
    cdef public object view
    cdef public long long byte_count
    cdef public Mdl next

cdef class NetBuffer:
    cdef public NetBuffer next
    cdef public Mdl mdl_chain
    cdef public Mdl current_mdl
    cdef public long long current_mdl_offset
    cdef public long long data_offset
    cdef public long long data_length
    cpdef list views(self)

cdef class NetBufferListContext:
    cdef public object owner
    cdef public object data
    cdef public NetBufferListContext next

cdef class NetBufferList:
    cdef object __weakref__
    cdef public NetBufferList next
    cdef public NetBuffer first_net_buffer
    cdef public NetBufferListContext context
    cdef public object miniport_reserved
    cdef public object protocol_reserved
    cdef public object scratch
    cdef public object source_handle
    cdef public long status
    cdef public long long tcp_offload_bytes_transferred
    cdef public bint tcp_receive_no_push
    cdef public NetBufferListPool pool
    cdef public int level
    cdef public int operation
    cpdef push_context(self, object owner, object data)
    cpdef object pop_context(self, object owner)
    cpdef long long data_length(self)

cdef class NetBufferListPool:
    cdef public str name
    cdef public long long outstanding
    cpdef NetBufferList allocate(self, NetBuffer net_buffer)
    cpdef free(self, NetBufferList net_buffer_list)

cpdef advance_net_buffer_data_start(NetBuffer net_buffer, long long delta)
cpdef long long copy_into_net_buffer(NetBuffer net_buffer, long long offset, object data) except -1
cpdef NetBufferList link(object lists)
