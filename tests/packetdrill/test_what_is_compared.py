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


def test_the_reset_of_a_host_that_does_not_listen():
    opening = OPEN.partition("   +0 listen")[0] + "   +0 < S 0:0(0) win 40000\n"
    assert outcome(opening + "   +0 > R. 0:0(0) ack 1 win 0\n") == (Outcome.PASSED, "")
    assert outcome(opening + "   +0 > R. 4096:4096(0) ack 1 win 0\n")[0] is Outcome.FAILED


TOLD = """
   +0 write(4, ..., 1000) = 1000
   +0 > P. 1:1001(1000) ack 1
  +.1 < icmp unreachable frag_needed mtu 600 [1:1001(1000)]
   +0 > . 1:561(560) ack 1
   +0 > P. 561:1001(440) ack 1
"""
ANOTHER = """
   +0 < R 1:1(0) win 0
   +0 close(4) = 0
   +0 close(3) = 0
"""
SHORTER = OPEN.replace("    0 socket", "   +0 socket").replace("mss 1460", "mss {mss}")


def test_what_was_learned_of_a_path_is_not_what_we_can_take():
    script = OPEN + TOLD + ANOTHER + SHORTER.format(mss=1460)
    assert outcome(script) == (Outcome.PASSED, "")
    known = "   +0 %{ assert tcpi_pmtu == 600, tcpi_pmtu }%\n"
    assert outcome(script + known) == (Outcome.PASSED, "")


def test_a_route_that_is_changed_has_forgotten_what_was_learned():
    change = "   +0 `ip route change 192.0.2.0/24 dev tun0 mtu 1400`\n"
    script = OPEN + TOLD + change + ANOTHER + SHORTER.format(mss=1360)
    assert outcome(script + "   +0 %{ assert tcpi_pmtu == 1400, tcpi_pmtu }%\n") == (Outcome.PASSED, "")


@pytest.mark.parametrize("name", ["insecure_rst", "insecure_syn"])
def test_less_protection_than_the_engine_has_is_no_reason_to_refuse_a_script(name):
    """What it expects is compared; where the protection makes a difference, it fails."""
    command = f"   +0 `sysctl -w net.inet.tcp.{name}=1`\n"
    assert outcome(command + OPEN) == (Outcome.PASSED, "")
    ended = "   +0 < S 1:1(0) win 1000\n   +0 > R. 1:1(0) ack 2\n"
    assert outcome(command + OPEN + ended)[0] is Outcome.FAILED


OVER = "   +0 < R. 1:1(0) ack 1 win 257\n   +0 close(4) = 0\n"


@pytest.mark.parametrize("number", [0, 7000])
def test_a_socket_listens_on_when_a_connection_is_over(number):
    """Numbers count from the SYN, as with packetdrill."""
    again = f"""
  +.1 < S {number}:{number}(0) win 32792 <mss 1000>
   +0 > S. 0:0(0) ack {number + 1} <mss 1460>
  +.1 < . 1:1(0) ack 1 win 257
   +0 accept(3, ..., ...) = 5
   +0 write(5, ..., 10) = 10
   +0 > P. 1:11(10) ack 1
  +.1 < P. 1:11(10) ack 11 win 257
   +0 > . 11:11(0) ack 11
   +0 read(5, ..., 20) = 10
"""
    found = outcome(OPEN + OVER + again)
    assert found == (Outcome.PASSED, "")


def test_a_closed_socket_does_not_listen():
    closed = "   +0 close(3) = 0\n  +.1 < S 0:0(0) win 32792 <mss 1000>\n   +0 > R. 0:0(0) ack 1\n"
    assert outcome(OPEN + OVER + closed) == (Outcome.PASSED, "")


@pytest.mark.parametrize(
    ("assertion", "told"),
    [
        ("tcpi_snd_cwnd == 11", "tcpi_snd_cwnd == 11: tcpi_snd_cwnd is 10"),
        ("tcpi_snd_cwnd == 11, f'cwnd={tcpi_snd_cwnd}'", ": cwnd=10"),
        ("1 == 2", "1 == 2: it is not true"),
    ],
)
def test_an_assertion_that_fails_tells_what_it_saw(assertion, told):
    found, reason = outcome(f"{OPEN}   +0 %{{ assert {assertion} }}%\n")
    assert found is Outcome.FAILED and told in reason
