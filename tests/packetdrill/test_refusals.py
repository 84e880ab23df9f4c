"""What a script gets wrong itself is told, with its line; what is not here is named; and time-outs of calls end."""

import pytest

from chimney.packetdrill import Outcome, ScriptError, Unsupported, run_text
from chimney.packetdrill.commands import run as run_commands
from chimney.packetdrill.host import Host
from chimney.packetdrill.settings import Settings
from chimney.packetdrill.suite import run_scripts

LISTENING = """0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
"""
OPEN = f"""{LISTENING}+0 < S 0:0(0) win 32792 <mss 1000,sackOK,nop,nop,nop,wscale 7>
+0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK,nop,wscale 7>
+.1 < . 1:1(0) ack 1 win 257
+0 accept(3, ..., ...) = 4
"""
LINE = len(OPEN.splitlines()) + 1
EPOLL = "+0 epoll_create(1) = 5\n+0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLIN, fd=4}) = 0\n"
DATA = "< P. 1:1001(1000) ack 1 win 257\n+0 > . 1:1(0) ack 1001\n"


def check(body, outcome, words="", line=None, before=""):
    result = run_text(before + OPEN + body)
    assert result.outcome is outcome, (result.reason, result.log)
    assert words in result.reason
    assert line is None or result.line == line
    return result


@pytest.mark.parametrize(
    "body",
    [
        "+0...0.1 poll([{fd=4, events=POLLIN, revents=0}], 1, 100) = 0\n",
        "+0 poll([{fd=4, events=POLLIN, revents=0}], 1, 100) = 0\n+0 write(4, ..., 1) = 1\n0.2 > P. 1:2(1) ack 1\n",
        f"+0...0.1 poll([{{fd=4, events=POLLIN, revents=0}}], 1, 100) = 0\n+.2 {DATA}",
        f"+0...0.1 poll([{{fd=4, events=POLLIN, revents=POLLIN}}], 1, 1000) = 1\n+.1 {DATA}",
        "+0 poll([{fd=4, events=POLLIN, revents=0}], 1, 30000) = 0\n",
        EPOLL + "+0...0.1 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 100) = 0\n",
        EPOLL + f"+0...0.1 epoll_wait(5, {{events=EPOLLIN, fd=4}}, 1, 100) = 0\n+.2 {DATA}",
    ],
)
def test_a_call_ends_at_its_time_out(body):
    check(body, Outcome.PASSED)


def test_a_time_out_at_another_time_is_noticed():
    body = "+0...0.2 poll([{fd=4, events=POLLIN, revents=0}], 1, 100) = 0\n"
    check(body, Outcome.FAILED, "poll() returns at 0.200000 instead of 0.300000", LINE)


def test_a_call_that_does_not_return():
    poll = "poll([{fd=4, events=POLLIN, revents=0}], 1, -1) = 0\n"
    check(f"+0...0.2 {poll}", Outcome.FAILED, "poll() does not return by 0.300000", LINE)
    check(f"+0 {poll}", Outcome.FAILED, "poll() does not return by 10.100000", LINE)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--tolerance_usecs=abc", "not abc"),
        ("--tolerance_usecs=-5", "not -5"),
        ("--tolerance_usecs", "wants a value"),
        ("--tolerance_percent=x", "not x"),
        ("--tolerance_percent=nan", "not nan"),
        ("--mtu=x", "not x"),
        ("--mtu=0", "68 or more"),
        ("--mss=x", "not x"),
        ("--ip_version=ipv5", "not ipv5"),
        ("--tolerence_usecs=1", "there is no option --tolerence_usecs"),
        ("--strict_segment", "there is no option --strict_segment"),
    ],
)
def test_an_option_that_makes_no_sense(option, words):
    check("", Outcome.BROKEN, words, 2, f"// about\n{option}\n")


@pytest.mark.parametrize(
    ("option", "words"),
    [("--psp_udp_port=1000", "PSP"), ("--udp_encapsulation=9899", "TCP over UDP"), ("--wire_client", "client")],
)
def test_an_option_that_makes_a_script_foreign(option, words):
    check("+0 whatever follows\n", Outcome.UNSUPPORTED, words, 1, f"{option}\n")


