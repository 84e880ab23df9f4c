"""ICMP messages: what is read in them, and what is believed (RFC 792, RFC 1191, RFC 4443, RFC 5927)."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.host.hand_over import Owner
from chimney.host.icmp import IcmpMessage, Meaning, is_outstanding, parse_ipv4, parse_ipv6
from chimney.host.icmp import too_big as too_big_of_ours
from chimney.host.icmp_watch import IcmpWatch, Outstanding
from chimney.host.kernel import Flow
from chimney.host.listener import NEVER

FLOW = Flow(bytes([10, 0, 0, 1]), 4000, bytes([10, 0, 9, 2]), 80)
FLOW6 = Flow(b"\xfd" + bytes(14) + b"\1", 4000, b"\xfd" + bytes(14) + b"\2", 80)
ROUTER = bytes([10, 0, 0, 254])
ROUTER6 = b"\xfd" + bytes(14) + b"\3"
SEQ = 0xFFFFFFF0


MTU_1280 = b"\0\0\5\0"


def ipv4(kind=3, code=4, word=MTU_1280, flow=FLOW, seq=SEQ, to=None, protocol=6, offset=0, options=b""):
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 1, 0x4000 | offset, 60, protocol, 0)
    quoted += flow.local_address + flow.remote_address
    quoted += struct.pack("!HHI", flow.local_port, flow.remote_port, seq)
    message = bytes((kind, code, 0, 0)) + word + quoted
    header = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(message), 1, 0, 60, 1, 0)
    return header + ROUTER + (to or flow.local_address) + options + message


def ipv6(kind=2, code=0, word=MTU_1280, flow=FLOW6, seq=SEQ, protocol=6):
    quoted = struct.pack("!IHBB", 6 << 28, 1440, protocol, 60) + flow.local_address + flow.remote_address
    quoted += struct.pack("!HHI", flow.local_port, flow.remote_port, seq) + bytes(12)
    return bytes((kind, code, 0, 0)) + word + quoted


def read4(*arguments, **settings):
    return parse_ipv4(memoryview(ipv4(*arguments, **settings)))


def read6(*arguments, **settings):
    return parse_ipv6(ROUTER6, memoryview(ipv6(*arguments, **settings)))


class TestReading:
    def test_too_big(self):
        assert read4() == IcmpMessage(Meaning.TOO_BIG, FLOW, SEQ, 1280, ROUTER, 3, 4, MTU_1280)
        assert read6() == IcmpMessage(Meaning.TOO_BIG, FLOW6, SEQ, 1280, ROUTER6, 2, 0, MTU_1280)

    def test_an_old_router_tells_no_mtu(self):
        assert read4(word=bytes(4)).mtu == 0

    def test_an_mtu_of_ipv6_has_four_bytes(self):
        assert read6(word=b"\xff\xff\xff\xff").mtu == 0xFFFFFFFF

    @pytest.mark.parametrize("kind, code", [(3, 0), (3, 1), (3, 3), (3, 13), (3, 15), (11, 0), (11, 1), (12, 0)])
    def test_unreachable(self, kind, code):
        message = read4(kind, code, bytes(4))
        assert message.meaning is Meaning.UNREACHABLE and (message.type, message.code, message.mtu) == (kind, code, 0)

    @pytest.mark.parametrize("kind, code", [(1, 0), (1, 1), (1, 4), (1, 7), (3, 0), (4, 1)])
    def test_unreachable_ipv6(self, kind, code):
        message = read6(kind, code, bytes(4))
        assert message.meaning is Meaning.UNREACHABLE and (message.type, message.code, message.mtu) == (kind, code, 0)

    @pytest.mark.parametrize("kind, code", [(0, 0), (4, 0), (5, 1), (8, 0), (3, 16), (255, 255)])
    def test_what_is_none_of_our_business(self, kind, code):
        assert read4(kind, code) is None

    @pytest.mark.parametrize("kind, code", [(1, 8), (128, 0), (129, 0), (134, 0), (137, 0)])
    def test_what_is_none_of_our_business_ipv6(self, kind, code):
        assert read6(kind, code) is None

    def test_another_protocols_packet_was_too_big(self):
        assert read4(protocol=17).flow == Flow(FLOW.local_address, 0, FLOW.remote_address, 0)
        assert read6(protocol=17).flow == Flow(FLOW6.local_address, 0, FLOW6.remote_address, 0)

    def test_other_errors_of_another_protocol(self):
        assert read4(3, 1, protocol=17) is None and read6(1, 3, protocol=17) is None

    def test_a_later_fragment_has_no_ports(self):
        assert read4(offset=185) is None

    def test_somebody_elses_segment(self):
        assert read4(to=bytes([10, 0, 0, 7])) is None

    def test_options_of_the_messages_own_packet(self):
        assert read4(options=bytes(8)).seq == SEQ

    @pytest.mark.parametrize("cut", range(1, 30))
    def test_a_message_that_was_cut_off(self, cut):
        whole = ipv4()
        assert parse_ipv4(memoryview(whole)[:-cut]) is None
        assert parse_ipv6(ROUTER6, memoryview(ipv6())[: -cut - 12]) is None

    def test_a_length_beyond_the_end_counts_no_byte_that_is_not_there(self):
        lying = bytearray(ipv4())
        lying[2:4] = b"\xff\xff"
        assert parse_ipv4(memoryview(lying)).seq == SEQ

    @given(st.binary(max_size=120))
    def test_anything_may_come(self, data):
        parse_ipv4(memoryview(data))
        parse_ipv6(ROUTER6, memoryview(data))

    @given(st.data())
    def test_anything_may_come_that_looks_like_one(self, data):
        for whole, parse in ((ipv4(), parse_ipv4), (ipv6(), lambda view: parse_ipv6(ROUTER6, view))):
            changed = bytearray(whole)
            for at in data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=4)):
                changed[at] = data.draw(st.integers(0, 255))
            parse(memoryview(changed)[: data.draw(st.integers(0, len(changed)))])


class TestOurOwn:
    @pytest.mark.parametrize("flow", [FLOW, FLOW6], ids=["v4", "v6"])
    def test_what_the_host_says_itself_reads_like_a_routers(self, flow):
        ours = too_big_of_ours(flow, SEQ, 1280)
        theirs = read4() if flow is FLOW else read6()
        assert ours == theirs._replace(sender=flow.local_address)


class TestOutstanding:
    @pytest.mark.parametrize(
        "seq, believed",
        [(0xFFFFFFEF, False), (0xFFFFFFF0, True), (0, True), (16, True), (17, False), (0x7FFFFFFF, False)],
    )
    def test_from_snd_una_to_snd_max(self, seq, believed):
        assert is_outstanding(seq, 0xFFFFFFF0, 16) is believed

    def test_nothing_outstanding(self):
        assert is_outstanding(5, 5, 5) and not is_outstanding(6, 5, 5) and not is_outstanding(4, 5, 5)


class Kernel:
    def __init__(self):
        self.told = []
        self.forgotten = 0
        self.recverr = False
        self.refusal = None

    def icmp(self, message):
        if self.refusal:
            raise self.refusal
        self.told.append(message)

    def tells_errors(self):
        return self.recverr

    def forget_error(self):
        self.forgotten += 1


class Connection:
    def __init__(self):
        self.owner = Owner.TARGET
        self.kernel = Kernel()
        self.withdrawn = []
        self.error = None

    def withdraw(self, reason):
        self.withdrawn.append(reason)
        self.owner = Owner.UPLOADING


class World:
    """Services, source and routes of one watch; `outstanding` is what targets answer, at once unless it is held."""

    def __init__(self):
        self.now = 1_000_000
        self.connection = Connection()
        self.offloaded = {FLOW: self.connection}
        self.outstanding = Outstanding(SEQ - 100, 1000, 1500)
        self.held = []
        self.hold = False
        self.queries = 0
        self.rechecks = 0
        self.shrunk = []
        self.messages = []
        self.damaged = 0
        self.hears = True
        self.watch = IcmpWatch(self, self, self, self.ask)

    clock = lambda self: self.now  # noqa: E731
    fileno = lambda self: 7  # noqa: E731

    def ask(self, connection, answer):
        self.queries += 1
        if self.hold:
            self.held.append(answer)
        else:
            answer(self.outstanding)

    def recheck_soon(self):
        self.rechecks += 1

    def may_have_shrunk(self, connection):
        self.shrunk.append(connection)

    def listen(self, on):
        self.hears = on

    def read(self, most):
        taken, self.messages = self.messages[:most], self.messages[most:]
        count, self.damaged = len(taken) + self.damaged, 0
        return count, taken

    def hear(self, *messages):
        self.messages += messages
        while self.messages:
            self.watch.ready()
        self.turn()

    def turn(self, later=0):
        self.now += later
        if self.watch.poll_at() <= self.now:
            self.watch.run(self.now)

    @property
    def told(self):
        return self.connection.kernel.told


@pytest.fixture
def world():
    return World()


def too_big(mtu=1280, seq=SEQ, flow=FLOW):
    return read4(word=struct.pack("!HH", 0, mtu), seq=seq, flow=flow)


def unreachable(seq=SEQ):
    return read4(3, 1, bytes(4), seq=seq)


class TestJudging:
    def test_a_message_about_an_outstanding_segment_is_told_and_the_routes_are_looked_at(self, world):
        world.hear(too_big())
        assert world.told == [too_big()] and world.shrunk == [world.connection]
        world.turn(20_000)
        assert len(world.shrunk) == 2, "a busy kernel takes its time"
        world.turn(1_000_000)
        assert len(world.shrunk) == 2 and world.watch.poll_at() == NEVER

    @pytest.mark.parametrize("seq", [(SEQ - 101), 1001, 0x7FFFFFFF])
    def test_a_message_about_another_segment_is_not_believed(self, world, seq):
        world.hear(too_big(seq=seq), unreachable(seq))
        assert not world.told and not world.shrunk and not world.rechecks
        assert world.watch.counters.ignored == 2

    def test_one_question_and_one_telling_for_many(self, world):
        world.hear(too_big(1400), too_big(1280), too_big(1500), too_big(1300, seq=5000))
        assert [message.mtu for message in world.told] == [1280] and world.queries == 1

    @pytest.mark.parametrize("mtu", [1500, 1501, 0xFFFF])
    def test_what_is_no_smaller_is_no_news(self, world, mtu):
        world.hear(too_big(mtu))
        assert not world.told and not world.shrunk and world.watch.counters.ignored == 1

    def test_a_connection_that_is_not_offloaded_is_the_kernels(self, world):
        world.hear(too_big(flow=Flow(FLOW.local_address, 4001, bytes([10, 7, 7, 7]), 80)))
        world.turn(1_000_000)
        assert not world.told and not world.queries and not world.rechecks
        assert world.watch.counters.strange == 1

    def test_what_the_kernel_learns_about_the_same_destination_is_looked_at(self, world):
        world.hear(too_big(flow=Flow(FLOW.local_address, 4001, FLOW.remote_address, 80)))
        assert not world.rechecks
        world.hear(*[too_big(flow=Flow(FLOW.local_address, 4001, FLOW.remote_address, 80))] * 10)
        world.turn(200_000)
        assert world.rechecks == 1 and not world.told

    def test_a_target_that_does_not_know(self, world):
        world.outstanding = None
        world.hear(too_big())
        assert not world.told and world.watch.poll_at() == NEVER
        assert world.watch.counters.ignored == 1
        assert world.connection.withdrawn, "what could not be queried is taken back (query.failure)"

    def test_a_target_that_takes_its_time(self, world):
        world.hold = True
        world.hear(too_big(1400))
        world.hear(too_big(1300))
        assert world.queries == 1 and not world.told
        world.held.pop()(world.outstanding)
        assert [message.mtu for message in world.told] == [1300]

    def test_a_kernel_that_refuses(self, world):
        world.connection.kernel.refusal = PermissionError(1, "no")
        world.hear(too_big())
        assert not world.told


class TestHandOvers:
    def test_on_the_way_down(self, world):
        world.connection.owner = Owner.OFFLOADING
        world.hear(too_big())
        assert not world.queries and not world.told
        assert world.now < world.watch.poll_at() <= world.now + 1000
        world.connection.owner = Owner.TARGET
        world.turn(1000)
        assert world.told == [too_big()]

    def test_on_the_way_up_the_kernel_judges_itself(self, world):
        world.connection.owner = Owner.UPLOADING
        world.hear(too_big(seq=5000))
        world.connection.owner = Owner.KERNEL
        world.turn(1000)
        assert world.told == [too_big(seq=5000)] and not world.queries

    def test_the_application_has_it(self, world):
        world.connection.owner = Owner.UPLOADING
        world.hear(too_big())
        world.connection.owner = Owner.APPLICATION
        world.turn(1000)
        assert not world.told and world.watch.poll_at() == NEVER


class TestErrors:
    def test_the_socket_is_told_and_forgets_when_data_arrives_again(self, world):
        world.hear(unreachable())
        assert world.told == [unreachable()] and not world.connection.kernel.forgotten
        world.turn(1_000_000)
        assert not world.connection.kernel.forgotten, "nothing has been acknowledged"
        world.outstanding = Outstanding(SEQ + 1, 1000, 1500)
        world.turn(1_000_000)
        assert world.connection.kernel.forgotten == 1
        assert world.watch.poll_at() == NEVER

    def test_the_kernel_is_told_again_when_it_has_the_connection_back(self, world):
        world.hear(unreachable())
        world.told.clear()
        world.connection.owner = Owner.UPLOADING
        world.turn(1_000_000)
        assert not world.told
        world.connection.owner = Owner.KERNEL
        world.turn()
        assert world.told == [unreachable()]
        assert world.watch.poll_at() == NEVER

    def test_who_wants_to_hear_of_each_error_hears_in_the_kernel(self, world):
        world.connection.kernel.recverr = True
        world.hear(unreachable())
        assert world.connection.withdrawn and not world.told
        world.connection.owner = Owner.KERNEL
        world.turn(1000)
        assert world.told == [unreachable()]


class TestFlood:
    def test_messages_about_one_connection_are_bounded(self, world):
        world.connection.owner = Owner.OFFLOADING
        world.hear(*[too_big()] * 100)
        assert world.watch.counters.ignored == 84

    def test_too_many_are_not_heard_for_a_while(self, world):
        world.hear(*[too_big(seq=5000)] * 300)
        assert not world.hears
        at = world.watch.poll_at()
        assert world.now < at <= world.now + 500_000
        world.turn(at - world.now)
        assert world.hears and world.watch.poll_at() == NEVER
        world.hear(too_big())
        assert world.told == [too_big()]

    def test_damaged_ones_count(self, world):
        world.damaged = 300
        world.watch.ready()
        assert not world.hears and world.watch.counters.strange == 300

    def test_a_usual_rate_is_heard(self, world):
        for _ in range(300):
            world.now += 10_000
            world.hear(too_big(seq=5000))
        assert world.hears and world.watch.counters.received == 300
