"""The filter for scripts that are about FreeBSD."""

from chimney.packetdrill import Outcome, run_text
from chimney.packetdrill.normalise import is_freebsd, normalise, receive_window

SCRIPT = """\
--tolerance_usecs=50000
 0.00 `sysctl -w net.inet.tcp.rfc1323=1`
+0.00 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0.00 getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65536], [4]) = 0
+0.00 bind(3, ..., ...) = 0
+0.00 listen(3, 1) = 0
+0.00 < S  0:0(0) win 32767 <mss 1460>
+0.00 > S. 0:0(0) ack 1 win 65535 <mss 1461,eol,eol>
+0.10 <  . 1:1(0) ack 1 win 32767
+0.00 accept(3, ..., ...) = 4
+0.00 getsockopt(4, SOL_SOCKET, SO_RCVBUF, [65700], [4]) = 0
+0.10 < R  65700:65700(0) win 32767
+0.00 >  . 1:1(0) ack 1 win 1
+0.10 < F. 1:1(0) ack 1 win 32767
+0.00 >  . 1:1(0) ack 2 win 2
+0.10 < R. 2:2(0) ack 1 win 0
+0.00 getsockopt(4, SOL_SOCKET, SO_ERROR, [ECONNRESET], [4]) = 0
"""


def test_what_is_left_out():
    lines = normalise(SCRIPT).splitlines()
    assert len(lines) == len(SCRIPT.splitlines())
    assert lines[1] == lines[3] == lines[10] == ""
    assert "win" not in lines[7] and "<...>" in lines[7]
    assert "win 32767 <mss 1460>" in lines[6]
    assert "win" not in lines[12]
    assert "TCP_QUICKACK, [0]" in lines[9]


def test_what_is_recognised():
    assert is_freebsd(SCRIPT)
    assert not is_freebsd("0 `sysctl -q net.ipv4.tcp_sack=1`")
    assert receive_window(SCRIPT) == 65700
    assert receive_window("") == 0


def test_the_window_is_the_buffer_and_the_error_is_theirs():
    assert run_text(SCRIPT).outcome is Outcome.PASSED
    assert run_text(SCRIPT, freebsd=False).outcome is not Outcome.PASSED
    outside = SCRIPT.replace("65700:65700", "65701:65701")
    assert "no packet left" in run_text(outside).reason


def test_what_a_script_distinguishes():
    text = "a\n#ifdef STANDARD\nb\n#else\nc\n#endif\n#ifdef FreeBSD\nd\n#ifdef STANDARD\ne\n#endif\n#endif\nf\n"
    assert normalise(text).split() == ["a", "b", "f"]
