"""Every reason for which a target asks for an upload (9.9), brought about on live connections."""

import errno
import socket
import struct
from dataclasses import replace

import pytest

import chimney
from chimney.host.linux import inject
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import endpoint_of
from chimney.ndis.status import UploadReason


class Case:
    """A connection below whose target looks every 20 ms how it is used, and asks for uploads as `thresholds` say."""

    def __init__(self, lab, helpers, stack, **thresholds):
        self.lab, self.helpers, self.stack = lab, helpers, stack
        self.ours, self.theirs = lab.connect()
        self.connection = stack.connection(self.ours)
        self.connection.offload()
        self.adapter = self.connection.adapter
        self.target = self.adapter.target
        [self.below] = self.target.connections.values()
        if thresholds:
            self.target.configure(replace(self.target.config, advice_ticks=20, **thresholds))
            self.target.plan_look()
            stack.flush_soon(self.adapter)
            helpers.wait_until(lambda: stack.poll(0.01) or self.below.usage is not None, "the target's first look")

    def until_asked(self, reason, doing=lambda: None):
        def is_asked():
            doing()
            self.stack.poll(0.01)
            return self.connection.info().upload_reason == reason.name

        self.helpers.wait_until(is_asked, reason.name)

    def deafen(self):
        self.theirs.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, so.DROP_ALL.program)

    def hear_again(self):
        self.theirs.setsockopt(so.SOL_SOCKET, so.SO_DETACH_FILTER, 0)

    def works(self):
        """Bytes go both ways, wherever the connection is."""
        self.theirs.sendall(b"question")
        got = b""
        while not got.endswith(b"question"):
            got += self.connection.recv(1000)
        self.connection.sendall(b"answer")
        assert self.helpers.receive(self.theirs, 6) == b"answer"


@pytest.fixture
def case(lab, helpers):
    with chimney.Stack(intermediate_drivers=1) as stack:
        yield lambda **thresholds: Case(lab, helpers, stack, **thresholds)


# The host may ignore it, and does: the connection stays below


def stays(case, reason, doing=lambda: None):
    case.until_asked(reason, doing)
    assert not reason.mandatory and case.connection.offloaded
    case.works()
    assert case.connection.offloaded


def test_low_activity(case):
    stays(case(low_activity_bytes=1000), UploadReason.LOW_ACTIVITY)


def test_small_requests(case):
    made = case(small_io_bytes=1000)

    def one_byte():
        made.connection.sendall(b"x")
        assert made.helpers.receive(made.theirs, 1) == b"x"

    stays(made, UploadReason.SMALL_IO, one_byte)


def test_no_receives_are_posted(case):
    made = case(no_preposting_indications=1)
    stays(made, UploadReason.NO_BUFFER_PREPOSTING, lambda: made.theirs.sendall(b"for whom?"))


def test_many_segments_are_lost(case):
    made = case(drop_permille=1)
    made.deafen()
    request = made.connection.post_send(b"to nobody")
    made.until_asked(UploadReason.HIGH_DROP_RATE)
    made.hear_again()
    while not request.done:
        made.stack.poll(1)
    assert made.helpers.receive(made.theirs, 9) == b"to nobody"
    stays(made, UploadReason.HIGH_DROP_RATE)


def test_many_segments_are_out_of_order(case):
    made = case(out_of_order_permille=1)
    made.works()
    said = [packet for packet in made.lab.tap.drain() if packet.length or packet.outgoing]
    [*_, heard] = [packet for packet in said if not packet.outgoing]
    [*_, ours] = [packet for packet in said if packet.outgoing]
    local, remote = (endpoint_of(name) for name in (made.ours.getsockname(), made.ours.getpeername()))
    # The end of what the peer says next has overtaken the rest; it is newer than the acknowledgement of our answer.
    stamps = (heard.ts_val + 1000, heard.ts_ecr)
    late = inject.segment(remote, local, ours.ack + 4, heard.ack, inject.ACK, heard.window, stamps, b"tion")
    with made.lab.peer.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        inject.send_segment(raw, late, remote.address, local.address)
    stays(made, UploadReason.HIGH_OUT_OF_ORDER_PACKETS)


