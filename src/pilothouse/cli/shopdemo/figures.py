"""What rows of requests come to: by second, version and region, over windows, and what a bad version did. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from .records import Row

__all__ = ["WINDOW_SECONDS", "Harm", "Window", "failures_of", "harm_of", "per_second", "windows"]

WINDOW_SECONDS: Final = 5
"""As long as the judge's."""
_LEAST: Final = 50
"""Of fewer requests in a window nothing is said, nor of a version that got none in its last second."""
_P95: Final = 0.95


class Window(NamedTuple):
    """What was seen of a version in the seconds before `at`. errors: a share; p95: seconds."""

    at: int
    errors: float
    p95: float


class Harm(NamedTuple):
    """What a bad version did to users, in seconds since 1970; None for what never was.

    first_bad, last_bad: when such answers arrived. last_sent: when the last request left that this version answered.
    users: people who asked for something while it was out, hit: those of them who got a bad answer of it.
    """

    first_bad: float | None
    last_bad: float | None
    last_sent: float | None
    users: int
    hit: int

    @property
    def share(self) -> float:
        """The share of users hit."""
        return self.hit / self.users if self.users else 0.0


def per_second(rows: Iterable[Row], began: float) -> Counter[tuple[int, int, int]]:
    """Return how many requests were sent, by second since `began`, version and region."""
    return Counter((math.floor(row.sent - began), row.version, row.region) for row in rows)


def windows(rows: Iterable[Row], began: float, seconds: int) -> Mapping[int, Sequence[Window]]:
    """Return what was seen of each version at the end of each second, where there was enough to see."""
    answers: defaultdict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        answers[row.version, math.floor(row.ended - began)].append(row)
    found: defaultdict[int, list[Window]] = defaultdict(list)
    for version in sorted({version for version, _ in answers} - {0}):
        for end in range(1, seconds + 1):
            within = [row for second in range(end - WINDOW_SECONDS, end) for row in answers.get((version, second), ())]
            if len(within) >= _LEAST and (version, end - 1) in answers:
                latencies = sorted(row.latency for row in within)
                errors = sum(row.is_failed for row in within) / len(within)
                found[version].append(Window(end, errors, latencies[int(len(latencies) * _P95)]))
    return found


def failures_of(rows: Iterable[Row], begin: float, end: float) -> int:
    """Return how many requests failed of those sent in a time."""
    return sum(row.is_failed for row in rows if begin <= row.sent < end)


def harm_of(rows: Sequence[Row], version: int) -> Harm:
    """Return what a version did."""
    of_it = [row for row in rows if row.version == version]
    if not of_it:
        return Harm(None, None, None, 0, 0)
    bad = [row for row in of_it if row.is_bad]
    begin, end = of_it[0].sent, max(row.sent for row in of_it)
    return Harm(
        first_bad=min((row.ended for row in bad), default=None),
        last_bad=max((row.ended for row in bad), default=None),
        last_sent=end,
        users=len({row.user for row in rows if begin <= row.sent <= end}),
        hit=len({row.user for row in bad}),
    )
