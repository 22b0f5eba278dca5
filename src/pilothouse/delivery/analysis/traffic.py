"""The provider `pilothouse.dev/traffic`: judges by what the data plane itself counts, without a scrape between.

One measurement goes on for as long as the metric does: each second the judge looks, and it fails at once. With `for` it
succeeds after that time, where there was enough traffic; where there was not it waits as long again and is then
inconclusive. Without `for` it goes on until it is ended: that is what background analysis wants. It is inconclusive
once traffic was thin for `inconclusiveAfter`, from the first request on, so that a slow start is no matter of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement, Metric
from pilothouse.kinds import durations, times

from .judge import Answers, Judge, Limits, Sight, Verdict
from .providers import MetricError, ended
from .runs import FAILED, INCONCLUSIVE, RUNNING, SUCCESSFUL

__all__ = ["COMMON", "PLUGIN", "Numbers", "Seen", "TrafficConfig", "TrafficProvider"]

PLUGIN: Final = "pilothouse.dev/traffic"
_MOST_MISSED: Final = 10
"""Seconds that are looked at one by one where nobody could look in time."""
_LONGEST: Final = 300
"""Seconds of the longest window that a data plane keeps."""
_STATE: Final = "judge"
_THIN: Final = "thinSince"
COMMON: Final = "commonOutage"
"""In the metadata of a measurement while the stable version is as bad as the new one."""
_NOTHING: Final = Verdict("Thin", "nothing was looked at yet")
_MOST_RUNS: Final = 10_000
"""Beyond it the oldest goes on from what its measurement remembers."""


class Seen(Protocol):
    """What a window says, as `pilothouse.traffic.numbers.Figures` does. p95: seconds."""

    @property
    def requests(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def p95(self) -> float: ...
    def slower(self, seconds: float) -> int:
        """Return how many answers took longer."""


class Numbers(Protocol):
    """The port: what the data plane counted, second by second. Seconds have numbers that only grow."""

    def last(self) -> tuple[int, float]:
        """Return the last second of which all is known, and in how many seconds the next will be."""

    def over(self, seconds: int, last: int, *, route: str, version: str, regions: Sequence[str]) -> Seen:
        """Return the figures of so many seconds, of which `last` is the last.

        route: NAMESPACE/NAME; version: name of the Service, or empty for all; regions: none are all.
        """


class TrafficConfig(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The plugin's configuration in a metric. `seconds` is `for`; spans are texts such as 30s; shares such as 0.3%."""

    route: str
    canary: str
    stable: str = ""
    regions: tuple[str, ...] = ()
    errors: str = "0.3%"
    p95: str = "800ms"
    seconds: str = msgspec.field(default="", name="for")
    inconclusive_after: str = "2m"
    window: str = "5s"
    long_window: str = "60s"
    least_requests: int = 50
    least_errors: int = 5
    false_alarms: str = "0.1%"

    def limits(self) -> Limits:
        """Return what a judge wants. Raises ValueError for what is no span or share."""
        for text in (self.inconclusive_after, self.seconds or "0"):
            durations.parse(text)
        if max(_seconds(self.window), _seconds(self.long_window)) > _LONGEST:
            raise ValueError(f"window and longWindow: {_LONGEST} s are the most; counts of longer are not kept")
        return Limits(
            errors=_share(self.errors),
            p95=_seconds(self.p95),
            window=max(1, int(_seconds(self.window))),
            long_window=max(1, int(_seconds(self.long_window))),
            least_requests=self.least_requests,
            least_bad=self.least_errors,
            false_alarms=_share(self.false_alarms),
        )


@dataclass(slots=True)
class _Session:
    """One version under judgement. first: when it began, which does not count; seen: the last looked at.

    thin_since: when its requests began to be few.
    """

    judge: Judge
    first: int
    seen: int
    verdict: Verdict = _NOTHING
    thin_since: datetime | None = None

    def note(self, now: datetime) -> None:
        """Take note whether requests are few, beginning with the first."""
        if self.verdict.outcome != "Thin":
            self.thin_since = None
        elif self.thin_since is None and self.verdict.figures.get("requests"):
            self.thin_since = now


