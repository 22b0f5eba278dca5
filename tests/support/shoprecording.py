"""A recording of the shop's demo as it might be: version 2 comes region by region, version 3 is taken back."""

from __future__ import annotations

import random

from pilothouse.cli.shopdemo.records import Row
from pilothouse.cli.shopdemo.report import Moment, Recording

__all__ = ["BEGAN", "made_up"]

BEGAN = 1_790_000_000.0
_RATES = (76.0, 12.0, 12.0)
_STEPS = ((12.0, 0.2, 0.0), (19.0, 1.0, 0.0), (26.0, 1.0, 1.0))
_SECOND, _FIRST_STEP, _DECISION = 41.0, 45.0, 51.2


def _version(at: float, region: int, chance: float) -> int:
    share = 0.0
    for begin, east, others in _STEPS:
        if at >= begin:
            share = others if region else east
    if region == 0 and _FIRST_STEP <= at < _DECISION + 0.1 and chance < 0.2:
        return 3
    return 2 if chance < share else 1


def made_up(*, seed: int = 1, scale: float = 1.0, slow: bool = False) -> Recording:
    """Return a recording of a minute. scale: of the rates, a tenth of the demo's; slow: version 3 does not fail."""
    chance = random.Random(seed)
    rows = []
    for region, rate in enumerate(_RATES):
        at = 0.0
        while (at := at + chance.expovariate(rate * scale)) < 60:
            version = _version(at, region, chance.random())
            latency = 0.004 * chance.lognormvariate(0, 0.5) + (
                1.2 if slow and version == 3 and chance.random() < 0.1 else 0
            )
            fails = not slow and version == 3 and chance.random() < 0.02
            user = 10_000 * region + chance.randrange(10_000)
            rows.append(Row(BEGAN + at, latency, user, 500 if fails else 200, region, version))
    rows.sort()
    return Recording(BEGAN, rows, _moments(rows), 3, "1.2 s slow for 10 % of requests" if slow else "2 % fail")


def _moments(rows: list[Row]) -> list[Moment]:
    bad = [row.ended for row in rows if row.version == 3 and row.is_bad]
    found = [
        Moment(BEGAN + 8.0, "commit", "version 2 is committed", "3f2a9c1"),
        Moment(BEGAN + 12.0, "step", "step 1: 20 % of cn-east"),
        Moment(BEGAN + 19.0, "step", "step 2: all of cn-east"),
        Moment(BEGAN + 26.0, "step", "step 3: everywhere"),
        Moment(BEGAN + 33.0, "done", "version 2 is everywhere", "no request failed"),
        Moment(BEGAN + _SECOND, "commit", "version 3 is committed", "9be0d77"),
        Moment(BEGAN + _FIRST_STEP, "step", "step 1: 20 % of cn-east"),
        Moment(BEGAN + _DECISION, "decision", "decision: version 3 is taken back", "2.1 % of its answers failed"),
        Moment(BEGAN + 52.8, "done", "pinned in git", "revert commit 77aa01e"),
    ]
    if bad:
        found += [Moment(min(bad), "bad", "first bad answer"), Moment(max(bad), "bad", "last bad answer")]
    return sorted(found)
