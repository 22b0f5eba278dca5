"""From a keeper's fork to a container's program: groups, namespaces, mounts, user, rights, filter, program.

`spawn` runs in the keeper; all else in its children, which tell of faults over a socket that closes when the program
runs. A first child enters what only descendants see (the process namespace), has the second one and goes; the keeper
gets it as a foster child, and only then lets it go on, so that it dies with the keeper.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import posixpath
import select
import signal
import socket
import stat
import struct
import termios
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from . import syscalls as sys
from . import wire
from .rootfs import SetupError, assemble
from .spec import ContainerSpec, Mode
from .users import Identity, UnknownUser, resolve

__all__ = ["Place", "Spawned", "run_exec", "run_init", "spawn"]

_ENTRY_ERRORS = {
    errno.ENOENT: "no such file or directory",
    errno.EACCES: "permission denied",
    errno.ENOEXEC: "exec format error",
}
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES = 41
_TIOCSPTLCK, _TIOCGPTN = 0x40045431, 0x80045430


class Place(NamedTuple):
    """What a pod's containers share: how it is isolated, its shared memory, and where the machine's mounts are."""

    mode: Mode
    shared_memory: str
    host_mounts: int


class Spawned(NamedTuple):
    """A child on its way: `report` tells its `pid`, its terminal, or its fault, and ends when the program runs.

    Closing `gate` without a byte ends the child.
    """

    report: socket.socket
    gate: int


class Failure(Exception):
    """Why no program runs; `code` as a shell would have it."""

    def __init__(self, message: str, code: int = 128) -> None:
        super().__init__(message)
        self.code = code


def spawn(
    enter: Callable[[], None],
    body: Callable[[socket.socket], NoReturn],
    groups: Sequence[str],
    score: int,
    *,
    dumpable: bool,
) -> Spawned:
    """Fork a child that joins `groups`, calls `enter` and forks again for `body`."""
    report, told = wire.pair()
    wait, gate = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        for end in (report, told):
            end.close()
        os.close(wait)
        os.close(gate)
        raise
    if pid:
        told.close()
        os.close(wait)
        return Spawned(report, gate)
    try:
        report.close()
        os.close(gate)
        os.setsid()
        if not dumpable:
            # Nobody in the container may look into, or through, this process before it is the container's own.
            sys.set_dumpable(False)
        _join(groups)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
        enter()
        pid = os.fork()
        if pid:
            wire.send(told, {"pid": pid})
            os._exit(0)
        if os.read(wait, 1) != b"!":
            os._exit(1)
        os.setsid()
        signal.set_wakeup_fd(-1)
        body(told)
    except BaseException as error:  # noqa: BLE001  # nothing of a child may return into the keeper's code
        _tell(told, error)
    os._exit(1)


def run_init(spec: ContainerSpec, place: Place, stdio: Sequence[int]) -> Callable[[socket.socket], NoReturn]:
    """Return what makes a container's first process. `stdio` is empty for a terminal."""

    def body(told: socket.socket) -> NoReturn:
        if place.mode != "plain":
            assemble(spec, place.mode, place.shared_memory, place.host_mounts)
        _become(spec, place, told, stdio, spec.argv, spec.tty, None)

    return body


def run_exec(
    spec: ContainerSpec, place: Place, stdio: Sequence[int], argv: Sequence[str], tty: bool, pidfd: int
) -> Callable[[socket.socket], NoReturn]:
    """Return what makes a further process of a container, whose first one `pidfd` is."""

    def body(told: socket.socket) -> NoReturn:
        if place.mode != "plain":
            sys.setns(pidfd, sys.CLONE_NEWNS)
        _become(spec, place, told, stdio, argv, tty, pidfd)

    return body


def _become(
    spec: ContainerSpec,
    place: Place,
    told: socket.socket,
    stdio: Sequence[int],
    argv: Sequence[str],
    tty: bool,
    pidfd: int | None,
) -> NoReturn:
    identity = _identity(spec)
    for number, fd in enumerate(_terminal(told, identity) if tty else stdio):
        os.dup2(fd, number)
        if not tty and stat.S_ISFIFO(os.fstat(fd).st_mode):
            # So that the user may open /dev/stdout anew.
            with contextlib.suppress(OSError):
                os.fchown(fd, identity.uid, -1)
    environment = dict(spec.env)
    environment.setdefault("PATH", _DEFAULT_PATH)
    environment.setdefault("HOME", identity.home)
    if tty:
        environment.setdefault("TERM", "xterm")
    _restrict(spec, place.mode, identity, pidfd)
    # Only now, for a change of the user forgets it; and the keeper may have died before.
    sys.parent_death_signal(signal.SIGKILL)
    if select.select([told], [], [], 0)[0]:
        os._exit(1)
    _change_directory(spec.cwd)
    program = _program(argv[0], environment["PATH"])
    sys.close_on_exec_from(3)
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    try:
        os.execve(program, list(argv), environment)  # noqa: S606  # no shell is the point
    except OSError as error:
        why = _ENTRY_ERRORS.get(error.errno or 0, str(error.strerror).lower())
        raise Failure(f"exec {program}: {why}", 127 if error.errno == errno.ENOENT else 126) from error


