"""Every kind of expectation that is violated is noticed, and named: the interpreter itself is what is tested here."""

import pytest

from chimney.packetdrill import Outcome, run_text

OPEN = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 40000 <mss 1000,sackOK,nop,nop>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK>
  +.1 < . 1:1(0) ack 1 win 40000
   +0 accept(3, ..., ...) = 4
"""
STAMPED = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 40000 <mss 1000,sackOK,TS val 100 ecr 0>
   +0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 700 ecr 100>
  +.1 < . 1:1(0) ack 1 win 40000 <nop,nop,TS val 200 ecr 700>
   +0 accept(3, ..., ...) = 4
"""
TICKS = "--tcp_ts_tick_usecs=1000\n"


def check(body, opening=OPEN, **options):
    return run_text(opening + body, **options)


RIGHT = [
    ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1", OPEN),
    ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1 win 65535", OPEN),
    ("   +0 write(4, ..., 3000) = 3000\n   +0 > P. 1:3001(3000) ack 1", OPEN),
    ("   +0 write(4, ..., 3000) = 3000\n   * > . 1:1001(1000) ack 1\n   * > P. 1001:3001(2000) ack 1", OPEN),
    ("   +0 < . 1001:2001(1000) ack 1 win 40000\n   +0 > . 1:1(0) ack 1 <nop,nop,sack 1001:2001>", OPEN),
    ("   +0 < . 1001:2001(1000) ack 1 win 40000\n   +0 > . 1:1(0) ack 1 <...>", OPEN),
    ("   +0 write(4, ..., 500) = 500\n +0~+.1 > P. 1:501(500) ack 1", OPEN),
    ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1 <nop,nop,TS val 800 ecr 200>", TICKS + STAMPED),
    ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1 <nop,nop,TS val 9 ecr 200>", STAMPED),
    ("   +0 write(4, ..., 500) = 500\n   +0 > [noecn] P. 1:501(500) ack 1", OPEN),
    ("   +0 %{ assert tcpi_snd_mss == 1000; x = 1 }%\n   +0 %{ assert x == 1 }%", OPEN),
    ("   +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n   +0 read(4, ..., 9) = -1 EAGAIN (no data yet)", OPEN),
    ("   +0...0.200 read(4, ..., 9) = 3\n  +.2 < P. 1:4(3) ack 1 win 40000", OPEN),
]


@pytest.mark.parametrize(("body", "opening"), RIGHT)
def test_what_is_right_passes(body, opening):
    result = check(body, opening)
    assert result.outcome is Outcome.PASSED, (result.reason, result.log)


