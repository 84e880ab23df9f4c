"""Shell commands are understood, known to make no difference, or named as the reason why a script is unsupported."""

import pytest

from chimney.packetdrill import Outcome, Unsupported, run_text
from chimney.packetdrill.commands import run
from chimney.packetdrill.settings import Settings


def settings(text):
    found = Settings()
    run(text, found)
    return found


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("sysctl -q net.ipv4.tcp_sack=0", "sack", False),
        ("sysctl -w net.ipv4.tcp_ecn=1", "ecn", 1),
        ('sysctl -q net.ipv4.tcp_rmem="4096 5000 $((15*1024*1024))"', "rmem", (4096, 5000, 15 << 20)),
        ("../common/set_sysctls.py /proc/sys/net/ipv4/tcp_min_tso_segs=4", "min_tso_segs", 4),
        ("sysctl -q net.ipv4.tcp_fin_timeout=7", "fin_timeout_us", 7_000_000),
        ("# nothing\nsysctl -q \\\n net.ipv4.tcp_reordering=5", "reordering", 5),
        ("echo 0 > /sys/module/tcp_cubic/parameters/hystart", "hystart", False),
        ("../../common/defaults.sh", "rmem", (4096, 540_000, 15 << 20)),
        ("./defaults.sh; sysctl -q net.ipv4.tcp_early_retrans=0", "early_retrans", 0),
        ("tc qdisc replace dev tun0 root fq", "fair_queue", True),
        ("ip route change 192.0.2.1 via 192.168.0.2 dev tun0 advmss 600 mtu lock 640 initcwnd 11", "route_mtu", 640),
        ("ip -6 route change 2001:DB8::1 dev tun0 advmss 600 mtu 640 initcwnd 11", "initcwnd", 11),
        ("sysctl chimney.ack_frequency=3", "engine", {"ack_frequency": 3}),
        ("sysctl chimney.hystart=none", "engine", {"hystart": "none"}),
        ("sysctl chimney.pacing=1", "engine", {"pacing": True}),
    ],
)
def test_what_becomes_a_setting(text, attribute, value):
    assert getattr(settings(text), attribute) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ip tcp_metrics flush all > /dev/null 2>&1",
        "tc qdisc add dev tun0 root pfifo",
        "ethtool -K tun0 tso off gso off",
        "sysctl -q net.ipv4.tcp_syncookies=1",
        "sysctl -w net.inet.tcp.rfc1323=1",
        "/tmp/sysctl_restore_${PPID}.sh",
        "echo 3 > /sys/module/tcp_cubic/parameters/hystart_detect",
    ],
)
def test_what_makes_no_difference(text):
    before, after = Settings(), settings(text)
    after.ignored.clear()
    assert after == before


@pytest.mark.parametrize(
    "text",
    [
        "nstat -n",
        "rm -rf /",
        "sysctl -q net.ipv4.tcp_of_the_future=1",
        "sysctl -q net.ipv4.tcp_sack=maybe",
        "sysctl -q net.ipv4.tcp_frto=0",
        "sysctl -q net.ipv4.tcp_dsack=0 net.ipv4.tcp_sack=1",
        "echo 1 > /sys/module/tcp_cubic/parameters/beta",
        "tc qdisc replace dev tun0 root pfifo limit 0",
        "ip link add dummy0 type dummy",
        "../common/defaults.sh\nnstat | grep -q x",
    ],
)
def test_what_is_not_known(text):
    with pytest.raises(Unsupported):
        settings(text)


def test_nothing_is_executed(tmp_path):
    file = tmp_path / "made"
    result = run_text(f"`touch {file}`\n0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n")
    assert result.outcome is Outcome.UNSUPPORTED
    assert "touch" in result.reason
    assert not file.exists()


def test_an_engines_parameter_reaches_the_engine():
    script = """
`sysctl chimney.delayed_ack_us=90000`
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 40000 <mss 1000>
   +0 > S. 0:0(0) ack 1 <...>
  +.1 < . 1:1(0) ack 1 win 40000
   +0 accept(3, ..., ...) = 4
   +0 setsockopt(4, SOL_TCP, TCP_QUICKACK, [0], 4) = 0
   +0 < . 1:2(1) ack 1 win 40000
 +.09 > . 1:1(0) ack 2
"""
    assert run_text(script).outcome is Outcome.PASSED
    assert run_text(script.replace("90000", "30000")).outcome is Outcome.FAILED


def test_an_algorithm_that_is_not_there():
    script = """
`sysctl -q net.ipv4.tcp_congestion_control=bbr`
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 40000 <mss 1000>
   +0 > S. 0:0(0) ack 1 <...>
  +.1 < . 1:1(0) ack 1 win 40000
"""
    result = run_text(script)
    assert result.outcome is Outcome.UNSUPPORTED and "bbr" in result.reason
    assert run_text(script.replace("bbr", "reno")).outcome is Outcome.PASSED