def test_options_that_make_no_difference():
    options = "--local_ip=192.168.0.1\n--non_fatal=packet,syscall\n--tolerance_percent=.5\n--send_omit_free\n"
    check("", Outcome.PASSED, before=options)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ip route change 192.0.2.1 dev tun0 mtu", "mtu wants a number"),
        ("ip route change 192.0.2.1 dev tun0 mtu abc", "not abc"),
        ("ip route change 192.0.2.1 dev tun0 mtu lock", "mtu wants a number"),
        ("ip route change 192.0.2.1 dev tun0 rto_min 5x", "not 5x"),
        ("ip route change 192.0.2.1 dev", "dev wants a value"),
        ("ip route change 192.0.2.1 congctl", "congctl wants a name"),
        ("sysctl chimney.nagle=yes", "chimney.nagle is 0 or 1, not yes"),
        ("sysctl chimney.challenge_every_syn=2", "not 2"),
        ("sysctl chimney.hystart=foo", "not foo"),
        ("sysctl chimney.congestion=bbr", "not bbr"),
        ("sysctl chimney.min_rto_us=soon", "not soon"),
        ("sysctl chimney.what=1", "no parameter what"),
    ],
)
def test_a_command_that_makes_no_sense(command, words):
    with pytest.raises(ScriptError, match=words):
        run_commands(command, Settings())
    check("", Outcome.BROKEN, words, 3, f"// about\n\n`{command}`\n")
    check(f"+0 `{command}`\n", Outcome.BROKEN, words, LINE)


@pytest.mark.parametrize(
    "command",
    [
        "sysctl -q net.ipv4.tcp_thin_linear_timeouts=1",
        "sysctl -q net.ipv4.tcp_rto_max_ms=999",
        "sysctl -q net.ipv4.tcp_orphan_retries=3",
        "sysctl -q net.ipv4.tcp_syncookies=2",
        "sysctl -q net.ipv4.tcp_syn_retries=1",
        "sysctl -p /etc/sysctl.conf",
        "sysctl --system",
        "ip route change 192.0.2.1 dev tun0 window 4000",
        "ip route change 192.0.2.1 dev tun0 initrwnd 4",
        "ip route change 192.0.2.1 dev tun0 quickack 1",
        "ip route change 192.0.2.1 dev tun0 features ecn",
        "ip route del 192.0.2.1",
    ],
)
def test_a_setting_that_would_make_a_difference(command):
    with pytest.raises(Unsupported):
        run_commands(command, Settings())


@pytest.mark.parametrize(
    "command",
    [
        "sysctl -q net.ipv4.tcp_thin_linear_timeouts=0",
        "sysctl -q net.ipv4.tcp_syncookies=1",
        "ip route change 192.0.2.1 via inet 192.168.0.2 dev tun0 proto static onlink quickack 0",
        "ip -6 route show",
    ],
)
def test_the_default_of_such_a_setting(command):
    found = Settings()
    run_commands(command, found)
    found.ignored.clear()
    assert found == Settings()


@pytest.mark.parametrize(("text", "value"), [("1s", 1_000_000), ("30ms", 30_000), ("30", 30_000), ("500us", 500)])
def test_units_of_a_time(text, value):
    found = Settings()
    run_commands(f"ip route change 192.0.2.1 dev tun0 rto_min {text}", found)
    assert found.min_rto_us == value


