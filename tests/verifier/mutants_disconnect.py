"""Mutants of disconnects: wrong requests, wrong segments, completions that come too early or say the wrong thing."""

from chimney.intermediate import PassThrough
from chimney.intermediate.edges import DISCONNECT
from chimney.link.base import NEVER
from chimney.ndis.buffers import Mdl, NetBuffer, advance_net_buffer_data_start, net_buffer_list
from chimney.ndis.status import DisconnectFlags, Status, TcpOffloadEvent
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, LinkShim, TargetShim

ABORTIVE, GRACEFUL = DisconnectFlags.ABORTIVE_CLOSE, DisconnectFlags.GRACEFUL_CLOSE
FIN, RST = 0x01, 0x04


# Requests


@mutant("disconnect.pending-only", scenario="graceful-close")
class DoneAtOnce(TargetShim):
    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        super().tcp_offload_disconnect(offload_context, net_buffer_list, flags)
        return Status.SUCCESS


@mutant("disconnect.single-nbl", scenario="graceful-close")
class TwoNetBuffers(HostShim):
    def offload_tcp_disconnect(self, handle, request, flags):
        request.first_net_buffer.next = net_buffer_list(b"").first_net_buffer
        return super().offload_tcp_disconnect(handle, request, flags)


@mutant("disconnect.abort.no-data", scenario="abortive-close")
class AbortsWithData(HostShim):
    def offload_tcp_disconnect(self, handle, request, flags):
        if flags == ABORTIVE:
            request.first_net_buffer = NetBuffer(Mdl(memoryview(b"words")), 0, 5)
        return super().offload_tcp_disconnect(handle, request, flags)


@mutant("disconnect.host.no-reissue", scenario="abort-after-an-upload-request")
class AsksAgain(HostShim):
    again = False

    def tcp_offload_disconnect_complete(self, net_buffer_list):
        end = net_buffer_list.protocol_reserved.end
        super().tcp_offload_disconnect_complete(net_buffer_list)
        if net_buffer_list.status == Status.UPLOAD_IN_PROGRESS and not end.reset and not self.again:
            self.again = True
            self.offload_tcp_disconnect(end.handle, net_buffer_list, GRACEFUL)


# Abortive


class _Disconnects(TargetShim):
    """Does not pass disconnects of one kind on; `later` says when they are looked at again."""

    flags = GRACEFUL

    def __init__(self, inner):
        super().__init__(inner)
        self.kept = []

    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        if flags != self.flags:
            return super().tcp_offload_disconnect(offload_context, net_buffer_list, flags)
        self.kept.append((self.clock(), offload_context, net_buffer_list))
        return Status.PENDING

    def due_at(self):
        return self.clock()

    def pass_on(self, offload_context, net_buffer_list):
        """What becomes of a request in the end."""
        super().tcp_offload_disconnect(offload_context, net_buffer_list, self.flags)

    def poll(self, now, limit=64):
        done = super().poll(now, limit)
        if self.kept and now >= self.due_at():
            waiting, self.kept = self.kept, []
            for _, context, request in waiting:
                self.pass_on(context, request)
            done += 1
        return done

    def poll_at(self):
        at = super().poll_at()
        return min(at, self.due_at()) if self.kept else at


@mutant("disconnect.abort.rst", scenario="abort-of-undelivered-data")
class NoReset(_Disconnects):
    flags = ABORTIVE

    def pass_on(self, offload_context, request):
        request.status = Status.REQUEST_ABORTED
        self.tcp_offload_disconnect_complete(request)


@mutant("disconnect.abort.success", scenario="abortive-close")
class TheResetGetsLost(LinkShim):
    def outgoing(self, segment):
        return [] if segment.flags & RST else [segment]


@mutant("disconnect.rst.only-then", scenario="graceful-close")
class ResetsInsteadOfClosing(LinkShim):
    def outgoing(self, segment):
        if segment.flags & FIN:
            segment.flags = segment.flags & ~FIN | RST
        return [segment]


class _SendsLast(TargetShim):
    """Sends that end behind a disconnect of one kind are completed after it."""

    def __init__(self, inner):
        super().__init__(inner)
        self.closing = None
        self.kept = []

    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        if flags == self.flags:
            self.closing = net_buffer_list
        return super().tcp_offload_disconnect(offload_context, net_buffer_list, flags)

    def tcp_offload_send_complete(self, net_buffer_list):
        if self.closing is not None:
            self.kept.append(net_buffer_list)
        else:
            super().tcp_offload_send_complete(net_buffer_list)

    def tcp_offload_disconnect_complete(self, net_buffer_list):
        super().tcp_offload_disconnect_complete(net_buffer_list)
        if net_buffer_list is self.closing:
            self.closing = None
            for kept in self.kept:
                super().tcp_offload_send_complete(kept)


