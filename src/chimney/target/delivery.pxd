cimport cython

from chimney.link.base cimport Frame
from chimney.ndis.buffers cimport (
    Mdl,
    NetBuffer,
    NetBufferList,
    NetBufferListPool,
    advance_net_buffer_data_start,
    copy_into_net_buffer,
)
from chimney.ndis.handle cimport OffloadHandle
from chimney.ndis.library cimport MiniportHandle

cdef long _SUCCESS
cdef long _INVALID_STATE
cdef long _NOT_ACCEPTED
cdef long _PARTIALLY_ACCEPTED
cdef long _INDICATE_DISCONNECT
cdef object _NO_MEMORY
cdef long long _LARGEST_PIECE

cdef class Delivery:
    cdef public OffloadHandle handle
    cdef public MiniportHandle upcalls
    cdef public set lent
    cdef public NetBufferListPool pool
    cdef public long long push_us
    cdef public long long indication_size
    cdef public object requests
    cdef public long long head_filled
    cdef public long long buffered_bytes
    cdef public long long pushed_to
    cdef public bint blocked
    cdef public bint quiet
    cdef public long refusal
    cdef public bint bounce
    cdef public bint stream_ended
    cdef public bint end_indicated
    cdef public long long delivered
    cdef public long long consumed
    cdef public long long push_at
    cdef public long long completed
    cdef public long long indications
    cdef NetBufferList _first_full
    cdef NetBufferList _last_full
    cdef unsigned char[::1] _memory
    cdef long long _room_at
    cdef long long _room
    cdef Mdl _first
    cdef Mdl _last
    cdef long long _start
    cdef object _tail
    cdef long long _tail_room

    cpdef hand_over(self, NetBufferList net_buffer_list)
    @cython.locals(following=NetBufferList)
    cpdef post(self, NetBufferList net_buffer_list)
    cpdef accept(self)
    @cython.locals(length="long long", taken="long long")
    cpdef arrive(self, object view, bint push, long long now)
    @cython.locals(frame=Frame, length="long long", start="long long")
    cpdef arrive_in_frames(self, list frames, bint push, long long now)
    cpdef run(self, long long now)
    cpdef settle(self)
    cdef _run(self, bint pushes)
    cpdef on_timer(self, long long now)
    cpdef fail(self, long status)
    cpdef NetBufferList take_buffered(self)
    @cython.locals(head=NetBufferList)
    cdef bint _is_pushed(self) except -1
    @cython.locals(early="long long")
    cdef _end_stream(self)
    @cython.locals(piece=Mdl)
    cdef _place(self)
    @cython.locals(length="long long", taken="long long", room="long long", copied="long long", request=NetBufferList)
    cdef long long _fill(self, object view) except -1
    @cython.locals(length="long long", at="long long")
    cdef long long _fill_from(self, Frame frame) except -1
    @cython.locals(request=NetBufferList, net_buffer=NetBuffer, mdl=Mdl)
    cdef _find_room(self)
    cdef _begin(self, NetBufferList request)
    @cython.locals(request=NetBufferList)
    cdef _finish_head(self, long status)
    @cython.locals(head=NetBufferList)
    cdef _complete_full(self)
    @cython.locals(size="long long", nbl=NetBufferList, status=long, consumed="long long", accepted=bint)
    cdef _indicate(self)
    @cython.locals(first=Mdl, last=Mdl, mdl=Mdl, piece=Mdl, left="long long", start="long long")
    cdef NetBufferList _list_of(self, long long size)
    @cython.locals(piece=Mdl, following=Mdl)
    cdef _drop(self, long long count)
    @cython.locals(length="long long", taken="long long", end="long long", size="long long", piece=Mdl)
    cdef _keep(self, object view)

@cython.locals(nb=NetBuffer, mdl=Mdl, missing="long long")
cdef _check_writable(NetBufferList net_buffer_list)
