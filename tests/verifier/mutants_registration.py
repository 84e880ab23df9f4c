"""Mutants of registration: entry points that are missing, fetched too often, or of the wrong kind."""

from dataclasses import replace

from chimney.conformance.host import Host
from chimney.intermediate import PassThrough
from chimney.intermediate.edges import LowerEdge
from chimney.ndis.buffers import NetBuffer
from chimney.ndis.capabilities import Encapsulation
from chimney.ndis.library import Binding, MiniportHandle
from chimney.ndis.registration import (
    ChimneyOffloadType,
    ClientTcpCharacteristics,
    ProviderGenericCharacteristics,
    ProviderTcpCharacteristics,
)
from chimney.ndis.status import Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim, TargetShim


class _Only:
    """Lets the tables of some kinds through."""

    def __init__(self, registration, *kinds):
        self.registration = registration
        self.kinds = kinds

    def set_optional_handlers(self, table):
        if isinstance(table, self.kinds):
            self.registration.set_optional_handlers(table)


@mutant("reg.target.two-registrations", scenario="transfer")
class NoDataHandlers(TargetShim):
    def set_options(self, registration):
        super().set_options(_Only(registration, ProviderGenericCharacteristics))


@mutant("reg.client.two-registrations", scenario="transfer")
class NoStateCompletions(HostShim):
    def set_options(self, registration):
        super().set_options(_Only(registration, ClientTcpCharacteristics))


class _HalfAnEdge(LowerEdge):
    def set_options(self, registration):
        super().set_options(_Only(registration, ClientTcpCharacteristics))


@mutant("reg.im.both-edges", scenario="transfer")
class UpperEdgeOnly(PassThrough):
    def __init__(self, name):
        super().__init__(name)
        self.lower = _HalfAnEdge(f"{name} (lower edge)", self, 0)
        self.lowers = [self.lower]


class _Unregistered(Host):
    def set_options(self, registration):
        pass


@mutant("reg.ndis.block-unregistered", scenario="transfer", host=_Unregistered)
class LetsEverybodyOffload(Binding):
    def initiate_offload(self, block_list):
        self.registered = True
        super().initiate_offload(block_list)


@mutant("reg.offload-type.tcp-only", scenario="transfer")
class AnotherChimney(TargetShim):
    def set_options(self, registration):
        super().set_options(self)
        registration.set_optional_handlers(ProviderGenericCharacteristics.of(self))
        table = ProviderTcpCharacteristics.of(self)
        table.offload_type = 2
        registration.set_optional_handlers(table)

    def set_optional_handlers(self, table):
        pass


@mutant("reg.handlers.get-once", scenario="transfer")
class FetchesPerConnection(TargetShim):
    def initiate_offload_complete(self, block_list):
        self.handle.get_offload_handlers(ChimneyOffloadType.TCP)
        super().initiate_offload_complete(block_list)


@mutant("reg.handlers.unsupported", scenario="other-chimney-types")
class KnowsEveryChimney(MiniportHandle):
    def get_offload_handlers(self, offload_type):
        return Status.SUCCESS, self


@mutant("reg.pools.two", scenario="statistics-among-strangers")
class OnePool(TargetShim):
    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        own = net_buffer_list.pool
        net_buffer_list.pool = self.inner.ordinary_pool
        try:
            return super().tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, status)
        finally:
            net_buffer_list.pool = own


@mutant("reg.pools.one-nb", scenario="indications", side=None)
class TwoNetBuffers(TargetShim):
    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        net_buffer_list.first_net_buffer.next = NetBuffer(None, 0, 0)
        return super().tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, status)


@mutant("cap.report", scenario="transfer")
class NoEncapsulation(TargetShim):
    def set_miniport_attributes(self, hardware_capabilities, current_config):
        none = replace(hardware_capabilities, encapsulation=Encapsulation.NOT_SUPPORTED)
        super().set_miniport_attributes(none, none)