WRONG = {
    "seq": ("   +0 write(4, ..., 500) = 500\n   +0 > P. 2:502(500) ack 1", "seq 1 instead of 2"),
    "ack": ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 2", "ack 1 instead of 2"),
    "window": ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1 win 99", "win 65535 instead of 99"),
    "length": ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:401(400) ack 1", "500 bytes instead of 400"),
    "push": ("   +0 write(4, ..., 500) = 500\n   +0 > . 1:501(500) ack 1", "flags P. instead of ."),
    "fin": ("   +0 write(4, ..., 500) = 500\n   +0 > FP. 1:501(500) ack 1", "flags P. instead of FP."),
    "ece": ("   +0 write(4, ..., 500) = 500\n   +0 > PE. 1:501(500) ack 1", "flags P. instead of PE."),
    "ecn": ("   +0 write(4, ..., 500) = 500\n   +0 > [ect0] P. 1:501(500) ack 1", "noecn instead of ect0"),
    "no option": ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1 <nop,nop,sack 1:2>", "options none"),
    "sack block": (
        "   +0 < . 1001:2001(1000) ack 1 win 40000\n   +0 > . 1:1(0) ack 1 <nop,nop,sack 1001:2002>",
        "options <nop,nop,sack 1001:2001> instead of <nop,nop,sack 1001:2002>",
    ),
    "padding": (
        "   +0 < . 1001:2001(1000) ack 1 win 40000\n   +0 > . 1:1(0) ack 1 <sack 1001:2001,nop,nop>",
        "instead of <sack 1001:2001,nop,nop>",
    ),
    "unexpected option": ("   +0 < . 1001:2001(1000) ack 1 win 40000\n   +0 > . 1:1(0) ack 1", "instead of none"),
    "too late": ("   +0 < . 1:2(1) ack 1 win 40000\n  +.2 > . 1:1(0) ack 2", "time: the packet left at 0.1"),
    "range of time": ("   +0 < . 1:2(1) ack 1 win 40000\n +.2~+.3 > . 1:1(0) ack 2", "instead of 0.300000 to 0.400000"),
    "missing packet": ("   +0 > . 1:1(0) ack 1", "no packet left by"),
    "missing at any time": ("   * > . 1:1(0) ack 1", "no packet left by"),
    "extra packet": (
        "   +0 write(4, ..., 500) = 500\n  +.1 < F. 1:1(0) ack 501 win 40000\n   +0 > . 501:501(0) ack 2",
        "flags P. instead of .; seq 1 instead of 501",
    ),
    "merged with another kind": (
        "   +0 write(4, ..., 500) = 500\n  +.1 close(4) = 0\n   +0 > P. 1:1001(1000) ack 1",
        "and then another one",
    ),
    "result": ("   +0 write(4, ..., 500) = 499", "write() returns 500 instead of 499"),
    "errno": (
        "   +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n   +0 read(4, ..., 9) = -1 EPIPE (Broken pipe)",
        "read() fails with EAGAIN instead of EPIPE",
    ),
    "error instead of success": (
        "   +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n   +0 read(4, ..., 9) = 9",
        "read() returns -1 EAGAIN instead of 9",
    ),
    "success instead of error": (
        "   +0 write(4, ..., 5) = -1 EPIPE (Broken pipe)",
        "write() returns 5 instead of -1 EPIPE",
    ),
    "blocks for ever": ("   +0 read(4, ..., 9) = 9", "read() does not return"),
    "returns too early": (
        "   +0...0.300 read(4, ..., 9) = 3\n  +.1 < P. 1:4(3) ack 1 win 40000",
        "time: read() returns at 0.200000 instead of 0.400000",
    ),
    "value of an option": (
        "   +0 getsockopt(4, SOL_TCP, TCP_MAXSEG, [1001], [4]) = 0",
        "TCP_MAXSEG is 1000 instead of 1001",
    ),
    "value of ioctl": ("   +0 ioctl(4, SIOCINQ, [1]) = 0", "ioctl(): the value is 0 instead of 1"),
    "revents": (
        "   +0 poll([{fd=4, events=POLLIN|POLLOUT, revents=POLLIN}], 1, 0) = 1",
        "revents is 0x4 instead of 0x1",
    ),
    "assertion": ("   +0 %{ assert tcpi_snd_cwnd == 11, tcpi_snd_cwnd }%", "assert tcpi_snd_cwnd == 11"),
    "assertion after others": ("   +0 %{\nx = 1\nassert x == 1\nassert x == 2\n}%", "assert x == 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_noticed(name):
    body, reason = WRONG[name]
    result = check(body)
    assert result.outcome is Outcome.FAILED, result.log
    assert reason in result.reason
    assert result.line >= 9


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1 <nop,nop,TS val 900 ecr 200>", "TS val 800"),
        ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1 <nop,nop,TS val 800 ecr 100>", "ecr 200"),
        ("   +0 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1", "instead of none"),
        ("   +0 < . 1:2(1) ack 1 win 40000 <nop,nop,TS val 300 ecr 701>", "no packet with TS val 701"),
    ],
)
def test_timestamps_that_are_wrong_are_noticed(body, reason):
    result = check(body, TICKS + STAMPED)
    assert result.outcome is Outcome.FAILED
    assert reason in result.reason


@pytest.mark.parametrize(
    "body",
    [
        "   +0 write(4, ..., 500) = 500\n +.003 > P. 1:501(500) ack 1",
        "   +1 write(4, ..., 500) = 500\n   +0 > P. 1:501(500) ack 1",
    ],
)
def test_what_is_within_the_tolerance_passes(body):
    assert check(body).outcome is Outcome.PASSED


