"""What makes a case sensible: nobody is asked for what it cannot do."""

from __future__ import annotations

from typing import get_args, get_type_hints

from chimney.ndis.status import UploadReason
from chimney.sim.case import (
    ALLOCATIONS,
    SIDES,
    Abort,
    Case,
    Change,
    Detach,
    Die,
    Driver,
    Garbage,
    Host,
    Layer,
    Mtu,
    Neighbor,
    Network,
    Nodelay,
    Offload,
    Partition,
    PathMtu,
    Read,
    Route,
    Send,
    Shutdown,
    Step,
    Target,
    Unplug,
    Upload,
    Window,
    Withdraw,
)
from chimney.sim.surroundings import GATEWAYS

SMALLEST_MTU = {False: 576, True: 1280}


def check(case: Case) -> None:
    """Fails if something in ``case`` makes no sense."""
    assert case.a.chimney, "a has a chimney"
    assert 88 <= case.mss <= (1440 if case.ipv6 else 1460)
    assert -1 <= case.scale <= 14
    assert min(case.a.receive_buffer, case.b.receive_buffer) >= 1 << max(case.scale, 0), "a window can be said"
    assert all(0 <= iss < 1 << 32 for iss in case.iss)
    assert case.grace_us >= 0 and case.quiet_us > 0
    check_network(case.network)
    for side in SIDES:
        check_host(case.host(side))
        check_application([step for step in case.steps if getattr(step, "side", None) == side])
    for step in case.steps:
        check_step(case, step)


def check_network(network: Network) -> None:
    """Probabilities are such, and nothing is negative."""
    for rate in (network.loss, network.burst, network.reorder, network.duplicate, network.corrupt):
        assert 0.0 <= rate <= 1.0
    for amount in (network.delay_us, network.jitter_us, network.bandwidth, network.queue_bytes):
        assert amount >= 0
    assert network.burst_length >= 1 and network.reorder_us >= 1


def check_host(host: Host) -> None:
    """Only a machine with a chimney has drivers; whatever has a size has one."""
    assert host.chimney or not host.layers
    assert min(host.latency_us, host.gap_us) >= 0
    assert min(host.receive_buffer, host.send_buffer, host.receive_window, host.send_flight) > 0
    for layer in host.layers:
        assert all(0.0 <= rate <= 1.0 for rate in (layer.delay, layer.merge, layer.split, layer.upload))
        assert layer.longest >= 1
        assert min(layer.out_of_memory + layer.refuse, default=1) >= 1


def check_application(steps: list[Step]) -> None:
    """Who has ended says nothing more. Steps at times and steps at events have no order among each other, but all come
    after the start.
    """
    own = [step for step in steps if isinstance(step, Send | Read | Shutdown | Abort | Detach | Nodelay | Die)]
    endings = [step for step in own if isinstance(step, Shutdown | Abort | Detach)]
    if endings:
        spoken = [step for step in own if not isinstance(step, Die)]
        assert not (any(step.at > 0 for step in spoken) and any(step.event for step in spoken)), "one order"
    shut = gone = False
    for step in sorted((step for step in own if not isinstance(step, Die)), key=lambda step: (step.event, step.at)):
        assert not gone, f"{step} after the end"
        assert not (shut and isinstance(step, Send | Shutdown)), f"{step} after shutdown"
        shut = shut or isinstance(step, Shutdown)
        gone = isinstance(step, Abort | Detach)


def check_step(case: Case, step: Step) -> None:
    """One step, whatever the others are."""
    match step:
        case Send():
            assert step.size > 0
        case Read():
            assert step.size > 0 and step.depth >= 0
        case Window():
            assert step.size > 0 and not case.host(step.side).chimney
        case PathMtu():
            assert SMALLEST_MTU[case.ipv6] <= step.mtu <= 1500 and step.forgets_us >= 0
        case Neighbor():
            assert step.moves_us >= 0
        case Route():
            assert 0 <= step.gateway < GATEWAYS
        case Unplug():
            assert step.lasts_us > 0
        case Offload() | Upload() | Withdraw():
            assert case.host(step.side).chimney
        case Change():
            check_network(step.network)
        case Partition():
            assert step.lasts_us > 0
        case Mtu():
            assert SMALLEST_MTU[case.ipv6] <= step.mtu <= 1500
        case Garbage():
            assert step.kind in get_args(get_type_hints(Garbage)["kind"]) and step.amount >= 0
        case Driver():
            layers = case.host(step.side).layers
            assert case.host(step.side).chimney and 0 <= step.layer < len(layers)
            assert layers[step.layer] != Layer(), "a plain driver does nothing of its own"
            assert step.reason in UploadReason.__members__
        case Target():
            assert case.host(step.side).chimney and step.nth >= 1
            assert step.reason in UploadReason.__members__
            assert step.of in ALLOCATIONS if step.what == "short" else not step.of
