"""What the verifier does to structures that have been given back, and to words that are nobody's."""

import gc
import weakref

import pytest

from chimney.conformance.scenarios import SCENARIOS
from chimney.link.memory import Clock
from chimney.verifier import Mode, VerificationError, Verifier
from chimney.verifier.checks import block_lifetime, general
from tests.verifier.mutants_blocks import HoldsOn, ReliesOnScratch
from tests.verifier.mutation import Mutant


def verified(scenario):
    clock = Clock(1_000_000)
    verifier = Verifier(clock)
    SCENARIOS[scenario].play(clock=clock, observer=verifier)
    verifier.finish()
    return verifier


def test_what_was_given_back_keeps_no_verifier_alive():
    gone = weakref.ref(verified("hand-overs"))
    gc.collect()
    assert gone() is None and not block_lifetime._report


def test_a_terminate_brings_the_host_what_the_target_wrote():
    """The target writes into copies: the host's structures hold it when the host's handler begins."""
    states = []
    clock = Clock(1_000_000)
    world_end = SCENARIOS["graceful-close"].play(clock=clock, observer=Verifier(clock)).sides[0].ends[0]
    states.append(world_end.delegated.state)
    plain = SCENARIOS["graceful-close"].play(clock=Clock(1_000_000)).sides[0].ends[0]
    assert states == [plain.delegated.state] and world_end.delegated.snd_una == plain.delegated.snd_una


@pytest.mark.parametrize(("kind", "rule"), [(HoldsOn, "bl.lifetime"), (ReliesOnScratch, "bl.scratch")])
def test_a_verifier_that_aborts_does_so_where_the_word_is_touched(kind, rule):
    mutant = Mutant(rule, kind, "pipelined-sends")
    clock = Clock(1_000_000)
    with pytest.raises(VerificationError) as caught:
        SCENARIOS["pipelined-sends"].play(clock=clock, observer=Verifier(clock, Mode.ABORT), **mutant.world_options())
    assert caught.value.violation.rule.id == rule and caught.value.violation.culprit == "target 0"
    assert any(kind.__name__ in str(entry.path) or "mutants_blocks" in str(entry.path) for entry in caught.traceback)


def test_of_a_large_request_some_places_are_looked_at():
    size = general._SAMPLE * general._SAMPLES * 3 + 7
    data = bytearray(size)
    before = general._sampled(memoryview(data), 0)
    for at in (0, size - 1):
        data[at] ^= 1
        assert general._sampled(memoryview(data), 0) != before, at
        data[at] ^= 1
    assert general._sampled(memoryview(data), 0) == before
