import pytest

from chimney.intermediate import FaultyDriver, PassThrough
from chimney.ndis.status import UploadReason
from chimney.sim.case import (
    Case,
    Change,
    Die,
    Driver,
    Host,
    Layer,
    Mtu,
    Network,
    Offload,
    Partition,
    Read,
    Send,
    Target,
    Upload,
    Window,
)
from chimney.sim.world import START, World

STEPS = (
    Read(at=0, side="a"),
    Read(at=0, side="b"),
    Offload(at=0),
    Send(at=1000, side="a", size=7000),
    Send(at=1000, side="b", size=4000),
)
FAULTY = Layer(seed=3)
TWO = Host(chimney=True, layers=(FAULTY, FAULTY))


def play(*steps, host=TWO, **changes):
    """A world after its run, and the lines of its log as (microseconds, side, kind, text)."""
    lines = []
    world = World(Case(a=host, steps=(*STEPS, *steps), **changes), lambda *line: lines.append(line[1:]))
    world.play()
    assert world.findings == [], world.findings
    assert world.verifier.violations == []
    return world, lines


def said(lines, kind, text):
    """When this was said."""
    return [at for at, _, found, words in lines if found == kind and text in words]


def longest(lines, speaker):
    return max(
        int(end) - int(start)
        for _, _, kind, text in lines
        if kind == "out" and text.startswith(speaker) and " data " in text
        for start, _, end in [text.split(" data ")[1].split()[0].partition("..")]
    )


# Drivers and the target that a world has


def test_layers_are_as_the_case_says_the_top_one_first():
    odd = Layer(seed=5, delay=0.1, longest=7, merge=0.2, split=0.3, out_of_memory=(90,), refuse=(9,), upload=0.01)
    world, _ = play(host=Host(chimney=True, layers=(odd, Layer(), FAULTY)))
    machine = world.machines["a"]
    top, middle, bottom = machine.drivers
    assert isinstance(top, FaultyDriver) and isinstance(bottom, FaultyDriver) and type(middle) is PassThrough
    faults = top.faults
    assert (faults.seed, faults.delay, faults.longest, faults.merge, faults.split) == (5, 0.1, 7, 0.2, 0.3)
    assert (faults.out_of_memory, faults.refuse, faults.upload) == ((90,), (9,), 0.01)
    assert machine.target is not None and bottom.upper.level == machine.target.level + 1
    assert world.machines["b"].drivers == [] and world.machines["b"].target is None


@pytest.mark.parametrize("layer", [0, 1])
def test_what_a_driver_holds_comes_when_it_lets_go(layer):
    hold = Driver(at=900, layer=layer, what="hold")
    _, lines = play(hold, Upload(at=3000), Driver(at=5000, layer=layer, what="release"))
    # The terminate's completion waits, and with it the upload.
    assert min(said(lines, "kern", "is restored")) >= 5000


def test_a_slow_driver_passes_an_initiate_on_when_it_lets_go():
    """What comes meanwhile is forwarded then."""
    slow, peer_sends = Driver(at=2900, what="slow"), Send(at=3500, side="b", size=700)
    _, lines = play(Upload(at=2000), slow, Offload(at=3000), peer_sends, Driver(at=6000, what="release"))
    assert [at for at in said(lines, "own", "the target has it") if at < 20_000] == [0, 6000]
    assert not said(lines, "in", "data again")


def test_a_driver_that_never_lets_go_does_when_everybody_behaves():
    _, lines = play(Driver(at=900, what="hold"), Upload(at=3000))
    healed = said(lines, "net", "everybody behaves")
    assert min(said(lines, "kern", "is restored")) >= healed[0]


@pytest.mark.parametrize("reason", UploadReason)
@pytest.mark.parametrize("who", [Driver, Target])
def test_uploads_are_asked_for_with_every_reason_that_has_no_cause_of_its_own(who, reason):
    world, lines = play(who(at=1100, what="upload", reason=reason.name))
    asked = [at for at in said(lines, "kern", "is restored") if at < 20_000]
    caused = reason.name in ("RECEIVED_URGENT_DATA", "TIMEOUT_EXPIRATION", "INVALID_STATE")
    assert bool(asked) == (reason.mandatory and not (caused and who is Target))


