"""Who may know whom, from the imports of every .py and the cimports of every .pxd (design: dependencies point one way).

A *unit* is a module or package directly below `chimney`; ROOT is the package itself: its attributes are the plain API.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "src" / "chimney"
EXAMPLES = REPOSITORY / "examples"
PACKAGE = "chimney"
ROOT = "(package)"

# The whole table: a unit, and the units it may know besides itself.
ALLOWED = {
    "ndis": set(),
    "tcp": set(),
    "link": set(),
    "lab": set(),
    "target": {"ndis", "tcp", "link"},
    "intermediate": {"ndis"},
    "verifier": {"ndis", "link"},
    "conformance": {"ndis", "tcp", "link", "target", "intermediate", "verifier"},
    "host": {"ndis"},
    "platform": {"link", "host"},
    "statistics": {"ndis", "host"},
    "adapter": {"ndis", "link", "target", "intermediate", "host", "verifier", "platform", "statistics"},
    "stack": {"tcp", "ndis", "link", "adapter", "intermediate", "host", "verifier", "platform", "statistics"},
    "trace": set(),
    "sim": {
        "ndis", "tcp", "link", "target", "intermediate", "host", "verifier", "conformance", "adapter", "platform",
        "stack", "trace",
    },
    "packetdrill": {"tcp"},
    "cli": {"stack", "packetdrill", "lab", "verifier", "conformance", "sim", "trace", "_build", ROOT},
    "_build": set(),
    ROOT: {"stack", "verifier", "_build"},
    "examples": {ROOT},
}

# Third-party packages, and who may import them.
THIRD_PARTY = {
    "host": {"pyroute2"},
    "lab": {"pyroute2"},
    "verifier": {"yaml"},
    "sim": {"msgspec", "rich", "distributed", "yaml"},
    "cli": {"typer", "rich", "pyroute2"},
}

# Time, randomness and packets come to these from outside.
SANS_IO = {"ndis", "tcp"}
IO_MODULES = {"asyncio", "random", "select", "selectors", "socket", "subprocess", "threading", "time"}

CIMPORT = re.compile(r"^\s*(?:from\s+(?P<source>[\w.]+)\s+)?c?import\s+(?P<names>\([^)]*\)|[^\n]*)", re.MULTILINE)
COMMENT = re.compile(r"#[^\n]*")


def imports_of_python(text):
    """(module, name or '', relative level) of every import, wherever it stands in the file."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name, node.level) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value, "", 0


def imports_of_declarations(text):
    """The same of a .pxd: import and cimport."""
    for match in CIMPORT.finditer(COMMENT.sub("", text)):
        source = match["source"] or ""
        level = len(source) - len(source.lstrip("."))
        for part in match["names"].strip("()\n ").split(","):
            name = part.split(" as ")[0].strip()
            if name and source:
                yield source.lstrip("."), name, level
            elif name:
                yield name, "", 0


def absolute(file, module, level):
    """The dotted name that a relative import in `file` (relative to the package) means."""
    if level == 0:
        return module
    package = (PACKAGE, *file.parent.parts)
    return ".".join((*package[: len(package) - level + 1], *filter(None, [module])))


def known_unit(module, name, units):
    """The unit that an import of `module` (and `name` from it) makes known, None if it is not of this package."""
    first, *rest = module.split(".")
    if first != PACKAGE:
        return None
    if rest:
        return rest[0]
    return name if name in units else ROOT


def violations(unit, file, text, units):
    """What `file` of `unit` imports and may not, in words."""
    read = imports_of_declarations if file.suffix == ".pxd" else imports_of_python
    for module, name, level in read(text):
        target = absolute(file, module, level)
        known = known_unit(target, name, units)
        top = target.split(".")[0]
        if known is not None:
            if known != unit and known not in ALLOWED[unit]:
                yield f"{file}: {unit} may not know {known} ({target})"
        elif top in sys.stdlib_module_names:
            if unit in SANS_IO and top in IO_MODULES:
                yield f"{file}: {unit} does no I/O and may not import {top}"
        elif file.suffix == ".py" and unit != "examples" and top not in THIRD_PARTY.get(unit, set()):
            yield f"{file}: {unit} may not import {top}"


