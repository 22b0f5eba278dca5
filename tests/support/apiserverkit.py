"""A whole API server in this process, over a store in memory, and short ways to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilothouse.apiserver.http import InProcessAnswer, InProcessStream, InProcessTransport
from pilothouse.apiserver.model import User
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.server import ApiServer
from pilothouse.foundation.memoryfiles import MemoryFileSystem
from pilothouse.foundation.metrics import Metrics
from pilothouse.store import EmbeddedStore, Store, StoreOptions

__all__ = ["ADMIN", "TOKEN", "Api", "Reply", "Watcher", "api_server", "config_map", "memory_store", "silence", "until"]

ADMIN = User("admin", "admin-uid", ("system:masters", "system:authenticated"))
TOKEN = "administrators-token"
Object = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """An answer, its body decoded where it is JSON."""

    status: int
    headers: list[tuple[str, str]]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def reason(self) -> str:
        found: str = self.body.get("reason", "")
        return found

    @property
    def message(self) -> str:
        found: str = self.body.get("message", "")
        return found

    @property
    def version(self) -> str:
        found: str = self.body["metadata"]["resourceVersion"]
        return found

    def header(self, name: str) -> str:
        return next((value for found, value in self.headers if found == name), "")

    @property
    def warnings(self) -> list[str]:
        return [value for found, value in self.headers if found == "warning"]


class Watcher:
    """The events of a watch, one by one."""

    def __init__(self, stream: InProcessStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def next(self, seconds: float = 10.0) -> Object | None:
        """Return the next event; None at the end."""
        while b"\n" not in self._buffer:
            try:
                self._buffer += await asyncio.wait_for(anext(self.stream), seconds)
            except StopAsyncIteration:
                return None
        line, self._buffer = self._buffer.split(b"\n", 1)
        event: Object = json.loads(line)
        return event

    async def take(self, count: int) -> list[Object]:
        """Return so many events."""
        found = [await self.next() for _ in range(count)]
        return [event for event in found if event is not None]

    async def close(self) -> None:
        await self.stream.aclose()


@dataclass
class Api:
    """Asks a server as an administrator, unless told another user."""

    server: ApiServer
    user: User | None = ADMIN
    transport: InProcessTransport = field(init=False)

    def __post_init__(self) -> None:
        self.transport = InProcessTransport(self.server.handle)

    def as_user(self, user: User | None) -> Api:
        """Return the same server asked by somebody else; None leaves it to the headers."""
        return Api(self.server, user)

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
    ) -> InProcessAnswer:
        return await self.transport.request(method, path, headers, body, self.user)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        headers: Sequence[tuple[str, str]] = (),
    ) -> Reply:
        """Send one request and read its whole answer. A body of bytes goes as it is, another as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = [("user-agent", "tests/1.0"), *headers]
        if data or body is not None:
            sent.append(("content-type", content_type))
        answer = await self.send(method, path, data, sent)
        return Reply(answer.status, list(answer.headers), await answer.read())

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: object, **options: Any) -> Reply:
        return await self.call("POST", path, body, **options)

    async def put(self, path: str, body: object, **options: Any) -> Reply:
        return await self.call("PUT", path, body, **options)

    async def delete(self, path: str, body: object = None, **options: Any) -> Reply:
        return await self.call("DELETE", path, body, **options)

    async def merge(self, path: str, body: object, **options: Any) -> Reply:
        return await self.call("PATCH", path, body, content_type="application/merge-patch+json", **options)

    async def apply(self, path: str, body: object, manager: str, *, force: bool = False) -> Reply:
        target = f"{path}?fieldManager={manager}&force={'true' if force else 'false'}"
        return await self.call("PATCH", target, body, content_type="application/apply-patch+yaml")

    async def made(self, path: str, body: object) -> Object:
        """Create an object that must be accepted."""
        reply = await self.post(path, body)
        assert reply.status == 201, reply.raw
        found: Object = reply.body
        return found

    async def watch(self, path: str, headers: Sequence[tuple[str, str]] = ()) -> Watcher:
        """Begin a watch; the path has its query. One that is refused raises AssertionError with the answer."""
        joined = path + ("&" if "?" in path else "?") + "watch=1"
        answer = await self.send("GET", joined, headers=headers)
        assert answer.stream is not None, answer.body
        return Watcher(answer.stream)


def config_map(name: str, data: Object | None = None, **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data or {}}


async def memory_store(**options: Any) -> EmbeddedStore:
    """Open a store whose files are in memory."""
    files = MemoryFileSystem()
    return await EmbeddedStore.open(
        StoreOptions(data_dir="/memory/store", filesystem=files, segment_bytes=1 << 20, metrics=Metrics(), **options)
    )


@contextlib.asynccontextmanager
async def api_server(
    store: Store | None = None, *, ready: bool = True, quiet: bool = False, keep_open: bool = False, **options: Any
) -> AsyncIterator[Api]:
    """Run a server, over a store of its own unless one is given; `ready` waits until its start is over, and
    `quiet` until it has nothing more of its own to write.
    """
    own = await memory_store() if store is None else store
    try:
        async with ApiServer(
            own, ServerOptions(**{"metrics": Metrics(), "tokens": {TOKEN: ADMIN}, **options})
        ) as server:
            if ready:
                await until(lambda: not server.background.pending)
            if quiet:
                await silence(server)
            yield Api(server)
    finally:
        if store is None and isinstance(own, EmbeddedStore) and not keep_open:
            await own.close()


async def silence(server: ApiServer) -> None:
    """Wait until a server has started and has nothing more of its own to write."""
    await until(lambda: not server.background.pending)
    before = -1
    while before != server.cacher.revision:
        before = server.cacher.revision
        await asyncio.sleep(0.03)  # more than any step of the start takes between two writes


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something has come about. Raises TimeoutError where it does not."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.001)
