"""An API server in a process of its own, on one port: to be killed, frozen, compacted and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from _peers import free_port
from pilothouse.client.config import ClientConfig
from pilothouse.client.kubeconfig import load_kubeconfig

__all__ = ["ServerProcess", "server_process"]

_TESTS = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0


class ServerProcess:
    """Started by `start`, with its data in a directory; the same address each time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.starts = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process, 0 if none."""
        return 0 if self._process is None else self._process.pid

    def config(self, port: int = 0) -> ClientConfig:
        """Return the administrator's way in; port: of a relay instead of the server's own."""
        found = load_kubeconfig(self.directory / "admin.kubeconfig")
        return found if not port else _at(found, port)

    async def start(self) -> None:
        """Run it, and wait until it serves."""
        path = os.pathsep.join([str(_TESTS), str(_TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "support.serverprocess_child", str(self.directory), str(self.port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.starts += 1
        async with asyncio.timeout(_START_SECONDS):
            assert await self._report() == "ready"

    async def command(self, text: str) -> None:
        """Have it do something, and wait until that is done."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n".encode())
        assert await self._report() == "done"

    def freeze(self) -> None:
        """Have it stand still: connections are taken by the kernel, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """End it as a power cut does."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # Only who has read a pipe to its end lets go of it.
            await process.communicate()

    async def _report(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def server_process(directory: Path) -> AsyncIterator[ServerProcess]:
    """Run a server for one test."""
    server = ServerProcess(directory)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def _at(config: ClientConfig, port: int) -> ClientConfig:
    import dataclasses

    return dataclasses.replace(config, server=f"https://127.0.0.1:{port}")
