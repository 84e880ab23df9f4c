"""Mutants of adapters as a whole: parameters, capacities, pauses, statistics, power."""

from dataclasses import replace

from chimney.conformance.end import End
from chimney.conformance.host import Host
from chimney.ndis.capabilities import (
    Oid,
    OidRequest,
    Switch,
    TcpConnectionOffload,
    TcpConnectionOffloadParameters,
    TcpOffloadStats,
)
from chimney.ndis.library import Binding, bind
from chimney.ndis.status import Status, StatusIndication
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim


@mutant("cap.enable", scenario="transfer")
class OffloadsRightAway(HostShim):
    def oid_request(self, request):
        return Status.SUCCESS


@mutant("cap.enable", scenario="transfer-ipv6")
class UsesWhatItHasNotEnabled(HostShim):
    def oid_request(self, request):
        request.information = replace(request.information, support_ipv6=Switch.OFF)
        return super().oid_request(request)


@mutant("cap.disable.terminate-first", scenario="transfer")
class SwitchesOffInUse(HostShim):
    def initiate_offload_complete(self, block_list):
        super().initiate_offload_complete(block_list)
        off = TcpConnectionOffloadParameters(support_ipv4=Switch.OFF)
        self.oid_request(OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS, off, set=True))


@mutant("cap.capacity", scenario="trees-of-connections")
class TakesMoreThanItSays(TargetShim):
    def set_miniport_attributes(self, hardware_capabilities, current_config):
        small = replace(hardware_capabilities, tcp_connection_offload_capacity=2)
        super().set_miniport_attributes(small, small)


@mutant("cap.change", scenario="transfer")
class ChangesOnTheRun(TargetShim):
    def initiate_offload_complete(self, block_list):
        super().initiate_offload_complete(block_list)
        more = TcpConnectionOffload(tcp_connection_offload_capacity=7)
        self.indicate_status_ex(StatusIndication.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES, more)


@mutant("cap.parameters.set", scenario="transfer")
class KnowsNoParameters(TargetShim):
    def oid_request(self, request):
        return Status.NOT_SUPPORTED


@mutant("cap.parameters.set", scenario="transfer")
class AsksTheMiniport(Binding):
    def oid_request(self, request):
        self.miniport.oid_request(OidRequest(request.oid))
        return super().oid_request(request)


@mutant("cap.single-owner", scenario="transfer")
class BringsAnotherHost(HostShim):
    def initiate_offload_complete(self, block_list):
        super().initiate_offload_complete(block_list)
        # What no well-behaved NDIS would allow: a second protocol over an adapter that is bound.
        miniport = self.side.target
        handle, miniport.handle = miniport.handle, None
        other = Host("another host")
        binding = bind(other, miniport, self.side.world.observer)
        parameters = self.side.parameters()
        binding.oid_request(OidRequest(Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS, parameters, set=True))
        miniport.handle = handle


@mutant("status.pause.host", scenario="a-pause-without-end")
class OffloadsIntoAPause(HostShim):
    def status_ex(self, status_code, status_buffer):
        super().status_ex(status_code, status_buffer)
        if status_code == StatusIndication.OFFLOAD_PAUSE:
            self.initiate_offload(End(self.side, 9000).initiate_tree())


@mutant("status.pause.target", scenario="a-pause-without-end")
class ForgetsLateInitiates(TargetShim):
    def indicate_status_ex(self, status_code, status_buffer=None):
        self.operations.clear()
        super().indicate_status_ex(status_code, status_buffer)


@mutant("status.pause.target", scenario="everything-is-asked-back")
class StopsWhilePaused(TargetShim):
    stopped = False

    def indicate_status_ex(self, status_code, status_buffer=None):
        self.stopped = True
        super().indicate_status_ex(status_code, status_buffer)

    def tcp_offload_send_complete(self, net_buffer_list):
        if self.stopped:
            net_buffer_list.status = Status.PAUSED
        super().tcp_offload_send_complete(net_buffer_list)


@mutant("status.pause.send-status", scenario="everything-is-asked-back")
class SaysPaused(TargetShim):
    def tcp_offload_send_complete(self, net_buffer_list):
        if net_buffer_list.status == Status.UPLOAD_IN_PROGRESS:
            net_buffer_list.status = Status.PAUSED
        super().tcp_offload_send_complete(net_buffer_list)


@mutant("stats.scope", scenario="statistics-among-strangers")
class CountsStrangers(TargetShim):
    def oid_request(self, request):
        status = super().oid_request(request)
        if isinstance(request.information, TcpOffloadStats):
            request.information.in_segments += self.inner.frames_passed_up
        return status


@mutant("stats.reset", scenario="statistics-among-strangers")
class NeverResets(TargetShim):
    def oid_request(self, request):
        if request.set and request.oid == Oid.TCP4_OFFLOAD_STATS:
            return Status.SUCCESS
        return super().oid_request(request)


@mutant("stats.corrupt", scenario="statistics-among-strangers")
class CountsWhatItPassesUp(TargetShim):
    def oid_request(self, request):
        status = super().oid_request(request)
        if isinstance(request.information, TcpOffloadStats):
            request.information.in_errors = self.inner.frame_errors
        return status


@mutant("power.upload-first", scenario="power-down-and-up")
class PullsThePlug(HostShim):
    def terminate_offload(self, tree):
        pass


@mutant("power.target-waits", scenario="power-down-and-up")
class GoesDownAtOnce(TargetShim):
    def oid_request(self, request):
        return Status.SUCCESS if request.oid == Oid.PNP_SET_POWER else super().oid_request(request)
