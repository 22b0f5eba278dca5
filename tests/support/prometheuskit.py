"""A real Prometheus of Debian's on a free port, and pages for it to scrape."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

__all__ = ["Exporter", "Prometheus", "exporter", "prometheus_of", "wants_prometheus"]

PROGRAM: Final = shutil.which("prometheus")
PATIENCE: Final = 60.0
_TRIES: Final = 5
wants_prometheus = pytest.mark.skipif(PROGRAM is None, reason="prometheus not found: install Debian's prometheus")


class Exporter:
    """Serves pages, by their paths, as Prometheus scrapes them."""

    def __init__(self) -> None:
        self.pages: dict[str, Callable[[], str | bytes]] = {}
        pages = self.pages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path)
                found = page() if page is not None else b""
                text = found.encode() if isinstance(found, str) else found
                self.send_response(200 if page is not None else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                with contextlib.suppress(OSError):  # who scrapes does not wait for ever
                    self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server.server_address[1]}"


@contextlib.contextmanager
def exporter() -> Iterator[Exporter]:
    made = Exporter()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05}, name="exporter")
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join(PATIENCE)
        made.server.server_close()


class Prometheus:
    """One that runs. url: where it answers; headers: what who asks it has to send."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, scheme: str, headers: Mapping[str, str]) -> None:
        self.process = process
        self.url = f"{scheme}://127.0.0.1:{port}"
        self._address = "127.0.0.1", port
        self._headers = dict(headers)

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask for a page."""
        if self.url.startswith("https"):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            made: http.client.HTTPConnection = http.client.HTTPSConnection(*self._address, timeout=20, context=context)
        else:
            made = http.client.HTTPConnection(*self._address, timeout=20)
        with contextlib.closing(made) as connection:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def query(self, text: str) -> list[float]:
        """Return the values of an instant query's series."""
        status, body = self.get(f"/api/v1/query?{urllib.parse.urlencode({'query': text})}")
        assert status == 200, body
        found: list[Any] = json.loads(body)["data"]["result"]
        return [float(each["value"][1]) for each in found]

    def until(self, text: str, true: Callable[[list[float]], object]) -> list[float]:
        """Wait until a query's values are as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not true(found := self.query(text)):
            assert time.monotonic() < deadline, f"{text}: {found}; {self.get('/api/v1/targets')}"
            time.sleep(0.05)
        return found

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/-/ready")[0] == 200
        return False

    def end(self) -> None:
        """End it at once; who asks it is refused."""
        self.process.kill()
        self.process.wait(PATIENCE)


@contextlib.contextmanager
def prometheus_of(
    directory: Path,
    targets: Mapping[str, tuple[str, str]],
    web: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Prometheus]:
    """Run one that scrapes every second. targets: name of a job to address and path; web: its own TLS."""
    jobs = [
        {"job_name": name, "metrics_path": path, "static_configs": [{"targets": [address]}]}
        for name, (address, path) in targets.items()
    ]
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (directory / "prometheus.yml").write_text(yaml.safe_dump({"global": settings, "scrape_configs": jobs}))
    options = []
    if web is not None:
        (directory / "web.yml").write_text(yaml.safe_dump(dict(web)))
        options = [f"--web.config.file={directory / 'web.yml'}"]
    made = _start(directory, options, "http" if web is None else "https", headers or {})
    try:
        yield made
    finally:
        made.end()


def _start(directory: Path, options: list[str], scheme: str, headers: Mapping[str, str]) -> Prometheus:
    assert PROGRAM is not None
    log = directory / "prometheus.log"
    for _ in range(_TRIES):  # a port that is free now may be taken when it listens
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = int(sock.getsockname()[1])
        command = [PROGRAM, f"--config.file={directory / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{port}"]
        command += [f"--storage.tsdb.path={directory / 'data'}", *options]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        made = Prometheus(process, port, scheme, headers)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            if made.is_ready():
                return made
            time.sleep(0.05)
        made.end()
    raise AssertionError(log.read_text()[-4000:])
