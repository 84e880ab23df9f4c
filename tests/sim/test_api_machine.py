"""The calls of `Stack` and `Connection` in any order that an application can make them, right or wrong, in a simulated
world. What they must do says `api_model`.
"""

from __future__ import annotations

from typing import Any, cast

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chimney.host.connection import Owner
from chimney.host.errors import ChimneyError
from chimney.sim.case import Case, Host, Layer, Network, Target
from chimney.sim.world import START
from tests.sim.api_model import CALLBACK_CALLS, any_world

SIZES = st.sampled_from((1, 100, 1460, 5000, 40_000))
# What happens after a call before the next one.
EVENTS = st.sampled_from((0, 0, 3, 30))
CALLS = st.lists(st.sampled_from(CALLBACK_CALLS), max_size=2).map(tuple) | st.just(()) | st.just(("raise",))
LAYERS = st.sampled_from(((), (Layer(),), (Layer(delay=0.5, split=0.3, merge=0.3),)))
NEVER_BY_ITSELF = 1 << 61
LONG_US = 10_000_000
# What takes longer to come to its end goes round in circles.
MANY_STEPS = 3_000


class ApiMachine(RuleBasedStateMachine):
    """One application on a stack, and its peer on the model of a kernel."""

    @initialize(
        seed=st.integers(0, 3),
        layers=LAYERS,
        gap_us=st.sampled_from((0, 100)),
        buffer=st.sampled_from((4096, 65536)),
        loss=st.sampled_from((0.0, 0.1)),
        reads=st.booleans(),
        offloaded=st.booleans(),
        lasts=st.sampled_from((0, 10, 20, 30)),
        ending=st.sampled_from(("drain", "detach", "close", "close the stack")),
    )
    def begin(
        self,
        seed: int,
        layers: tuple[Layer, ...],
        gap_us: int,
        buffer: int,
        loss: float,
        reads: bool,
        offloaded: bool,
        lasts: int,
        ending: str,
    ) -> None:
        host = Host(chimney=True, layers=layers, gap_us=gap_us, receive_buffer=buffer, send_buffer=buffer)
        case = Case(seed=seed, a=host, network=Network(loss=loss), grace_us=NEVER_BY_ITSELF)
        self.world, self.application = any_world(case)
        self.peer = self.world.applications["b"]
        # So many steps are to pass before anybody ends it all.
        self.lasts = lasts
        self.ending = ending
        if reads:
            self.peer_reads(True, 0)
        if offloaded:
            self.offload()

    @property
    def may_end(self) -> bool:
        """Whether it has lasted long enough for a call that ends it."""
        return self.lasts <= 0

    # Requests

    @rule(size=SIZES, calls=CALLS, form=st.sampled_from((bytes, bytearray, memoryview)), events=EVENTS)
    def post_send(self, size: int, calls: tuple[str, ...], form: Any, events: int) -> None:
        self.application.post("send", size, calls, form=form)
        self.events(events)

    @rule(size=SIZES, calls=CALLS, push=st.booleans(), form=st.sampled_from((bytearray, memoryview)), events=EVENTS)
    def post_receive(self, size: int, calls: tuple[str, ...], push: bool, form: Any, events: int) -> None:
        self.application.post("receive", size, calls, push, form)
        self.events(events)

    @rule(depth=st.integers(2, 4), calls=CALLS, again=CALLS, events=EVENTS)
    def post_receives(self, depth: int, calls: tuple[str, ...], again: tuple[str, ...], events: int) -> None:
        for number in range(depth):
            self.application.post("receive", 3000, again if number else calls)
        self.events(events)

    @rule(calls=CALLS)
    def shutdown(self, calls: tuple[str, ...]) -> None:
        self.application.post("shutdown", 0, calls)

    @rule()
    def post_nothing(self) -> None:
        connection = self.application.now.connection
        self.application.must_raise(lambda: connection.post_send(b""), ValueError)
        self.application.must_raise(lambda: connection.post_receive(bytearray()), ValueError)
        self.application.must_raise(lambda: connection.post_receive(cast(Any, b"read-only")), ValueError)

    @precondition(lambda self: self.may_end)
    @rule()
    def abort(self) -> None:
        self.application.abort_now(self.application.now)

    # Hand-over

    @rule()
    def offload(self) -> None:
        self.application.offload_now()

    @rule()
    def upload(self) -> None:
        self.application.upload_now()

    @precondition(lambda self: self.may_end)
    @rule(size=SIZES, turns=st.integers(0, 2))
    def send_offload_detach(self, size: int, turns: int) -> None:
        """With bytes under way that the kernel has taken."""
        self.application.post("send", size)
        self.events(turns)
        self.application.offload_now()
        self.application.detach_now()

    @precondition(lambda self: self.may_end)
    @rule()
    def detach(self) -> None:
        self.application.detach_now()

    @rule()
    def connection_of_it(self) -> None:
        self.application.attach_again()

    @rule()
    def connection_of_nothing(self) -> None:
        self.application.must_raise(lambda: self.application.stack.connection(cast(Any, self)), ChimneyError)

    @precondition(lambda self: self.may_end)
    @rule()
    def close(self) -> None:
        self.application.close_now()

    @precondition(lambda self: self.may_end)
    @rule()
    def close_stack(self) -> None:
        self.application.close_stack()

    # Time

    @rule(seconds=st.sampled_from((0.0, 0.0, 0.001, 0.05)))
    def poll(self, seconds: float) -> None:
        application = self.application
        if application.stack_closed:
            application.must_raise(lambda: application.stack.poll(seconds), ChimneyError)
        else:
            application.call(lambda: application.stack.poll(seconds), polls=True)

    @rule(count=st.integers(1, 20))
    def events(self, count: int) -> None:
        for _ in range(count):
            self.step(self.world.clock.now + 300_000)

    @rule(ms=st.sampled_from((1, 5, 60, 1000)))
    def time(self, ms: int) -> None:
        until = self.world.clock.now + ms * 1000
        self.steps(until)
        self.world.clock.advance_to(max(until, self.world.clock.now))

    def step(self, until: int) -> bool:
        """One event, which may be a turn of the application's process."""
        more = []
        self.application.tolerate(lambda: more.append(self.world.step(until)))
        return not more or more[0]

    def steps(self, until: int) -> None:
        """All events until then."""
        for _ in range(MANY_STEPS):
            if not self.step(until):
                return
        raise AssertionError(f"{MANY_STEPS} events in {until - START} us, and there is no end of it")

    @precondition(lambda self: self.may_wait and self.peer.posted > self.application.received)
    @rule(size=SIZES)
    def recv(self, size: int) -> None:
        def act() -> None:
            data = self.application.now.connection.recv(size)
            assert data
            self.application.got(memoryview(data))

        self.application.call(act, polls=True)

    @precondition(lambda self: self.may_wait and self.peer.depth and not self.application.shut)
    @rule(size=SIZES)
    def sendall(self, size: int) -> None:
        application = self.application
        data = application.next_bytes(size)
        application.call(lambda: application.now.connection.sendall(data), polls=True)

    @property
    def may_wait(self) -> bool:
        """Whether what a blocking call waits for will come, and no callback comes in between."""
        application = self.application
        return not (
            application.now.gone
            or self.world.broken_off
            or application.raised
            or any(posted.kind == "receive" or posted.calls for posted in application.now.pending)
        )

    # The peer

    @rule(size=SIZES, events=EVENTS)
    def peer_sends(self, size: int, events: int) -> None:
        self.peer_does(lambda: self.peer.send(size))
        self.events(events)

    @rule(reads=st.booleans(), events=EVENTS)
    def peer_reads(self, reads: bool, events: int) -> None:
        self.peer_does(lambda: self.peer.read(5000, int(reads), True))
        self.events(events)

    @rule(events=EVENTS)
    def peer_shuts_down(self, events: int) -> None:
        self.peer_does(self.peer.shutdown)
        self.events(events)

    @precondition(lambda self: self.may_end)
    @rule()
    def peer_closes(self) -> None:
        self.peer_does(self.peer.detach)

    @precondition(lambda self: self.may_end)
    @rule()
    def peer_resets(self) -> None:
        self.peer_does(self.peer.abort)

    def peer_does(self, act: Any) -> None:
        self.world.busily("b", act)
        self.world.machines["b"].flush()

    # Below

    @precondition(lambda self: self.world.machines["a"].target is not None and not self.application.stack_closed)
    @rule(what=st.sampled_from(("upload", "upload-all", "pause", "resume")))
    def target_wants(self, what: Any) -> None:
        self.application.well = False
        self.world.trouble.do(Target(at=0, what=what))

    # What can be asked at any time

    @rule(size=SIZES)
    def read_the_socket(self, size: int) -> None:
        application = self.application
        if application.now.gone and application.sock.tcp is not None and application.sock.fileno() != -1:
            application.read_socket(size)

    @invariant()
    def answers(self) -> None:
        if not hasattr(self, "world"):
            return
        self.lasts -= 1
        application = self.application
        connection = application.now.connection
        assert connection.owner in (Owner.KERNEL, Owner.TARGET, Owner.APPLICATION)
        assert connection.offloaded == (connection.owner is Owner.TARGET)
        assert repr(connection)
        info = connection.info()
        assert info.owner == connection.owner.value
        # A kernel counts a FIN as a byte, and one that is replayed to it once more.
        fins = 1 + info.uploads
        assert 0 <= info.bytes_received_kernel + info.bytes_received_target <= self.peer.posted + fins, info
        assert 0 <= info.bytes_sent_kernel + info.bytes_sent_target <= application.posted + fins, info
        assert 0 <= info.offloads - info.uploads <= 1, info

    @invariant()
    def nothing_is_broken(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.invariants.after_event()
        assert not self.world.findings, "\n".join(map(str, self.world.findings))
        violations = self.world.verifier.violations  # type: ignore[union-attr]
        assert not violations, f"{violations[0].rule.id}: {violations[0].message}"

    # The end

    def teardown(self) -> None:
        if hasattr(self, "world") and not self.world.findings:
            self.finish()

    def finish(self) -> None:
        """Everything comes to its end, and everything comes back."""
        world, application = self.world, self.application
        if self.ending == "detach":
            application.detach_now()
        elif self.ending == "close":
            application.close_now()
        elif self.ending == "close the stack":
            application.close_stack()
        world.network.behave()
        self.peer_does(self.peer.heal)
        if not application.now.gone and not world.broken_off:
            self.drain()
        if application.now.gone and not world.broken_off:
            world.breaks_off("a", "goes without an end")
        application.close_stack()
        self.quiet()
        if application.sock.fileno() != -1 and application.peer_is_there and not application.aborted:
            assert self.peer.received >= application.promised, "sends were done, and their bytes are lost"
        assert not application.raised
        assert not application.sends and not application.receives
        platform = world.machines["a"].platform
        assert platform is not None and not platform._interest, "descriptors are still being waited for"
        assert not application.stack._connections and not application.stack._descriptors
        assert application.sock.descriptors == (application.sock.fileno() != -1), "descriptors of the socket are left"
        world.invariants.at_end()
        assert world.verifier is not None
        world.verifier.finish()
        self.nothing_is_broken()

    def drain(self) -> None:
        """Both streams come to their ends."""
        application, world = self.application, self.world
        if not application.now.shut:
            application.post("shutdown", 0)
        until = world.clock.now + 12 * LONG_US
        for _ in range(MANY_STEPS):
            if world.broken_off or application.now.gone or world.findings:
                return
            if application.end_of_stream and not application.now.pending:
                return
            if not application.end_of_stream and not application.receives:
                application.post("receive", 4096)
            if not self.step(until):
                break
        assert world.broken_off or application.now.gone, "it does not come to its end"

    def quiet(self) -> None:
        """The last words are said."""
        self.steps(self.world.clock.now + LONG_US)
        assert self.world.clock.now >= START


TestApi = ApiMachine.TestCase
# Without Phase.explain, which traces every line.
TestApi.settings = settings(
    # The same examples each time: a search without end is for campaigns of its own.
    derandomize=True,
    database=None,
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
