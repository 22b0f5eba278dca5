"""A pod's first process: it holds the pod's namespaces, owns its output, and writes down how its containers end.

It belongs to the pod, not to the agent: agents come and go at its socket. One thread, one loop, nothing that blocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import selectors
import signal
import socket
import struct
import termios
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from . import syscalls as sys
from . import wire
from .child import Place, run_exec, run_init, spawn
from .children import Children
from .container import Container
from .podspace import make_space, tmpfs_of
from .spec import (
    ContainerRecord,
    ContainerSpec,
    ExecSpec,
    KeeperRecord,
    SandboxSpec,
    boot_id,
    process_start,
    read_file,
    write_file,
)

__all__ = ["SOCKET", "Keeper", "keep"]

SOCKET = "keeper.sock"
_MAX_CLIENTS = 16
_EXEC_LIMIT = 64
_DRAIN_SECONDS = 1.0


class _Refused(Exception):
    """A request that cannot be carried out."""


def keep(spec: SandboxSpec, first: socket.socket) -> NoReturn:
    """Be the keeper of a sandbox, from here on. `first` is the agent that asked for it."""
    try:
        record = KeeperRecord(pid=os.getpid(), started_ticks=process_start(os.getpid()), boot_id=boot_id())
        write_file(f"{spec.directory}/keeper.json", record)
        os.chdir("/")
        place, pause = make_space(spec)
        keeper = Keeper(spec, place, pause)
    except BaseException as error:  # noqa: BLE001  # whatever it was, the agent is told and this process ends
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        with contextlib.suppress(OSError):
            wire.send(first, {"error": text or type(error).__name__})
        os._exit(1)
    keeper.serve(first)
    os._exit(0)


class Keeper:
    """The loop and what agents may ask."""

    def __init__(self, spec: SandboxSpec, place: Place, pause: int) -> None:
        self._spec = spec
        self._place = place
        self._pause = pause
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, socket.socket] = {}
        self._children = Children(self._selector, self._ended)
        self._containers: dict[str, Container] = {}
        self._execs: dict[int, socket.socket | None] = {}
        self._asking: socket.socket | None = None
        self._running = True
        # Kept by descriptor: the path may be longer than a socket's address can be.
        self._directory = os.open(spec.directory, os.O_PATH | os.O_CLOEXEC)

    def serve(self, first: socket.socket) -> None:
        """Serve until told to end."""
        wake = self._watch_children()
        listener = self._listen()
        self._add(first)
        wire.send(first, {"ready": os.getpid()})
        gc.enable()
        while self._running:
            for key, _ in self._selector.select(timeout=self._next()):
                self._call(key)
            self._expire()
        listener.close()
        os.close(wake)
        for container in self._containers.values():
            container.kill_all()

    def _call(self, key: selectors.SelectorKey) -> None:
        """Do what is to be done about a descriptor, unless something before it has closed it."""
        now = self._selector.get_map().get(key.fd)
        if now is None or now.data is not key.data:
            return
        try:
            key.data()
        except Exception:  # noqa: BLE001  # a fault in one request must not end the pod
            traceback.print_exc()

    def _watch_children(self) -> int:
        sys.set_subreaper()
        wait, wake = os.pipe()
        os.set_blocking(wait, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

        def children() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(wait, 4096)
            self._children.reap()

        self._selector.register(wait, selectors.EVENT_READ, children)
        return wake

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        address = f"/proc/self/fd/{self._directory}/{SOCKET}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        old = os.umask(0o177)
        listener.bind(address)
        os.umask(old)
        listener.listen(_MAX_CLIENTS)
        listener.setblocking(False)

        def accept() -> None:
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                if len(self._clients) >= _MAX_CLIENTS:
                    sock.close()
                    return
                self._add(sock)

        self._selector.register(listener, selectors.EVENT_READ, accept)
        return listener

    def _add(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._clients[sock.fileno()] = sock
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(sock))

    def _drop(self, sock: socket.socket) -> None:
        if self._clients.pop(sock.fileno(), None) is None:
            return
        self._selector.unregister(sock)
        sock.close()
        for pid, asked in self._execs.items():
            if asked is sock:
                # Nobody holds its streams any more, nor would anybody end it.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _read(self, sock: socket.socket) -> None:
        try:
            got = wire.receive(sock)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            got = None
        if got is None:
            self._drop(sock)
            return
        message, fds = got
        number = message.get("id")

        def answer(reply: dict[str, Any], given: tuple[int, ...] = ()) -> None:
            self._send(sock, {"id": number, **reply}, given)

        try:
            self._asking = sock
            self._operation(message)(message, fds, answer)
        except (_Refused, OSError, ValueError, KeyError, TypeError) as error:
            answer({"error": f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)})
        finally:
            for fd in fds:
                os.close(fd)

    def _operation(self, message: dict[str, Any]) -> Callable[..., None]:
        operation: Callable[..., None] | None = getattr(self, f"_do_{message.get('op')}", None)
        if operation is None:
            raise _Refused(f"unknown operation {message.get('op')!r}")
        return operation

    def _send(self, sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        try:
            wire.send(sock, message, fds)
        except OSError:
            # An agent that does not read what it asked for may ask again.
            self._drop(sock)

    def _event(self, record: ContainerRecord) -> None:
        for sock in list(self._clients.values()):
            self._send(sock, {"event": "container", "records": [msgspec.to_builtins(record)]})

    # What may be asked. Each gets the message, its descriptors (closed afterwards) and the way to answer.

    def _do_status(self, _message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        answer({"records": [msgspec.to_builtins(container.record) for container in self._containers.values()]})

    def _do_start(self, message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        directory = f"{self._spec.directory}/containers/{message['container']}"
        spec = read_file(f"{directory}/spec.json", ContainerSpec)
        if spec.id in self._containers:
            raise _Refused(f'container "{spec.id}" was started before')
        if spec.pid == "Target":
            self._running_container({"container": spec.target_id})
        mounts = tuple(tmpfs_of(self._spec, mount) if mount.type == "tmpfs" else mount for mount in spec.mounts)
        spec = msgspec.structs.replace(spec, mounts=mounts)
        container = Container(spec, self._selector)
        self._containers[spec.id] = container
        child_side = container.open_streams()

        def done(outcome: dict[str, Any]) -> None:
            if "error" in outcome:
                container.failed(outcome["error"], outcome.get("code", 128))
            else:
                container.runs(outcome["pid"], outcome["terminal"])
            answer(outcome | {"records": [msgspec.to_builtins(container.record)]})
            self._event(container.record)

        try:
            spawned = spawn(
                self._entrance(spec),
                run_init(spec, self._place, child_side),
                spec.cgroup_files,
                spec.oom_score_adj,
                dumpable=self._place.mode != "root",
            )
        except OSError as error:
            done({"error": f"fork: {str(error.strerror).lower()}"})
            return
        finally:
            for fd in child_side:
                os.close(fd)
        self._children.follow(spawned, done)

    def _do_exec(self, message: dict[str, Any], fds: list[int], answer: Callable[..., None]) -> None:
        container = self._running_container(message)
        if len(self._execs) >= _EXEC_LIMIT:
            raise _Refused(f"{_EXEC_LIMIT} commands run in this pod already")
        wanted = msgspec.convert(message["exec"], ExecSpec)
        init = container.pidfd
        asking = self._asking

        def enter() -> None:
            if self._place.mode != "plain" and container.spec.pid != "Node":
                sys.setns(init, sys.CLONE_NEWPID)

        spawned = spawn(
            enter,
            run_exec(container.spec, self._place, fds, wanted.argv, wanted.tty, init),
            container.spec.cgroup_files,
            container.spec.oom_score_adj,
            dumpable=self._place.mode != "root",
        )

        def done(outcome: dict[str, Any]) -> None:
            terminal = outcome.pop("terminal", -1)
            if "error" not in outcome:
                self._execs[outcome["pid"]] = asking
            answer(outcome, (terminal,) if terminal >= 0 else ())
            if terminal >= 0:
                os.close(terminal)

        self._children.follow(spawned, done)

    def _do_kill(self, message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        container = self._containers.get(message["container"])
        if container is not None:
            container.kill(int(message["signal"]))
        answer({})

    def _do_kill_exec(self, message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        pid = int(message["pid"])
        if pid in self._execs:
            os.kill(pid, signal.SIGKILL)
        answer({})

    def _do_attach(self, message: dict[str, Any], fds: list[int], answer: Callable[..., None]) -> None:
        container = self._running_container(message)
        given = container.attach([os.dup(fd) for fd in fds], stdin=bool(message.get("stdin")))
        answer({}, (given,) if given >= 0 else ())
        if given >= 0:
            os.close(given)

    def _do_resize(self, message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        container = self._running_container(message)
        size = struct.pack("=HHHH", int(message["rows"]), int(message["columns"]), 0, 0)
        if container.terminal >= 0:
            fcntl.ioctl(container.terminal, termios.TIOCSWINSZ, size)
        answer({})

    def _do_reopen(self, message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        container = self._containers.get(message["container"])
        if container is not None:
            container.log.reopen()
        answer({})

    def _do_forget(self, message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        container = self._containers.get(message["container"])
        if container is not None:
            if container.record.state != "Exited":
                raise _Refused(f'container "{container.spec.id}" still runs')
            container.close()
            del self._containers[container.spec.id]
        answer({})

    def _do_socket(self, message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        family = socket.AF_INET6 if message.get("family") == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            answer({}, (sock.fileno(),))

    def _do_end(self, _message: dict[str, Any], _fds: list[int], answer: Callable[..., None]) -> None:
        answer({})
        self._running = False

    def _running_container(self, message: dict[str, Any]) -> Container:
        container = self._containers.get(message["container"])
        if container is None or container.record.state != "Running":
            raise _Refused(f'container "{message["container"]}" is not running')
        return container

    def _entrance(self, spec: ContainerSpec) -> Callable[[], None]:
        """Return what the first child enters, so that the container's process is in it."""

        def enter() -> None:
            if self._place.mode == "plain" or spec.pid == "Node":
                return
            if spec.pid == "Pod" and self._pause:
                sys.setns(os.pidfd_open(self._pause), sys.CLONE_NEWPID)
            elif spec.pid == "Target":
                target = self._containers[spec.target_id].pidfd
                sys.setns(target, sys.CLONE_NEWPID)
            else:
                sys.unshare(sys.CLONE_NEWPID)

        return enter

    def _ended(self, pid: int, code: int, number: int) -> None:
        for container in self._containers.values():
            if container.record.pid == pid and container.record.state == "Running":
                container.ended(code, number)
                self._event(container.record)
                return
        asked = self._execs.pop(pid, None)
        if asked is not None and asked.fileno() >= 0:
            self._send(asked, {"event": "exec", "pid": pid, "code": code})

    def _next(self) -> float | None:
        return 0.1 if any(container.draining for container in self._containers.values()) else None

    def _expire(self) -> None:
        now = time.monotonic()
        for container in self._containers.values():
            if container.draining and now - container.draining > _DRAIN_SECONDS:
                container.end_streams()
