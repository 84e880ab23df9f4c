"""Fresh network namespaces, held by a descriptor and entered per thread.

Sources: namespaces(7), network_namespaces(7), user_namespaces(7), setns(2).
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CAP_NET_ADMIN = 12

_libc = ctypes.CDLL(None, use_errno=True)
_entered = threading.local()


def _unshare(flags: int, what: str) -> None:
    if _libc.unshare(flags):
        error = ctypes.get_errno()
        raise OSError(error, f"unshare({what}): {os.strerror(error)}")


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def _current() -> int:
    """A new descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """A network namespace of its own, with `lo` up. It ends with its descriptor and the sockets inside.

    `with namespace:` enters it in the calling thread; uses nest. Sockets made inside stay there.
    Raises OSError (EPERM) without CAP_SYS_ADMIN: call `enter_user_namespace` first.
    """

    def __init__(self) -> None:
        home = _current()
        try:
            _unshare(CLONE_NEWNET, "network namespace")
            try:
                self.fd = _current()
                _loopback_up()
            finally:
                _setns(home)
        finally:
            os.close(home)

    def __enter__(self) -> Namespace:
        stack = _entered.__dict__.setdefault("stack", [])
        home = _current()
        try:
            _setns(self.fd)
        except OSError:
            os.close(home)
            raise
        stack.append(home)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        home = _entered.stack.pop()
        try:
            _setns(home)
        finally:
            os.close(home)

    def fileno(self) -> int:
        """The descriptor that holds the namespace."""
        return self.fd

    def close(self) -> None:
        """Let go of the namespace; harmless when repeated."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def run(self, command: Sequence[str], *, input: str | None = None, timeout: float = 20, check: bool = True) -> str:
        """Run a program inside; its output (both streams). `timeout` in seconds.

        Raises RuntimeError with the program's own words when it fails (unless `check` is False).
        """
        with self:
            done = subprocess.run(
                list(command), input=input, capture_output=True, text=True, timeout=timeout, check=False
            )
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(f"{' '.join(command)} failed with status {done.returncode}: {said}")
        return done.stdout + done.stderr

    def popen(self, command: Sequence[str], **arguments: object) -> subprocess.Popen[bytes]:
        """Start a program inside; the caller ends it. `arguments` go to subprocess.Popen."""
        with self:
            return subprocess.Popen(list(command), **arguments)  # type: ignore[call-overload,no-any-return]

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """A socket inside."""
        with self:
            return socket.socket(family, kind, protocol)

    def sysctl(self, name: str, value: str | int | None = None) -> str:
        """Read (and first write, when `value` is given) a setting such as `net.ipv4.tcp_timestamps`."""
        path = "/proc/sys/" + name.replace(".", "/")
        with self:
            if value is not None:
                with open(path, "w") as setting:
                    setting.write(str(value))
            with open(path) as setting:
                return setting.read().strip()


def _loopback_up() -> None:
    import fcntl
    import struct

    get_flags, set_flags, interface_up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, get_flags, struct.pack("16sH22x", b"lo", 0))
        flags = struct.unpack_from("H", request, 16)[0]
        fcntl.ioctl(control, set_flags, struct.pack("16sH22x", b"lo", flags | interface_up))


def can_make_namespaces() -> bool:
    """Whether this process may make network namespaces as it is."""
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    cap_sys_admin = 21
    return bool(effective >> cap_sys_admin & 1 and effective >> CAP_NET_ADMIN & 1)


def enter_user_namespace() -> None:
    """Become root of a new user and network namespace, as `unshare -Urn` does. No privilege is needed.

    For a process with a single thread: the kernel answers EINVAL otherwise. Raises OSError with the remedy when the
    machine forbids user namespaces.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        _unshare(CLONE_NEWUSER | CLONE_NEWNET, "user and network namespace")
    except OSError as error:
        remedy = (
            "call it before starting threads"
            if threading.active_count() > 1
            else "run as root, or allow it (sysctl kernel.unprivileged_userns_clone=1,"
            " kernel.apparmor_restrict_unprivileged_userns=0)"
        )
        raise OSError(error.errno, f"a user namespace was refused: {error.strerror}; {remedy}") from error
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as setting:
            setting.write(line)
    _loopback_up()


def main(arguments: Sequence[str]) -> None:
    """`python -m chimney.lab.namespace PROGRAM ...`: run a program in a user namespace of its own."""
    if not arguments:
        raise SystemExit("usage: python -m chimney.lab.namespace PROGRAM [ARGUMENT ...]")
    enter_user_namespace()
    os.execvp(arguments[0], list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
