"""A real server program that a test runs for itself, on a free port of loopback, in a directory of its own."""

from __future__ import annotations

import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

__all__ = ["OwnServer", "running"]

_ATTEMPTS = 5
_SECONDS = 60.0
S = TypeVar("S", bound="OwnServer")


class OwnServer(ABC):
    """place: a directory, made anew; port: since `start`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(mode=0o700)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Write what it reads, and return how it is run in the foreground at `port`."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves. Raises OSError where nobody listens."""

    def start(self) -> None:
        """Start it, on another port where somebody was quicker. Raises RuntimeError."""
        for _ in range(_ATTEMPTS):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
            if self._began():
                return
        raise RuntimeError(self.log())

    def _began(self) -> bool:
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen([*self.command()], stdout=log, stderr=log)
        until = time.monotonic() + _SECONDS
        while self._process.poll() is None and time.monotonic() < until:
            with suppress(OSError):
                if self.answers():
                    return True
            time.sleep(0.02)
        self.stop()
        return False

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def log(self) -> str:
        """Return what it has said."""
        return (self.place / "log").read_text(encoding="utf-8")


@contextmanager
def running(server: S) -> Iterator[S]:
    """Have it run within the block."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