def _identity(spec: ContainerSpec) -> Identity:
    try:
        return resolve(spec.user)
    except UnknownUser as error:
        raise Failure(str(error)) from error


def _join(groups: Sequence[str]) -> None:
    for path in groups:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"0")
            os.close(fd)
        except OSError as error:
            raise Failure(f"unable to apply cgroup configuration: {path}: {str(error.strerror).lower()}") from error


def _terminal(told: socket.socket, identity: Identity) -> tuple[int, int, int]:
    """Open a terminal of the container, make it this session's, and hand its other side out."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("=i", 0))
    number = struct.unpack("=I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        os.fchown(slave, identity.uid, -1)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    wire.send(told, {"terminal": True}, [master])
    os.close(master)
    return slave, slave, slave


def _restrict(spec: ContainerSpec, mode: Mode, identity: Identity, pidfd: int | None) -> None:
    """Give up all that the container is not to have: bounding set, groups, user, capabilities, system calls."""
    if mode == "plain":
        if identity.uid != os.geteuid():
            identity = Identity(os.geteuid(), os.getegid(), (), identity.home)
    elif mode == "userns":
        _drop_bounding(spec.capabilities)
        _map_user(identity, pidfd)
    else:
        _drop_bounding(spec.capabilities)
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        if not spec.no_new_privileges:
            _filter(spec)
        sys.set_keep_capabilities()
        os.setresuid(identity.uid, identity.uid, identity.uid)
    if mode != "plain":
        # The permitted set of another user than root ends with the program's start, as in every runtime.
        kept = spec.capabilities & _permitted()
        sys.capset(kept if identity.uid == 0 else 0, kept, 0)
    if spec.no_new_privileges:
        sys.no_new_privileges()
        _filter(spec)


def _drop_bounding(kept: int) -> None:
    for number in range(_CAPABILITIES):
        if not kept >> number & 1:
            # One that this kernel does not know is not there to be dropped.
            with contextlib.suppress(OSError):
                sys.drop_bounding(number)


def _permitted() -> int:
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
        rows = dict(line.split(":", 1) for line in file if line.startswith("Cap"))
    return int(rows["CapPrm"], 16)


def _filter(spec: ContainerSpec) -> None:
    if spec.seccomp:
        sys.seccomp_load(spec.seccomp)


def _map_user(identity: Identity, pidfd: int | None) -> None:
    """Be another user than root within the pod's user namespace, by one of the container's own."""
    if identity.uid == 0 and identity.gid == 0:
        return
    if pidfd is not None:
        sys.setns(pidfd, sys.CLONE_NEWUSER)
        return
    sys.unshare(sys.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{identity.uid} 0 1"), ("gid_map", f"{identity.gid} 0 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _change_directory(path: str) -> None:
    try:
        os.chdir(path or "/")
    except OSError as error:
        raise Failure(f'chdir to cwd ("{path}") set in config.json failed: {str(error.strerror).lower()}') from error


def _program(name: str, path: str) -> str:
    """Return the file to run, as Go's `exec.LookPath` finds it."""
    if "/" in name:
        why = _unfit(name)
        if why:
            raise Failure(f'exec: "{name}": {why}', 127 if "no such file" in why else 126)
        return name
    denied = False
    for directory in path.split(":"):
        candidate = posixpath.join(directory or ".", name)
        why = _unfit(candidate)
        if not why:
            return candidate
        denied = denied or "denied" in why
    raise Failure(f'exec: "{name}": executable file not found in $PATH', 127)


def _unfit(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"stat {path}: {str(error.strerror).lower()}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    return "" if mode & 0o111 else "permission denied"


def _tell(told: socket.socket, error: BaseException) -> None:
    code = error.code if isinstance(error, Failure) else 128
    if isinstance(error, (Failure, SetupError)):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename or 'error'}: {str(error.strerror).lower()}"
    else:
        text = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        wire.send(told, {"error": text[:4096], "code": code})
