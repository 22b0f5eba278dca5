"""What `pilothouse up` shows: each part as it gets ready, a table when all are, and what had to be started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TextIO

from .core import Asked, Ended, Event, Ready
from .supervisor import Supervisor

__all__ = ["Progress", "table"]

_SERVER: Final = "apiserver"
_REFRESH_SECONDS: Final = 0.1
_WIDTH: Final = 100
_WITHOUT: Final = "pods of this node do without: "
_CLEAR: Final = "\r\x1b[K"
_WHAT: Final = (
    ("url", "API"),
    ("kubeconfig", "kubeconfig"),
    ("node", "node"),
    ("dns", "DNS"),
    ("dashboard", "dashboard"),
    ("webhook", "webhook"),
)


class Progress:
    """Writes what is new. The result goes to `out`, all else to `errors`; a terminal there gets a line that moves."""

    def __init__(self, out: TextIO, errors: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._errors = errors
        self._clock = clock
        self._began = clock()
        self._lives = errors.isatty()
        self._is_told = False
        self._shown = ""

    @property
    def interval(self) -> float | None:
        """Seconds after which it wants to be called again: while a terminal shows what is waited for."""
        return _REFRESH_SECONDS if self._lives and not self._is_told else None

    def changed(self, supervisor: Supervisor, event: Event) -> None:
        """Tell what an event has changed."""
        core = supervisor.core
        if core.is_stopping:
            self._stop(event)
            return
        if isinstance(event, Ready) and not self._is_told:
            self._line(f"{event.name}: ready after {self._seconds()}")
        elif isinstance(event, Ready):
            again = core.states()[event.name][1]
            self._line(f"{event.name}: ready again" if again else f"{event.name}: ready, as it is wanted")
        elif isinstance(event, Ended) and core.states()[event.name][0] == "idle":
            self._line(f"{event.name}: ended, as it is not wanted any more")
        elif isinstance(event, Ended):
            self._line(f"{event.name} ended with {event.code} and is started again")
        if isinstance(event, Ready) and core.is_ready and not self._is_told:
            self._is_told = True
            self._clear()
            idle = [name for name, (state, _) in core.states().items() if state == "idle"]
            told = {name: core.told(name) for name in core.states() if name not in idle}
            self._out.write(_result(told, self._seconds(), idle))
            self._out.flush()
        elif not self._is_told:
            self._show([name for name, (state, _) in core.states().items() if state not in {"ready", "idle"}])

    def _stop(self, event: Event) -> None:
        self._is_told = True
        if isinstance(event, Asked) and self._lives:
            self._line("stopping; pods run on")
        else:
            self._clear()

    def _seconds(self) -> str:
        return f"{self._clock() - self._began:.1f} s"

    def _line(self, text: str) -> None:
        self._clear()
        self._errors.write(f"{text}\n")
        self._errors.flush()

    def _show(self, waited: list[str]) -> None:
        if self._lives:
            self._shown = f"waiting for {', '.join(waited)} ({self._seconds()})"
            self._errors.write(f"{_CLEAR}{self._shown}")
            self._errors.flush()

    def _clear(self) -> None:
        if self._shown:
            self._errors.write(_CLEAR)
            self._errors.flush()
            self._shown = ""


def _result(told: Mapping[str, Mapping[str, str]], seconds: str, idle: Sequence[str] = ()) -> str:
    server = told.get(_SERVER, {})
    if server:
        first = f"ready: serving Kubernetes on {server.get('url')}, kubeconfig in {server.get('kubeconfig')}"
    else:
        node = next((each["node"] for each in told.values() if "node" in each), "")
        first = f"ready: running pods as node {node}" if node else "ready"
    return "\n".join([first, *table(told, seconds, idle), ""])


def table(told: Mapping[str, Mapping[str, str]], seconds: str, idle: Sequence[str] = ()) -> list[str]:
    """Return the lines of the table: what parts said when they were ready, and what this machine does not allow.

    idle: parts that run when they are wanted.
    """
    said = {key: value for part in told.values() for key, value in part.items() if value}
    rows = [(title, said[key]) for key, title in _WHAT if key in said]
    rows.append(("parts", f"{', '.join(told)} (in {seconds})"))
    rows += [("when wanted", ", ".join(idle))] if idle else []
    missing = [line.removeprefix(_WITHOUT) for line in said.get("missing", "").split("\n") if line]
    rows += [("without" if number == 0 else "", _short(line)) for number, line in enumerate(missing)]
    return [f"  {title:<11} {value}" for title, value in rows]


def _short(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
