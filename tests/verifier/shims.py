"""What stands before a real target, host or link and lets everything through, for mutants to change one thing."""

from __future__ import annotations

import struct

from chimney.conformance.host import Host
from chimney.conformance.wire import checked
from chimney.link.base import NO_VLAN, Frame, Link
from chimney.link.checksum import checksum
from chimney.link.gso import wire_segments
from chimney.ndis.driver import Miniport
from chimney.ndis.library import MiniportHandle

HostShim = Host
"""A host is changed by overriding: all its calls downward, and all its handlers, are methods of those names."""


_OF_A_MINIPORT = {"name", "handle", "handlers", "driver", "level", "inner"}


class TargetShim(Miniport):
    """The upper edge of a real target, ``inner``. Every call of NDIS goes through a method of the same name here, and
    so does every call of the target to NDIS (``tcp_offload_send_complete``, ``tcp_offload_event_handler``,
    ``initiate_offload_complete``, ...). Whatever else is asked of a target, ``inner`` answers.
    """

    def __init__(self, inner):
        super().__init__(inner.name)
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.__dict__["inner"], name)

    def __setattr__(self, name, value):
        """What the real target has is set there, except what NDIS sets of a miniport."""
        inner = self.__dict__.get("inner")
        if name in _OF_A_MINIPORT or inner is None or not hasattr(inner, name):
            super().__setattr__(name, value)
        else:
            setattr(inner, name, value)

    def poll(self, now, limit=64):
        return self.inner.poll(now, limit)

    def flush(self, now):
        return self.inner.flush(now)

    def poll_at(self):
        return self.inner.poll_at()

    # NDIS calls

    def set_options(self, registration):
        self.inner.handle = _Upcalls(self)
        super().set_options(registration)

    def initialize(self):
        self.inner.initialize()

    def halt(self):
        self.inner.halt()

    def oid_request(self, request):
        return self.inner.oid_request(request)

    def initiate_offload(self, block_list):
        self.inner.initiate_offload(block_list)

    def terminate_offload(self, block_list):
        self.inner.terminate_offload(block_list)

    def update_offload(self, block_list):
        self.inner.update_offload(block_list)

    def invalidate_offload(self, block_list):
        self.inner.invalidate_offload(block_list)

    def query_offload(self, block_list):
        self.inner.query_offload(block_list)

    def tcp_offload_send(self, offload_context, net_buffer_list):
        return self.inner.tcp_offload_send(offload_context, net_buffer_list)

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        return self.inner.tcp_offload_receive(offload_context, net_buffer_list)

    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        return self.inner.tcp_offload_disconnect(offload_context, net_buffer_list, flags)

    def tcp_offload_forward(self, offload_context, net_buffer_list):
        return self.inner.tcp_offload_forward(offload_context, net_buffer_list)

    def tcp_offload_receive_return(self, net_buffer_list):
        return self.inner.tcp_offload_receive_return(net_buffer_list)

    # The target calls

    def get_offload_handlers(self, offload_type):
        status, self.handlers = self.handle.get_offload_handlers(offload_type)
        return status, None if self.handlers is None else self.inner.handle

    def set_miniport_attributes(self, hardware_capabilities, current_config):
        self.handle.set_miniport_attributes(hardware_capabilities, current_config)

    def initiate_offload_complete(self, block_list):
        self.handle.initiate_offload_complete(block_list)

    def terminate_offload_complete(self, block_list):
        self.handle.terminate_offload_complete(block_list)

    def update_offload_complete(self, block_list):
        self.handle.update_offload_complete(block_list)

    def invalidate_offload_complete(self, block_list):
        self.handle.invalidate_offload_complete(block_list)

    def query_offload_state_complete(self, block_list):
        self.handle.query_offload_state_complete(block_list)

    def tcp_offload_send_complete(self, net_buffer_list):
        self.handlers.tcp_offload_send_complete(net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list):
        self.handlers.tcp_offload_receive_complete(net_buffer_list)

    def tcp_offload_disconnect_complete(self, net_buffer_list):
        self.handlers.tcp_offload_disconnect_complete(net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list):
        self.handlers.tcp_offload_forward_complete(net_buffer_list)

    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        return self.handlers.tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, status)

    def tcp_offload_event_handler(self, ndis_offload_handle, event_type, event_specific_information):
        self.handlers.tcp_offload_event_handler(ndis_offload_handle, event_type, event_specific_information)

    def offload_event_indicate(self, block_list, indication_code):
        self.handle.offload_event_indicate(block_list, indication_code)

    def indicate_status_ex(self, status_code, status_buffer=None):
        self.handle.indicate_status_ex(status_code, status_buffer)

    def indicate_receive_net_buffer_lists(self, net_buffer_list):
        self.handle.indicate_receive_net_buffer_lists(net_buffer_list)

    def oid_request_complete(self, request, status):
        self.handle.oid_request_complete(request, status)


