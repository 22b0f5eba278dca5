"""Opening streams into pods: commands, containers that run, ports. The agent makes pipes, a keeper passes them on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence

import msgspec

from pilothouse.node.errors import ExecError, NotFound
from pilothouse.node.runtime import Session

from .links import KeeperLink, Refused
from .pods import Container
from .sessions import Connection, ProcessSession
from .spec import ExecSpec

__all__ = ["open_attach", "open_exec", "open_port"]


class _Pipe:
    """Two ends, each closed once: the pod's and ours."""

    def __init__(self, theirs: int, ours: int) -> None:
        self.theirs = theirs
        self.ours = ours

    def close(self) -> None:
        """Close our end."""
        if self.ours >= 0:
            os.close(self.ours)


async def open_exec(link: KeeperLink, container_id: str, wanted: ExecSpec) -> Session:
    """Run a command in a container. Raises `ExecError`, `NotFound` where the pod is gone."""
    pipes = [] if wanted.tty else _pipes(stdin=wanted.stdin)
    theirs = [pipe.theirs for pipe in pipes]
    try:
        answer, given = await link.ask("exec", theirs, container=container_id, exec=msgspec.to_builtins(wanted))
    except BaseException as error:
        for pipe in pipes:
            pipe.close()
        if isinstance(error, (Refused, ValueError)):
            code = error.code if isinstance(error, Refused) else 126
            raise ExecError(f"exec failed: unable to start container process: {error}", code) from error
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    pid = int(answer["pid"])
    waiter = asyncio.ensure_future(link.exit_code(pid))

    async def end() -> None:
        if not waiter.done():
            with contextlib.suppress(Refused, NotFound):
                await link.ask("kill_exec", pid=pid)

    session = ProcessSession(lambda: asyncio.shield(waiter), end)
    if wanted.tty:
        writing = os.dup(given[0]) if wanted.stdin else -1
        await session.connect(writing, given[0], -1, terminal=True)
    else:
        await session.connect(*(pipe.ours for pipe in pipes))
    return session


async def open_attach(link: KeeperLink, container: Container, *, stdin: bool) -> Session:
    """Copy a container's output, and write to its input. Raises `ExecError`, `NotFound`."""
    container_id = container.stored.id
    outputs = [socket.socketpair(), socket.socketpair()]
    try:
        theirs = [pair[1].fileno() for pair in outputs]
        _, given = await link.ask("attach", theirs, container=container_id, stdin=stdin)
    except BaseException as error:
        for ours, _ in outputs:
            ours.close()
        if isinstance(error, Refused):
            raise ExecError(f"attach: {error}") from error
        raise
    finally:
        for _, end in outputs:
            end.close()

    async def code() -> int:
        await container.exited.wait()
        return container.record.exit_code

    async def resize(columns: int, rows: int) -> None:
        await link.ask("resize", container=container_id, columns=columns, rows=rows)

    session = ProcessSession(code, _nothing)
    session.resize_by(resize)
    await session.connect(given[0] if given else -1, outputs[0][0].detach(), outputs[1][0].detach())
    return session


async def open_port(link: KeeperLink, addresses: Sequence[str], port: int) -> Connection:
    """Connect to a port from within a pod's network, at the first address that answers. Raises `ConnectionError`."""
    fault: OSError | None = None
    for address in addresses:
        _, given = await link.ask("socket", family=4)
        try:
            return await Connection.open(socket.socket(fileno=given[0]), address, port)
        except OSError as error:
            fault = error
    shown = fault.strerror if fault is not None else ""
    raise ConnectionRefusedError(f"failed to connect to localhost:{port} inside the pod: {shown}") from fault


def _pipes(*, stdin: bool) -> list[_Pipe]:
    """Return the pipes of input, output and errors; without input the first is the null device."""
    first = _Pipe(*os.pipe()) if stdin else _Pipe(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1)
    return [first, *(_Pipe(written, read) for read, written in (os.pipe(), os.pipe()))]


async def _nothing() -> None:
    pass
