"""The last minutes, second by second, of each route, rule, backend, version and region; sums over any window of them.

Workers tell of a second when it is over, so a window ends with the last second that has been over for `LATENESS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from .histogram import Histogram

__all__ = ["LATENESS", "Figures", "Key", "Second", "Windows", "last_whole"]

_Group = TypeVar("_Group", bound=Hashable)

LATENESS: Final = 0.1
"""Seconds after its end in which all workers have told of a second."""

_SERVER_ERRORS: Final = 500
_MOST_KEYS: Final = 10_000
_PARTS: Final = (0.5, 0.95, 0.99)


class Key(NamedTuple):
    """What is told apart. route: NAMESPACE/NAME; version: such as stable or canary; region: of the client."""

    route: str
    rule: str
    backend: str
    version: str
    region: str


@dataclass(slots=True)
class Second:
    """What came to a key in one second, or since a worker told it last."""

    codes: dict[int, int] = field(default_factory=dict)
    latency: dict[int, int] = field(default_factory=dict)
    latency_sum: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, other: Second) -> None:
        """Add what another worker has told."""
        for code, count in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + count
        for bucket, count in other.latency.items():
            self.latency[bucket] = self.latency.get(bucket, 0) + count
        self.latency_sum += other.latency_sum
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out


@dataclass(frozen=True, slots=True)
class Figures:
    """What a window says. Latencies in seconds, off by 1.6 % at most; error_ratio: of answers from 500 on, 0 to 1."""

    seconds: float
    requests: int
    errors: int
    codes: Mapping[int, int]
    p50: float
    p95: float
    p99: float
    mean: float
    bytes_in: int
    bytes_out: int
    latency: Histogram

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def error_ratio(self) -> float:
        """The part of answers that say the server failed; 0 where there are none."""
        return self.errors / self.requests if self.requests else 0.0


def last_whole(now: float) -> int:
    """Return the last second of which all has been told at `now` (monotonic seconds)."""
    return int(now - LATENESS) - 1


class Windows:
    """Seconds of the last `keep` seconds, in the order in which they came.

    keep: how far back a window may reach. Keys beyond 10,000 are counted as one without names.
    """

    def __init__(self, keep: int = 300) -> None:
        self._keep = keep
        self._seconds: dict[Key, deque[tuple[int, Second]]] = {}
        self._other = Key("", "", "", "", "")

    def keys(self) -> list[Key]:
        """Return what has come in the time that is kept."""
        return list(self._seconds)

    def add(self, now: float, counted: Iterable[tuple[Key, Second]]) -> None:
        """Take what a worker has told, of the second that is `now`, and forget what is too old."""
        second = int(now)
        for key, told in counted:
            line = self._seconds.get(key)
            if line is None:
                known = key if len(self._seconds) < _MOST_KEYS else self._other
                line = self._seconds.setdefault(known, deque())
            _second_of(line, second).add(told)
        self._forget(second)

    def _forget(self, second: int) -> None:
        oldest = second - self._keep
        empty = []
        for key, line in self._seconds.items():
            while line and line[0][0] < oldest:
                line.popleft()
            if not line:
                empty.append(key)
        for key in empty:
            del self._seconds[key]

    def grouped(self, seconds: int, now: float, group: Callable[[Key], _Group | None]) -> dict[_Group, Figures]:
        """Return the figures of the last whole seconds before `now`, summed up by what `group` says of a key.

        Keys of which it says None are left out, and so are groups to which nothing came.
        """
        last = last_whole(now)
        first = last - seconds + 1
        sums: dict[_Group, Second] = {}
        for key, line in self._seconds.items():
            if line[-1][0] < first or (name := group(key)) is None:
                continue
            for second, told in reversed(line):
                if second < first:
                    break
                if second <= last:
                    total = sums.get(name)
                    if total is None:
                        total = sums[name] = Second()
                    total.add(told)
        return {name: _figures(seconds, total) for name, total in sums.items()}

    def over(  # each narrows it
        self,
        seconds: int,
        now: float,
        *,
        route: str | None = None,
        rule: str | None = None,
        backend: str | None = None,
        version: str | None = None,
        region: str | None = None,
    ) -> Figures:
        """Return the figures of the last whole seconds before `now`, of what fits all that is given."""
        wanted = (route, rule, backend, version, region)

        def fits(key: Key) -> bool | None:
            return all(asked is None or asked == is_ for asked, is_ in zip(wanted, key, strict=True)) or None

        return self.grouped(seconds, now, fits).get(True) or _figures(seconds, Second())


def _second_of(line: deque[tuple[int, Second]], second: int) -> Second:
    """Return the counts of a second, made where it is missing; one that is told of late comes before later ones."""
    place = len(line)
    while place and line[place - 1][0] > second:
        place -= 1
    if place and line[place - 1][0] == second:
        return line[place - 1][1]
    made = Second()
    line.insert(place, (second, made))
    return made


def _figures(seconds: int, total: Second) -> Figures:
    latency = Histogram(total.latency)
    requests = sum(total.codes.values())
    p50, p95, p99 = latency.quantiles(_PARTS)
    return Figures(
        seconds=float(seconds),
        requests=requests,
        errors=sum(count for code, count in total.codes.items() if code >= _SERVER_ERRORS),
        codes=dict(sorted(total.codes.items())),
        p50=p50,
        p95=p95,
        p99=p99,
        mean=total.latency_sum / requests if requests else 0.0,
        bytes_in=total.bytes_in,
        bytes_out=total.bytes_out,
        latency=latency,
    )