class _Upcalls(MiniportHandle):
    """What the inner target takes for its handle: everything goes to the shim."""

    def __init__(self, shim):
        super().__init__(shim, shim.handle.protocol, shim.handle.binding)
        self.shim = shim

    def get_offload_handlers(self, offload_type):
        return self.shim.get_offload_handlers(offload_type)

    def set_miniport_attributes(self, hardware_capabilities, current_config):
        self.shim.set_miniport_attributes(hardware_capabilities, current_config)

    def initiate_offload_complete(self, block_list):
        self.shim.initiate_offload_complete(block_list)

    def terminate_offload_complete(self, block_list):
        self.shim.terminate_offload_complete(block_list)

    def update_offload_complete(self, block_list):
        self.shim.update_offload_complete(block_list)

    def invalidate_offload_complete(self, block_list):
        self.shim.invalidate_offload_complete(block_list)

    def query_offload_state_complete(self, block_list):
        self.shim.query_offload_state_complete(block_list)

    def tcp_offload_send_complete(self, net_buffer_list):
        self.shim.tcp_offload_send_complete(net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list):
        self.shim.tcp_offload_receive_complete(net_buffer_list)

    def tcp_offload_disconnect_complete(self, net_buffer_list):
        self.shim.tcp_offload_disconnect_complete(net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list):
        self.shim.tcp_offload_forward_complete(net_buffer_list)

    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        return self.shim.tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, status)

    def tcp_offload_event_handler(self, ndis_offload_handle, event_type, event_specific_information):
        self.shim.tcp_offload_event_handler(ndis_offload_handle, event_type, event_specific_information)

    def offload_event_indicate(self, block_list, indication_code):
        self.shim.offload_event_indicate(block_list, indication_code)

    def indicate_status_ex(self, status_code, status_buffer=None):
        self.shim.indicate_status_ex(status_code, status_buffer)

    def indicate_receive_net_buffer_lists(self, net_buffer_list):
        self.shim.indicate_receive_net_buffer_lists(net_buffer_list)

    def oid_request_complete(self, request, status):
        self.shim.oid_request_complete(request, status)


