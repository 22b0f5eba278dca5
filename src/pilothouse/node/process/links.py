"""The agent's side of the sockets to its zygote and its keepers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pilothouse.foundation.processes import inherit
from pilothouse.node.errors import NotFound, RuntimeUnavailable

from . import wire
from .keeper import SOCKET
from .zygote import MODULE

__all__ = ["KeeperLink", "Refused", "Zygote", "connect"]

_START_SECONDS = 30.0
_ANSWER_SECONDS = 120.0
_MAX_EARLY = 256
_MAX_LOG = 1 << 20


class Refused(Exception):
    """A keeper said no; `code` is what a shell would make of it."""

    def __init__(self, message: str, code: int = 128) -> None:
        super().__init__(message)
        self.code = code


class KeeperLink:
    """One connection to a keeper. `on_record` gets containers' records, `on_end` is called once when it is gone."""

    def __init__(
        self, sock: socket.socket, on_record: Callable[[dict[str, Any]], None], on_end: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._on_record = on_record
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._codes: dict[int, asyncio.Future[int]] = {}
        self.ready: asyncio.Future[int] = self._loop.create_future()
        self.closed = False
        self._loop.add_reader(sock, self._read)

    async def ask(self, operation: str, fds: Sequence[int] = (), **fields: Any) -> tuple[dict[str, Any], list[int]]:
        """Return a keeper's answer and its descriptors, now the caller's. Raises `Refused`, `NotFound` (gone)."""
        if self.closed:
            raise NotFound("the pod's keeper is gone")
        self._number += 1
        number = self._number
        future: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()
        self._waiting[number] = future
        try:
            await self._send({"id": number, "op": operation, **fields}, fds)
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer, given = await future
        except TimeoutError:
            raise RuntimeUnavailable(f"the pod's keeper has not answered for {_ANSWER_SECONDS:g} s") from None
        except OSError as error:
            raise NotFound(f"the pod's keeper is gone: {error.strerror}") from error
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise Refused(str(answer["error"]), int(answer.get("code", 128)))
        return answer, given

    async def exit_code(self, pid: int) -> int:
        """Return how a command that was started over this link ends; 137 where the keeper goes before it."""
        try:
            return await asyncio.shield(self._code(pid))
        finally:
            if (future := self._codes.get(pid)) is not None and future.done():
                del self._codes[pid]

    def close(self) -> None:
        """Let go of the keeper, which lives on."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._socket.close()
        gone = NotFound("the pod's keeper is gone")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(gone)
        for code in self._codes.values():
            if not code.done():
                code.set_result(137)
        if not self.ready.done():
            self.ready.set_exception(gone)
            self.ready.exception()

    def _code(self, pid: int) -> asyncio.Future[int]:
        if pid not in self._codes:
            self._codes[pid] = self._loop.create_future()
            if self.closed:
                self._codes[pid].set_result(137)
        return self._codes[pid]

    def _forget_codes(self) -> None:
        """Drop the oldest codes that nobody asked for, of commands whose caller went away."""
        done = [pid for pid, code in self._codes.items() if code.done()]
        for pid in done[: max(0, len(done) - _MAX_EARLY)]:
            del self._codes[pid]

    async def _send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        while True:
            try:
                wire.send(self._socket, message, fds)
            except BlockingIOError:
                await _writable(self._loop, self._socket)
            else:
                return

    def _read(self) -> None:
        for _ in range(64):
            try:
                got = wire.receive(self._socket)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                got = None
            if got is None:
                self.close()
                self._on_end()
                return
            self._take(*got)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        # At once and in order: who asked may come to it only after what happened next.
        for record in message.get("records", ()):
            self._on_record(record)
        future = self._waiting.get(message.get("id", 0))
        if future is not None and not future.done():
            future.set_result((message, fds))
            return
        for fd in fds:
            os.close(fd)
        if message.get("event") == "exec":
            if not (code := self._code(message["pid"])).done():
                code.set_result(int(message["code"]))
            self._forget_codes()
        elif "ready" in message and not self.ready.done():
            self.ready.set_result(int(message["ready"]))
        elif "error" in message and not self.ready.done():
            self.ready.set_exception(Refused(str(message["error"])))


def connect(directory: str) -> socket.socket:
    """Connect to the keeper of a sandbox's directory, however long its path. Raises `OSError`."""
    fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{SOCKET}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(fd)
    return sock


class Zygote:
    """The process that keepers are forked of; made anew when it is gone. `group_files` is where it and they belong."""

    def __init__(self, root: str, group_files: Sequence[str] = ()) -> None:
        self._root = root
        self._group_files = tuple(group_files)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The process's id, 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start it and wait until it can fork. Raises `RuntimeUnavailable`."""
        async with self._lock:
            await self._started()

    async def keeper(self, spec_path: str) -> socket.socket:
        """Fork a keeper for a sandbox and return the connection to it. Raises `RuntimeUnavailable`."""
        async with self._lock:
            ours, theirs = wire.pair()
            try:
                for attempt in range(2):
                    sock = await self._started()
                    try:
                        wire.send(sock, {"spec": spec_path}, [theirs.fileno()])
                    except OSError:
                        await self._end()
                        if attempt:
                            raise
                    else:
                        break
            except OSError as error:
                ours.close()
                raise RuntimeUnavailable(f"the process that forks keepers is gone: {error.strerror}") from error
            finally:
                theirs.close()
            return ours

    async def close(self) -> None:
        """End it; keepers live on."""
        async with self._lock:
            await self._end()

    async def _started(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            await self._end()
        if self._socket is not None:
            return self._socket
        ours, theirs = wire.pair()
        try:
            self._process = await asyncio.to_thread(self._spawn, theirs.fileno())
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours
        try:
            async with asyncio.timeout(_START_SECONDS):
                await _readable(asyncio.get_running_loop(), ours)
            got = wire.receive(ours)
        except (TimeoutError, OSError, ValueError):
            got = None
        if got is None:
            await self._end()
            raise RuntimeUnavailable(f"the process that forks keepers does not start; see {self._root}/zygote.log")
        self._join_groups()
        return ours

    def _join_groups(self) -> None:
        for path in self._group_files:
            with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
                file.write(str(self.pid))

    def _spawn(self, fd: int) -> subprocess.Popen[bytes]:
        program = _sealed(sys.executable)
        command = [sys.executable, "-I", "-m", MODULE, str(fd), self._root]
        kept = (fd,) if program < 0 else (fd, program)
        path = f"{self._root}/zygote.log"
        with contextlib.suppress(OSError):
            if os.stat(path).st_size > _MAX_LOG:
                os.truncate(path, 0)
        with open(path, "ab") as log:
            try:
                return subprocess.Popen(  # noqa: S603  # our own interpreter
                    command,
                    executable=f"/proc/self/fd/{program}" if program >= 0 else None,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=inherit(),
                    pass_fds=kept,
                    start_new_session=True,
                )
            except OSError as error:
                raise RuntimeUnavailable(f"{sys.executable}: cannot be started: {error.strerror}") from error
            finally:
                if program >= 0:
                    os.close(program)

    async def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            process, self._process = self._process, None
            try:
                await asyncio.to_thread(process.wait, 5)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)


def _sealed(path: str) -> int:
    """Return a descriptor of an unchangeable copy of the interpreter, -1 where there cannot be one.

    A container's program can be a link to what runs it, and that could then be written to: only the copy is in reach.
    """
    import fcntl  # noqa: PLC0415  # with its fellows, only here

    if os.geteuid() != 0:
        return -1
    try:
        fd = os.memfd_create("ph-python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return -1
    try:
        with open(path, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            while size > 0 and (sent := os.sendfile(fd, source.fileno(), None, size)):
                size -= sent
        os.fchmod(fd, 0o555)
        fcntl.fcntl(
            fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
    except OSError:
        os.close(fd)
        return -1
    return fd


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _settle, future)
    try:
        await future
    finally:
        loop.remove_reader(sock)


async def _writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    future: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _settle, future)
    try:
        await future
    finally:
        loop.remove_writer(sock)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
