"""Intermediate drivers: each has miniport edges above and protocol edges below."""

from chimney.intermediate.base import IntermediateDriver
from chimney.intermediate.edges import LowerEdge, OffloadEntry, UpperEdge
from chimney.intermediate.faulty import Faults, FaultyDriver
from chimney.intermediate.multiplexer import Multiplexer, active_adapter, least_loaded
from chimney.intermediate.passthrough import PassThrough

__all__ = [
    "Faults",
    "FaultyDriver",
    "IntermediateDriver",
    "LowerEdge",
    "Multiplexer",
    "OffloadEntry",
    "PassThrough",
    "UpperEdge",
    "active_adapter",
    "least_loaded",
]
