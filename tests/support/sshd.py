"""A real sshd (Debian: openssh-server) on a free port of loopback, with keys and settings of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = "sshd is not there: run scripts/debian-packages"


def make_key(path: Path) -> str:
    """Make a pair of keys; return the private one. The public one is beside it."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True)
    return path.read_text(encoding="utf-8")


class Sshd:
    """key: the private one that opens it. known_hosts: the line of its host key."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(mode=0o700)
        make_key(place / "host")
        self.key = make_key(place / "user")
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def known_hosts(self) -> str:
        return f"[127.0.0.1]:{self.port} {(self.place / 'host.pub').read_text(encoding='utf-8')}"

    def url(self, path: Path) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Start it, on another port where somebody was quicker. Raises RuntimeError."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's wants it for its child without rights
        for _ in range(5):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
            if self._began():
                return
        raise RuntimeError((self.place / "log").read_text(encoding="utf-8"))

    def _began(self) -> bool:
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": self.place / "host",
            "AuthorizedKeysFile": self.place / "user.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "LogLevel": "VERBOSE",
        }
        config = self.place / "config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=log, stdout=log)
        until = time.monotonic() + 30
        while self._process.poll() is None and time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
            except OSError:
                time.sleep(0.02)
            else:
                return True
        self.stop()
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def log(self) -> str:
        return (self.place / "log").read_text(encoding="utf-8")


@contextmanager
def sshd(place: Path) -> Iterator[Sshd]:
    """Run one below a directory that is not there yet."""
    made = Sshd(place)
    made.start()
    try:
        yield made
    finally:
        made.stop()