def test_the_largest_timeout():
    body = """+0 write(4, ..., 1000) = 1000
+0 > P. 1:1001(1000) ack 1
+.3~+.4 > P. 1:1001(1000) ack 1
+.3~+.4 > P. 1:1001(1000) ack 1
+.6~+.7 > P. 1:1001(1000) ack 1
+1 > P. 1:1001(1000) ack 1
+1 > P. 1:1001(1000) ack 1
"""
    check(body, Outcome.PASSED, before="`sysctl -q net.ipv4.tcp_rto_max_ms=1000`\n")
    check(body, Outcome.FAILED, "time: the packet left")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("+0 < . 1:1(0) ack 1 win 9 <mss 70000>\n", "70000"),
        ("+0 < . 1:1(0) ack 1 win 9 <wscale 300>\n", "300"),
        ("+0 < . 1:1(0) ack 1 win 9 <nop,nop,TS val -5 ecr 0>\n", "-5"),
        ("+0 < . 1:1(0) ack 1 win 9 <sack 1:2 3:4 5:6 7:8 9:10 11:12>\n", "50 bytes"),
        ("+0 poll([{events=POLLIN, revents=0}], 1, 0) = 0\n", "{events=POLLIN, revents=0} has no fd"),
        ("+0 poll([{fd=4, revents=0}], 1, 0) = 0\n", "has no events"),
        ("+0 wirte(4, ..., 1000) = 1000\n", "there is no call wirte()"),
        ("+0 setsockopt(4, SOL_TCP, TCP_FOO, [1], 4) = 0\n", "there is no symbol TCP_FOO"),
        ("+0 write(9, ..., 1000) = -1 EFOO (what)\n", "there is no error EFOO"),
        ("+0 getsockopt(4, SOL_TCP, TCP_CONGESTION, [1], [4]) = 0\n", "a name"),
        ("+0 setsockopt(4, SOL_SOCKET, SO_RCVTIMEO, {tv=1}, 16) = 0\n", "{tv=1}"),
    ],
)
def test_an_event_that_makes_no_sense(body, words):
    check(body, Outcome.BROKEN, words, LINE)


def test_the_line_of_a_call_that_is_broken_later():
    body = f"+0...0.1 epoll_wait(5, {{events=EPOLLIN, fd=FOO}}, 1, -1) = 1\n+.1 {DATA}"
    check(EPOLL + body, Outcome.BROKEN, "FOO", LINE + 2)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("+0 sendfile(4, 5, [0], 10) = 10\n", "sendfile()"),
        ("+0 setsockopt(4, SOL_TCP, TCP_NOOPT, [1], 4) = 0\n", "TCP_NOOPT"),
        ("+0 setsockopt(4, SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, [1], 4) = 0\n", "TCP_THIN_LINEAR_TIMEOUTS"),
        ("+0 setsockopt(4, SOL_TCP, TCP_TX_DELAY, [100000], 4) = 0\n", "TCP_TX_DELAY"),
        ("+0 setsockopt(4, SOL_TCP, TCP_SYNCNT, [1], 4) = 0\n", "TCP_SYNCNT"),
        ("+0 setsockopt(4, SOL_SOCKET, SO_MAX_PACING_RATE, [1000], 4) = 0\n", "SO_MAX_PACING_RATE"),
        ("+0 setsockopt(4, SOL_SOCKET, SO_RCVTIMEO, {tv_sec=1, tv_usec=0}, 16) = 0\n", "SO_RCVTIMEO"),
        ("+0 setsockopt(4, SOL_TCP, TCP_CONGESTION, \"reno\", 4) = 0\n", "another congestion control"),
        ("+0 setsockopt(4, SOL_TCP, TCP_CONGESTION, \"bbr\", 3) = 0\n", "bbr"),
        ("+0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 6\n+0 setsockopt(6, SOL_TCP, TCP_DEFER_ACCEPT, [5], 4) = 0\n",
         "TCP_DEFER_ACCEPT"),
    ],
)  # fmt: skip
def test_what_is_not_here(body, words):
    check(body, Outcome.UNSUPPORTED, words)


