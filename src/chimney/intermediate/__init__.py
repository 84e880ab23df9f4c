"""Intermediate drivers: each has miniport edges above and protocol edges below."""

from chimney.intermediate.passthrough import PassThrough

__all__ = ["PassThrough"]
