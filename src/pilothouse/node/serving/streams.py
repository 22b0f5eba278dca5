"""Commands, attached streams, ports and logs of a node's pods on its runtime: what carries them need not know it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pilothouse.apiserver.model import Duplex, Sink
from pilothouse.apiserver.ports import ContainerStreams, Object
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.kinds.status import BadRequest, InternalError, internal_error
from pilothouse.kinds.structs import from_dict
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.config import ContainerMetadata
from pilothouse.node.errors import ExecError, NodeError, NotFound
from pilothouse.node.runtime import ContainerStatus, PodConnection, Runtime, SandboxStatus, Session

from .logfiles import read_log
from .loglines import options_of
from .logstatus import choose_run

__all__ = ["RuntimeStreams"]

_CHUNK: Final = 1 << 16
_QUIET_SECONDS: Final = 1.0
"""How long output may say nothing once its command has ended: what the command left behind may hold it open."""


class RuntimeStreams:
    """A `NodeStreams` over a runtime of this machine. Pods are found by their UID.

    logs: the directory of all pods' logs, where those are found that the runtime has forgotten.
    """

    def __init__(self, runtime: Runtime, *, logs: str = "", clock: Clock | None = None) -> None:
        self._runtime = runtime
        self._logs = logs
        self._clock = clock or SystemClock()

    def address(self, node: Object) -> tuple[str, int] | None:
        return None

    # -- what runs

    async def sandbox(self, uid: str) -> SandboxStatus | None:
        """Return a pod's newest sandbox, None where it has none."""
        found = [each for each in await self._runtime.list_sandboxes() if each.metadata.uid == uid]
        ready = [each for each in found if each.state == "Ready"] or found
        return max(ready, key=lambda each: each.metadata.attempt, default=None)

    async def runs(self, uid: str) -> list[ContainerStatus]:
        """Return all containers of a pod that the runtime has."""
        found: list[ContainerStatus] = []
        for each in await self._runtime.list_sandboxes():
            if each.metadata.uid == uid:
                with contextlib.suppress(NotFound):
                    found += await self._runtime.list_containers(each.id)
        return found

    async def running(self, uid: str, name: str) -> ContainerStatus | None:
        """Return the running container of a name, None where there is none."""
        found = [each for each in await self.runs(uid) if each.metadata.name == name and each.state == "Running"]
        return max(found, key=lambda each: each.metadata.attempt, default=None)

    # -- commands

    async def exec(
        self, pod: Object, container: str, command: Sequence[str], streams: ContainerStreams, *, attach: bool = False
    ) -> int:
        found = await self.running(pod["metadata"]["uid"], container)
        if found is None:
            raise InternalError(f'container not found ("{container}")')
        try:
            if attach:
                session = await self._runtime.attach(found.id, stdin=streams.stdin)
            else:
                session = await self._runtime.exec(found.id, command, stdin=streams.stdin, tty=streams.tty)
        except ExecError as error:
            what = "attaching to" if attach else "executing command in"
            raise internal_error(f"error {what} container: {error}") from error
        except NodeError as error:
            raise InternalError(f'container not found ("{container}"): {error}') from error
        ends_stdin = not attach or _stdin_once(pod, container)
        try:
            code = await _carry(session, streams, ends_stdin=ends_stdin)
        finally:
            await session.close()
        return 0 if attach else code

    # -- ports

    async def port_forward(self, pod: Object, port: int, connection: Duplex) -> None:
        sandbox = await self.sandbox(pod["metadata"]["uid"])
        if sandbox is None or sandbox.state != "Ready":
            raise InternalError("failed to find sandbox: the pod does not run")
        try:
            made: PodConnection = await self._runtime.port_forward(sandbox.id, port)
        except (NodeError, OSError) as error:
            raise InternalError(f"failed to execute portforward in network namespace: {error}") from error
        up = asyncio.create_task(_up(connection, made))
        try:
            await _down(made, connection)
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            made.writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await made.writer.wait_closed()

    # -- logs

    async def logs(self, pod: Object, container: str, options: Mapping[str, Any], sink: Sink) -> None:
        wanted = options_of(options, self._clock.now())
        uid = pod["metadata"]["uid"]
        known = [each for each in await self.runs(uid) if each.metadata.name == container]
        if not known and self._logs:
            known = _forgotten(self._logs, pod, container)
        run = choose_run(from_dict(pod, Pod), container, known, previous=wanted.previous)
        if not run.log_path:
            raise BadRequest(f'container "{container}" in pod "{pod["metadata"]["name"]}" writes no log')

        async def runs() -> bool:
            try:
                return (await self._runtime.container_status(run.id)).state == "Running"
            except NodeError:
                return False

        async def write(data: bytes) -> None:
            sink.write(data)
            await sink.drain()
            if sink.closed:
                raise ConnectionResetError("the client of a log has gone")

        try:
            await read_log(run.log_path, wanted, write, running=runs, clock=self._clock)
        except FileNotFoundError as error:
            raise InternalError(f"unable to retrieve container logs for {run.id}: its log file is gone") from error
        except ConnectionResetError:
            return


