"""A node that runs made-up commands, a server around it, and small clients: what the tests of streams share."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from pilothouse.apiserver.http.pipes import MemoryDuplex
from pilothouse.apiserver.http.server import HttpServer
from pilothouse.apiserver.model import Answer, Duplex, Request, Response, Sink, UpgradeResponse, refusal
from pilothouse.apiserver.ports import ContainerStreams, NodeStreams, Object
from pilothouse.apiserver.streams.logs import logs
from pilothouse.apiserver.streams.portforward import connect_port_forward
from pilothouse.apiserver.streams.remotecommand import connect_exec
from pilothouse.foundation import tls
from pilothouse.kinds.status import BadRequest, not_found

LINE = b"0123456789abcdef" * 63 + b"0123456789abcde\n"
"""One KiB."""


def make_pod(name: str = "web", *, containers: Sequence[str] = ("app",), node: str = "n1") -> Object:
    """Return a running pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": "u1"},
        "spec": {"nodeName": node, "containers": [{"name": each, "image": "i"} for each in containers]},
        "status": {"phase": "Running", "containerStatuses": [{"name": each} for each in containers]},
    }


class FakeNodes:
    """Runs commands made up here: cat, exit N, big KIB, both, size, hang, fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, tuple[str, ...], bool]] = []
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.log_options: Mapping[str, Any] = {}
        self.log_error: Exception | None = None
        self.more_log = asyncio.Event()

    async def exec(
        self, pod: Object, container: str, command: Sequence[str], streams: ContainerStreams, *, attach: bool = False
    ) -> int:
        self.calls.append((pod["metadata"]["name"], container, tuple(command), attach))
        self.started.set()
        verb, *rest = command or ["cat"]
        try:
            return await getattr(self, f"_{verb}")(streams, *rest)  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _cat(self, streams: ContainerStreams) -> int:
        while data := await streams.read_stdin():
            streams.write_stdout(data)
            await streams.drain()
        return 0

    async def _exit(self, streams: ContainerStreams, code: str) -> int:
        return int(code)

    async def _big(self, streams: ContainerStreams, count: str) -> int:
        for _ in range(int(count) // 64):
            streams.write_stdout(LINE * 64)
            await streams.drain()
        return 0

    async def _both(self, streams: ContainerStreams) -> int:
        streams.write_stdout(b"to out\n")
        streams.write_stderr(b"to err\n")
        return 0

    async def _size(self, streams: ContainerStreams) -> int:
        width, height = await streams.resized()
        streams.write_stdout(f"{width}x{height}\n".encode())
        return 0

    async def _hang(self, streams: ContainerStreams) -> int:
        await asyncio.Event().wait()
        return 0

    async def _fail(self, streams: ContainerStreams) -> int:
        raise BadRequest("container is not running")

    async def logs(self, pod: Object, container: str, options: Mapping[str, Any], sink: Sink) -> None:
        self.log_options = options
        if self.log_error is not None:
            raise self.log_error
        sink.write(b"first line\n")
        if options.get("follow"):
            await self.more_log.wait()
            sink.write(b"second line\n")
        await sink.drain()

    async def port_forward(self, pod: Object, port: int, connection: Duplex) -> None:
        if port == 1:
            raise BadRequest("nothing listens")
        while data := await connection.read():
            connection.write(f"{port}:".encode() + data if port != 9 else data)
            await connection.drain()

    def address(self, node: Object) -> tuple[str, int] | None:
        return None


class ApiHandler:
    """Serves one pod and its streams."""

    def __init__(self, nodes: NodeStreams, pod: Object) -> None:
        self.nodes, self.pod = nodes, pod
        self.upgrades: list[str] = []

    async def __call__(self, request: Request) -> Answer:
        parts = request.path.strip("/").split("/")
        if "upgrade" in request.headers:
            self.upgrades.append(request.headers["upgrade"])
        if parts[:4] != ["api", "v1", "namespaces", "default"] or parts[4] != "pods":
            return self._discovery(request.path)
        if parts[5] != self.pod["metadata"]["name"]:
            return refusal(not_found("", "pods", parts[5]))
        match parts[6:]:
            case ["exec" | "attach"]:
                return await connect_exec(request, self.pod, self.nodes, attach=parts[6] == "attach")
            case ["portforward"]:
                return await connect_port_forward(request, self.pod, self.nodes)
            case ["log"]:
                return await logs(request, self.pod, self.nodes)
        return Response(200, msgspec.json.encode(self.pod))

    def _discovery(self, path: str) -> Response:
        bodies: dict[str, Object] = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
            "/api/v1": {
                "kind": "APIResourceList",
                "groupVersion": "v1",
                "resources": [{"name": "pods", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}],
            },
        }
        if path in bodies:
            return Response(200, msgspec.json.encode(bodies[path]))
        return refusal(not_found("", "paths", path))


@contextlib.asynccontextmanager
async def serving(handler: Any, directory: Path) -> AsyncIterator[tuple[int, Path]]:
    """Serve over TLS; give the port and a kubeconfig."""
    ca = tls.make_ca("test")
    server = tls.issue(ca, "server", hosts=["127.0.0.1", "localhost"], server=True)
    ca_file, cert, key = directory / "ca.crt", directory / "tls.crt", directory / "tls.key"
    ca_file.write_bytes(ca.certificate)
    tls.write(server, str(cert), str(key))
    http = HttpServer(handler, tls=tls.server_context(str(cert), str(key)))
    _, port = await http.start("127.0.0.1", 0)
    config = directory / "kubeconfig"
    config.write_text(
        msgspec.json.encode(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "c",
                        "cluster": {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(ca_file)},
                    }
                ],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        ).decode()
    )
    try:
        yield port, config
    finally:
        await http.close(grace=0.2)


def client_tls(directory: Path) -> ssl.SSLContext:
    """Return a context that trusts the server of `serving`."""
    return tls.client_context(ca=str(directory / "ca.crt"))


def make_request(path: str, query: str = "", headers: Mapping[str, str] | None = None, method: str = "GET") -> Request:
    """Return a request as the transport would make it."""
    found = dict(headers or {})
    target = f"{path}?{query}" if query else path
    return Request(method, target, path, query, found, header_list=list(found.items()))


WEBSOCKET_HEADERS = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def websocket_request(query: str, *protocols: str, path: str = "/x") -> Request:
    """Return a WebSocket handshake."""
    headers = dict(WEBSOCKET_HEADERS)
    if protocols:
        headers["sec-websocket-protocol"] = ", ".join(protocols)
    return make_request(path, query, headers)


def spdy_request(query: str, *protocols: str, path: str = "/x") -> Request:
    """Return an upgrade to SPDY."""
    headers = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": ",".join(protocols)}
    return make_request(path, query, headers, method="POST")


@contextlib.asynccontextmanager
async def upgraded(answer: Answer) -> AsyncIterator[tuple[MemoryDuplex, asyncio.Task[None]]]:
    """Run an upgrade in memory; give the client's end and the task that serves the other."""
    assert isinstance(answer, UpgradeResponse), answer
    near, far = MemoryDuplex.pair(1 << 16)

    async def run() -> None:
        try:
            await answer.run(far)
        finally:
            far.close()

    task = asyncio.create_task(run())
    try:
        yield near, task
    finally:
        near.abort()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Socket:
    """A WebSocket client that sorts what it gets by channel."""

    def __init__(self, duplex: MemoryDuplex) -> None:
        self._duplex = duplex
        self._connection = Connection(ConnectionType.CLIENT)
        self.messages: list[bytes] = []
        self.close_code = 0

    def send(self, data: bytes | str) -> None:
        event = TextMessage(data) if isinstance(data, str) else BytesMessage(data)
        self._duplex.write(self._connection.send(event))

    async def read(self, count: int = -1) -> None:
        """Read to the end, or until there are so many messages."""
        held = b""
        while not self.close_code and (count < 0 or len(self.messages) < count):
            data = await asyncio.wait_for(self._duplex.read(), 5)
            if not data:
                return
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, CloseConnection):
                    self.close_code = int(event.code)
                    self._duplex.write(self._connection.send(event.response()))
                elif isinstance(event, BytesMessage | TextMessage):
                    held += event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                    if event.message_finished:
                        self.messages.append(held)
                        held = b""

    def channel(self, number: int) -> bytes:
        return b"".join(message[1:] for message in self.messages if message[0] == number)
