"""One container as its keeper sees it: streams, log, record, and all its processes at the end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time

from .crilog import LineFormatter, LogFile
from .spec import ContainerRecord, ContainerSpec, marked, process_start, write_file

__all__ = ["Container"]

_CHUNK = 64 << 10
_MAX_ATTACHED = 16
_KILL_ROUNDS = 100


class Container:
    """What a keeper holds of a container from its start until it is forgotten."""

    def __init__(self, spec: ContainerSpec, selector: selectors.BaseSelector) -> None:
        self.spec = spec
        self.record = ContainerRecord(id=spec.id)
        self.log = LogFile(spec.log_path)
        self.pidfd = -1
        self.terminal = -1
        self.draining = 0.0
        self._selector = selector
        self._stdin = -1
        self._outputs: dict[int, str] = {}
        self._formats = {name: LineFormatter(name) for name in ("stdout", "stderr")}
        self._attached: list[dict[str, socket.socket]] = []

    def open_streams(self) -> list[int]:
        """Open the streams and return the program's ends; none where it gets a terminal."""
        if self.spec.tty:
            return []
        if self.spec.stdin:
            stdin, self._stdin = os.pipe()
        else:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        ends = [stdin]
        for name in ("stdout", "stderr"):
            ours, theirs = os.pipe()
            ends.append(theirs)
            self._watch(ours, name)
        return ends

    def runs(self, pid: int, terminal: int) -> None:
        """Take note that the program runs."""
        with contextlib.suppress(ProcessLookupError):
            self.pidfd = os.pidfd_open(pid)
        self.terminal = terminal
        if terminal >= 0:
            self._watch(terminal, "stdout")
        self.record.state = "Running"
        self.record.pid = pid
        self.record.started_ticks = process_start(pid)
        self.record.started_at = time.time_ns()
        self._save()

    def failed(self, message: str, code: int) -> None:
        """Take note that the program could not be started."""
        self.record.state = "Exited"
        self.record.finished_at = time.time_ns()
        self.record.exit_code = 128
        self.record.reason = "StartError"
        self.record.message = message
        self.end_streams()
        self._save()

    def ended(self, code: int, number: int) -> None:
        """Take note that the first process has ended, and end the others."""
        self.kill_all()
        oom = self._oom_kills() > 0 and code != 0
        for fd in list(self._outputs):
            self._read(fd)
        self.record.state = "Exited"
        self.record.finished_at = time.time_ns()
        self.record.exit_code = code
        self.record.signal = number
        self.record.reason = "OOMKilled" if oom else "Error" if code else "Completed"
        self.record.log_lost = self.log.lost
        self._save()
        self.draining = time.monotonic() if self._outputs else 0.0
        self._close_stdin()

    def kill(self, number: int) -> None:
        """Send a signal to the first process."""
        if self.record.state == "Running" and self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill_all(self) -> None:
        """Send SIGKILL to all processes of the container, also those that left its session."""
        self.kill(signal.SIGKILL)
        if self.spec.pid == "Container" and self.spec.root.type != "none":
            return  # the kernel ends the rest with the first one
        for _ in range(_KILL_ROUNDS):
            pids = self._processes()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                return
            time.sleep(0.001)

    def attach(self, fds: list[int], *, stdin: bool) -> int:
        """Copy what comes out to two more sockets; return a descriptor to write input to, -1 for none."""
        if len(self._attached) >= _MAX_ATTACHED:
            for fd in fds:
                os.close(fd)
            raise ValueError(f"{_MAX_ATTACHED} are attached already")
        sockets = {name: socket.socket(fileno=fd) for name, fd in zip(("stdout", "stderr"), fds, strict=False)}
        for sock in sockets.values():
            sock.setblocking(False)
        self._attached.append(sockets)
        if not stdin:
            return -1
        if self.terminal >= 0:
            return os.dup(self.terminal)
        if self._stdin < 0:
            return -1
        given = os.dup(self._stdin)
        if self.spec.stdin_once:
            self._close_stdin()
        return given

    def end_streams(self) -> None:
        """Write what is left and close the streams."""
        self.draining = 0.0
        for fd in list(self._outputs):
            self._finish(fd)
        self._close_stdin()

    def close(self) -> None:
        """Give everything back."""
        self.end_streams()
        self.log.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _watch(self, fd: int, name: str) -> None:
        os.set_blocking(fd, False)
        self._outputs[fd] = name
        self._selector.register(fd, selectors.EVENT_READ, lambda: self._read(fd))

    def _read(self, fd: int) -> None:
        for _ in range(16):  # others are to have their turn
            try:
                data = os.read(fd, _CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""  # a terminal whose other side is closed
            if not data:
                self._finish(fd)
                return
            name = self._outputs[fd]
            self.log.write(self._formats[name].feed(data, time.time_ns()))
            self._copy(name, data)

    def _finish(self, fd: int) -> None:
        name = self._outputs.pop(fd)
        self._selector.unregister(fd)
        os.close(fd)
        if fd == self.terminal:
            self.terminal = -1
        self.log.write(self._formats[name].finish(time.time_ns()))
        for sockets in self._attached:
            if (sock := sockets.pop(name, None)) is not None:
                sock.close()
        if not self._outputs:
            self.draining = 0.0
            for sockets in self._attached:
                for sock in sockets.values():
                    sock.close()
            self._attached.clear()

    def _copy(self, name: str, data: bytes) -> None:
        for sockets in self._attached[:]:
            sock = sockets.get(name)
            if sock is None:
                continue
            try:
                # What does not fit is not waited for: the container comes first, its log has everything.
                if sock.send(data, socket.MSG_NOSIGNAL) < len(data):
                    raise BlockingIOError
            except OSError:
                for other in sockets.values():
                    other.close()
                self._attached.remove(sockets)

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def _oom_kills(self) -> int:
        with contextlib.suppress(OSError, ValueError), open(self.spec.oom_file, encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        return 0

    def _processes(self) -> set[int]:
        """Return the container's processes where no process namespace tells: by group, by session, by environment."""
        if self.spec.cgroup_files:
            found: set[int] = set()
            for path in self.spec.cgroup_files:
                with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
                    found.update(int(line) for line in file if process_start(int(line)))
            return found - {0, os.getpid()}
        return marked({self.spec.id}, _descendants(os.getpid()))

    def _save(self) -> None:
        with contextlib.suppress(OSError):
            write_file(f"{self.spec.directory}/state.json", self.record)


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            children = {int(word) for word in file.read().split()} - found
            found |= children
            waiting += children
    return {pid for pid in found if process_start(pid)}
