"""Mutants of the rules about upload requests and hardware failures: upload.*, hwfail.sequence."""

from chimney.ndis.status import Status, StatusIndication, TcpOffloadEvent, UploadReason
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim

RETRIEVE, ABORT = TcpOffloadEvent.INDICATE_RETRIEVE, TcpOffloadEvent.INDICATE_ABORT


@mutant("upload.sends", scenario="upload-requests")
@mutant("upload.sends", scenario="upload-all")
class PretendsToHaveSent(TargetShim):
    """Ends what it refuses with success."""

    def tcp_offload_send_complete(self, net_buffer_list):
        nbl = net_buffer_list
        while nbl is not None:
            if nbl.status == Status.UPLOAD_IN_PROGRESS:
                nbl.status = Status.SUCCESS
            nbl = nbl.next
        super().tcp_offload_send_complete(net_buffer_list)


@mutant("upload.resource", scenario="short-of-memory-for-segments", side=1)
@mutant("upload.time-wait", scenario="segments-in-time-wait")
class NeverAsks(TargetShim):
    def tcp_offload_event_handler(self, handle, event, information):
        if event != RETRIEVE:
            super().tcp_offload_event_handler(handle, event, information)


@mutant("upload.one-per-call", scenario="upload-requests")
class AsksForPaths(TargetShim):
    """Asks for the path instead of the connections over it."""

    def tcp_offload_event_handler(self, handle, event, information):
        path = self.side_ends()[0].path_handle
        super().tcp_offload_event_handler(path if event == RETRIEVE else handle, event, information)

    def side_ends(self):
        return self.handle.protocol.side.ends


@mutant("upload.mandatory-stop", scenario="upload-requests")
class GoesOn(LinkShim):
    """Sends once more what it sent last, long after."""

    last = None

    def outgoing(self, segment):
        if segment.payload:
            self.last = type(segment)(segment.build(), segment.vlan)
        return [segment]

    def receive(self, limit):
        if self.last is not None:
            self.emit(self.last)
        return super().receive(limit)


@mutant("upload.mandatory-stop", scenario="urgent-data", side=1)
class AcknowledgesAllTheSame(LinkShim):
    """Acknowledges whatever comes in."""

    sent = None

    def outgoing(self, segment):
        self.sent = type(segment)(segment.build(), segment.vlan)
        return [segment]

    def incoming(self, segment):
        if segment.payload and self.sent is not None and self.writable():
            self.sent.payload = b""
            self.sent.ack = segment.end
            self.emit(self.sent)
        return [segment]


@mutant("upload.optional-continue", scenario="upload-requests")
class TakesAdviceForOrders(TargetShim):
    """Refuses sends as soon as it has asked for the upload, whatever the reason."""

    asked = False

    def tcp_offload_event_handler(self, handle, event, information):
        self.asked = self.asked or event == RETRIEVE
        super().tcp_offload_event_handler(handle, event, information)

    def tcp_offload_send_complete(self, net_buffer_list):
        if self.asked and net_buffer_list.status == Status.SUCCESS:
            net_buffer_list.status = Status.UPLOAD_IN_PROGRESS
        super().tcp_offload_send_complete(net_buffer_list)


@mutant("upload.half-closed", scenario="upload-requests", side=1)
class AsksForTheHalfClosed(TargetShim):
    """A connection whose peer has closed is not worth a place."""

    def tcp_offload_event_handler(self, handle, event, information):
        super().tcp_offload_event_handler(handle, event, information)
        if event == TcpOffloadEvent.INDICATE_DISCONNECT:
            super().tcp_offload_event_handler(handle, RETRIEVE, UploadReason.LOW_ACTIVITY)


@mutant("upload.half-closed", scenario="fin-wait-2")
class AsksForThoseThatHaveClosed(TargetShim):
    def tcp_offload_disconnect_complete(self, net_buffer_list):
        super().tcp_offload_disconnect_complete(net_buffer_list)
        handle = self.handle.protocol.side.ends[0].handle
        self.tcp_offload_event_handler(handle, RETRIEVE, UploadReason.LOW_ACTIVITY)


@mutant("upload.all.host", scenario="upload-all")
class KeepsItsConnections(HostShim):
    def status_ex(self, status_code, status_buffer=None):
        if status_code != StatusIndication.UPLOAD_ALL:
            super().status_ex(status_code, status_buffer)


@mutant("upload.all.host", scenario="upload-all")
class OffloadsAgainAtOnce(HostShim):
    """Offloads anew what it has just been made to take back."""

    def terminate_offload_complete(self, tree):
        super().terminate_offload_complete(tree)
        if self.side.target.uploading:
            self.side.ends[0].initiate()


@mutant("upload.media-loss", scenario="media-loss")
class DecidesForTheHost(TargetShim):
    """No medium, no connections."""

    def indicate_status_ex(self, status_code, status_buffer=None):
        super().indicate_status_ex(status_code, status_buffer)
        if status_buffer == 0:
            for end in self.handle.protocol.side.ends:
                self.inner.request_retrieve(end.flow, UploadReason.UPLOAD_REQUESTED)


@mutant("hwfail.sequence", scenario="hardware-failures")
class AbortsFirst(TargetShim):
    """TcpIndicateAbort before TcpIndicateRetrieve."""

    kept_back = None

    def tcp_offload_event_handler(self, handle, event, information):
        if event == RETRIEVE:
            self.kept_back = handle, event, information
            return
        super().tcp_offload_event_handler(handle, event, information)
        if self.kept_back is not None:
            super().tcp_offload_event_handler(*self.kept_back)
            self.kept_back = None


@mutant("hwfail.sequence", scenario="hardware-failures")
class UploadsItsRequests(TargetShim):
    """Ends the requests of a lost connection as if it had been taken back in order."""

    def tcp_offload_receive_complete(self, net_buffer_list):
        if net_buffer_list.status == Status.REQUEST_ABORTED:
            net_buffer_list.status = Status.UPLOAD_IN_PROGRESS
        super().tcp_offload_receive_complete(net_buffer_list)


@mutant("hwfail.sequence", scenario="hardware-failures")
class NeverAborts(TargetShim):
    """Asks for the upload, and leaves it at that."""

    def tcp_offload_event_handler(self, handle, event, information):
        if event != ABORT:
            super().tcp_offload_event_handler(handle, event, information)


@mutant("hwfail.sequence", scenario="hardware-failures")
class TellsBefore(TargetShim):
    """Asks for the upload before it completes the query that has failed."""

    def query_offload_state_complete(self, block):
        failed = False
        at = block
        while at is not None:
            failed = failed or at.status == Status.FAILURE
            at = at.dependent_block_list
        if failed:
            handle = self.handle.protocol.side.ends[0].handle
            self.tcp_offload_event_handler(handle, RETRIEVE, UploadReason.HARDWARE_FAILURE)
        super().query_offload_state_complete(block)
