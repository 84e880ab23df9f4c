"""The corpus of the fuzzer, replayed: what once broke something, and what reaches far (see docs/fuzzing.md)."""

import importlib
import random

import pytest

from fuzz import TARGETS, corpus

INPUTS = [(target, data, remark) for target in TARGETS for data, remark in corpus.read(target)]


@pytest.mark.parametrize(
    ("target", "data"),
    [pytest.param(target, data, id=f"{target}: {remark}") for target, data, remark in INPUTS if remark],
)
def test_what_once_broke_something(target, data):
    importlib.import_module(f"fuzz.{target}").run(data)


@pytest.mark.parametrize("target", TARGETS)
def test_what_reaches_far(target):
    run = importlib.import_module(f"fuzz.{target}").run
    for data in [data for name, data, remark in INPUTS if name == target and not remark]:
        try:
            run(data)
        except Exception as error:
            pytest.fail(f"{target} {data.hex()}: {error!r}")


@pytest.mark.parametrize("target", TARGETS)
def test_chance(target, seed):
    """Some inputs that nobody has chosen."""
    run = importlib.import_module(f"fuzz.{target}").run
    chance = random.Random(seed)
    for _ in range(100):
        length = chance.randrange(100)
        data = bytes(chance.choice((0, chance.randrange(32), chance.randrange(256))) for _ in range(length))
        try:
            run(data)
        except Exception as error:
            pytest.fail(f"{target} {data.hex()}: {error!r}")


def test_the_corpus_is_small():
    assert sum(corpus.path(target).stat().st_size for target in TARGETS) < 300_000
