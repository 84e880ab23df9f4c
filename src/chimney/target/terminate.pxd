cimport cython

from chimney.ndis.buffers cimport NetBufferList
from chimney.target.delivery cimport Delivery
from chimney.target.objects cimport TcpObject
from chimney.target.sending cimport Sending
from chimney.tcp.connection cimport Connection
from chimney.tcp.segment cimport Segment

cpdef announce_terminate(object root)
cpdef terminate(object target, object root)
cdef _last_words(object target, TcpObject tcp)
cpdef _give_all_back(object target, object root)
cdef _give_below_back(object target, list below)
@cython.locals(engine=Connection, delivery=Delivery, sending=Sending, withdrawn=Segment, undelivered=NetBufferList, chain=NetBufferList, nbl=NetBufferList)
cdef _give_back(object target, TcpObject tcp, object block)
cdef _fail_receives(TcpObject tcp, long status)
@cython.locals(unfinished=NetBufferList)
cdef NetBufferList _unfinished_sends(object target, TcpObject tcp, long status)
