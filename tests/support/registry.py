"""A real registry of OCI artefacts (Debian: docker-registry) on a free port of loopback."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REGISTRY = shutil.which("docker-registry")
MISSING = "docker-registry is not there: run scripts/debian-packages"
USER, PASSWORD = "ada", "hunter2"
_HASHED = "$2b$04$cK6pCuxZPqPvZwoCo.Wxf.qxIAAz5CSpbUwdH5I9PMykOKZ48EuzK"  # of that password
_OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
)


class Registry:
    """login: whether it wants USER and PASSWORD. tls: files of its certificate and key, and of a CA of its clients."""

    def __init__(self, place: Path, *, login: bool = False, tls: tuple[Path, Path] | None = None) -> None:
        self.place = place
        place.mkdir()
        self.port = 0
        self._login, self._tls = login, tls
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on another port where somebody was quicker. Raises RuntimeError."""
        for _ in range(5):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
            if self._began():
                return
        raise RuntimeError((self.place / "log").read_text(encoding="utf-8"))

    def _began(self) -> bool:
        settings: dict[str, Any] = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self.place / "data")}},
            "http": {"addr": self.host},
        }
        if self._tls:
            settings["http"]["tls"] = {"certificate": str(self._tls[0]), "key": str(self._tls[1])}
        if self._login:
            (self.place / "users").write_text(f"{USER}:{_HASHED}\n", encoding="utf-8")
            settings["auth"] = {"htpasswd": {"realm": "test", "path": str(self.place / "users")}}
        config = self.place / "config.yml"
        config.write_text(json.dumps(settings), encoding="utf-8")
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen([str(REGISTRY), "serve", str(config)], stdout=log, stderr=log)
        until = time.monotonic() + 60
        while self._process.poll() is None and time.monotonic() < until:
            try:
                _OPENER.open(f"http{'s' if self._tls else ''}://{self.host}/v2/", timeout=5).close()
            except urllib.error.HTTPError as error:
                if error.code == 401:
                    return True
            except OSError:
                time.sleep(0.05)
            else:
                return True
        self.stop()
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@contextmanager
def registry(place: Path, **options: Any) -> Iterator[Registry]:
    """Run one below a directory that is not there yet."""
    made = Registry(place, **options)
    made.start()
    try:
        yield made
    finally:
        made.stop()
