"""What runs in pods of the platform's tests, and the load that its services get meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import urllib.request
from collections import Counter
from typing import Any, Self

__all__ = ["PORT", "SERVER", "Load", "configured", "deployment", "pod", "service", "shell"]

Object = dict[str, Any]
PORT = 8080
_FIRST_SECONDS = 60.0

SERVER = """
import http.server, os, random, signal, socketserver, sys, threading, time, urllib.parse

draining = threading.Event()
name, version = os.uname().nodename, os.environ.get("VERSION", "")
bad, slow = float(os.environ.get("BAD", "0")), float(os.environ.get("SLOW", "0"))

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = f"{version} {name} {self.client_address[0]}".encode()
        is_probe = "kube-probe" in self.headers.get("User-Agent", "")
        asked = dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))
        wrong = max(bad, float(asked.get("bad", asked.get(f"bad{version}", "0"))))
        if random.random() < slow and not is_probe:
            time.sleep(1.2)
        self.send_response(500 if random.random() < wrong and not is_probe else 200)
        self.send_header("Content-Length", str(len(text)))
        if draining.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

def drain(*_):
    draining.set()  # whoever asks on an old connection is told to make a new one
    threading.Timer(1.0, os._exit, (0,)).start()

signal.signal(signal.SIGTERM, drain)
Server((os.environ["POD_IP"], int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
"""
"""An HTTP server on the pod's own address that answers with its version, its host name and who asked.

BAD: the share (0 to 1) of requests that it fails, probes left out; SLOW: of those that take 1.2 s. Who asks may
want a greater share of failures, of all versions (`/?bad=0.1`) or of one (`/?bad2=0.1`).
"""

_POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def configured(version: str = "1", port: int = PORT, **more: Any) -> Object:
    """Return a container that runs the server, with a probe."""
    probe = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1}
    env = [_POD_IP, {"name": "VERSION", "value": version}, {"name": "PORT", "value": str(port)}]
    command = ["python3", "-c", SERVER]
    ports = [{"name": "http", "containerPort": port}]
    return {
        "name": "web",
        "image": "host",
        "command": command,
        "env": env,
        "ports": ports,
        "readinessProbe": probe,
    } | more


def pod(name: str, *containers: Object, labels: Object | None = None, **spec: Any) -> Object:
    """Return a pod that ends soon when it is told to."""
    given = {"terminationGracePeriodSeconds": 1, "containers": list(containers)} | spec
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": given}


def shell(line: str, name: str = "main", **more: Any) -> Object:
    """Return a container that runs a line of a shell."""
    return {"name": name, "image": "host", "command": ["/bin/sh", "-c", line]} | more


def deployment(name: str, replicas: int, container: Object, *, grace: int = 10) -> Object:
    """Return a deployment that never has fewer ready pods than it is to have."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": grace},
    }
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "strategy": rolling,
        "template": template,
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def service(name: str, port: int = PORT, target: int | str = PORT, **spec: Any) -> Object:
    """Return a service for pods with `app: NAME`."""
    given = {"selector": {"app": name}, "ports": [{"name": "http", "port": port, "targetPort": target}]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": given}


class Load:
    """Requests to an address without a pause to speak of, on kept and on new connections, in a thread of its own.

    `failures` says of each that had no answer when and why; `answers` counts answers by their first word. `path` is
    what is asked for from now on. head: more lines of each request's head, each with its end.
    """

    def __init__(
        self, host: str, port: int, *, kept: int = 3, new: int = 2, pause: float = 0.01, head: str = ""
    ) -> None:
        self.path = "/"
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        self.pods: Counter[str] = Counter()
        self.answered = 0
        self.longest = 0.0
        self._address = host, port
        self._workers = [True] * kept + [False] * new
        self._pause = pause
        self._head = head
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self._began = self._since = time.monotonic()

    def __enter__(self) -> Self:
        self._until_answered()
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all requests."""
        self._stopped.set()
        self._thread.join(30)

    def _until_answered(self) -> None:
        """Wait for the first answer: a service is carried out a moment after its pods are ready."""
        host, port = self._address
        deadline = time.monotonic() + _FIRST_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5):
                    return
            except OSError:  # until it is, whatever routes lead to may answer, and not as our pods do
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @property
    def count(self) -> int:
        """How many were answered."""
        return sum(self.answers.values())

    def forget(self) -> None:
        """Count what is asked from now on, not what is under way; `answered` still counts all."""
        self._since = time.monotonic()
        self.answers, self.pods = Counter(), Counter()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kept in self._workers:
                group.create_task(self._work(kept))

    async def _work(self, kept: bool) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                await self._connection(kept)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                how = "kept" if kept else "new"
                self.failures.append(f"{began - self._began:.2f} s, {how}: {type(error).__name__} {error}")
            await asyncio.sleep(self._pause)

    async def _connection(self, kept: bool) -> None:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*self._address)
        try:
            while not self._stopped.is_set():
                began = time.monotonic()
                again = await self._ask(reader, writer, kept)
                self.longest = max(self.longest, time.monotonic() - began)
                if not again:
                    return
                await asyncio.sleep(self._pause)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bool) -> bool:
        """Ask once; return whether the connection may be used again."""
        began = time.monotonic()
        how = "keep-alive" if kept else "close"
        asked = f"GET {self.path} HTTP/1.1\r\nHost: load\r\n{self._head}Connection: {how}\r\n\r\n"
        async with asyncio.timeout(10):
            writer.write(asked.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if not head.startswith("http/1.1 200"):
                raise ValueError(head.partition("\r\n")[0])
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            words = (await reader.readexactly(length)).decode().split()
        self.answered += 1
        if began >= self._since:
            self.answers[words[0]] += 1
            self.pods[words[1]] += 1
        return kept and "connection: close" not in head
