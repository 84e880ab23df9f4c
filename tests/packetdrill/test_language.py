"""Tokens, nodes, and what of a script cannot be read."""

import pytest

from chimney.packetdrill import ScriptError, parse_script
from chimney.packetdrill.lexer import Kind, tokens
from chimney.packetdrill.nodes import (
    Anything,
    Either,
    IcmpPacket,
    Name,
    Number,
    Option,
    Sequence,
    Structure,
    TcpPacket,
    Text,
    When,
)


def texts(script):
    return [(token.kind, token.text) for token in tokens(script)[:-1]]


def only(script):
    (event,) = parse_script(script).events
    return event


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("+.1", [(Kind.SYMBOL, "+"), (Kind.FLOAT, ".1")]),
        ("0...0.2", [(Kind.INTEGER, "0"), (Kind.ELLIPSIS, "..."), (Kind.FLOAT, "0.2")]),
        ("0x1f 12 -3", [(Kind.INTEGER, "0x1f"), (Kind.INTEGER, "12"), (Kind.INTEGER, "-3")]),
        ("S. SEW", [(Kind.WORD, "S"), (Kind.SYMBOL, "."), (Kind.WORD, "SEW")]),
        ("1:2(1)", [(Kind.INTEGER, "1"), (Kind.SYMBOL, ":"), (Kind.INTEGER, "2"), (Kind.SYMBOL, "("),
                    (Kind.INTEGER, "1"), (Kind.SYMBOL, ")")]),
        ("192.0.2.1 2001:db8::1 fd::1", [(Kind.ADDRESS, "192.0.2.1"), (Kind.ADDRESS, "2001:db8::1"),
                                         (Kind.ADDRESS, "fd::1")]),
        ("a // comment\n/* and\nmore */ b # end", [(Kind.WORD, "a"), (Kind.WORD, "b")]),
        ("%{ x = {1: 2}\n }%", [(Kind.CODE, "x = {1: 2}\n")]),
        ('`sysctl -q "a=1"`', [(Kind.COMMAND, 'sysctl -q "a=1"')]),
        ("--tolerance_usecs=5", [(Kind.OPTION, "tolerance_usecs"), (Kind.SYMBOL, "="), (Kind.INTEGER, "5")]),
    ],
)  # fmt: skip
def test_tokens(script, expected):
    assert texts(script) == expected


def test_tokens_know_their_lines():
    assert [token.line for token in tokens("a\n/* b\n*/ c\n\nd")] == [1, 3, 5, 5]


@pytest.mark.parametrize(
    ("time", "when", "start", "end"),
    [
        ("1.5", When.ABSOLUTE, 1_500_000, 1_500_000),
        ("+.25", When.RELATIVE, 250_000, 250_000),
        ("1~2", When.ABSOLUTE_RANGE, 1_000_000, 2_000_000),
        ("+.1~+.2", When.RELATIVE_RANGE, 100_000, 200_000),
        ("*", When.ANY, 0, 0),
    ],
)
def test_times(time, when, start, end):
    event = only(f"{time} > . 1:1(0) ack 1")
    assert (event.when, event.start, event.end) == (when, start, end)


def test_a_packet_with_everything():
    packet = only("0 > [ect0] PEW. 1:1001(1000) ack 5 win 7 urg 2 <mss 1460,nop,wscale 7,sackOK,eol>").action
    assert packet == TcpPacket(
        outbound=True, flags="PEW.", seq=1, length=1000, ack=5, has_ack=True, window=7, urgent=2, ecn="ect0",
        options=(Option("mss", (1460,)), Option("nop"), Option("wscale", (7,)), Option("sackOK"), Option("eol")),
    )  # fmt: skip


def test_options_of_packets():
    packet = only("0 < . 1:1(0) ack 1 win 9 <nop,nop,sack 1:2 5:6,nop,nop,TS val 10 ecr 20>").action
    assert packet.options[2] == Option("sack", (1, 2, 5, 6))
    assert packet.options[5] == Option("TS", (10, 20))
    assert only("0 > . 1:1(0) ack 1 <...>").action.options is None


def test_flags_of_none():
    assert only("0 < - 1:2(1) win 9").action.flags == ""


def test_icmp():
    message = only("0 < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]").action
    assert message == IcmpPacket(False, "unreachable", "frag_needed", 1200, 1, 1460)


def test_calls():
    call = only('0 setsockopt(4, SOL_TCP, TCP_CONGESTION, "reno", 5) = 0').action
    assert call.arguments == (Number(4), Name("SOL_TCP"), Name("TCP_CONGESTION"), Text("reno"), Number(5))
    call = only("0...1 read(4, ..., 0x10) = -1 EAGAIN (Resource temporarily unavailable)").action
    assert (call.arguments[1], call.arguments[2], call.result) == (Anything(), Number(16), Number(-1))
    assert (call.errno, call.end) == ("EAGAIN", 1_000_000)
    call = only("0 poll([{fd=4, events=POLLIN|POLLOUT, revents=POLLIN}], 1, 0) = 1").action
    (structure,) = call.arguments[0].items
    assert structure.get("events") == Either((Name("POLLIN"), Name("POLLOUT")))
    call = only("0 sendmsg(4, {msg_name(...)=..., msg_iov(2)=[{..., 5}, {..., 6}], msg_flags=0}, 0) = 11").action
    message = call.arguments[1]
    assert isinstance(message, Structure) and isinstance(message.get("msg_iov"), Sequence)
    call = only("0 fcntl(3, F_GETFL) = 0x02 (flags O_RDWR)").action
    assert call.result == Number(2)


def test_commands_before_between_and_after():
    script = parse_script("--mtu=1400\n`first`\n0 `second`\n+0 %{ pass }%\n`last`")
    assert (script.options, script.init.text, script.cleanup.text) == ({"mtu": "1400"}, "first", "last")
    assert script.events[0].action.text == "second"


def test_definitions():
    call = only('--define=N=7\n--define=S="abc"\n0 write(N, S, 3) = 3').action
    assert call.arguments[:2] == (Number(7), Text("abc"))


@pytest.mark.parametrize(
    "script",
    [
        "0 > . 1:2(5) ack 1",
        "0 > X. 1:2(1) ack 1",
        "0 > . 1:2(1) ack 1 win 70000",
        "0 > . 1:2(1) ack 1 <what 3>",
        "0 < . 1:2(1) ack 1 <...>",
        "0 > [what] . 1:2(1) ack 1",
        "0 > . 5000000000:5000000000(0) ack 1",
        "* < . 1:2(1) ack 1",
        "+.2~+.1 > . 1:1(0) ack 1",
        "-1 > . 1:1(0) ack 1",
        "what",
        "0 read(4 ... 5) = 1",
        "0 read(4, ..., 5)",
        "0 read(4, ..., 5) = ;",
        '0 write(4, "abc, 3) = 3',
        "0 `sysctl",
        "0 > . 1:2",
    ],
)
def test_what_cannot_be_read(script):
    with pytest.raises(ScriptError) as error:
        parse_script("\n" + script)
    assert error.value.line >= 2
