"""The host follows the network: nothing is lost, what the target knows is what the kernel says, and who does not see to
that is found out.
"""

from __future__ import annotations

import msgspec
import pytest

from chimney.host.network import NetworkWatch
from chimney.host.withdrawal import Withdrawals
from chimney.sim.case import (
    Case,
    Host,
    Neighbor,
    Offload,
    PathMtu,
    Read,
    Route,
    Send,
    Unplug,
    Upload,
    Withdraw,
    follows,
    load,
)
from chimney.sim.run import run

CHANGES = {
    "mac": Neighbor(at=2000),
    "mac, late news": Neighbor(at=2000, told_us=100_000),
    "mac, early news": Neighbor(at=2000, moves_us=5000),
    "mac, no news": Neighbor(at=2000, told_us=-1),
    "gateway": Route(at=2000, gateway=1, old_works=False),
    "gateway, not known": Route(at=2000, gateway=1, known=False, old_works=False),
    "path mtu": PathMtu(at=2000, mtu=1000),
    "path mtu, no news": PathMtu(at=2000, mtu=1000, told_us=-1),
    "link": Unplug(at=2000, lasts_us=1_000_000),
    "address": Unplug(at=2000, what="address", lasts_us=1_000_000),
}


def case(*steps, **changes):
    """A transfer from a, which is offloaded, and these steps."""
    first = (Read(at=0, side="a"), Read(at=0, side="b"), Offload(at=0), Send(at=0, side="a", size=4000))
    later = (Send(at=3000, side="a", size=4000), Send(at=2_500_000, side="a", size=4000))
    return Case(steps=(*first, *steps, *later), grace_us=4_000_000, **changes)


def kinds(outcome):
    return {finding.kind for finding in outcome.findings}


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_lost(change, ipv6):
    step = CHANGES[change]
    if ipv6 and isinstance(step, PathMtu):
        step = msgspec.structs.replace(step, mtu=1280)
    outcome = run(case(step, ipv6=ipv6, mss=1440))
    assert outcome.findings == [] and outcome.bytes_delivered >= 12_000


@pytest.mark.parametrize("change", ["mac", "gateway", "path mtu", "link", "address"])
def test_a_host_that_looks_away_is_found_out(change, monkeypatch):
    monkeypatch.setattr(NetworkWatch, "ready", lambda self: self._network.read(()))
    monkeypatch.setattr(NetworkWatch, "recheck_soon", lambda self: None)
    # But for the first look, there are regular ones only.
    assert "kernel's word" in kinds(run(case(CHANGES[change])))


def lines_of(case):
    lines: list[str] = []
    outcome = run(case, log=lines.append)
    return outcome, [line for line in lines if not line.startswith("#")]


def test_what_the_host_takes_up_goes_down_again():
    outcome, lines = lines_of(case(Withdraw(at=2000)))
    assert outcome.findings == []
    assert sum("the socket is recycled" in line for line in lines) == 2


def test_unless_the_application_wants_it_up():
    outcome, lines = lines_of(case(Withdraw(at=2000), Upload(at=10_000)))
    assert outcome.findings == []
    assert sum("the socket is recycled" in line for line in lines) == 1


def test_who_never_comes_back_is_found_out(monkeypatch):
    monkeypatch.setattr(Withdrawals, "due", lambda self, now, most: [])
    monkeypatch.setattr(Withdrawals, "poll_at", lambda self: 1 << 62)
    assert kinds(run(case(Withdraw(at=2000)))) == {"kernel's word"}


def test_who_follows():
    assert follows(case(Withdraw(at=1))) and follows(case(Neighbor(at=1))) and follows(case(follows=True))
    assert not follows(case())


def test_a_machine_without_a_chimney_withdraws_nothing(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text("steps: [{at: 0, do: withdraw, side: b}]")
    with pytest.raises(msgspec.ValidationError, match="b has no chimney"):
        load(path)
    assert Host().chimney is False
