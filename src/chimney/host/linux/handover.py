"""A connection's way out of the kernel and back, on the application's own socket.

Down: a *cover* (a silent socket on the same four-tuple) takes the packets, the state is read, the socket is recycled
into a *placeholder* that keeps the four-tuple and answers nothing, the cover goes. Up: the same, and the placeholder is
recycled into the living socket. Two sockets can hold one four-tuple when they differ in the device that they are bound
to; the kernel then prefers the younger. For some microseconds the connection therefore hears one device only.

Where packets may arrive on other devices as well, the kernel finds no socket for those meanwhile, and would answer with
an RST: *guards* on these devices, listeners that drop everything, keep it quiet.

Descriptor, descriptors made from it, epoll registrations and options stay. tests/live/ proves the order of the calls.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from chimney.host.errors import ChimneyError, NotOffloadable, UploadFailed
from chimney.host.linux import ending, nowhere
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import Endpoint, KernelState, dump, endpoint_of
from chimney.host.linux.restore import restore, set_filter

_MOST_GUARDS = 8


@dataclass(slots=True)
class Returned:
    """What the socket had no room for: `unsent`, to be sent later, and behind it a FIN if `fin_pending`. `dying`: the
    kernel ends the connection in a moment.
    """

    unsent: list[memoryview] = field(default_factory=list)
    fin_pending: bool = False
    dying: ending.Dying | None = None


@dataclass(slots=True)
class _Options:
    """The application's settings that a hand-over has to change for a while."""

    device: int
    reuse_address: int
    keepalive: int
    filter: so.Filter | None
    reading_shut: bool

    @classmethod
    def of(cls, sock: socket.socket) -> _Options:
        return cls(
            device=sock.getsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX),
            reuse_address=sock.getsockopt(so.SOL_SOCKET, so.SO_REUSEADDR),
            keepalive=sock.getsockopt(so.SOL_SOCKET, so.SO_KEEPALIVE),
            filter=so.read_filter(sock.fileno()),
            reading_shut=_reading_shut(sock),
        )


# Options that the placeholder has its own values of.
_LATER = frozenset(
    {
        so.SO_KEEPALIVE,
        so.SO_REUSEADDR,
        so.SO_BINDTODEVICE,
        so.SO_BINDTOIFINDEX,
        so.SO_ATTACH_FILTER,
        so.SO_DETACH_FILTER,
    }
)
_KERNEL_ONLY = frozenset(
    {
        (so.IPPROTO_TCP, so.TCP_REPAIR),
        (so.IPPROTO_TCP, so.TCP_REPAIR_QUEUE),
        (so.IPPROTO_TCP, so.TCP_QUEUE_SEQ),
        (so.IPPROTO_TCP, so.TCP_REPAIR_OPTIONS),
        (so.IPPROTO_TCP, so.TCP_REPAIR_WINDOW),
        (so.IPPROTO_TCP, so.TCP_TIMESTAMP),
        (so.IPPROTO_TCP, so.TCP_MD5SIG),
        (so.IPPROTO_TCP, so.TCP_ULP),
        (so.SOL_SOCKET, so.SO_LOCK_FILTER),
        (so.SOL_SOCKET, so.SO_PEEK_OFF),
    }
)


