"""What the shop's services share: a small HTTP server with probes, bounds and an orderly end, and calls of others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

__all__ = ["Answer", "Peer", "Refused", "Request", "json_answer", "log", "serve"]

_MAX_HEAD = 16_384
_MAX_BODY = 16_384
_IDLE_SECONDS = 60.0
_FINISH_SECONDS = 5.0
_NAME_SECONDS = 1.0
_PAUSE = 0.1


class Request(NamedTuple):
    """What somebody asks for."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    is_last: bool

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises `Refused`."""
        try:
            found = json.loads(self.body)
        except ValueError as error:
            raise Refused(400, f"the body is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise Refused(400, "the body is not a JSON object")
        return found


class Answer(NamedTuple):
    """What they get."""

    status: int
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"


class Refused(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


Handler = Callable[[Request], Awaitable[Answer]]


def json_answer(status: int, value: Any) -> Answer:
    """Return an answer in JSON."""
    return Answer(status, json.dumps(value).encode(), "application/json")


def log(text: str) -> None:
    """Write a line to the container's log."""
    print(text, flush=True)


def serve(handler: Handler) -> int:
    """Serve at POD_IP and PORT until SIGTERM; return the exit code.

    After the signal it is not ready any more, but still answers for DRAIN_SECONDS: so long may it take until nobody
    sends anything here. Then requests that are under way are finished.
    """
    return asyncio.run(_Server(handler).run())


class _Server:
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._is_draining = False
        self._under_way = 0
        self._about = (
            f"X-Shop-Version: {os.environ.get('VERSION', '0')}\r\nX-Shop-Pod: {os.environ.get('POD_NAME', '')}\r\n"
        )

    async def run(self) -> int:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        host, port = os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get("PORT", "8080"))
        try:
            server = await asyncio.start_server(self._connected, host, port, limit=_MAX_HEAD, backlog=512)
        except OSError as error:
            log(f"error: cannot listen at {host}:{port}: {os.strerror(error.errno or 0)}")
            return 1
        log(f"version {os.environ.get('VERSION', '0')} at http://{host}:{server.sockets[0].getsockname()[1]}")
        await stopping.wait()
        log("stopping: not ready any more")
        self._is_draining = True
        await asyncio.sleep(float(os.environ.get("DRAIN_SECONDS", "0")))
        server.close()
        finished = await self._finished()
        log("stopped" if finished else "stopped with requests under way")
        return 0 if finished else 1

    async def _finished(self) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FINISH_SECONDS
        while self._under_way and loop.time() < deadline:  # noqa: ASYNC110  # once, and for a moment
            await asyncio.sleep(0.02)
        return not self._under_way

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, EOFError, TimeoutError):
            pass  # who went away, or has nothing to ask any more, is no fault of ours
        except (ValueError, asyncio.LimitOverrunError) as error:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            log(f"error: a request that is none: {error}")
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; return whether another may come on the connection."""
        async with asyncio.timeout(_IDLE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        self._under_way += 1
        try:
            request = await _request(head, reader)
            answer = await self._answer(request)
            goes_on = not (self._is_draining or request.is_last)  # while it drains, the next one finds another pod
            writer.write(self._bytes(answer, goes_on))
            await writer.drain()
        finally:
            self._under_way -= 1
        return goes_on

    async def _answer(self, request: Request) -> Answer:
        if request.path == "/healthz":
            return Answer(200, b"ok\n")
        if request.path == "/readyz":
            return Answer(503, b"draining\n") if self._is_draining else Answer(200, b"ok\n")
        try:
            return await self._handler(request)
        except Refused as refusal:
            return json_answer(refusal.status, {"error": str(refusal)})
        except Exception as error:  # noqa: BLE001  # one request's fault must not be another's
            log(f"error: {request.method} {request.path}: {error!r}")
            return json_answer(500, {"error": "something went wrong here; the log says what"})

    def _bytes(self, answer: Answer, goes_on: bool) -> bytes:
        head = (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n{self._about}"
            f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n"
            f"Connection: {'keep-alive' if goes_on else 'close'}\r\n\r\n"
        )
        return head.encode() + answer.body


async def _request(head: bytes, reader: asyncio.StreamReader) -> Request:
    """Return the request of a head. Raises ValueError for none, and what the reader raises."""
    first, *lines = head.decode("latin-1")[:-4].split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= _MAX_BODY or "transfer-encoding" in headers:
        raise ValueError(f"{method} {target}: want a body with Content-Length, of at most {_MAX_BODY} bytes")
    body = await reader.readexactly(length) if length else b""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, max_num_fields=20)) if parts.query else {}
    return Request(method, parts.path, query, body, headers.get("connection", "").lower() == "close")


class Peer:
    """Another service, at a URL. Where its name is not known, the variables of Services say where it is."""

    def __init__(self, url: str, patience: float = 5.0) -> None:
        parts = urlsplit(url)
        self._name, self._port = parts.hostname or "", parts.port or 80
        self._patience = patience
        self._address = ""

    async def call(self, method: str, target: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return its answer; what cannot be reached is tried again for some seconds. Raises `Refused`.

        So whatever is called twice has to be safe.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                async with asyncio.timeout(self._patience):
                    status, found = await self._once(method, target, body)
                break
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self._address = ""
                if loop.time() + _PAUSE > deadline:
                    log(f"error: {self._name}:{self._port}: {error!r}")
                    raise Refused(503, f"{self._name} cannot be reached now; please try again") from None
            await asyncio.sleep(_PAUSE)
        if status >= 400:
            raise Refused(status, str(found.get("error", f"{self._name} refused it")))
        return found

    async def _once(self, method: str, target: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        self._address = self._address or await self._find()
        reader, writer = await asyncio.open_connection(self._address, self._port)
        try:
            data = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {target} HTTP/1.1\r\nHost: {self._name}\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            status, _, rest = (await reader.read()).partition(b"\r\n")
            return int(status.split(b" ")[1]), json.loads(rest.partition(b"\r\n\r\n")[2])
        except IndexError:
            raise EOFError("it ended without an answer") from None
        finally:
            writer.close()

    async def _find(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            asked = loop.getaddrinfo(self._name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
            return str((await asyncio.wait_for(asked, _NAME_SECONDS))[0][4][0])
        except (OSError, TimeoutError):
            variable = f"{self._name.partition('.')[0].upper().replace('-', '_')}_SERVICE_HOST"
            if address := os.environ.get(variable):
                return address
            raise OSError(f"there is no name {self._name}, nor a variable {variable}") from None
