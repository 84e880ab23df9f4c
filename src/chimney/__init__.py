"""Chimney: TCP chimney offload for Linux.

The data path exists in two builds of the same sources: compiled (an extension module beside each .py that has a
.pxd) and pure Python. CHIMNEY_PURE=1 in the environment makes a process import the .py files even where extension
modules exist.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING

from chimney._build import pure_requested

__version__ = "0.1.0"


class _SourceOnly:
    """A finder that sees this package's .py files and none of its extension modules."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(__name__ + "."):
            return None
        for entry in path or ():
            spec = FileFinder(entry, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target)
            if spec is not None:
                return spec
        return None


if pure_requested():
    sys.meta_path.insert(0, _SourceOnly)

__all__ = [
    "ChimneyError",
    "Connection",
    "InterfaceStatistics",
    "IntermediateDrivers",
    "Layers",
    "NotOffloadable",
    "Stack",
    "StackConfig",
    "Team",
    "UploadFailed",
    "Verifier",
    "__version__",
]

if TYPE_CHECKING:
    from chimney.stack import (
        ChimneyError,
        Connection,
        InterfaceStatistics,
        IntermediateDrivers,
        Layers,
        NotOffloadable,
        Stack,
        StackConfig,
        Team,
        UploadFailed,
    )
    from chimney.verifier import Verifier


def __getattr__(name: str) -> object:
    # Loaded when first used: `chimney doctor` must run where the engine cannot.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("chimney.verifier" if name == "Verifier" else "chimney.stack"), name)
