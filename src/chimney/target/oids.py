"""The OIDs that a target answers itself: parameters, statistics, encapsulation, power (8.3, 17.1, 17.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chimney.ndis.capabilities import (
    DevicePowerState,
    Encapsulation,
    Oid,
    OidRequest,
    Switch,
    TcpConnectionOffloadParameters,
)
from chimney.ndis.status import Status, TcpConnectionState
from chimney.target.config import TargetConfig

if TYPE_CHECKING:
    from chimney.target.adapter import Adapter

_TICK_RATES = (10, 100, 1000)
_KNOWN_ENCAPSULATIONS = Encapsulation.IEEE_802_3 | Encapsulation.IEEE_LLC_SNAP_ROUTED
_ESTABLISHED = (TcpConnectionState.ESTABLISHED, TcpConnectionState.CLOSE_WAIT)


def oid_request(target: Adapter, request: OidRequest) -> int:
    """Carry a set or query out; returns its status (PENDING: it is completed later)."""
    if request.oid in _STATISTICS:
        return _statistics(target, request)
    if not request.set:
        return Status.NOT_SUPPORTED
    information = request.information
    if request.oid is Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS:
        if not isinstance(information, TcpConnectionOffloadParameters):
            return Status.FAILURE
        return set_parameters(target, information)
    if request.oid is Oid.OFFLOAD_ENCAPSULATION:
        known = isinstance(information, Encapsulation) and information & target.capable.encapsulation
        return Status.SUCCESS if known else Status.FAILURE
    if request.oid is Oid.PNP_SET_POWER:
        return _set_power(target, request)
    return Status.NOT_SUPPORTED


_STATISTICS = {
    Oid.TCP4_OFFLOAD_STATS: (False, True),
    Oid.TCP6_OFFLOAD_STATS: (True, True),
    Oid.IP4_OFFLOAD_STATS: (False, False),
    Oid.IP6_OFFLOAD_STATS: (True, False),
}


def _statistics(target: Adapter, request: OidRequest) -> int:
    ipv6, tcp = _STATISTICS[request.oid]
    counters = target.ipv6 if ipv6 else target.ipv4
    if request.set:
        # Whatever the values (stats.reset).
        if tcp:
            counters.reset_tcp()
        else:
            counters.reset_ip()
    elif tcp:
        connections = target.connections.values()
        established = sum(c.path.ipv6 == ipv6 and c.engine.state in _ESTABLISHED for c in connections)
        request.information = counters.tcp(established)
    else:
        request.information = counters.ip()
    return Status.SUCCESS


def _set_power(target: Adapter, request: OidRequest) -> int:
    """Without power nothing can be offloaded: a lower state has to wait until nothing is (power.target-waits)."""
    if not isinstance(request.information, DevicePowerState) or target.power_request is not None:
        return Status.FAILURE
    if request.information is DevicePowerState.D0:
        target.powered = True
        return Status.SUCCESS
    if target.is_idle():
        target.powered = False
        return Status.SUCCESS
    target.power_request = request
    return Status.PENDING


def set_parameters(target: Adapter, parameters: TcpConnectionOffloadParameters) -> int:
    """Make what the host has set hold, for the connections that are offloaded already, too. FAILURE, and nothing has
    changed: values that make no sense, or another tick while connections count in the present one (those included that
    an initiate under way brings).
    """
    if not _is_sensible(parameters):
        return Status.FAILURE
    if parameters.ticks_per_second != target.config.ticks_per_second and not target.is_idle():
        return Status.FAILURE
    config = _merge(target.capable, target.config, parameters)
    target.configure(config)
    us = config.microseconds
    for tcp in target.connections.values():
        tcp.delivery.push_us = us(config.push_ticks)
        tcp.engine.set_parameters(
            config.ack_frequency,
            us(config.delayed_ack_ticks),
            config.max_retransmissions,
            config.duplicate_ack_threshold,
            us(config.sws_prevention_ticks),
        )
    return Status.SUCCESS


def _is_sensible(parameters: TcpConnectionOffloadParameters) -> bool:
    times = (
        parameters.tcp_delayed_ack_ticks,
        parameters.tcp_maximum_retransmissions,
        parameters.tcp_doubt_reachability_retransmissions,
        parameters.tcp_sws_prevention_ticks,
        parameters.tcp_push_ticks,
        parameters.nce_stale_ticks,
    )
    counts = (parameters.tcp_ack_frequency, parameters.tcp_duplicate_ack_threshold)
    return parameters.ticks_per_second in _TICK_RATES and min(times) >= 0 and min(counts) >= 1


def _merge(capable: TargetConfig, now: TargetConfig, parameters: TcpConnectionOffloadParameters) -> TargetConfig:
    """The latest set counts: what it does not switch on is off, and what cannot be done stays off (cap.enable)."""
    usable = capable.encapsulation & parameters.encapsulation & _KNOWN_ENCAPSULATIONS
    return replace(
        now,
        encapsulation=usable,
        support_ipv4=_switched(parameters.support_ipv4, now.support_ipv4) and capable.support_ipv4,
        support_ipv6=_switched(parameters.support_ipv6, now.support_ipv6) and capable.support_ipv6,
        support_sack=_switched(parameters.support_sack, now.support_sack) and capable.support_sack,
        ticks_per_second=parameters.ticks_per_second,
        ack_frequency=parameters.tcp_ack_frequency,
        delayed_ack_ticks=parameters.tcp_delayed_ack_ticks,
        max_retransmissions=parameters.tcp_maximum_retransmissions,
        doubt_reachability_retransmissions=parameters.tcp_doubt_reachability_retransmissions,
        sws_prevention_ticks=parameters.tcp_sws_prevention_ticks,
        duplicate_ack_threshold=parameters.tcp_duplicate_ack_threshold,
        push_ticks=parameters.tcp_push_ticks,
        nce_stale_ticks=parameters.nce_stale_ticks,
        # Not the host's to set, and so they keep their length in time.
        fin_wait_2_ticks=_rescaled(capable.fin_wait_2_ticks, capable, parameters),
        advice_ticks=_rescaled(capable.advice_ticks, capable, parameters),
        paused_initiate_ticks=_rescaled(capable.paused_initiate_ticks, capable, parameters),
    )


def _rescaled(ticks: int, capable: TargetConfig, parameters: TcpConnectionOffloadParameters) -> int:
    """Ticks of ``capable`` in the new ones, rounded up: what is switched on must not read zero."""
    return -(-ticks * parameters.ticks_per_second // capable.ticks_per_second)


def _switched(switch: Switch, now: bool) -> bool:
    """NO_CHANGE leaves it as it is (A23)."""
    return now if switch is Switch.NO_CHANGE else switch is Switch.ON
