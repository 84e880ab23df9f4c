"""docs/reference.md against the code: what it names exists, with those values and answers, and nothing is missing."""

import ast
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path

import pytest

from chimney.ndis import buffers, capabilities, driver, library, registration, state, status
from chimney.ndis.crossing import Kind
from chimney.verifier.catalogue import catalogue

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "reference.md").read_text()
# Where the functions and handlers live that the page names without their module.
CLASSES = {
    name: getattr(module, name)
    for module, names in (
        (library, ("Binding", "MiniportHandle", "TcpOffloadEventHandlers")),
        (driver, ("Miniport", "Protocol")),
    )
    for name in names
}
# What a driver is, and what NDIS keeps for itself: no function of the documents.
OWN = {
    "base",
    "set_options",
    "initialize",
    "hardware_capabilities",
    "current_config",
    "oid_request_succeeded",
}


def parse(cls):
    """The class's definition: the compiled one does not tell everything."""
    file = Path(driver.__file__).parent / f"{cls.__module__.rpartition('.')[2]}.py"
    body = ast.parse(file.read_text()).body
    return next(node for node in body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)


def method(ours):
    """The definition of a method that the page names."""
    cls, name = ours.strip("`").split(".")
    return next(node for node in parse(CLASSES[cls]).body if isinstance(node, ast.FunctionDef) and node.name == name)


def returns_something(node):
    return ast.unparse(node.returns) != "None"


def attributes(cls):
    """What its constructor sets."""
    return {
        node.attr
        for node in ast.walk(parse(cls))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def tables():
    """Each table as a list of rows, each a tuple of cells."""
    found, rows = [], []
    for line in [*TEXT.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
        elif rows:
            found.append([rows[0], *rows[2:]])
            rows = []
    return found


TABLES = {(table[0][0], len(table[0])): table[1:] for table in tables()}
DOWN = TABLES["NDIS function", 6]
UP = [row for table in tables() if table[0][:1] == ("NDIS function",) and len(table[0]) == 5 for row in table[1:]]
MEMBERS = TABLES["ours", 3]
VALUES = TABLES["Windows", 3]
NAMES = set(re.findall(r"`([\w.]+)`", TEXT))


def resolve(name):
    """The object that the page means by a dotted name."""
    first, *rest = name.split(".")
    found = CLASSES.get(first) or import_module(f"chimney.ndis.{first}")
    for part in rest:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", sorted(name for name in NAMES if "." in name and name != "chimney.ndis"))
def test_what_the_page_names_exists(name):
    resolve(name)


@pytest.mark.parametrize("cls", sorted(CLASSES))
def test_every_function_and_handler_is_there(cls):
    methods = {
        name
        for name, member in vars(CLASSES[cls]).items()
        if not name.startswith("_") and callable(member) and name not in OWN
    }
    assert {method for method in methods if f"{cls}.{method}" not in NAMES} == set()


def test_the_calls_are_those_that_an_observer_sees():
    crossings = {kind.value for kind in Kind if kind.value[1]}
    assert {(row[0], row[2]) for row in [*DOWN, *UP]} == crossings


@pytest.mark.parametrize("row", DOWN, ids=lambda row: row[0])
def test_downward(row):
    function, ours, handler, _, returns, completed_by = row
    call, called = method(ours), method(row[3])
    assert (returns != "nothing") == returns_something(call)
    if returns in ("PENDING", "SUCCESS"):
        assert f"returns {returns}" in ast.get_docstring(call)
    assert function in ast.get_docstring(call) and handler in ast.get_docstring(called)
    completions = {row[0] for row in UP}
    assert completed_by.split(",")[0] in completions or completed_by.startswith("never")


@pytest.mark.parametrize("row", UP, ids=lambda row: row[0])
def test_upward(row):
    for name, ours in ((row[0], row[1]), (row[2], row[3])):
        assert name in ast.get_docstring(method(ours))
        assert returns_something(method(ours)) == row[4].startswith("SUCCESS")


@pytest.mark.parametrize(("cls", "windows", "ours"), MEMBERS)
def test_members(cls, windows, ours):
    kind, member = resolve(cls.strip("`")), ours.strip("`")
    if is_dataclass(kind):
        assert member in {field.name for field in fields(kind)} | set(vars(kind))
    else:
        assert member in attributes(kind)


def test_no_member_is_missing():
    named = {(cls.strip("`"), ours.strip("`")) for cls, _, ours in MEMBERS}
    for module in (state, capabilities):
        for name, kind in vars(module).items():
            if not is_dataclass(kind) or kind.__module__ != module.__name__ or name == "OffloadBlockList":
                continue
            full = f"{module.__name__.removeprefix('chimney.ndis.')}.{name}"
            assert full in {cls for cls, _ in named} or not fields(kind), f"{full} is not on the page"
            assert {field.name for field in fields(kind)} <= {ours for cls, ours in named if cls == full}


@pytest.mark.parametrize(("windows", "value", "ours"), VALUES)
def test_values(windows, value, ours):
    assert int(resolve(ours.strip("`"))) == int(value.split()[0], 0)


def test_no_value_is_missing():
    for module in (status, capabilities, registration):
        for name, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, Enum) and kind.__module__ == module.__name__:
                full = f"{module.__name__.removeprefix('chimney.ndis.')}.{name}"
                missing = {member for member in kind.__members__ if f"{full}.{member}" not in NAMES}
                assert missing == set(), f"{full} on the page"


def test_every_windows_function_of_the_rules_is_there():
    """The rules name functions as the documents do: whoever looks one up must find it."""
    named = set()
    for rule in catalogue().values():
        named |= set(re.findall(r"\bNdis(?:M|Offload|Tcp|Initiate|Terminate|Update|Invalidate|Query)\w+", rule.rule))
    # A placeholder of the texts for any of several, and a synonym (A1).
    known = {name for name in named if not re.search(r"Xxx|XXX", name)}
    assert {name for name in known if name not in TEXT} <= {"NdisMiniportHandle", "NdisMXxxComplete"}


def test_the_data_structures_are_there():
    for name in ("NetBufferList", "NetBuffer", "Mdl", "NetBufferListContext", "NetBufferListPool"):
        assert f"buffers.{name}" in NAMES and hasattr(buffers, name)
