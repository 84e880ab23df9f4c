from chimney.ndis.buffers cimport NetBufferList
from chimney.ndis.handle cimport OffloadHandle
from chimney.target.counters cimport Counters
from chimney.target.delivery cimport Delivery
from chimney.target.frames cimport HeaderTemplate
from chimney.target.sending cimport Sending
from chimney.tcp.connection cimport Connection
from chimney.tcp.segment cimport Segment

cdef class NeighborObject:
    cdef public OffloadHandle handle
    cdef public object const
    cdef public int vlan_id
    cdef public bytes source_mac
    cdef public bytes destination_mac
    cdef public dict paths
    cdef public bint invalid
    cdef public long long nic_reachable_at
    cdef public long long host_reachable_at

cdef class PathObject:
    cdef public OffloadHandle handle
    cdef public object const
    cdef public bint ipv6
    cdef public long long path_mtu
    cdef public NeighborObject neighbor
    cdef public dict connections
    cdef public bint invalid
    cdef public long long fragments

cdef class TcpObject:
    cdef object __weakref__
    cdef public OffloadHandle handle
    cdef public PathObject path
    cdef public object flow
    cdef public bytes key
    cdef public object const
    cdef public object cached
    cdef public Connection engine
    cdef public Delivery delivery
    cdef public Sending sending
    cdef public HeaderTemplate template
    cdef public Counters counters
    cdef public unsigned int local_port
    cdef public unsigned int remote_port
    cdef public bint invalid
    cdef public bint silent
    cdef public bint engine_done
    cdef public bint terminating
    cdef public bint broken
    cdef public bint failed
    cdef public int upload_reason
    cdef public NetBufferList abort_request
    cdef public Segment withdrawn
    cdef public object forwards
    cdef public list frames
    cdef public bint active
    cdef public bint waiting
    cdef public long long scheduled_at
    cdef public long long acked_before
    cdef public long long retransmitted_before
    cdef public long long backlog
    cdef public long long backlog_at
    cdef public object usage
    cdef public bint gone
    cdef public long long heard
    cdef public int careful

    cpdef refresh(self)
