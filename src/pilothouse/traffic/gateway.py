"""The gateway's parent: holds the listening sockets, gives configurations to its workers, takes their numbers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from prometheus_client import CollectorRegistry

from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.processes import inherit
from pilothouse.traffic.changes import applied, difference
from pilothouse.traffic.config import Configuration
from pilothouse.traffic.numbers import Key, Rates, Samples, Windows
from pilothouse.traffic.numbers.exposition import Totals
from pilothouse.traffic.opening import listening, why_not
from pilothouse.traffic.plane.messages import (
    MOST_BYTES,
    Configure,
    Drain,
    FromWorker,
    Lines,
    Listen,
    Noted,
    NotTaken,
    Numbers,
    Ready,
    Sampled,
    Show,
    Shown,
    Taken,
    ToWorker,
    decode_from_worker,
    encode,
)
from pilothouse.traffic.plane.sharing import FileCounters
from pilothouse.traffic.plane.wires import SPLICE_LEAST
from pilothouse.traffic.pushed import NOTHING, InvalidConfiguration, Pushed, checked
from pilothouse.traffic.routing.counters import Slots

if TYPE_CHECKING:
    from pilothouse.traffic.admin.server import AdminServer

__all__ = ["Gateway", "GatewayOptions", "InvalidConfiguration"]

_log = get_logger(__name__)

_SHOW_SECONDS: Final = 5.0
_RESTART_SECONDS: Final = (0.05, 5.0)
_SOCKET_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How a gateway runs.

    workers: processes, 0 for one a core. take_up_seconds: how long `push` waits for the workers. drain_seconds: how
    long open requests have at the end. on_lines: takes lines of the access log.
    splice_least: bytes of a body from which on it is spliced. registry: where the totals are registered.
    session_key: seals what clients carry of their sessions, where a configuration has no key; by default sessions last
    as long as the gateway, and others do not know them.
    admin_socket: where the gateway answers its owner (`pilothouse gateway top`); needs_admin_socket: whether it does
    not start where it cannot have it.
    """

    workers: int = 0
    take_up_seconds: float = 30.0
    drain_seconds: float = 10.0
    on_numbers: Callable[[int, Numbers], object] | None = None
    on_lines: Callable[[Sequence[bytes], int], object] | None = None
    splice_least: int = SPLICE_LEAST
    session_key: bytes = field(default=b"", repr=False)
    registry: CollectorRegistry | None = None
    admin_socket: Path | None = None
    needs_admin_socket: bool = True