class Segment:
    """A TCP segment on the wire, taken apart; change what you like, `build` makes it a frame with right checksums.

    ``destination``, ``source``: MAC addresses. ``ip``: the IP header (bytearray; its lengths and checksum are made
    anew). ``options``: TCP's. ``vlan``: the tag's control information, -1 for none.
    """

    def __init__(self, frame, vlan=NO_VLAN):
        self.destination, self.source = bytes(frame[:6]), bytes(frame[6:12])
        self.vlan = vlan
        self.ipv6 = bytes(frame[12:14]) == b"\x86\xdd"
        size = 40 if self.ipv6 else (frame[14] & 15) * 4
        self.ip = bytearray(frame[14 : 14 + size])
        end = 14 + (
            40 + struct.unpack_from("!H", frame, 18)[0] if self.ipv6 else struct.unpack_from("!H", frame, 16)[0]
        )
        tcp = bytes(frame[14 + size : end])
        (self.source_port, self.destination_port, self.seq, self.ack, data, self.flags, self.window, _, self.urgent) = (
            struct.unpack_from("!HHIIBBHHH", tcp)
        )
        self.options = tcp[20 : (data >> 4) * 4]
        self.payload = tcp[(data >> 4) * 4 :]

    @staticmethod
    def of(frame, vlan=NO_VLAN):
        """The segment in a frame, None if it is no TCP over IP."""
        v4 = bytes(frame[12:14]) == b"\x08\x00" and len(frame) >= 54 and frame[23] == 6
        v6 = bytes(frame[12:14]) == b"\x86\xdd" and len(frame) >= 74 and frame[20] == 6
        fragment = v4 and int.from_bytes(frame[20:22], "big") & 0x3FFF
        return Segment(frame, vlan) if (v4 or v6) and not fragment else None

    @property
    def end(self):
        """The sequence number behind it."""
        return self.seq + len(self.payload) + (self.flags & 1) + (self.flags >> 1 & 1) & 0xFFFFFFFF

    def build(self):
        """The frame, with lengths and checksums right."""
        data = (20 + len(self.options)) << 2
        numbers = self.seq & 0xFFFFFFFF, self.ack & 0xFFFFFFFF
        ports = self.source_port, self.destination_port
        tcp = struct.pack("!HHIIBBHHH", *ports, *numbers, data, self.flags, self.window, 0, self.urgent)
        ip = self.ip
        addresses = (ip[8:24], ip[24:40]) if self.ipv6 else (ip[12:16], ip[16:20])
        tcp = checked(bytes(addresses[0]), bytes(addresses[1]), tcp + self.options + self.payload)
        if self.ipv6:
            ip[4:6] = len(tcp).to_bytes(2, "big")
        else:
            ip[0] = 0x40 | len(ip) // 4
            ip[2:4] = (len(ip) + len(tcp)).to_bytes(2, "big")
            ip[10:12] = b"\0\0"
            ip[10:12] = checksum(ip).to_bytes(2, "big")
        return self.destination + self.source + (b"\x86\xdd" if self.ipv6 else b"\x08\x00") + bytes(ip) + tcp


class LinkShim(Link):
    """Between a target and the (watched) link: the verifier takes what comes out of here for what the target sends.

    `outgoing` and `incoming` are given one `Segment` after the other, and say what becomes of it: a list of segments
    (none: it is lost), sent or received in this order. `other` is given received frames that hold no TCP segment.
    """

    def __init__(self, inner):
        super().__init__(inner.name, inner.mac, inner.mtu)
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def outgoing(self, segment):
        return [segment]

    def incoming(self, segment):
        return [segment]

    def other(self, frame):
        return [frame]

    def emit(self, segment):
        """Send a segment now."""
        return self.inner.send(segment.build(), [], 0, 0, 0, False, segment.vlan)

    def send(self, header, payload, csum_start, csum_offset, gso_size, gso_ipv6, vlan=NO_VLAN):
        if not self.inner.writable():
            return self.inner.send(header, payload, csum_start, csum_offset, gso_size, gso_ipv6, vlan)
        frames = wire_segments(header, payload, csum_start, csum_offset, gso_size, gso_ipv6)
        made = [segment for frame in frames for segment in self.outgoing(Segment(frame, vlan))]
        if [(segment.build(), segment.vlan) for segment in made] == [(bytes(frame), vlan) for frame in frames]:
            # Nothing has changed: in one piece, as it was to be sent.
            return self.inner.send(header, payload, csum_start, csum_offset, gso_size, gso_ipv6, vlan)
        for segment in made:
            self.emit(segment)
        return True

    def receive(self, limit):
        taken = []
        for frame in self.inner.receive(limit):
            segment = Segment.of(frame.data, frame.vlan)
            if segment is None:
                taken += self.other(frame)
                continue
            before = segment.build()
            for made in self.incoming(segment):
                data = made.build()
                if made is segment and data == before and made.vlan == frame.vlan:
                    taken.append(frame)
                else:
                    taken.append(Frame(memoryview(bytearray(data)), made.vlan, True))
        return taken

    def release(self):
        self.inner.release()

    def writable(self):
        return self.inner.writable()

    def set_filter(self, flows):
        self.inner.set_filter(flows)

    def fileno(self):
        return self.inner.fileno()

    @property
    def statistics(self):
        return self.inner.statistics

    def close(self):
        self.inner.close()
