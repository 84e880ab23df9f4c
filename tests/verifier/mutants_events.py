"""Mutants of events: too early, too often, for no reason; hosts that do not care; and of reachability."""

from chimney.intermediate import Faults, FaultyDriver
from chimney.ndis.status import Status, TcpOffloadEvent, UploadReason
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim

Event = TcpOffloadEvent


@mutant("event.disconnect.after-data", scenario="fin-behind-refused-data", side=1)
class EndsTheStreamEarly(TargetShim):
    def tcp_offload_receive_handler(self, handle, net_buffer_list, status):
        verdict = super().tcp_offload_receive_handler(handle, net_buffer_list, status)
        self.tcp_offload_event_handler(handle, Event.INDICATE_DISCONNECT, 0)
        return verdict


@mutant("event.disconnect.after-data", scenario="graceful-close", side=1)
class EventsOvertakeCompletions(FaultyDriver):
    """Keeps completions back for some time, and no events."""

    def __init__(self, name):
        super().__init__(name, Faults(delay=1.0))

    def on_event(self, entry, event_type, information):
        self.indicate_event(entry, event_type, information)


@mutant("event.disconnect.half", scenario="sent-after-all", side=1)
class SendsNothingAfterAFin(TargetShim):
    closed = False

    def tcp_offload_event_handler(self, handle, event_type, event_specific_information):
        super().tcp_offload_event_handler(handle, event_type, event_specific_information)
        self.closed = self.closed or event_type == Event.INDICATE_DISCONNECT

    def tcp_offload_send_complete(self, net_buffer_list):
        if self.closed:
            net_buffer_list.status = Status.INVALID_STATE
        super().tcp_offload_send_complete(net_buffer_list)


@mutant("event.abort.sequence", scenario="aborted-after-all")
class KeepsTheResetToItself(TargetShim):
    def tcp_offload_event_handler(self, handle, event_type, event_specific_information):
        if event_type != Event.INDICATE_ABORT:
            super().tcp_offload_event_handler(handle, event_type, event_specific_information)


class _Deaf(HostShim):
    """Does not take a connection back."""

    def tcp_offload_event(self, offload_context, event_type, event_specific_information):
        super().tcp_offload_event(offload_context, event_type, event_specific_information)
        if event_type == self.ignored:
            offload_context.protocol_context.upload_reason = None


@mutant("event.abort.host", scenario="reset-with-receives")
class KeepsTheAborted(_Deaf):
    ignored = Event.INDICATE_ABORT


@mutant("terminate.on-request", scenario="graceful-close")
class KeepsWhatIsAskedBack(_Deaf):
    ignored = Event.INDICATE_RETRIEVE


@mutant("event.retrieve.reason", scenario="graceful-close")
class AnyReasonWillDo(TargetShim):
    def tcp_offload_event_handler(self, handle, event_type, event_specific_information):
        if event_type == Event.INDICATE_RETRIEVE:
            event_specific_information = UploadReason.RECEIVED_URGENT_DATA
        super().tcp_offload_event_handler(handle, event_type, event_specific_information)


@mutant("event.backlog.throttle", scenario="backlog")
class TellsOfEveryByte(TargetShim):
    def tcp_offload_event_handler(self, handle, event_type, event_specific_information):
        super().tcp_offload_event_handler(handle, event_type, event_specific_information)
        if event_type == Event.INDICATE_SEND_BACKLOG_CHANGE:
            super().tcp_offload_event_handler(handle, event_type, event_specific_information + 1)


# Reachability


@mutant("event.reach.when", scenario="reachability")
class NeverAsks(TargetShim):
    def offload_event_indicate(self, block_list, indication_code):
        """The host is not asked."""


@mutant("event.reach.block", scenario="reachability")
class LeavesTheConstantsOut(TargetShim):
    def offload_event_indicate(self, block_list, indication_code):
        block_list.const = None
        super().offload_event_indicate(block_list, indication_code)


@mutant("event.reach.answer", scenario="reachability")
class GivesNoAnswer(HostShim):
    def indicate_offload_event(self, block_list, indication_code):
        self.note("generic", block_list, indication_code)


@mutant("event.reach.progress", scenario="reachability")
class SeesNoProgress(TargetShim):
    def query_offload_state_complete(self, block_list):
        block_list.delegated.nic_reachability_delta += 5000
        super().query_offload_state_complete(block_list)