def unit_of(file):
    """The unit of a file given relative to the package."""
    if len(file.parts) > 1:
        return file.parts[0]
    return ROOT if file.stem == "__init__" else file.stem


def files():
    return sorted(f for f in SOURCE.rglob("*") if f.suffix in (".py", ".pxd", ".pyx"))


UNITS = {unit_of(f.relative_to(SOURCE)) for f in files()}


def test_every_unit_is_in_the_table():
    assert UNITS - set(ALLOWED) == set()


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_dependencies_point_one_way(unit):
    own = [f.relative_to(SOURCE) for f in files() if unit_of(f.relative_to(SOURCE)) == unit]
    assert [v for f in own for v in violations(unit, f, (SOURCE / f).read_text(), UNITS)] == []


def test_examples_know_the_public_package_only():
    found = [v for f in sorted(EXAMPLES.rglob("*.py")) for v in violations("examples", f, f.read_text(), UNITS)]
    assert found == []


def test_cimports_are_absolute():
    """The digest that decides what is recompiled does not follow relative ones."""
    declarations = [f for f in files() if f.suffix == ".pxd"]
    levels = {f: {level for _, _, level in imports_of_declarations(f.read_text())} for f in declarations}
    assert [f for f, found in levels.items() if found - {0}] == []


def test_the_table_has_no_cycle():
    done: set[str] = set()
    waiting = {unit: set(known) for unit, known in ALLOWED.items()}
    while ready := {unit for unit, known in waiting.items() if known <= done}:
        done |= ready
        for unit in ready:
            del waiting[unit]
    assert waiting == {}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tcp/x.py", "import chimney.ndis"),
        ("tcp/x.py", "from chimney import ndis"),
        ("tcp/x.py", "from chimney.ndis.buffers import Mdl as M"),
        ("tcp/x.py", "def f():\n    from chimney.link import base"),
        ("tcp/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from chimney.host import x"),
        ("tcp/x.py", "from ..ndis import buffers"),
        ("tcp/x.py", "from .. import ndis"),
        ("tcp/x.py", "from chimney import __version__"),
        ("tcp/x.py", "import importlib\nimportlib.import_module('chimney.host')"),
        ("tcp/x.py", "import time"),
        ("tcp/x.py", "import pyroute2"),
        ("verifier/x.py", "from chimney.target import soft"),
        ("target/x.py", "from chimney.conformance import world"),
        ("host/linux/x.py", "from ...target import soft"),
        ("cli/x.py", "from chimney.host import x"),
        ("tcp/x.pxd", "from chimney.ndis.buffers cimport Mdl"),
        ("tcp/x.pxd", "from chimney.ndis.buffers cimport (\n    Mdl,\n    NetBuffer,\n)"),
        ("tcp/x.pxd", "cimport chimney.ndis.buffers"),
        ("tcp/x.pxd", "from chimney cimport ndis"),
        ("tcp/x.pxd", "from ..ndis.buffers cimport Mdl"),
        ("tcp/x.pxd", "import chimney.ndis.buffers"),
    ],
)
def test_the_checker_catches(file, text):
    assert list(violations(unit_of(Path(file)), Path(file), text, set(ALLOWED)))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tcp/x.py", "from chimney.tcp.seq import lt\nfrom .seq import add\nfrom . import seq\nimport struct"),
        ("tcp/x.pxd", "from chimney.tcp.seq cimport lt\nfrom libc.stdint cimport uint32_t"),
        ("tcp/x.pxd", "# from chimney.ndis cimport buffers"),
        ("host/linux/x.py", "from ..sockets import x\nimport socket, pyroute2"),
        ("target/x.pxd", "from chimney.link.base cimport Link, Frame"),
        ("cli/x.py", "from chimney import __version__, _build"),
    ],
)
def test_the_checker_lets_pass(file, text):
    assert list(violations(unit_of(Path(file)), Path(file), text, set(ALLOWED))) == []


def test_the_checker_knows_what_examples_may():
    def check(text):
        return list(violations("examples", Path("x.py"), text, set(ALLOWED)))

    assert check("from chimney.stack import x")
    assert check("from chimney import stack")
    assert check("import chimney, rich\nfrom chimney import offload") == []
