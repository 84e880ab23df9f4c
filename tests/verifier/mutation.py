"""Mutants: small drivers, hosts, targets, links and NDIS libraries that break one rule each, and how they are run.

A mutant is a class derived from `TargetShim`, `HostShim`, `LinkShim`, an intermediate driver, `Library`, `Binding` or
`MiniportHandle`, with

    @mutant("send.pending-only", scenario="transfer")

in front of it. It takes the place of the real thing on side 0 of the scenario's world (``side``: on which; None: both).
Whatever the run raises is of no interest: the verifier must have reported the rule by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chimney.conformance.host import Host
from chimney.conformance.scenarios import SCENARIOS
from chimney.conformance.world import soft_target
from chimney.intermediate import Multiplexer, PassThrough
from chimney.link.base import Link
from chimney.link.memory import Clock
from chimney.ndis.driver import Miniport
from chimney.ndis.library import Binding, Library, MiniportHandle
from chimney.verifier import Verifier

MUTANTS: list[Mutant] = []


@dataclass
class Mutant:
    """``rule`` is broken by ``kind`` in ``scenario``; ``stack`` names the drivers from the target upward, "m" for the
    mutant and "p" for a pass-through; ``options`` are the world's.
    """

    rule: str
    kind: type
    scenario: str
    side: int | None = 0
    stack: str = "m"
    options: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.rule}-{self.kind.__name__}"

    def world_options(self):
        """What puts the mutant in its place: before the scenario's own target, if it has one."""
        kind = self.kind
        made = dict(self.options)
        if issubclass(kind, Link):
            made["link"] = lambda side, link: kind(link) if self.is_on(side.index) else link
        elif issubclass(kind, Host):
            made["host"] = lambda name: (kind if self.is_on(int(name.split()[-1])) else Host)(name)
        elif issubclass(kind, Miniport):
            real = self.options.get("target") or SCENARIOS[self.scenario].options.get("target", soft_target)
            made["target"] = lambda side: kind(real(side)) if self.is_on(side.index) else real(side)
        elif issubclass(kind, Library):
            made["library"] = kind()
        elif issubclass(kind, (Binding, MiniportHandle)):
            made["library"] = _LibraryWith(kind)
        elif issubclass(kind, Multiplexer):
            made["team"] = lambda name: kind(name, 2, 2)
        else:
            made["drivers"] = [self._driver if letter == "m" else PassThrough for letter in self.stack]
        return made

    def _driver(self, name):
        return (self.kind if self.is_on(int(name.split()[-1].split(".")[0])) else PassThrough)(name)

    def is_on(self, side):
        return self.side is None or self.side == side


class _LibraryWith(Library):
    """NDIS with another class for one of the two handles of a binding."""

    def __init__(self, kind):
        self.kind = kind

    def binding(self, protocol, miniport):
        return self.kind(protocol, miniport) if issubclass(self.kind, Binding) else super().binding(protocol, miniport)

    def handle(self, miniport, protocol, binding):
        if issubclass(self.kind, MiniportHandle):
            return self.kind(miniport, protocol, binding)
        return super().handle(miniport, protocol, binding)


def mutant(rule, *, scenario, side=0, stack="m", **options):
    """Register a class as a mutant; it may stand before one class several times, for several rules."""

    def register(kind):
        MUTANTS.append(Mutant(rule, kind, scenario, side, stack, options))
        return kind

    return register


def verify(scenario, **options):
    """Play a scenario under a verifier; (the verifier, what the run raised or None)."""
    clock = Clock(1_000_000)
    verifier = Verifier(clock)
    raised = None
    try:
        SCENARIOS[scenario].play(clock=clock, observer=verifier, **options)
    except Exception as error:
        raised = error
    try:
        verifier.finish()
    except Exception as error:
        raised = raised or error
    return verifier, raised


def explain(mutant):
    """What a run of the mutant comes to, in words: for whoever writes one."""
    verifier, raised = verify(mutant.scenario, **mutant.world_options())
    lines = [
        f"{mutant}: {'found' if mutant.rule in verifier.counts else 'NOT FOUND'}; reported: {dict(verifier.counts)}"
    ]
    lines.append(f"exercised {verifier.exercised[mutant.rule]} times; the run raised {raised!r}")
    lines += [str(violation) for violation in verifier.violations[:5]]
    return "\n".join(lines)
