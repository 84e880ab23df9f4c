"""Deliberate bugs of the host's side: the switch, the words between kernel and target, and the kernel's own steps.

(Those of the target, its engine and the drivers are in `deliberate_bugs_below`, those of the host that follows the
network in `deliberate_bugs_around`.) Each is a classic mistake; most do
harm only at a certain moment.
"""

from __future__ import annotations

from dataclasses import replace

import tests.sim.deliberate_bugs_around
import tests.sim.deliberate_bugs_below  # noqa: F401
from chimney.host import hand_over
from chimney.host.chimney_path import ChimneyPath
from chimney.host.connection import Connection, Owner
from chimney.host.hand_over import HandOver
from chimney.host.kernel_path import KernelPath
from chimney.host.linux import convert
from chimney.host.linux.dump import TcpState
from chimney.link.base import NEVER
from chimney.ndis.library import Binding
from chimney.ndis.status import Status, TcpConnectionState
from chimney.sim.kernel_side import SimKernelSide
from tests.sim.bug_hunt import bug

_MASK = 0xFFFFFFFF
_POSTED = object()

# The way down


@bug("host, offload")
def forgets_kept_segments(patch):
    """What arrived between the cut and the end of the initiate is not forwarded: the peer has to say it again."""

    @patch(ChimneyPath, "forward")
    def forward(original, self, segments):
        pass


@bug("host, offload")
def forwards_out_of_order(patch):
    """Kept segments are forwarded newest first."""

    @patch(ChimneyPath, "forward")
    def forward(original, self, segments):
        original(self, segments[::-1])


@bug("host, offload")
def forgets_the_second_receive(patch):
    """Of several pending receives only the oldest moves (and those behind the second): the second never completes."""

    @patch(Connection, "post_everything")
    def post_everything(original, self):
        second = self.receives[1] if len(self.receives) > 1 else None
        if second is not None:
            second.net_buffer_list = _POSTED
        original(self)
        if second is not None:
            second.net_buffer_list = None


@bug("host, offload")
def forgets_the_fin_behind_sends(patch):
    """A shutdown that waits behind sends is not posted with them."""

    @patch(Connection, "post_everything")
    def post_everything(original, self):
        request = self.shutdown_request
        if self.sends:
            self.shutdown_request = None
        original(self)
        self.shutdown_request = request


@bug("host, offload")
def sends_the_half_sent_again(patch):
    """A send of which the kernel has taken a part goes down with all of its bytes."""

    @patch(ChimneyPath, "post_send")
    def post_send(original, self, request):
        request.bytes_transferred = 0
        original(self, request)


@bug("host, offload")
def ends_before_what_is_unread(patch):
    """After the peer's FIN a receive ends at once, whether or not all data before the FIN has been read (Ripple20's
    kind: the end of a stream is no substitute for its bytes).
    """

    @patch(ChimneyPath, "post_receive")
    def post_receive(original, self, request):
        before, self.unread_below = self.unread_below, 0
        original(self, request)
        self.unread_below = before


@bug("conversion, offload")
def forgets_what_has_arrived_in_the_window(patch):
    """The window is taken as it was when it was last told, from where RCV.NXT is now: what has arrived since moves its
    right edge on (CRIU: rcv_wup and rcv_nxt confused).
    """
    patch.set(convert, "_receive_window", lambda state: state.rcv_wnd)


@bug("conversion, offload")
def believes_the_dump(patch):
    """SND.MAX is what the kernel says SND.NXT is, a guess: what its timers have sent since is unknown below."""

    @patch(convert, "_delegated")
    def delegated(original, state, now):
        made = original(state, now)
        made.snd_max = state.snd_nxt
        return made


@bug("conversion, offload")
def timestamp_rounded_down(patch):
    """The bit of the kernel's timestamp that repair mode hides is taken as 0: TSval may go back by a tick."""
    patch.set(convert, "_timestamp", lambda state, now: state.timestamp & ~1)


@bug("conversion, offload")
def forgets_unread_data_behind_a_fin(patch):
    """What is unread stays in the kernel's queue when the peer has closed already (CRIU: a FIN in the queue)."""

    @patch(convert, "taken")
    def taken(original, state, *others):
        made = original(state, *others)
        if state.state is TcpState.CLOSE_WAIT:
            made.unread.clear()
        return made


@bug("conversion, offload")
def forgets_what_the_kernel_has_not_sent(patch):
    """Only what is in flight is taken out of the kernel's send queue, not what waits for the window behind it."""

    @patch(convert, "taken")
    def taken(original, state, *others):
        made = original(state, *others)
        left = (state.snd_nxt - state.snd_una) & _MASK
        for n, view in enumerate(made.send_data):
            made.send_data[n] = view[:left]
            left = max(0, left - view.nbytes)
        made.send_data = [view for view in made.send_data if view.nbytes]
        return made


@bug("kernel's steps, offload")
def drops_the_delayed_acknowledgement(patch):
    """An acknowledgement that is delayed when the cut is made is owed by nobody afterwards."""

    @patch(SimKernelSide, "_cut")
    def cut(original, self):
        receiver = self._machine.tcp.receiver
        receiver.delayed_at = NEVER
        receiver.ack_now = False
        return original(self)


