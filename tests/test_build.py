"""The build is what it says it is: compiled modules compiled and current, pure Python without any extension module."""

import importlib
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import chimney
from chimney import _build

PURE = _build.pure_requested()


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_there_is_something_to_compile():
    assert _build.expected()


@pytest.mark.parametrize("name", _build.expected())
def test_every_module_with_a_pxd_is_of_this_build(name):
    file = importlib.import_module(name).__file__
    assert file == _build.origin(name)
    assert file.endswith(".py" if PURE else tuple(EXTENSION_SUFFIXES)), "run `make build`"


@pytest.mark.parametrize("name", _build.expected())
def test_no_extension_is_older_than_its_source(name):
    assert PURE or _build.is_current(name), "run `make build`"


def test_the_build_says_what_it_is():
    assert _build.describe() == ("pure Python" if PURE else "compiled")
    assert _build.is_compiled() == (not PURE)
    assert _build.missing() == (list(_build.expected()) if PURE else [])


def test_no_extension_hides_a_module_that_is_not_to_be_compiled():
    assert list(_build.orphans()) == []


def test_the_switch_works_at_run_time():
    code = "from chimney import _build; print(_build.describe())"
    assert run_python(code, CHIMNEY_PURE="1") == "pure Python"
    assert run_python(code, CHIMNEY_PURE="0") == run_python(code, CHIMNEY_PURE="") != "pure Python"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules of which `a` cimports `b`; `a` has an 'extension' with the digest of its sources."""
    monkeypatch.setattr(_build, "_ROOT", tmp_path)
    for name, cimport in (("a", "from chimney.b cimport (\n    B,\n)\n"), ("b", ""), ("plain", None)):
        (tmp_path / f"{name}.py").write_text(f"class {name}: pass\n")
        if cimport is not None:
            (tmp_path / f"{name}.pxd").write_text(cimport + f"cdef class {name}:\n    cdef int x\n")
    extension = tmp_path / ("a" + EXTENSION_SUFFIXES[0])
    extension.write_bytes(b"ELF" + bytes.fromhex(_build.source_digest("chimney.a")) + b"rest")
    return tmp_path


def test_a_module_is_expected_by_its_pxd_alone(package):
    assert _build.expected() == ("chimney.a", "chimney.b")


def test_a_date_makes_nothing_stale(package):
    assert _build.is_current("chimney.a")
    os.utime(package / "a.py", (2**31, 2**31))
    assert _build.is_current("chimney.a")


@pytest.mark.parametrize("file", ["a.py", "a.pxd", "b.pxd"])
def test_content_makes_stale(package, file):
    (package / file).write_text((package / file).read_text() + "\n")
    assert _build.stale() == ["chimney.a"]


def test_the_body_of_a_cimported_module_makes_nothing_stale(package):
    (package / "b.py").write_text("class b: y = 1\n")
    assert _build.stale() == []


def test_an_extension_without_a_pxd_is_an_orphan(package):
    (package / "a.pxd").unlink()
    assert list(_build.orphans()) == [package / ("a" + EXTENSION_SUFFIXES[0])]


def test_the_package_is_typed_and_versioned():
    assert (Path(chimney.__file__).parent / "py.typed").exists()
    assert chimney.__version__.count(".") == 2
