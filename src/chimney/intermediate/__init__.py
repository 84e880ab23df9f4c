"""Intermediate drivers: each has miniport edges above and protocol edges below."""

from chimney.intermediate.base import IntermediateDriver
from chimney.intermediate.edges import LowerEdge, OffloadEntry, UpperEdge
from chimney.intermediate.passthrough import PassThrough

__all__ = ["IntermediateDriver", "LowerEdge", "OffloadEntry", "PassThrough", "UpperEdge"]
