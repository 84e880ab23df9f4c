"""The software offload target: a miniport edge in front of the TCP engine."""

from chimney.target.config import TargetConfig
from chimney.target.soft import SoftTarget

__all__ = ["SoftTarget", "TargetConfig"]
