"""Samples of requests that went badly: a few of late of each route and version, to show what numbers count."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = ["Sample", "Samples"]

_SERVER_ERRORS: Final = 500
_EACH: Final = 10
_MOST_KEYS: Final = 1000


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One request. at: seconds since 1970 when it came; path: without query; trace: 32 digits, empty without one.

    There is nothing in it of headers and bodies.
    """

    at: float
    route: str
    version: str
    region: str
    method: str
    path: str
    status: int
    seconds: float
    trace: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether it failed; else it was slow."""
        return self.status >= _SERVER_ERRORS


class Samples:
    """The last 10 that failed and the last 10 that were slow of each route and version, of 1,000 such at most."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, bool], deque[Sample]] = OrderedDict()

    def add(self, came: Iterable[Sample]) -> None:
        """Take what a worker has told."""
        for sample in came:
            key = (sample.route, sample.version, sample.is_failure)
            self._kept.setdefault(key, deque(maxlen=_EACH)).append(sample)
            self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEYS:
            self._kept.popitem(last=False)

    def of(self, route: str, version: str, since: float = 0.0) -> list[Sample]:
        """Return those of a route and version that came since a moment: what failed before what was slow, newest first.

        since: seconds since 1970.
        """
        found = [each for is_failure in (True, False) for each in self._kept.get((route, version, is_failure), ())]
        return sorted((each for each in found if each.at >= since), key=lambda each: (not each.is_failure, -each.at))
