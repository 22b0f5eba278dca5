"""The guestbook of `examples/` for tests: its programs as processes, and its manifests as objects."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["GUESTBOOK", "Answer", "Tier", "tier"]

GUESTBOOK = Path(__file__).resolve().parent.parent.parent / "examples" / "guestbook"
_PATIENCE = 30.0


class Answer(NamedTuple):
    """What a tier answered."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.text)


class Tier:
    """A running program of the guestbook, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.port = 0
        self._printed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._printed:
                self.lines.append(line.rstrip())
                self._printed.notify_all()

    def close(self) -> None:
        """End it at once, and wait until all that it printed is read."""
        self.process.kill()
        self._reader.join(_PATIENCE)

    def wait_line(self, pattern: str) -> str:
        """Wait for a line; return its first group or all that matched."""
        with self._printed:
            done = self._printed.wait_for(lambda: any(re.search(pattern, line) for line in self.lines), _PATIENCE)
            assert done, self.lines
            found = next(filter(None, (re.search(pattern, line) for line in self.lines)))
            return found[1] if found.groups() else found[0]

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)

    def ask(self, method: str, target: str, body: Any = None, kind: str = "application/json") -> Answer:
        """Send a request on a connection of its own. A body that is no bytes goes as JSON."""
        with contextlib.closing(self.connect()) as connection:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, target, data, {"Content-Type": kind})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return how it ended."""
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE)


@contextlib.contextmanager
def tier(program: str, **environment: str) -> Iterator[Tier]:
    """Run a program of the guestbook at a free port until the block ends."""
    given = {**os.environ, "PORT": "0", "POD_IP": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    with subprocess.Popen(
        [sys.executable, str(GUESTBOOK / program)], stdout=subprocess.PIPE, text=True, env=given
    ) as process:
        made = Tier(process)
        try:
            made.port = int(made.wait_line(r"http://[\d.]+:(\d+)$"))
            yield made
        finally:
            made.close()
