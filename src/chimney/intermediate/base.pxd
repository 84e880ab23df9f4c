cimport cython

from chimney.intermediate.edges cimport LowerEdge, OffloadEntry, UpperEdge
from chimney.ndis.buffers cimport NetBufferList, NetBufferListContext
from chimney.ndis.handle cimport OffloadHandle

cdef int _SEND
cdef int _RECEIVE
cdef int _DISCONNECT
cdef int _FORWARD
cdef long _SUCCESS
cdef long _PENDING
cdef long _REQUEST_UPLOAD
cdef long _UPLOAD_REQUESTED
cdef long _UPLOAD_IN_PROGRESS
cdef long _NOT_ACCEPTED
cdef int _NO_SENDS
cdef int _NO_RECEIVES
cdef int _STOPPED
cdef int _SPARE_RECORDS

cdef class IntermediateDriver:
    cdef object __weakref__
    cdef public str name
    cdef public list uppers
    cdef public list lowers
    cdef public UpperEdge upper
    cdef public LowerEdge lower
    cdef public dict entries
    cdef public set calls
    cdef public dict oids
    cdef public long long data_entries
    cdef public long long lent
    cdef public long receiving
    cdef public list late
    cdef public bint asks
    cdef public bint records
    cdef public bint lends
    cdef public bint uploading
    cdef public bint direct_down
    cdef public bint direct_up
    cdef public bint direct_in
    cdef NetBufferListContext _spare
    cdef int _spares

    cpdef long on_request(self, OffloadEntry entry, int operation, NetBufferList net_buffer_list, int flags) except -1
    cpdef long pass_down(self, OffloadEntry entry, int operation, NetBufferList net_buffer_list, int flags) except -1
    cpdef long call_down(self, OffloadEntry entry, int operation, NetBufferList net_buffer_list, int flags) except -1
    @cython.locals(nbl=NetBufferList, done=NetBufferList, count="long")
    cpdef bint attach(self, OffloadEntry entry, int operation, NetBufferList head) except? False
    @cython.locals(context=NetBufferListContext)
    cpdef push(self, NetBufferList nbl, object data)
    @cython.locals(context=NetBufferListContext)
    cpdef object pop(self, NetBufferList nbl)
    @cython.locals(entry=OffloadEntry)
    cpdef OffloadEntry detach(self, NetBufferList nbl, int operation)
    @cython.locals(nbl=NetBufferList)
    cdef _detach_all(self, NetBufferList head, int operation)
    cpdef bint allocate(self, str what) except? False
    cdef bint _refuses(self, OffloadEntry entry, int operation)
    @cython.locals(nbl=NetBufferList, first="long", rest="long", status="long")
    cpdef long refuse(self, OffloadEntry entry, int operation, NetBufferList head) except -1
    cpdef on_completion(self, LowerEdge lower, int operation, NetBufferList net_buffer_list)
    @cython.locals(head=NetBufferList, first=UpperEdge, split=bint, count="long", previous=NetBufferList, nbl=NetBufferList, following=NetBufferList, entry=OffloadEntry, upper=UpperEdge, special=bint, held=list)
    cpdef complete(self, int operation, NetBufferList net_buffer_list)
    @cython.locals(tail=NetBufferList)
    cdef _append(self, UpperEdge upper, NetBufferList nbl)
    cpdef complete_up(self, UpperEdge upper, int operation, NetBufferList net_buffer_list)
    cpdef tuple on_indication(self, OffloadEntry entry, NetBufferList net_buffer_list, long status)
    cpdef tuple indicate(self, OffloadEntry entry, NetBufferList net_buffer_list, long status)
    @cython.locals(nbl=NetBufferList)
    cpdef lend(self, NetBufferList head, LowerEdge lower)
    @cython.locals(nbl=NetBufferList, following=NetBufferList, lower=LowerEdge)
    cpdef long on_receive_return(self, NetBufferList net_buffer_list) except -1
    cpdef on_event(self, OffloadEntry entry, long event_type, long information)
    cpdef indicate_event(self, OffloadEntry entry, long event_type, long information)
    cpdef on_state_request(self, UpperEdge upper, str operation, object tree)
    cpdef on_state_completion(self, LowerEdge lower, str operation, object tree)
    cpdef LowerEdge choose_lower(self, UpperEdge upper, object block)
    cpdef prepare_initiate(self, OffloadEntry entry, object block)
    cpdef OffloadEntry new_entry(self, OffloadHandle upper_handle, UpperEdge upper, LowerEdge lower)
    cpdef publish(self, object above, OffloadEntry entry)
    cpdef remove(self, OffloadEntry entry)
    cpdef save(self, object call, object below)
    cpdef restore(self, object call)
    cpdef complete_tree(self, object call)

cdef int _DEFERRED_EVENT
cdef int _DEFERRED_DATA
