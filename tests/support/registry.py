"""A real registry of OCI artefacts (Debian: docker-registry) on a free port of loopback."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .ownserver import OwnServer, running

REGISTRY = shutil.which("docker-registry")
MISSING = "docker-registry is not there: run scripts/debian-packages"
USER, PASSWORD = "ada", "hunter2"
_HASHED = "$2b$04$cK6pCuxZPqPvZwoCo.Wxf.qxIAAz5CSpbUwdH5I9PMykOKZ48EuzK"  # of that password
_OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
)


class Registry(OwnServer):
    """login: whether it wants USER and PASSWORD. tls: files of its certificate and key, and of a CA of its clients."""

    def __init__(self, place: Path, *, login: bool = False, tls: tuple[Path, Path] | None = None) -> None:
        super().__init__(place)
        self._login, self._tls = login, tls

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
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
        return [str(REGISTRY), "serve", str(config)]

    def answers(self) -> bool:
        try:
            _OPENER.open(f"http{'s' if self._tls else ''}://{self.host}/v2/", timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        return True


def registry(place: Path, **options: Any) -> AbstractContextManager[Registry]:
    """Run one below a directory that is not there yet."""
    return running(Registry(place, **options))