class _Child:
    """One worker as its parent sees it. given, taken: the numbers of pushes that it was sent, and goes by."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sock: socket.socket | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.given = self.taken = 0
        self.listening: set[tuple[str, int]] = set()
        self.changed = asyncio.Event()
        self.refused = ""
        self.failures = 0
        self.clients = 0
        self.in_flight: dict[Key, int] = {}
        self.shown: list[Shown] = []
        self.answered = asyncio.Event()
        self.unsent: list[tuple[bytes, tuple[int, ...]]] = []

    def refuse(self, message: NotTaken) -> None:
        """Note why the worker did not take up what it was given last."""
        if message.number == self.given:
            self.refused = message.reason
            self.changed.set()


class Gateway:
    """Workers on shared sockets: `start`, `push` configurations, `stop`. All from one event loop.

    windows: figures of the last minutes, by monotonic time, endpoints: requests and failures of endpoints in it;
    samples: some of what failed or was slow; totals: all since the start, for Prometheus.
    """

    def __init__(self, options: GatewayOptions | None = None) -> None:
        self.options = options or GatewayOptions()
        self._count = self.options.workers or len(os.sched_getaffinity(0))
        self._children = [_Child(number) for number in range(self._count)]
        self._tasks: list[asyncio.Task[None]] = []
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._pushed = Pushed(1)
        self._serial = itertools.count(2)
        self._session_keys = (self.options.session_key or os.urandom(32),)
        self._shares = FileCounters()
        self._slots = Slots(self._shares)
        self._pushing = asyncio.Lock()
        self._is_stopping = False
        self._asked = 0
        self.windows = Windows()
        self.endpoints = Rates()
        self.samples = Samples()
        self.totals = Totals(self.options.registry)
        self._asking = asyncio.Lock()
        self._admin: AdminServer | None = None

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return self._count

    @property
    def admin_socket(self) -> Path | None:
        """Where it answers its owner, None where it does not."""
        return self._admin.path if self._admin is not None else None

    @property
    def configuration(self) -> Configuration:
        """The configuration that was pushed last and taken up."""
        return self._pushed.configuration

    @property
    def pids(self) -> list[int]:
        """The processes of the workers that run now."""
        return [child.process.pid for child in self._children if child.process is not None]

    async def start(self) -> None:
        """Start the workers; they serve once a configuration is pushed. Raises AdminSocketError."""
        if self.options.admin_socket is not None:
            from pilothouse.traffic.admin.server import open_admin  # noqa: PLC0415  # only where it is asked for

            self._admin = await open_admin(self, self.options.admin_socket, self.options.needs_admin_socket)
        self._tasks = [asyncio.create_task(self._keep(child)) for child in self._children]
        await self._taken()

    async def push(self, configuration: Configuration) -> None:
        """Have all workers go on by a configuration; return once they do.

        Raises InvalidConfiguration, also where a port cannot be had; then all go on by the one before.
        """
        async with self._pushing:
            before = self._pushed
            change = difference(before.configuration, configuration)
            configuration = applied(before.configuration, change)
            plan = await checked(configuration, change, before.plan)
            opened = self._open(configuration)
            slots = self._slots.take(plan.router.keys)
            self._pushed = Pushed(next(self._serial), configuration, slots, plan)
            try:
                self._give(self._children, before)
                await self._taken()
            except InvalidConfiguration:
                self._slots.restore(before.slots)
                self._pushed = replace(before, number=next(self._serial))
                self._give(self._children, NOTHING)
                self._close(opened)
                raise
            wanted = {(each.address, each.port) for each in configuration.listeners}
            self._close([key for key in self._sockets if key not in wanted])

    async def stop(self, drain: bool = True) -> None:
        """End the workers; with `drain` after the requests that go on, at the latest after `drain_seconds`."""
        self._is_stopping = True
        seconds = self.options.drain_seconds if drain else 0.0
        for child in self._children:
            self._send(child, Drain(seconds))
        running = [child.process.wait() for child in self._children if child.process is not None]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*running), seconds + 5)
        for child in self._children:
            if child.process is not None and child.process.returncode is None:
                child.process.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._shares.close()
        if self._admin is not None:
            await self._admin.close()
            self._admin = None

    async def show(self) -> list[list[Shown]]:
        """Return how each worker's backends and connections are now; a worker that does not answer is left out."""
        async with self._asking:
            self._asked += 1
            asked = [child for child in self._children if child.sock is not None]
            for child in asked:
                child.shown = []
                child.answered.clear()
                self._send(child, Show(self._asked))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHOW_SECONDS):
                    await asyncio.gather(*(child.answered.wait() for child in asked))
            return [child.shown for child in asked if child.answered.is_set()]

    # Sockets

    def _open(self, configuration: Configuration) -> list[tuple[str, int]]:
        opened: list[tuple[str, int]] = []
        for listener in configuration.listeners:
            key = (listener.address, listener.port)
            if key in self._sockets:
                continue
            try:
                self._sockets[key] = listening(*key)
            except OSError as error:
                for each in opened:
                    self._sockets.pop(each).close()
                reason = why_not(error, listener.port)
                raise InvalidConfiguration(
                    f"listener '{listener.name}': port {listener.port} cannot be had: {reason}"
                ) from None
            opened.append(key)
        return opened

    def _close(self, keys: Sequence[tuple[str, int]]) -> None:
        for key in keys:
            self._sockets.pop(key).close()
            for child in self._children:
                child.listening.discard(key)

    # Messages

    def _give(self, children: Sequence[_Child], before: Pushed) -> None:
        """Give workers what was pushed: what differs to those that were given `before`, the whole to others."""
        files: dict[int, int] = {}
        try:
            for child in children:
                if child.sock is None:
                    continue
                base = before if child.given == before.number else NOTHING
                if base.number not in files:
                    files[base.number] = self._pushed.file_after(base, self._session_keys)
                self._configure(child, base.number, files[base.number])
        finally:
            _close_all(list(files.values()))

    def _configure(self, child: _Child, base: int, file: int) -> None:
        """Give a worker the sockets it lacks, and a configuration."""
        child.refused = ""
        for key, sock in self._sockets.items():
            if key not in child.listening:
                child.listening.add(key)
                self._send(child, Listen(*key), sock.fileno())
        child.given = self._pushed.number
        self._send(child, Configure(child.given, self._count, base), file)

    def _send(self, child: _Child, message: ToWorker, *descriptors: int) -> None:
        if child.sock is None:
            return
        copies = tuple(os.dup(fd) for fd in descriptors)
        child.unsent.append((encode(message), copies))
        self._flush(child)

    def _flush(self, child: _Child) -> None:
        sock, loop = child.sock, asyncio.get_running_loop()
        if sock is None:
            return
        while child.unsent:
            packet, descriptors = child.unsent[0]
            try:
                socket.send_fds(sock, [packet], descriptors)
            except BlockingIOError:
                loop.add_writer(sock, self._flush, child)
                return
            except OSError:
                break  # the worker is gone, which `_keep` sees
            _close_all(descriptors)
            child.unsent.pop(0)
        loop.remove_writer(sock)

    def _read(self, child: _Child) -> None:
        for _ in range(64):
            sock = child.sock
            if sock is None:
                return
            try:
                packet = sock.recv(MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                asyncio.get_running_loop().remove_reader(sock)
                return
            self._act(child, decode_from_worker(packet))

    def _act(self, child: _Child, message: FromWorker) -> None:  # noqa: C901  one branch a kind of message
        if isinstance(message, Numbers):
            self._numbers(child, message)
        elif isinstance(message, Lines):
            if self.options.on_lines is not None:
                self.options.on_lines(message.lines, message.lost)
        elif isinstance(message, Sampled):
            self.samples.add(message.samples)
        elif isinstance(message, Taken):
            child.taken, child.failures = message.number, 0
            child.changed.set()
        elif isinstance(message, NotTaken):
            child.refuse(message)
        elif isinstance(message, Noted):
            _log.warning(message.event, worker=child.number, **message.facts)
        elif isinstance(message, Ready):
            self._give([child], NOTHING)
        elif message.number == self._asked:
            child.shown.append(message)
            if message.is_last:
                child.answered.set()

    def _numbers(self, child: _Child, numbers: Numbers) -> None:
        counted = [(each.key, each.second) for each in numbers.counted]
        second = numbers.at or int(time.monotonic())
        self.windows.add(second, counted)
        if numbers.endpoints:
            came = [((each.backend, each.address), each.requests, each.failures) for each in numbers.endpoints]
            self.endpoints.add(second, came)
        totals = self.totals
        totals.add(counted)
        totals.move(msgspec.structs.asdict(numbers.moved))
        totals.refuse(numbers.refused)
        totals.happen(numbers.happened)
        child.clients = numbers.connections
        for each in numbers.counted:
            if each.in_flight:
                child.in_flight[each.key] = each.in_flight
            else:
                child.in_flight.pop(each.key, None)
        totals.connections = sum(each.clients for each in self._children)
        totals.set_in_flight(sum((Counter(each.in_flight) for each in self._children), Counter()))
        if self.options.on_numbers is not None:
            self.options.on_numbers(child.number, numbers)

    async def _taken(self) -> None:
        """Wait until all workers go by what was pushed. Raises InvalidConfiguration."""
        number, seconds = self._pushed.number, self.options.take_up_seconds
        try:
            async with asyncio.timeout(seconds):
                for child in self._children:
                    while child.taken < number:
                        child.changed.clear()
                        await child.changed.wait()
                        if child.refused:
                            raise InvalidConfiguration(child.refused)
        except TimeoutError:
            raise InvalidConfiguration(
                f"configuration {self.configuration.generation}: workers did not take it up within {seconds:g} s"
            ) from None

    # Processes

    async def _keep(self, child: _Child) -> None:
        """Run a worker, again and again until the gateway stops."""
        while True:
            await self._run(child)
            if self._is_stopping:
                return
            status = child.process.returncode if child.process is not None else None
            _log.error("a worker ended and is started again", worker=child.number, status=status)
            least, most = _RESTART_SECONDS
            await asyncio.sleep(min(most, least * 2**child.failures))
            child.failures = min(child.failures + 1, 10)

    async def _run(self, child: _Child) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (ours, theirs):
            sock.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        command = (
            sys.executable,
            "-m",
            "pilothouse.traffic.plane.process",
            str(theirs.fileno()),
            str(self._shares.fd),
            str(self.options.splice_least),
        )
        environment = inherit("PYTHONPATH", "VIRTUAL_ENV")
        child.listening.clear()
        child.sock = ours
        loop = asyncio.get_running_loop()
        try:
            child.process = await asyncio.create_subprocess_exec(
                *command, pass_fds=(theirs.fileno(), self._shares.fd), env=environment, stdin=asyncio.subprocess.DEVNULL
            )
            theirs.close()
            loop.add_reader(ours, self._read, child)
            await child.process.wait()
            self._read(child)
        finally:
            theirs.close()
            loop.remove_reader(ours)
            loop.remove_writer(ours)
            for _, descriptors in child.unsent:
                _close_all(descriptors)
            child.unsent.clear()
            child.sock = None
            child.given = child.taken = 0
            child.clients, child.in_flight = 0, {}
            ours.close()


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)
