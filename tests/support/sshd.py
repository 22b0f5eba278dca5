"""A real sshd (Debian: openssh-server) on a free port of loopback, with keys and settings of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .ownserver import OwnServer, running

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = "sshd is not there: run scripts/debian-packages"


def make_key(path: Path) -> str:
    """Make a pair of keys; return the private one. The public one is beside it."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True)
    return path.read_text(encoding="utf-8")


class Sshd(OwnServer):
    """key: the private one that opens it. known_hosts: the line of its host key."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        make_key(place / "host")
        self.key = make_key(place / "user")

    @property
    def known_hosts(self) -> str:
        return f"[127.0.0.1]:{self.port} {(self.place / 'host.pub').read_text(encoding='utf-8')}"

    def url(self, path: Path) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"

    def command(self) -> Sequence[str]:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's wants it for its child without rights
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
        return [str(SSHD), "-D", "-e", "-f", str(config)]

    def answers(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), 5).close()
        return True


def sshd(place: Path) -> AbstractContextManager[Sshd]:
    """Run one below a directory that is not there yet."""
    return running(Sshd(place))
