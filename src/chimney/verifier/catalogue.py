"""The rules of the documents, as data (`rules.yaml`), and which of them nobody outside a driver can see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml


@dataclass(frozen=True, slots=True)
class Rule:
    """One obligation.

    ``binds`` who is at fault (host_stack, ndis, intermediate, target); ``level`` must, should or may (may: others have
    to tolerate it); ``observable`` how a breach shows; ``source`` the page that states it; ``seed`` whether that is one
    of the five documents that the project began with.
    """

    id: str
    title: str
    binds: str
    level: str
    operation: str
    rule: str
    observable: str
    source: str
    seed: bool = False

    @property
    def unobservable(self) -> str:
        """Why no observer can see a breach; empty if one can."""
        if self.observable.startswith("no:"):
            return self.observable.removeprefix("no:").strip()
        return UNOBSERVABLE.get(self.id, "")


# Beside those that the catalogue itself marks: structural ones, true of anything that has this shape.
UNOBSERVABLE: dict[str, str] = {
    "send.host.no-urgent": "no call can ask for urgent data; an urgent byte posted as an ordinary one looks like any.",
}


@cache
def catalogue() -> dict[str, Rule]:
    """All rules by id, in the catalogue's order."""
    text = files("chimney.verifier").joinpath("rules.yaml").read_text(encoding="utf-8")
    return {entry["id"]: Rule(**entry) for entry in yaml.load(text, Loader=_LOADER)}


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