def test_the_tolerance_is_the_scripts():
    body = "   +0 write(4, ..., 500) = 500\n +.020 > P. 1:501(500) ack 1"
    assert check(body).outcome is Outcome.FAILED
    assert check(body, "--tolerance_usecs=30000\n" + OPEN).outcome is Outcome.PASSED


def test_a_wrong_syn_ack_is_noticed():
    result = run_text(OPEN.replace("<mss 1460,nop,nop,sackOK>", "<mss 1461,nop,nop,sackOK>"))
    assert result.outcome is Outcome.FAILED
    assert "mss 1460" in result.reason


def test_segments_are_not_merged_where_the_script_forbids_it():
    body = "   +0 write(4, ..., 3000) = 3000\n   +0 > P. 1:3001(3000) ack 1"
    result = check(body, "--strict_segments\n" + OPEN)
    assert result.outcome is Outcome.FAILED
    assert "1000 bytes instead of 3000" in result.reason


def test_what_the_engine_delivers_is_what_was_sent():
    """The bytes of both streams tell their place: the engine cannot mix them up unnoticed."""

    def spoil(host):
        original = type(host).receive

        def receive(packet):
            if packet.payload:
                packet.payload = b"x" * len(packet.payload)
            original(host, packet)

        host.receive = receive

    result = check("   +0 < P. 1:101(100) ack 1 win 40000", prepare=spoil)
    assert result.outcome is Outcome.FAILED
    assert "not what was sent" in result.reason


def test_what_is_relaxed_is_reported():
    from chimney.packetdrill.compare import Rules

    body = "   +0 write(4, ..., 500) = 500\n   +0 > . 1:501(500) ack 1 win 7"
    assert check(body).outcome is Outcome.FAILED
    assert "win" in check(body, rules=Rules(ignore_push=True)).reason
    result = check(body, rules=Rules(ignore_push=True, ignore_window=True))
    assert result.outcome is Outcome.PASSED
    assert result.relaxed == ("push", "window")


def test_the_log_shows_what_was_expected_and_what_was_seen():
    result = check("   +0 write(4, ..., 500) = 500\n   +0 > P. 2:502(500) ack 1")
    assert any("expected: P. 2:502(500) ack 1" in line for line in result.log)
    assert any("seen:     P. 1:501(500) ack 1" in line for line in result.log)


def test_packets_can_be_merged_from_segments():
    """With --mss what arrives is what a receiving card has merged: acknowledgements count segments."""
    body = """   +0 setsockopt(4, SOL_TCP, TCP_QUICKACK, [0], 4) = 0
   +0 < . 1:2001(2000) ack 1 win 40000
   +0 > . 1:1(0) ack 2001"""
    assert check(body, "--mss=1000\n" + OPEN).outcome is Outcome.PASSED
    assert "time" in check(body.replace("2000", "1000").replace("2001", "1001"), "--mss=1000\n" + OPEN).reason


def test_initial_numbers_are_told_in_syns_and_counted_from_afterwards():
    script = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 999000:999000(0) win 40000 <mss 1000>
   +0 > S. 1234:1234(0) ack 999001 <mss 1460>
  +.1 < . 1:1(0) ack 1 win 40000
   +0 accept(3, ..., ...) = 4
   +0 < P. 1:101(100) ack 1 win 40000
   +0 > . 1:1(0) ack 101
   +0 read(4, ..., 200) = 100
"""
    result = run_text(script)
    assert result.outcome is Outcome.PASSED, (result.reason, result.log)
    assert run_text(script.replace("ack 999001", "ack 999002")).outcome is Outcome.FAILED


@pytest.mark.parametrize("code", ["raise ValueError('x')", "exit()", "this is no Python", "tcpi_nonsense + 1"])
def test_code_that_fails_is_the_scripts_matter(code):
    result = check(f"   +0 %{{ {code} }}%")
    assert result.outcome is Outcome.BROKEN
    assert "in the code" in result.reason


def test_what_code_prints_is_kept():
    assert check("   +0 %{ print(tcpi_snd_mss) }%").printed == "1000\n"