def test_a_pass_through_does_what_it_can():
    plain = Host(chimney=True, layers=(Layer(),))
    for what in ("hold", "slow", "release", "upload", "pause", "resume", "upload-all"):
        _, lines = play(Driver(at=1100, what=what), host=plain)
        assert said(lines, "drv", what)
    _, lines = play(Driver(at=1100, layer=7, what="hold"), host=plain)
    assert not said(lines, "drv", "")


@pytest.mark.parametrize("who", [Driver, Target])
def test_nothing_goes_down_while_somebody_pauses(who):
    def moves(*steps):
        _, lines = play(*steps, Upload(at=2000), Offload(at=5000), Offload(at=9000))
        return [at for at in said(lines, "own", "the target has it") if at < 20_000]

    assert moves() == [0, 5000]
    assert moves(who(at=3000, what="pause"), who(at=8000, what="resume")) == [0, 9000]
    assert moves(who(at=3000, what="pause")) == [0]


@pytest.mark.parametrize("who", [Driver, Target])
def test_everything_comes_back_if_that_is_asked_for(who):
    _, lines = play(who(at=1100, what="upload-all"), Offload(at=5000), who(at=8000, what="resume"), Offload(at=9000))
    assert [at for at in said(lines, "kern", "is restored") if at < 20_000]
    assert [at for at in said(lines, "own", "the target has it") if at < 20_000] == [0, 9000]


def test_a_driver_does_not_resume_for_those_below_it():
    steps = [
        Upload(at=1500),
        Target(at=2000, what="pause"),
        Driver(at=2000, what="upload-all"),
        Driver(at=3000, what="resume"),
        Offload(at=4000),
        Target(at=5000, what="resume"),
        Offload(at=6000),
    ]
    world, lines = play(*steps)
    assert [at for at in said(lines, "own", "the target has it") if at < 20_000] == [0, 6000]
    assert not world.machines["a"].drivers[0].uploading


@pytest.mark.parametrize("what", ["hardware-failure", "reset"])
def test_a_state_that_is_lost_ends_the_connection(what):
    world, lines = play(Target(at=1100, what=what), Upload(at=9000))
    assert world.broken_off == ["a has lost the state of its connection"]
    failed = said(lines, "app", "the connection failed")
    assert failed and (min(failed) < 9000) == (what == "reset")


def test_an_update_that_fails_changes_nothing():
    _, lines = play(Target(at=1100, what="update-failure"))
    assert not said(lines, "app", "failed")


def test_what_is_short_is_short_from_the_nth_on_until_there_is_enough():
    world, lines = play(
        Target(at=900, what="short", of="segment", nth=3),
        Target(at=3000, what="enough"),
        Offload(at=4000),
        Send(at=5000, side="b", size=9000),
    )
    # Of b's three segments the third is not taken.
    assert [at for at in said(lines, "kern", "is restored") if at < 4000]
    assert not [at for at in said(lines, "kern", "is restored") if 4000 < at < 20_000]
    assert world.machines["a"].target.allocate is None


def test_a_target_can_be_short_before_the_first_offload():
    case = Case(steps=(Target(at=0, what="short", of="neighbor"), Offload(at=10), Send(at=20, side="a", size=10)))
    lines = []
    world = World(case, lambda *line: lines.append(line[1:]))
    world.play()
    assert said(lines, "no", "the target refused") and world.findings == []


def test_who_has_no_chimney_has_no_drivers():
    _, lines = play(Driver(at=1100, side="b"), Target(at=1100, side="b"))
    assert not said(lines, "drv", "")


# The network


def test_another_network_from_a_moment_on():
    world, lines = play(Change(at=999, network=Network(delay_us=5000)))
    arrived = [at for at, side, kind, text in lines if (side, kind) == ("b", "in") and "data" in text]
    assert min(arrived) == 6000
    assert world.network.delay_us == Network().delay_us


