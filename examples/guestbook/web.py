"""What both tiers of the guestbook share: a small HTTP server with probes, JSON, bounds and an orderly end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

__all__ = ["Answer", "Application", "Refused", "Request", "json_answer", "log", "serve"]

_MAX_BODY = 16_384
_IDLE_SECONDS = 30.0
_FINISH_SECONDS = 5.0


class Request(NamedTuple):
    """What somebody asks for."""

    method: str
    path: str
    query: dict[str, str]
    kind: str
    body: bytes

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
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Application(Protocol):
    """What a tier does."""

    version: str

    def answer(self, request: Request) -> Answer:
        """Answer a request. Raises `Refused`."""


def json_answer(status: int, value: Any) -> Answer:
    """Return an answer in JSON."""
    return Answer(status, json.dumps(value).encode(), "application/json")


def log(text: str) -> None:
    """Write a line to the container's log."""
    print(text, flush=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        super().__init__(address, _Handler)
        self.application = application
        self.is_draining = False
        self._under_way = 0
        self._changed = threading.Condition()

    def began(self, change: int) -> None:
        """Count a request in or out."""
        with self._changed:
            self._under_way += change
            self._changed.notify_all()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no request is under way; say whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._under_way == 0, seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in a line that a connection broke; who went away is no fault of ours."""
        log(f"connection of {client_address[0]}: {sys.exc_info()[1]}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    wbufsize = 65_536  # an answer is one write
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class has it so
        """Leave out what probes and pages would write at every request."""

    def _serve(self) -> None:
        self.server.began(+1)
        try:
            self._send(self._answer())
            self.wfile.flush()
        finally:
            self.server.began(-1)

    def _answer(self) -> Answer:
        target = urlsplit(self.path)
        if target.path == "/healthz":
            return Answer(200, b"ok\n")
        if target.path == "/readyz":
            return Answer(503, b"draining\n") if self.server.is_draining else Answer(200, b"ok\n")
        try:
            query = dict(parse_qsl(target.query, max_num_fields=20))
            kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return self.server.application.answer(Request(self.command, target.path, query, kind, self._body()))
        except Refused as refusal:
            return json_answer(refusal.status, {"error": str(refusal)})
        except Exception as error:  # noqa: BLE001  # one request's fault must not be another's
            log(f"error: {self.command} {target.path}: {error!r}")
            return json_answer(500, {"error": "something went wrong here; the log says what"})

    def _body(self) -> bytes:
        if self.command != "POST":
            return b""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            raise Refused(411, "Content-Length is missing")
        if int(length) > _MAX_BODY:
            self.close_connection = True
            raise Refused(413, f"the body is longer than {_MAX_BODY} bytes")
        return self.rfile.read(int(length))

    def _send(self, answer: Answer) -> None:
        if self.server.is_draining:
            self.close_connection = True  # the next request finds another pod
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("X-Guestbook-Version", self.server.application.version)
        self.send_header("X-Guestbook-Pod", os.environ.get("POD_NAME", ""))
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)


def serve(application: Application, *, drain_seconds: float) -> int:
    """Serve at POD_IP and PORT until SIGTERM; return the exit code.

    After the signal it is not ready any more, but still answers for `drain_seconds`: so long may it take until nobody
    sends anything here. Then requests that are under way are finished.
    """
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    host, port = os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get("PORT", "8080"))
    try:
        server = _Server((host, port), application)
    except OSError as error:
        log(f"error: cannot listen at {host}:{port}: {error.strerror}")
        return 1
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    log(f"version {application.version} at http://{host}:{server.server_port}")
    signal.sigwait(stopping)
    server.is_draining = True
    log("stopping: not ready any more")
    time.sleep(drain_seconds)
    server.shutdown()
    server.socket.close()
    finished = server.wait_idle(_FINISH_SECONDS)
    log("stopped" if finished else "stopped with requests under way")
    return 0 if finished else 1
