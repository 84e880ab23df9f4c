"""Which build of Chimney this is, and whether it belongs to the sources beside it.

Used at run time (`describe()`), by the tests, and by setup.py. setup.py loads this file by its path, so it imports
nothing of the package.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

PACKAGE = "chimney"
_ROOT = Path(__file__).resolve().parent
_CIMPORT = re.compile(
    rf"^\s*(?:from\s+({PACKAGE}[\w.]*)\s+)?cimport\s+(\([^)]*\)|[^\n]*)",
    re.MULTILINE,
)
_DIGEST_CHARACTERS = 40


def pure_requested() -> bool:
    """Whether CHIMNEY_PURE asks for pure Python: at run time to ignore, at build time to skip extensions."""
    return os.environ.get("CHIMNEY_PURE", "") not in ("", "0")


def expected() -> tuple[str, ...]:
    """The dotted names of all modules that are to be compiled: those with a .pxd beside the .py, sorted."""
    return tuple(sorted(_name(pxd) for pxd in _ROOT.rglob("*.pxd") if pxd.with_suffix(".py").exists()))


def origin(name: str) -> str:
    """The file that `import name` takes here, '' if there is none. Nothing is imported to find out."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, [str(_path(name).parent)], None)
        if spec is not None:
            return spec.origin or ""
    return ""


def missing() -> list[str]:
    """The modules that are to be compiled and of which this process takes the .py."""
    return [name for name in expected() if not origin(name).endswith(tuple(EXTENSION_SUFFIXES))]


def stale() -> list[str]:
    """The modules whose extension is there and was made from other sources than those beside it."""
    return [name for name in expected() if extension_file(name) is not None and not is_current(name)]


def is_compiled() -> bool:
    """Whether every module that is to be compiled runs compiled in this process."""
    return bool(expected()) and not missing()


def describe() -> str:
    """'compiled' or 'pure Python'; an incomplete build says so."""
    absent = missing()
    if len(absent) == len(expected()):
        return "pure Python"
    return f"partly compiled ({len(absent)} of {len(expected())} modules are not)" if absent else "compiled"


def extension_file(name: str) -> Path | None:
    """The extension module that this interpreter would load for `name`, None if it has not been built."""
    source = _path(name)
    return next((f for f in (source.with_suffix(s) for s in EXTENSION_SUFFIXES) if f.exists()), None)


def is_current(name: str) -> bool:
    """Whether the extension of `name` exists and carries the digest of the present sources."""
    built = extension_file(name)
    return built is not None and bytes.fromhex(source_digest(name)) in built.read_bytes()


def source_digest(name: str) -> str:
    """A hexadecimal digest of all that decides the C code of `name`: its .py, its .pxd, each .pxd cimported there."""
    digest = hashlib.sha256(_path(name).read_bytes())
    for declaration in sorted(_declarations(name)):
        digest.update(declaration.encode() + b"\0" + _path(declaration).with_suffix(".pxd").read_bytes())
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


def orphans() -> Iterator[Path]:
    """Extension modules in the package whose module is not to be compiled."""
    wanted = {extension_file(name) for name in expected()}
    for suffix in EXTENSION_SUFFIXES:
        for built in _ROOT.rglob("*" + suffix):
            if built not in wanted and built.name.removesuffix(suffix).isidentifier():
                yield built


def _declarations(name: str) -> set[str]:
    """The modules whose .pxd the .pxd of `name` reads, itself included, followed to the end."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        pxd = _path(module).with_suffix(".pxd")
        if module in found or not pxd.exists():
            continue
        found.add(module)
        for package, names in _CIMPORT.findall(pxd.read_text(encoding="utf-8")):
            prefix = package + "." if package else ""
            waiting += [package, *(prefix + n for n in re.findall(r"[\w.]+", names))]
    return found


def _name(path: Path) -> str:
    return ".".join((PACKAGE, *path.relative_to(_ROOT).with_suffix("").parts))


def _path(name: str) -> Path:
    return _ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
