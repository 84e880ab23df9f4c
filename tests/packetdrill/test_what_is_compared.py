"""What a script says and nobody compares would pass whatever it says: it is compared, or the script is turned away."""

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
WRITTEN = OPEN + "   +0 write(4, ..., 500) = 500\n"


def outcome(text):
    result = run_text(text)
    return result.outcome, result.reason


def leaves(packet):
    return outcome(f"{WRITTEN}   +0 > {packet}\n")


@pytest.mark.parametrize(
    "header", ["[ttl 3]", "(ttl 64)", "(tos 0x10)", "[tos 0xe2]", "[flowlabel 0x3]", "[ect0, ttl 9]"]
)
def test_the_ip_header_is_the_hosts(header):
    found, reason = leaves(f"{header} P. 1:501(500) ack 1")
    assert (found, reason) == (Outcome.UNSUPPORTED, "TTL, flow label and DSCP are the host's, not the engine's")


@pytest.mark.parametrize("header", ["[ttl 3]", "(tos 0x10)", "[flowlabel 0x3]"])
def test_packets_that_arrive_may_have_any_ip_header(header):
    assert outcome(f"{OPEN}   +0 < {header} P. 1:11(10) ack 1 win 9\n   +0 > . 1:1(0) ack 11\n")[0] is Outcome.PASSED


def test_a_tos_that_is_the_ecn_field_only_is_compared():
    assert leaves("(tos 0) P. 1:501(500) ack 1")[0] is Outcome.PASSED
    assert leaves("(tos 0x2) P. 1:501(500) ack 1")[0] is Outcome.FAILED


@pytest.mark.parametrize("flags", ["CP.", "NP.", "X.", "-P.", "P..", "PP.", "P-"])
def test_flags_that_are_none_break_the_script(flags):
    assert leaves(f"{flags} 1:501(500) ack 1")[0] is Outcome.BROKEN


@pytest.mark.parametrize("flags", ["P5.", ".5", "P.5", "AP."])
def test_accecn_is_not_here(flags):
    assert leaves(f"{flags} 1:501(500) ack 1") == (Outcome.UNSUPPORTED, "AccECN")


def test_a_gap_within_the_flags():
    """FreeBSD's suite has one."""
    assert leaves("P  . 1:501(500) ack 1")[0] is Outcome.PASSED


def test_the_acknowledgement_number_of_what_acknowledges_nothing():
    body = (
        OPEN + "   +0 close(4) = 0\n   +0 > F. 1:1(0) ack 1\n  +.1 < . 1:1(0) ack 2 win 257\n"
        "  +.1 < P. 1:101(100) ack 2 win 257\n   +0 > R 2:2(0)"
    )
    assert outcome(body)[0] is Outcome.PASSED
    found, reason = outcome(body + " ack 55")
    assert found is Outcome.FAILED and "ack 0 instead of 55" in reason
    found, reason = leaves("P. 1:501(500)")
    assert found is Outcome.FAILED and "ack 1 instead of none" in reason


def test_what_left_at_two_moments_is_not_one_packet():
    written = (
        OPEN + "   +0 write(4, ..., 1000) = 1000\n  {gap} write(4, ..., 1000) = 1000\n   * > P. 1:2001(2000) ack 1\n"
    )
    assert outcome(written.format(gap="+0"))[0] is Outcome.PASSED
    found, reason = outcome(written.format(gap="+.05"))
    assert found is Outcome.FAILED and "and then another one" in reason


@pytest.mark.parametrize("kind", ["foo bar mtu 600", "unreachable bar", "time_exceeded frag_needed", "source_quench x"])
def test_icmp_that_is_none_breaks_the_script(kind):
    assert outcome(f"{OPEN}   +0 < icmp {kind} [1:1001(1000)]\n")[0] is Outcome.BROKEN


@pytest.mark.parametrize(
    "kind", ["unreachable host_unreachable", "source_quench", "type_11 code_1", "parameter_problem code_2"]
)
def test_icmp_that_is_a_soft_error(kind):
    assert outcome(f"{OPEN}   +0 < icmp {kind} [1:1001(1000)]\n")[0] is Outcome.PASSED


@pytest.mark.parametrize("option", ["FO", "FOEXP 0102", "md5", "ECN"])
def test_options_that_the_engine_never_sends(option):
    name = option.split()[0]
    assert leaves(f"P. 1:501(500) ack 1 <{option}>") == (Outcome.UNSUPPORTED, f"the TCP option {name}")


@pytest.mark.parametrize(
    "name", ["total_rto", "total_rto_recoveries", "total_rto_time", "rcv_wnd", "rehash", "delivery_rate"]
)
@pytest.mark.parametrize(
    "use", ["assert {} == 0", "def look():\n  return {}\nassert look() == 0", "assert (lambda: {})() == 0"]
)
def test_figures_that_nobody_counts(name, use):
    code = use.format(f"tcpi_{name}")
    expected = (Outcome.UNSUPPORTED, f"tcpi_{name}: the engine does not count it")
    assert outcome(f"{OPEN}   +0 %{{ {code} }}%\n") == expected


def test_a_name_of_the_scripts_own_is_its_own():
    assert outcome(f"{OPEN}   +0 %{{ tcpi_rehash = 1; assert tcpi_rehash == 1 }}%\n")[0] is Outcome.PASSED
    found, reason = outcome(f"{OPEN}   +0 %{{ assert tcpi_nothing == 0 }}%\n")
    assert found is Outcome.BROKEN and "'tcpi_nothing' is not defined" in reason