@mutant("disconnect.abort.sends-first", scenario="abortive-close")
class AbortsSendsLast(_SendsLast):
    flags = ABORTIVE


@mutant("disconnect.graceful.sends-first", scenario="graceful-close")
class CompletesSendsLast(_SendsLast):
    flags = GRACEFUL


@mutant("disconnect.abort.no-wait", scenario="abort-from-an-upcall", side=1)
class WaitsForTheUpcall(_Disconnects):
    flags = ABORTIVE

    def due_at(self):
        return self.kept[0][0] + 8_000_000 if self.kept else NEVER

    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        status = super().tcp_offload_disconnect(offload_context, net_buffer_list, flags)
        offload_context.delivery.blocked = True
        return status


@mutant("disconnect.abort.stop-rx", scenario="abort-of-undelivered-data")
class AcknowledgesInTheReset(LinkShim):
    def outgoing(self, segment):
        if segment.flags & RST:
            segment.ack += 1
        return [segment]


# Graceful


@mutant("disconnect.graceful.order", scenario="graceful-close")
class FinTooFar(LinkShim):
    def outgoing(self, segment):
        if segment.flags & FIN:
            segment.payload += b"?"
        return [segment]


@mutant("disconnect.graceful.no-ack-wait", scenario="fin-behind-data-in-flight")
class WaitsForTheAcknowledgement(_Disconnects):
    def due_at(self):
        sends = self.kept[0][1].sending.sends if self.kept else ()
        return NEVER if sends else self.kept[0][0] + 500_000


@mutant("disconnect.graceful.half-close", scenario="fin-wait-2")
class DeafAfterItsFin(LinkShim):
    closed = False

    def outgoing(self, segment):
        self.closed = self.closed or bool(segment.flags & FIN)
        return [segment]

    def incoming(self, segment):
        return [] if self.closed and segment.payload else [segment]


@mutant("disconnect.graceful.success", scenario="graceful-close")
class DoneWhenSent(_Disconnects):
    def pass_on(self, offload_context, request):
        length = request.data_length()
        super().pass_on(offload_context, net_buffer_list(*request.first_net_buffer.views()))
        offload_context.sending.disconnects.clear()
        request.status = Status.SUCCESS
        request.tcp_offload_bytes_transferred = length
        advance_net_buffer_data_start(request.first_net_buffer, length)
        self.tcp_offload_disconnect_complete(request)


class _Completes(TargetShim):
    def tcp_offload_disconnect_complete(self, net_buffer_list):
        self.change(net_buffer_list)
        super().tcp_offload_disconnect_complete(net_buffer_list)


@mutant("disconnect.graceful.other-status", scenario="reset-by-the-peer")
class UploadsAfterAReset(_Completes):
    def change(self, net_buffer_list):
        net_buffer_list.status = Status.UPLOAD_IN_PROGRESS


@mutant("disconnect.graceful.bytes", scenario="graceful-close")
class CountsTheFin(_Completes):
    def change(self, net_buffer_list):
        net_buffer_list.tcp_offload_bytes_transferred += 1


@mutant("disconnect.no-refusal", scenario="graceful-close")
class Refuses(_Completes):
    def change(self, net_buffer_list):
        net_buffer_list.status = Status.RESOURCES


@mutant("disconnect.keep-resources", scenario="reset-with-receives")
class ForgetsTheClosed(TargetShim):
    def tcp_offload_event_handler(self, handle, event_type, event_specific_information):
        super().tcp_offload_event_handler(handle, event_type, event_specific_information)
        if event_type == TcpOffloadEvent.INDICATE_ABORT:
            handle.miniport_offload_context = None


@mutant("disconnect.complete.own-nbl-only", scenario="graceful-close")
class SendsAsWell(TargetShim):
    def tcp_offload_send_complete(self, net_buffer_list):
        self.handlers.tcp_offload_disconnect_complete(net_buffer_list)


# The handler


@mutant("disconnect.handler.free-context", scenario="graceful-close")
class KeepsItsContext(PassThrough):
    def __init__(self, name):
        super().__init__(name, records=True)

    def complete(self, operation, net_buffer_list):
        if operation == DISCONNECT:
            self.complete_up(self.upper, operation, net_buffer_list)
        else:
            super().complete(operation, net_buffer_list)
