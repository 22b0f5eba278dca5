"""The same tests against several servers: ours in process, ours over HTTPS, and the real kube-apiserver."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest

from _apiserver import TOKEN
from _apiserver import Server as Process
from _kube import KUBE_VERSION, peer
from pilothouse.client import Client
from pilothouse.client.config import ClientConfig
from pilothouse.client.http import HttpTransport
from pilothouse.client.kubeconfig import load_kubeconfig
from pilothouse.client.transport import Transport
from pilothouse.testing import ControlPlane
from support.gate import Gate, compact
from support.proxy import Proxy, proxy_to

__all__ = ["KUBE_VERSION", "KubeApiserver", "Meeting", "Place", "in_process", "kube_or_skip", "over_http"]

Change = Callable[[Client], Awaitable[object]]


class Meeting(Protocol):
    """A server, seen by two: `transport` is tested and can be cut off, by `direct` the test changes things."""

    transport: Transport
    direct: Client

    async def forget(self, change: Change) -> None:
        """Cut `transport` off, change something, and let it in again when the versions before are gone (410)."""


Place = Callable[[], AbstractAsyncContextManager[Meeting]]


@dataclasses.dataclass
class _InProcess:
    plane: ControlPlane
    gate: Gate
    transport: Transport
    direct: Client

    async def forget(self, change: Change) -> None:
        self.gate.fall_silent()
        await change(self.direct)
        await compact(self.plane)
        self.gate.cut_off()


@asynccontextmanager
async def in_process() -> AsyncIterator[Meeting]:
    """Run our server in this process."""
    async with ControlPlane(lifecycle=False) as plane:
        gate = Gate()
        gate.plane = plane
        async with (
            Client.for_transport(gate, plane.user) as client,
            Client.for_transport(plane.transport, plane.user) as direct,
        ):
            yield _InProcess(plane, gate, client.transport, direct)


@dataclasses.dataclass
class _OverHttp:
    plane: ControlPlane
    proxy: Proxy
    transport: Transport
    direct: Client

    async def forget(self, change: Change) -> None:
        self.proxy.cut()
        await change(self.direct)
        await compact(self.plane)
        await self.proxy.mend()


@asynccontextmanager
async def over_http() -> AsyncIterator[Meeting]:
    """Run our server behind HTTPS."""
    async with ControlPlane(lifecycle=False) as plane:
        config = load_kubeconfig(plane.kubeconfig)
        async with proxy_to(urlsplit(config.server).port or 0) as proxy:
            through = dataclasses.replace(config, server=f"https://127.0.0.1:{proxy.port}")
            async with Client.from_config(through) as client, Client.from_config(config) as direct:
                yield _OverHttp(plane, proxy, client.transport, direct)


class KubeApiserver:
    """A kube-apiserver with its etcd, started once for many tests; a restart forgets what was before."""

    def __init__(self, start: Callable[[Path], contextlib.AbstractContextManager[Process]], directory: Path) -> None:
        self._start = start
        self._directory = directory
        self._running = contextlib.ExitStack()
        self.process: Process | None = None

    def start(self) -> None:
        """Run it. Its data stay in the directory."""
        self.process = self._running.enter_context(self._start(self._directory))

    def stop(self) -> None:
        """End it."""
        self._running.close()
        self.process = None

    @property
    def port(self) -> int:
        """Where it listens now."""
        assert self.process is not None
        return urlsplit(self.process.url).port or 0

    @asynccontextmanager
    async def meet(self) -> AsyncIterator[Meeting]:
        """Let one test see it."""
        async with proxy_to(self.port) as proxy, proxy_to(self.port) as way:
            ca = str(self._directory / "certificates" / "apiserver.crt")
            first, second = (
                ClientConfig(server=f"https://127.0.0.1:{each.port}", ca_file=ca, token=TOKEN) for each in (proxy, way)
            )
            async with Client.from_config(second) as direct:
                transport = HttpTransport(first)
                try:
                    yield _Kube(self, proxy, way, transport, direct)
                finally:
                    await transport.aclose()


@dataclasses.dataclass
class _Kube:
    server: KubeApiserver
    proxy: Proxy
    way: Proxy
    transport: Transport
    direct: Client

    async def forget(self, change: Change) -> None:
        self.proxy.cut()
        await change(self.direct)
        self.way.cut()
        self.server.stop()
        self.server.start()
        for each in (self.way, self.proxy):
            each.target = self.server.port
            await each.mend()


@functools.cache
def _kube() -> Callable[[Path], contextlib.AbstractContextManager[Process]] | None:
    return peer(build=False)


@contextlib.contextmanager
def kube_or_skip() -> Iterator[KubeApiserver]:
    """Run the real server; skip, with the way to get it, where it is not built."""
    start = _kube()
    if start is None:
        pytest.skip(
            f"kube-apiserver {KUBE_VERSION} is not built here: `make bench NAME=apiserver_start` builds it once, where "
            "Go is installed, in some minutes; its recorded streams are replayed in any case"
        )
    with tempfile.TemporaryDirectory(prefix="kube-") as directory:
        server = KubeApiserver(start, Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()