def _forgotten(root: str, pod: Object, container: str) -> list[ContainerStatus]:
    """Return the runs of a container by their log files, as of a pod that ended before this agent began."""
    meta = pod["metadata"]
    directory = f"{root}/{meta['namespace']}_{meta['name']}_{meta['uid']}/{container}"
    found: list[ContainerStatus] = []
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            number, dot, rest = name.partition(".")
            if number.isdigit() and f"{dot}{rest}" == ".log":
                found.append(
                    ContainerStatus(
                        id=f"{meta['uid']}/{container}/{number}",
                        metadata=ContainerMetadata(name=container, attempt=int(number)),
                        sandbox_id="",
                        state="Exited",
                        created_at=0,
                        log_path=f"{directory}/{name}",
                    )
                )
    return found


def _stdin_once(pod: Object, name: str) -> bool:
    spec = pod.get("spec") or {}
    for kind in ("containers", "ephemeralContainers", "initContainers"):
        for each in spec.get(kind) or ():
            if each.get("name") == name:
                return bool(each.get("stdinOnce"))
    return False


class _Output:
    """One output on its way; `moved` counts what came."""

    def __init__(self) -> None:
        self.moved = 0
        self.blocked = 0

    async def copy(self, reader: asyncio.StreamReader, write: Any, streams: ContainerStreams) -> None:
        while data := await reader.read(_CHUNK):
            self.moved += 1
            self.blocked += 1
            write(data)
            await streams.drain()
            self.blocked -= 1


async def _carry(session: Session, streams: ContainerStreams, *, ends_stdin: bool) -> int:
    """Carry a session's streams until its command has ended; return its exit code."""
    state = _Output()
    outputs = [asyncio.create_task(state.copy(session.stdout, streams.write_stdout, streams))]
    if not streams.tty:
        outputs.append(asyncio.create_task(state.copy(session.stderr, streams.write_stderr, streams)))
    inputs: list[asyncio.Task[None]] = []
    if streams.stdin:
        inputs.append(asyncio.create_task(_feed(session, streams, ends=ends_stdin)))
    if streams.tty:
        inputs.append(asyncio.create_task(_resize(session, streams)))
    ended = asyncio.create_task(session.wait())
    try:
        await asyncio.wait({ended})
        await _drained(outputs, state)
        return ended.result()
    finally:
        tasks = [*outputs, *inputs, ended]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drained(outputs: list[asyncio.Task[None]], state: _Output) -> None:
    """Wait for the end of the output, or until nothing comes any more though the client takes it."""
    waiting = set(outputs)
    while waiting:
        before = state.moved
        _, waiting = await asyncio.wait(waiting, timeout=_QUIET_SECONDS)
        if state.moved == before and not state.blocked:
            return


async def _feed(session: Session, streams: ContainerStreams, *, ends: bool) -> None:
    try:
        while data := await streams.read_stdin():
            await session.write(data)
        if ends:
            await session.close_stdin()
    except (BrokenPipeError, ConnectionError):
        # Nobody reads any more: what the client still sends is let go.
        while await streams.read_stdin():
            pass


async def _resize(session: Session, streams: ContainerStreams) -> None:
    while True:
        width, height = await streams.resized()
        with contextlib.suppress(NodeError, OSError):
            await session.resize(width, height)


async def _up(connection: Duplex, pod: PodConnection) -> None:
    with contextlib.suppress(OSError):
        while data := await connection.read():
            pod.writer.write(data)
            await pod.writer.drain()
        if pod.writer.can_write_eof():
            pod.writer.write_eof()


async def _down(pod: PodConnection, connection: Duplex) -> None:
    with contextlib.suppress(OSError):
        while data := await pod.reader.read(_CHUNK):
            connection.write(data)
            await connection.drain()