@bug("kernel's steps, offload")
def reads_the_state_too_early(patch):
    """The state is read while the socket still hears: bytes are acknowledged that are not in it (passt, CRIU)."""

    @patch(SimKernelSide, "_dump")
    def dump(original, self, tcp):
        state = original(self, tcp)
        self._socket.hears = True
        self._machine.gap()
        self._socket.hears = False
        return state


@bug("kernel's steps, offload")
def placeholder_answers(patch):
    """The socket that is left behind is not silent: segments that it hears meet no connection, and are answered with
    RST (passt, kubevirt/kubevirt#14875).
    """

    @patch(SimKernelSide, "_cut")
    def cut(original, self):
        state = original(self)
        self._socket.hears = True
        return state


# The way up


@bug("host, upload")
def counts_the_fin_as_a_byte(patch):
    """Of what is in flight in CLOSING, the last position is taken for a byte, and not for the FIN."""
    patch.set(hand_over, "_FIN_IN_FLIGHT", hand_over._FIN_IN_FLIGHT - {TcpConnectionState.CLOSING})


@bug("host, upload")
def injects_repeats(patch):
    """Segments that say the same, kept one after the other, are all injected: a peer that has gone answers with RST."""
    patch.set(hand_over, "without_repeats", lambda segments: segments)


@bug("host, upload")
def forgets_what_came_during_the_upload(patch):
    """What the tap has seen while the socket was being restored is not injected."""

    @patch(SimKernelSide, "give_back")
    def give_back(original, self, state, meanwhile):
        def nothing():
            meanwhile()
            return []

        original(self, state, nothing)


@bug("host, upload")
def forgets_what_came_last(patch):
    """What came between the last look into the tap and the moment in which the socket hears again is not injected."""
    patch.set(SimKernelSide, "inject", lambda self, packets: None)


@bug("host, upload")
def stops_listening_too_early(patch):
    """The tap's filter is taken away before the kernel's socket hears again (kubevirt/enhancements#20)."""

    @patch(HandOver, "_give_back")
    def give_back(original, self, given):
        self.adapter.unwatch(self.plan.flow)
        original(self, given)


@bug("host, upload")
def empties_the_partly_filled_receive(patch):
    """What a receive holds that comes back from a terminate is overwritten by what follows."""

    @patch(ChimneyPath, "receive_complete")
    def receive_complete(original, self, request, nbl):
        if nbl.status == Status.UPLOAD_IN_PROGRESS:
            nbl.tcp_offload_bytes_transferred = 0
        original(self, request, nbl)


@bug("host, upload")
def completes_sends_out_of_order(patch):
    """A send that is given to the kernel with an upload goes to the end of the queue."""

    @patch(HandOver, "_mark_sent")
    def mark_sent(original, self, count):
        original(self, count)
        if count:
            self._connection.sends.rotate(-1)


@bug("host, upload")
def never_completes_the_last_bytes(patch):
    """A send whose last bytes the kernel gets with an upload waits for more to be sent of it."""

    @patch(KernelPath, "_send")
    def send(original, self):
        sends = self.connection.sends
        if sends and sends[0].bytes_transferred == sends[0].length:
            return False
        return original(self)


@bug("host, upload")
def loses_a_receive_posted_meanwhile(patch):
    """A receive that is posted from a completion, while the terminate is under way, is in no queue."""

    @patch(Connection, "post_receive")
    def post_receive(original, self, buffer, callback=None, *, push=True):
        request = original(self, buffer, callback, push=push)
        if self.owner is Owner.UPLOADING and self.receives and self.receives[-1] is request:
            self.receives.pop()
        return request


@bug("host, upload")
def keeps_the_buffered_data(patch):
    """BufferedData is copied, and its lists never go back to the target."""
    patch.set(Binding, "offload_tcp_receive_return", lambda self, net_buffer_list: Status.SUCCESS)


@bug("conversion, upload")
def right_edge_a_unit_too_far(patch):
    """The right edge is restored one unit of the window scale beyond what the peer was told."""

    @patch(convert, "given")
    def given(original, before, state, now):
        made = original(before, state, now)
        return replace(made, rcv_wnd=made.rcv_wnd + (1 << made.rcv_wscale))


@bug("conversion, upload")
def timestamp_a_tick_back(patch):
    """The kernel's timestamp clock is set to one tick before the last TSval that was sent."""

    @patch(convert, "given")
    def given(original, before, state, now):
        made = original(before, state, now)
        # The kernel rounds what is odd up.
        return replace(made, timestamp=(made.timestamp - 2) & _MASK)


@bug("conversion, upload")
def forgets_the_peers_fin_when_both_cross(patch):
    """CLOSING is taken for FIN_WAIT_1: the peer's FIN has been acknowledged, and will not come again."""
    patch.set(convert, "_TO_KERNEL", {**convert._TO_KERNEL, TcpConnectionState.CLOSING: TcpState.FIN_WAIT1})
