"""The rig of `chimney.conformance.world`, with hosts that only record: what the target does is what is looked at."""

from functools import partial

from chimney.conformance.end import End
from chimney.conformance.handshake import CONST_FLAGS, IPV4, IPV6, ISS, MACS, SCALE, WINDOW, delegated
from chimney.conformance.host import Host
from chimney.conformance.world import Side
from chimney.conformance.world import World as AnyWorld

World = partial(AnyWorld, obedient=False)

__all__ = [
    "CONST_FLAGS",
    "IPV4",
    "IPV6",
    "ISS",
    "MACS",
    "SCALE",
    "WINDOW",
    "End",
    "Host",
    "Side",
    "World",
    "delegated",
]