@pytest.mark.parametrize(
    "body",
    [
        "+0 setsockopt(4, SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, [0], 4) = 0\n",
        "+0 setsockopt(4, SOL_SOCKET, SO_SNDTIMEO, {tv_sec=0, tv_usec=0}, 16) = 0\n",
        "+0 setsockopt(4, SOL_SOCKET, SO_MAX_PACING_RATE, [-1], 4) = 0\n",
        '+0 setsockopt(4, SOL_TCP, TCP_CONGESTION, "cubic", 5) = 0\n',
        '+0 setsockopt(4, SOL_TCP, TCP_CONGESTION, "nonesuch", 8) = -1 ENOENT (x)\n',
        '+0 getsockopt(4, SOL_TCP, TCP_CONGESTION, "cubic", [5]) = 0\n',
        '+0 getsockopt(4, SOL_TCP, TCP_CONGESTION, "cubic", [16]) = 0\n',
        '+0 getsockopt(4, SOL_TCP, TCP_CONGESTION, "cu", [2]) = 0\n',
        "+0 getsockopt(4, SOL_TCP, TCP_MAXSEG, [1000], [4]) = 0\n",
        "+0 setsockopt(4, SOL_TCP, TCP_NODELAY, [1], 2) = -1 EINVAL (x)\n",
        "+0 sendto(9, ..., 10, 0, ..., ...) = -1 EBADF (x)\n",
    ],
)
def test_options_that_are_right(body):
    check(body, Outcome.PASSED)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('+0 getsockopt(4, SOL_TCP, TCP_CONGESTION, "reno", [4]) = 0\n', "TCP_CONGESTION is cubic instead of reno"),
        ('+0 setsockopt(4, SOL_TCP, TCP_CONGESTION, "nonesuch", 8) = 0\n', "-1 ENOENT instead of 0"),
        ("+0 getsockopt(4, SOL_TCP, TCP_MAXSEG, [1000], [8]) = 0\n", "the length is 4 instead of 8"),
    ],
)
def test_options_that_are_wrong(body, words):
    check(body, Outcome.FAILED, words, LINE)


def test_the_congestion_control_of_a_listener_is_that_of_its_connections():
    chosen = '+0 setsockopt(3, SOL_TCP, TCP_CONGESTION, "reno", 4) = 0\n'
    opening = OPEN.replace("+0 bind", f"{chosen}+0 bind")
    result = run_text(opening + '+0 getsockopt(4, SOL_TCP, TCP_CONGESTION, "reno", [4]) = 0\n')
    assert result.outcome is Outcome.PASSED, result.reason


@pytest.mark.parametrize("text", ["", "// nothing\n", "--mss=1000\n", "`sysctl -q net.ipv4.tcp_sack=1`\n"])
def test_a_script_without_events(text):
    result = run_text(text)
    assert (result.outcome, result.reason) == (Outcome.BROKEN, "the script has no events")


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n/* and so on\n", "a /* that is not closed", 2),
        ("0 %{ assert 1\n", "a %{ that is not closed", 1),
        ("0 close(3)", "'=' is expected, not the end of the script", 1),
        ("0 close(", "a value is expected, not the end of the script", 1),
    ],
)
def test_what_is_not_closed(text, words, line):
    result = run_text(text)
    assert (result.outcome, result.line) == (Outcome.BROKEN, line)
    assert words in result.reason


def test_names_are_not_doubled():
    check("+0 ioctl(4, SIOCINQ, [9]) = 0\n", Outcome.FAILED, "ioctl(): the value is 0 instead of 9", LINE)
    wait = "+0 epoll_wait(5, {events=EPOLLIN, fd=9}, 1, 0) = 1\n"
    check(EPOLL + f"+0 {DATA}{wait}", Outcome.FAILED, "epoll_wait(): reports 0x1 for 4", LINE + 4)


def test_an_error_of_the_interpreter_keeps_its_line(monkeypatch, tmp_path):
    def fail(host, packet):
        raise KeyError("what")

    monkeypatch.setattr(Host, "receive", fail)
    file = tmp_path / "one.pkt"
    file.write_text(OPEN)
    (result,) = run_scripts([file])
    assert (result.outcome, result.line) == (Outcome.FAILED, 4)
    assert "KeyError in the engine or the interpreter" in result.reason
    assert any("in fail" in line for line in result.log)


def test_calls_are_logged_with_arguments_and_result():
    log = "\n".join(check("+0...0.1 read(4, ..., 9) = 9\n+.1 " + DATA, Outcome.PASSED).log)
    assert f"line {LINE}: +0...0.1 read(4, ..., 9) = 9\n" in log
    assert "0.200000     read() = 9\n" in log
