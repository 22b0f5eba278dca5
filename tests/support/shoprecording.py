"""A recording of the shop's demo as it might be: version 2 comes region by region, versions 3 and 4 are taken back."""

from __future__ import annotations

import random

from pilothouse.cli.shopdemo.records import Row
from pilothouse.cli.shopdemo.report import Fault, Moment, Recording

__all__ = ["BEGAN", "DECISIONS", "made_up"]

BEGAN = 1_790_000_000.0
DECISIONS = {3: 51.2, 4: 63.4}
_SECONDS = 67
_RATES = (76.0, 12.0, 12.0)
_STEPS = ((12.0, 0.2, 0.0), (19.0, 1.0, 0.0), (26.0, 1.0, 1.0))
_COMMITS = {3: 41.0, 4: 57.0}
_FIRST_STEPS = {3: 45.0, 4: 59.0}
_FAULTS = (Fault(3, "2 % of its answers fail"), Fault(4, "10 % of its answers take 1.2 s"))


def _version(at: float, region: int, chance: float) -> int:
    share = 0.0
    for begin, east, others in _STEPS:
        if at >= begin:
            share = others if region else east
    for version, begin in _FIRST_STEPS.items():
        if region == 0 and begin <= at < DECISIONS[version] + 0.1 and chance < 0.2:
            return version
    return 2 if chance < share else 1


def made_up(*, seed: int = 1, scale: float = 1.0) -> Recording:
    """Return a recording of a minute. scale: of the rates, a tenth of the demo's."""
    chance = random.Random(seed)
    rows = []
    for region, rate in enumerate(_RATES):
        at = 0.0
        while (at := at + chance.expovariate(rate * scale)) < _SECONDS:
            version = _version(at, region, chance.random())
            slow, fails = version == 4 and chance.random() < 0.1, version == 3 and chance.random() < 0.02
            latency = 0.004 * chance.lognormvariate(0, 0.5) + (1.2 if slow else 0)
            user = 10_000 * region + chance.randrange(10_000)
            rows.append(Row(BEGAN + at, latency, user, 500 if fails else 200, region, version))
    rows.sort()
    return Recording(BEGAN, rows, _moments(rows), _FAULTS)


def _moments(rows: list[Row]) -> list[Moment]:
    found = [
        Moment(BEGAN + 8.0, "commit", "version 2 is committed", "3f2a9c1", 2),
        Moment(BEGAN + 12.0, "step", "version 2: 20 % of cn-east", version=2),
        Moment(BEGAN + 19.0, "step", "version 2: all of cn-east", version=2),
        Moment(BEGAN + 26.0, "step", "version 2: all regions", version=2),
        Moment(BEGAN + 33.0, "done", "version 2 is everywhere", version=2),
    ]
    for version, decision in DECISIONS.items():
        found += [
            Moment(BEGAN + _COMMITS[version], "commit", f"version {version} is committed", "9be0d77", version),
            Moment(BEGAN + _FIRST_STEPS[version], "step", f"version {version}: 20 % of cn-east", version=version),
            Moment(BEGAN + decision, "decision", f"decision: version {version} is taken back", "it is bad", version),
            Moment(BEGAN + decision + 1.6, "done", "git is without it", "77aa01e"),
        ]
        if bad := [row.ended for row in rows if row.version == version and row.is_bad]:
            found += [
                Moment(at, "bad", f"version {version}: {which} bad answer", version=version)
                for at, which in ((min(bad), "first"), (max(bad), "last"))
            ]
    return sorted(found)
