"""Chimney: TCP chimney offload for Linux.

The data path exists in two builds of the same sources: compiled (an extension module beside each .py that has a
.pxd) and pure Python. CHIMNEY_PURE=1 in the environment makes a process import the .py files even where extension
modules exist.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType

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