class TrafficProvider:
    """Asks `numbers` each second. Verdicts' figures are the measurement's value, as JSON."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._sessions: dict[tuple[str, str], _Session] = {}

    async def measure(
        self, run: AnalysisRun, metric: Metric, started: Measurement | None, now: datetime
    ) -> Measurement:
        """Look at the seconds that are over since the last look; see `Provider`."""
        config, limits = _config(metric)
        last, wait = self._numbers.last()
        began = (started.started_at if started is not None else None) or times.format_micros(now)
        age = (now - times.parse(began)).total_seconds()
        session = self._session(run, metric, started, limits, last, last + 1 - math.ceil(age))
        verdict = session.verdict
        for second in range(max(session.seen + 1, last - _MOST_MISSED + 1), last + 1):
            verdict = session.judge.look(
                # What its service got before this run began was another version's.
                self._sight(run, config, config.canary, limits, second, most=second - session.first),
                self._sight(run, config, config.stable, limits, second),
            )
            if verdict.outcome == "Failed":
                break
        session.seen, session.verdict = last, verdict
        session.note(now)
        phase, why = self._phase(config, session, age, now)
        value = json.dumps(verdict.figures, separators=(",", ":"))
        if phase != RUNNING:
            self._sessions.pop((run.metadata.uid, metric.name), None)
            return ended(phase, now, began, message=verdict.message + why, value=value)
        return Measurement(
            phase=RUNNING,
            message=verdict.message,
            started_at=began,
            resume_at=times.format_micros(now + timedelta(seconds=wait)),
            value=value,
            metadata=_metadata(session),
        )

    async def end(self, run: AnalysisRun, metric: Metric, started: Measurement, now: datetime) -> Measurement:
        """Say what was seen until now: nothing spoke against the version, or there was not enough to tell."""
        session = self._sessions.pop((run.metadata.uid, metric.name), None)
        is_thin = session.verdict.outcome == "Thin" if session is not None else _THIN in started.metadata
        phase = INCONCLUSIVE if is_thin else SUCCESSFUL
        return ended(phase, now, started.started_at, message=started.message, value=started.value)

    def _session(
        self, run: AnalysisRun, metric: Metric, started: Measurement | None, limits: Limits, last: int, first: int
    ) -> _Session:
        key = run.metadata.uid, metric.name
        found = self._sessions.get(key)
        if found is None:
            if len(self._sessions) >= _MOST_RUNS:  # of runs that were deleted meanwhile nobody says that they ended
                del self._sessions[next(iter(self._sessions))]
            found = self._sessions[key] = _Session(Judge(limits, _remembered(started)), first, last - 1)
            since = started.metadata.get(_THIN) if started is not None else None
            found.thin_since = times.parse(since) if since else None
        return found

    def _sight(
        self, run: AnalysisRun, config: TrafficConfig, version: str, limits: Limits, last: int, most: int = 3600
    ) -> Sight:
        """Return what came to a version up to a second; most: of no more seconds than that."""
        if not version:
            return Sight()
        route = config.route if "/" in config.route else f"{run.metadata.namespace}/{config.route}"

        def over(seconds: int) -> Answers:
            seconds = min(seconds, most)
            if seconds <= 0:
                return Answers()
            seen = self._numbers.over(seconds, last, route=route, version=version, regions=config.regions)
            return Answers(seen.requests, seen.errors, seen.slower(limits.p95), seen.p95)

        return Sight(over(1), over(limits.window), over(limits.long_window))

    def _phase(self, config: TrafficConfig, session: _Session, age: float, now: datetime) -> tuple[str, str]:
        """Return the phase, and what is to be said of it beside the verdict. age: in seconds."""
        outcome = session.verdict.outcome
        if outcome == "Failed":
            return FAILED, ""
        if not config.seconds:
            limit = _seconds(config.inconclusive_after)
            thin = (now - session.thin_since).total_seconds() if session.thin_since is not None else 0.0
            return (INCONCLUSIVE, f", and so it was for {thin:.0f} s") if 0 < limit <= thin else (RUNNING, "")
        wanted = _seconds(config.seconds)
        if age < wanted:
            return RUNNING, ""
        if outcome == "Healthy":
            return SUCCESSFUL, ""
        return (INCONCLUSIVE, f", after {age:.0f} s") if age >= 2 * wanted else (RUNNING, "")


def _metadata(session: _Session) -> Mapping[str, str]:
    """Return what a measurement that goes on has to remember."""
    found = {_STATE: json.dumps(session.judge.state, separators=(",", ":"))}
    if session.thin_since is not None:
        found[_THIN] = times.format_micros(session.thin_since)
    return {**found, COMMON: "true"} if session.verdict.is_common else found


def _config(metric: Metric) -> tuple[TrafficConfig, Limits]:
    given: Any = (metric.provider.plugin or {}).get(PLUGIN)
    try:
        config = msgspec.convert(given, TrafficConfig, strict=False)
        return config, config.limits()
    except (msgspec.ValidationError, ValueError) as error:
        raise MetricError(f"metric '{metric.name}': provider.plugin.{PLUGIN}: {error}") from None


def _remembered(started: Measurement | None) -> Mapping[str, Any]:
    try:
        found = json.loads(started.metadata.get(_STATE, "{}")) if started is not None else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _share(text: str) -> float:
    found = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    if not 0 < found <= 1:
        raise ValueError(f"'{text}' is no share; want such as 0.3% or 0.003")
    return found


def _seconds(text: str) -> float:
    return durations.parse(text) / durations.SECOND