def test_many_fragments_come_over_the_path(case):
    made = case(fragments=2)
    source, destination = (end.address(socket.AF_INET) for end in (made.lab.peer_end, made.lab.host_end))
    more_follow = 0x2000
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 1, more_follow, 64, socket.IPPROTO_TCP, 0)
    fragment = header + socket.inet_aton(source) + socket.inet_aton(destination) + bytes(24)
    with made.lab.peer.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        stays(made, UploadReason.HIGH_FRAGMENTATION, lambda: raw.sendto(fragment, (destination, 0)))


# The host has to comply


def comes_up(case, reason):
    case.until_asked(reason)
    case.helpers.wait_until(lambda: case.stack.poll(0.01) or not case.connection.offloaded, "the upload")
    assert reason.mandatory and case.connection.info().uploads == 1


def test_urgent_data(case):
    made = case()
    made.theirs.sendall(b"before")
    made.theirs.send(b"!", socket.MSG_OOB)
    comes_up(made, UploadReason.RECEIVED_URGENT_DATA)
    # No byte of it is lost: the kernel can do what the documents' targets need not (tcp.urgent).
    assert made.connection.recv(6) == b"before"
    assert made.ours.recv(1, socket.MSG_OOB) == b"!"
    made.works()


def test_the_peer_does_not_answer(case):
    made = case()
    made.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 250)
    made.deafen()
    request = made.connection.post_send(b"to nobody")
    comes_up(made, UploadReason.TIMEOUT_EXPIRATION)
    assert isinstance(request.error, TimeoutError) and request.error.errno == errno.ETIMEDOUT


def test_the_next_hop_is_not_valid_any_more(case):
    made = case()
    made.adapter.edge.upkeep.invalidate(made.connection.chimney.record.path.neighbor)
    made.connection.post_send(b"not on its way")
    made.until_asked(UploadReason.INVALID_STATE)
    # The host has said so itself, and may have another way for it: until then the connection is held (9.7, step 4).
    assert made.connection.offloaded and not made.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        made.theirs.recv(1)
    made.connection.upload()
    made.stack.poll(0)
    assert made.helpers.receive(made.theirs, 14) == b"not on its way"
    made.works()


def test_the_connection_is_over(case):
    made = case()
    made.connection.shutdown()
    made.theirs.shutdown(socket.SHUT_WR)
    comes_up(made, UploadReason.UPLOAD_REQUESTED)
    assert made.theirs.recv(1) == b"" and made.connection.recv(1) == b""
    assert made.connection.error is None and made.lab.resets() == 0


def test_the_target_wants_it(case):
    made = case()
    assert made.target.request_retrieve(made.below.flow, UploadReason.UPLOAD_REQUESTED)
    comes_up(made, UploadReason.UPLOAD_REQUESTED)
    made.works()


def test_the_targets_hardware_fails(case):
    """It is told as what it is, and the peer is told, too."""
    made = case()
    made.theirs.sendall(b"lost")
    receive = made.connection.post_receive(bytearray(10))
    made.deafen()
    send = made.connection.post_send(b"lost, too")
    made.target.fail_hardware(made.below.flow)
    made.connection.upload()
    comes_up(made, UploadReason.HARDWARE_FAILURE)
    made.hear_again()
    assert isinstance(send.error, ConnectionAbortedError) and send.error.errno == errno.ECONNABORTED
    assert "the offload target has failed" in str(send.error)
    assert receive.error is None or receive.error is send.error or receive.error.errno == errno.ECONNABORTED
    with pytest.raises(ConnectionAbortedError):
        made.connection.recv(1)
    made.connection.detach()
    assert made.helpers.state_of(made.ours).name == "CLOSE"
    made.theirs.settimeout(5)
    with pytest.raises(ConnectionResetError):
        made.theirs.send(b"hello?")
        made.theirs.recv(1)