@pytest.mark.parametrize(("of", "lost_by"), [("a", {"a"}), ("b", {"b"}), ("both", {"a", "b"})])
def test_a_partition_ends(of, lost_by):
    _, lines = play(Partition(at=900, of=of, lasts_us=5000))
    lost = [(at, side) for at, side, kind, text in lines if (kind, text) == ("net", "lost")]
    assert {side for _, side in lost} == lost_by and max(at for at, _ in lost) < 5900


def test_a_partition_that_never_ends_does_when_everybody_behaves():
    _, lines = play(Partition(at=900, lasts_us=10**12))
    assert said(lines, "net", "lost") and max(said(lines, "net", "lost")) < said(lines, "net", "everybody behaves")[0]


def test_a_kernel_knows_a_new_mtu_at_once_and_a_target_with_the_next_path():
    mtu = Mtu(at=900, mtu=1000)
    world, lines = play(mtu, Upload(at=2000), Send(at=3000, side="a", size=4000), Offload(at=10_000))
    assert longest(lines, "kernel") == 948
    # What the target made was too large for the link, and nobody saw it.
    assert [at for at in said(lines, "out", "target") if at < 2000]
    assert world.machines["a"].nic.mtu == 1500
    again = [mtu, Upload(at=950), Offload(at=960), Send(at=1100, side="a", size=4000)]
    assert longest(play(*again)[1], "target") == 948


def test_a_target_goes_on_when_its_path_takes_large_packets_again():
    world, lines = play(Mtu(at=900, mtu=1000))
    healed = said(lines, "net", "everybody behaves")[0]
    large = said(lines, "out", "target data 0..1448")
    assert large and min(large) >= healed


def test_a_larger_mtu_does_no_harm():
    world, lines = play(Mtu(at=900, mtu=9000), Upload(at=2000))
    assert world.machines["a"].nic.mtu == 9000


def test_a_process_dies():
    case = Case(b=Host(chimney=True), steps=(*STEPS, Offload(at=0, side="b"), Die(at=1100, side="b")))
    world = World(case, verify=False)
    world.play()
    assert world.findings == [] and world.broken_off[0] == "b has died"
    assert world.machines["b"].dead


def test_only_trouble_is_made():
    world = World(Case())
    with pytest.raises(TypeError, match="Send makes no trouble"):
        world.trouble.do(Send(at=0, side="a", size=1))
    assert world.clock.now == START


def test_an_mtu_that_one_end_knows_loses_what_the_other_sends():
    big = Send(at=1000, side="b", size=4000)
    _, lines = play(Upload(at=800), Mtu(at=900, mtu=1000, of="a"), big, Send(at=1000, side="a", size=4000))
    lost = {side for at, side, kind, text in lines if (kind, text) == ("net", "lost")}
    assert lost == {"b"}
    _, lines = play(Upload(at=800), *(Mtu(at=900, mtu=1000, of=of) for of in "ab"), big)
    assert not said(lines, "net", "lost")


def test_a_window_is_taken_back():
    """And the sender bears it, whoever that is; everybody behaves in the end."""
    for moves in ((), (Upload(at=2000),)):
        fills = (Read(at=800, side="b", depth=0), Send(at=900, side="a", size=30_000))
        world, lines = play(*moves, *fills, Window(at=1500, side="b", size=1))
        assert any(" win 0 " in text for at, side, kind, text in lines if side == "b" and kind == "out" and at >= 1500)
        assert world.machines["b"].tcp.receiver.buffer == world.case.b.receive_buffer


def test_a_target_dies_and_nobody_is_told():
    """Until the connection is wanted back."""
    world = World(Case(a=TWO, steps=(*STEPS, Target(at=900, what="dies"), Send(at=1000, side="b", size=100))))
    lines = []
    world.note_to = lambda *line: lines.append(line[1:])
    world.play()
    assert world.findings == [] and world.verifier.violations == []
    assert max(said(lines, "out", "target"), default=0) < 1000
    assert world.applications["a"].error is not None
