"""What the demo has to tell: moments and how long each took, the load's figures phase by phase, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import click

from .demo_load import Tally, percentile

__all__ = ["ROLL_OUT", "WITHOUT_SERVER", "Report"]

ROLL_OUT: Final = "version 2 was rolled out"
WITHOUT_SERVER: Final = "the API server was gone"
_FLAWLESS: Final = (ROLL_OUT, WITHOUT_SERVER)
"""Phases in which no request may fail."""


class Report:
    """Gathers while the demo goes on, and tells standard error what it is doing."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self._tallies: dict[str, Tally] = {}
        self.moments: list[dict[str, str | float]] = []
        self.figures: dict[str, int | str] = {}

    def doing(self, what: str) -> None:
        """Say what comes now."""
        click.echo(f"{self._clock() - self._began:5.1f} s  {what}", err=True)

    def moment(self, event: str, detail: str = "") -> None:
        """Note that something has happened."""
        now = self._clock()
        self.moments.append(
            {
                "at_seconds": round(now - self._began, 2),
                "took_seconds": round(now - self._last, 2),
                "event": event,
                "detail": detail,
            }
        )
        self._last = now

    def phase(self, name: str, tally: Tally) -> Tally:
        """Note a phase of the load, which goes on until the next one; return its tally."""
        self._tallies[name] = tally
        return tally

    def entries(self, signed: set[str], found: set[str]) -> None:
        """Note how many entries were acknowledged and how many of them are not there."""
        self.figures |= {"entries_signed": len(signed), "entries_lost": len(signed - found)}

    @property
    def phases(self) -> list[dict[str, str | int | float]]:
        """What the load saw."""
        return [
            {
                "while": name,
                "requests": tally.requests,
                "failed": tally.failures,
                "p50_ms": round(percentile(tally.latencies, 0.5) * 1000, 1),
                "p99_ms": round(percentile(tally.latencies, 0.99) * 1000, 1),
            }
            for name, tally in self._tallies.items()
            if tally.requests
        ]

    @property
    def reasons(self) -> list[str]:
        """Why requests failed, a few of each phase."""
        return [f"{name}: {reason}" for name, tally in self._tallies.items() for reason in tally.reasons]

    def problems(self) -> list[str]:
        """Return what should not have been."""
        failed = {name: self._tallies[name].failures for name in _FLAWLESS if name in self._tallies}
        found = [f"requests that failed while {name}: {count}" for name, count in failed.items() if count]
        if lost := self.figures.get("entries_lost", 0):
            found.append(f"acknowledged entries that are lost: {lost}")
        return found

    def summary(self) -> str:
        """Return the whole in a line."""
        requests = sum(tally.requests for tally in self._tallies.values())
        return (
            f"{requests} requests in all; {self._tallies[ROLL_OUT].failures} failed in the roll-out, "
            f"{self.figures['entries_lost']} of {self.figures['entries_signed']} entries are lost"
        )