def _reading_shut(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def take(
    sock: socket.socket,
    device: str,
    examine: Callable[[KernelState], None] | None = None,
    others: Sequence[int] = (),
    just_before: Callable[[], None] | None = None,
) -> Placeholder:
    """Take a connection out of the kernel; `eligibility.check` has let it pass, `device` is where its packets arrive.
    `others` are the indices of devices where they may arrive as well. `just_before` is called when all is ready.

    The application's descriptor becomes the placeholder. Raises NotOffloadable, as ``examine`` may that looks at what
    the kernel has told; the socket then works as before.
    """
    try:
        local, remote = endpoint_of(sock.getsockname()), endpoint_of(sock.getpeername())
    except OSError as error:
        raise NotOffloadable(f"{sock!r} cannot be offloaded: its connection has just ended") from error
    own = _duplicate(sock)
    try:
        return _take(own, device, others, local, remote, examine, just_before)
    except OSError as error:
        own.close()
        raise NotOffloadable(f"the kernel refused to hand over {local} -> {remote}: {error}") from error
    except BaseException:
        own.close()
        raise


def _take(
    own: socket.socket,
    device: str,
    others: Sequence[int],
    local: Endpoint,
    remote: Endpoint,
    examine: Callable[[KernelState], None] | None,
    just_before: Callable[[], None] | None,
) -> Placeholder:
    options = _Options.of(own)
    with _Cover(own, device, others, local, remote) as cover:
        try:
            if just_before is not None:
                just_before()
            cover.stand(options.device)
            own.setsockopt(so.IPPROTO_TCP, so.TCP_QUICKACK, 1)
            own.setsockopt(so.IPPROTO_TCP, so.TCP_REPAIR, so.REPAIR_ON)
            state = dump(own, local, remote)
            if examine is not None:
                examine(state)
        except BaseException:
            own.setsockopt(so.IPPROTO_TCP, so.TCP_REPAIR, so.REPAIR_OFF)
            _put_back(own, options)
            raise
        placeholder = Placeholder(own, device, others, state, options)
        try:
            placeholder.stand(cover)
        except BaseException:
            cover.change(own)
            # Everything counts as sent: the buffer is made to hold that.
            restore(own, replace(state, snd_nxt=state.write_seq), options.filter, joined=cover.give_way)
            _put_back(own, options)
            raise
    return placeholder


class Placeholder:
    """The application's socket while its connection is out of the kernel; `state` is what the kernel had.

    It holds a descriptor of its own: the four-tuple stays even if the application closes its own.
    """

    def __init__(
        self, own: socket.socket, device: str, others: Sequence[int], state: KernelState, options: _Options
    ) -> None:
        self._own = own
        self._device = device
        self._others = others
        self._options = options
        self.state = state

    @property
    def device_index(self) -> int:
        """The device that the application has bound its socket to (SO_BINDTOIFINDEX); 0 for none."""
        return self._options.device

    def getsockopt(self, level: int, option: int) -> int:
        """An option of the application's, which the placeholder may have another value of. Raises OSError."""
        if level == so.SOL_SOCKET and option in (so.SO_KEEPALIVE, so.SO_REUSEADDR, so.SO_BINDTOIFINDEX):
            mine = {so.SO_KEEPALIVE: self._options.keepalive, so.SO_REUSEADDR: self._options.reuse_address}
            return mine.get(option, self._options.device)
        return self._own.getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option of the application's, which shall neither wake nor move the placeholder: it gets some of them
        when the connection goes back. Raises OSError and ValueError as the socket would, and ChimneyError for what the
        kernel does to a connection only if it has it.
        """
        if (level, option) in _KERNEL_ONLY:
            raise ChimneyError(
                f"the connection {self.state.local} -> {self.state.remote} is offloaded, and this option (level"
                f" {level}, {option}) is about what the kernel does with it: upload it first"
            )
        if level != so.SOL_SOCKET or option not in _LATER:
            self._own.setsockopt(level, option, value)
            return
        # A socket of its own says whether the value is one, and what the filter is.
        with socket.socket(self._own.family, socket.SOCK_STREAM) as scratch:
            scratch.setsockopt(level, option, value)
            if option == so.SO_ATTACH_FILTER:
                self._options.filter = so.read_filter(scratch.fileno())
            elif option == so.SO_DETACH_FILTER:
                self._options.filter = None
            elif option == so.SO_KEEPALIVE:
                self._options.keepalive = scratch.getsockopt(level, option)
            elif option == so.SO_REUSEADDR:
                self._options.reuse_address = scratch.getsockopt(level, option)
            else:
                self._options.device = scratch.getsockopt(level, so.SO_BINDTOIFINDEX)

    def stand(self, cover: _Cover) -> None:
        """Recycle the socket into a silent one, while the cover takes the packets. Raises OSError."""
        own = self._own
        cover.change(own)
        # A keepalive probe would carry sequence numbers that mean nothing any more, and a time-out end the placeholder.
        own.setsockopt(so.SOL_SOCKET, so.SO_KEEPALIVE, 0)
        nowhere.bind(own.fileno(), self.state.local.sockaddr(own.family))
        cover.give_way(own.fileno(), self.state.remote.sockaddr(own.family))

    def give_back(
        self, state: KernelState, meanwhile: Callable[[], Sequence[bytes]] | None = None
    ) -> Returned:
        """Give the connection back to the kernel as `state` describes it; `meanwhile`: see `restore.restore`.

        Raises UploadFailed: the placeholder then stands as before, and give_back can be called again. What the socket
        could not take is returned.
        """
        if self._own.fileno() < 0:
            raise ChimneyError(f"the connection {self.state.local} -> {self.state.remote} has been given back already")
        local, remote = self.state.local, self.state.remote
        try:
            # A device that is no more brings no packets; those of others meet the guards.
            needed = _is_present(self._device)
            with _Cover(self._own, self._device, self._others, local, remote, needed) as cover:
                try:
                    cover.stand(0)
                except BaseException:
                    self._own.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, 0)
                    raise
                try:
                    self._own.setsockopt(so.IPPROTO_TCP, so.TCP_REPAIR, so.REPAIR_ON)
                    cover.change(self._own)
                    returned = self._restore(state, meanwhile, cover)
                except BaseException:
                    self._own.setsockopt(so.IPPROTO_TCP, so.TCP_REPAIR, so.REPAIR_ON)
                    self.stand(cover)
                    raise
                _put_back(self._own, self._options)
        except OSError as error:
            raise UploadFailed(f"the kernel refused to take {local} -> {remote} back: {error}") from error
        self._own.close()
        return returned

    def _restore(
        self, state: KernelState, meanwhile: Callable[[], Sequence[bytes]] | None, cover: _Cover
    ) -> Returned:
        if state.error:
            return Returned(dying=ending.end(self._own, state, self._options.filter, cover.give_way))
        unsent, fin_pending = restore(self._own, state, self._options.filter, meanwhile, cover.give_way)
        return Returned(unsent, fin_pending)

    def abandon(self) -> None:
        """Nobody has the connection any more: the socket shows ECONNABORTED, the peer gets an RST if it can be reached.
        """
        ending.destroy(self._own, self.state)
        self._own.setsockopt(so.IPPROTO_TCP, so.TCP_REPAIR, so.REPAIR_OFF)
        set_filter(self._own, self._options.filter)
        _put_back(self._own, self._options)
        self._own.close()

    def close(self) -> None:
        """Let go of the four-tuple; the kernel answers the peer with an RST once the application has closed, too."""
        self._own.close()


class _Cover:
    """A silent socket that can take a four-tuple over at once, made ready beforehand, and guards on other devices."""

    def __init__(
        self,
        own: socket.socket,
        device: str,
        others: Sequence[int],
        local: Endpoint,
        remote: Endpoint,
        needed: bool = True,
    ) -> None:
        self._own = own
        self._device = device.encode() + b"\0"
        self._needed = needed
        self._remote = remote
        with ExitStack() as made:
            self._sock = made.enter_context(_silent_socket(local))
            mark = own.getsockopt(so.SOL_SOCKET, so.SO_MARK)
            if mark:
                self._sock.setsockopt(so.SOL_SOCKET, so.SO_MARK, mark)
            # On very many devices, one for all of them: it is a little more in the way of new connections.
            guarded = others if len(others) <= _MOST_GUARDS else (0,)
            self._guards = [made.enter_context(_silent_socket(local, index)) for index in guarded if _exists(index)]
            self._made = made.pop_all()

    def __enter__(self) -> _Cover:
        return self

    def __exit__(self, *problem: object) -> None:
        # In repair mode they go without a word.
        self._made.close()

    def stand(self, bound: int) -> None:
        """Take the packets away from `own`, which is bound to the device index `bound`. Raises OSError."""
        if not self._needed:
            return
        if bound:
            nowhere.connect(self._sock.fileno(), self._remote.sockaddr(self._sock.family))
            return
        with self._guarded():
            self._own.setsockopt(so.SOL_SOCKET, so.SO_BINDTODEVICE, self._device)
            nowhere.connect(self._sock.fileno(), self._remote.sockaddr(self._sock.family))

    def change(self, own: socket.socket) -> None:
        """Recycle `own` into a fresh, silent socket in repair mode, while the cover takes the packets."""
        so.disconnect(own.fileno())
        own.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, so.DROP_ALL.program)
        own.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, 0)

    def give_way(self, descriptor: int, address: bytes) -> None:
        """connect() of the socket that takes the packets from now on. Raises OSError."""
        with self._guarded():
            if self._needed:
                self._sock.setsockopt(so.SOL_SOCKET, so.SO_BINDTODEVICE, self._device)
            nowhere.connect(descriptor, address)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Some microseconds in which packets on other devices meet nobody but the guards. A client whose SYN comes in
        these sends it again.
        """
        for guard in self._guards:
            so.listen(guard.fileno())
        try:
            yield
        finally:
            for guard in self._guards:
                so.stop_listening(guard.fileno())


def _is_present(device: str) -> bool:
    try:
        return socket.if_nametoindex(device) > 0
    except OSError:
        return False


def _exists(index: int) -> bool:
    """Whether there is (still) a device of this number; 0 stands for all of them."""
    try:
        return not index or bool(socket.if_indextoname(index))
    except OSError:
        return False


def _silent_socket(local: Endpoint, device: int = 0) -> socket.socket:
    """A socket in repair mode that drops everything, bound to an address and port that others use, too."""
    family = socket.AF_INET if len(local.address) == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, so.DROP_ALL.program)
        sock.setsockopt(so.IPPROTO_TCP, so.TCP_REPAIR, so.REPAIR_ON)
        if device:
            sock.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, device)
        nowhere.bind(sock.fileno(), local.sockaddr(family))
    except BaseException:
        sock.close()
        raise
    return sock


def _put_back(own: socket.socket, options: _Options) -> None:
    own.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, options.device)
    # Leaving repair mode clears it.
    own.setsockopt(so.SOL_SOCKET, so.SO_REUSEADDR, options.reuse_address)
    if options.keepalive:
        own.setsockopt(so.SOL_SOCKET, so.SO_KEEPALIVE, options.keepalive)
    if options.reading_shut:
        _shut_reading(own)


def _shut_reading(own: socket.socket) -> None:
    try:
        own.shutdown(socket.SHUT_RD)
    except OSError:
        # The kernel has ended the connection meanwhile: there is nothing to read any more either way.
        pass


def _duplicate(sock: socket.socket) -> socket.socket:
    blocking = os.get_blocking(sock.fileno())
    own = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    if os.get_blocking(own.fileno()) != blocking:
        os.set_blocking(own.fileno(), blocking)
    return own
