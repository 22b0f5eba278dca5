"""The provider `pilothouse.dev/traffic`: judges by what the data plane itself counts, without a scrape between.

One measurement goes on for as long as the metric does: each second the judge looks, and it fails at once. With `for` it
succeeds after that time, where there was enough traffic; where there was not it waits as long again and is then
inconclusive. Without `for` it goes on until it is ended: that is what background analysis wants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement, Metric
from pilothouse.kinds import durations, times

from .judge import Answers, Judge, Limits, Sight, Verdict
from .providers import MetricError, ended
from .runs import FAILED, INCONCLUSIVE, RUNNING, SUCCESSFUL

__all__ = ["PLUGIN", "Numbers", "Seen", "TrafficConfig", "TrafficProvider"]

PLUGIN: Final = "pilothouse.dev/traffic"
_SECOND: Final = timedelta(seconds=1)
_SETTLED: Final = 0.15
"""Seconds after the end of a second at which what came in it is known."""
_STATE: Final = "judge"
_MOST_RUNS: Final = 10_000


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
    """The port: what came to a version of a route in the last whole seconds before `now` (seconds since 1970)."""

    def over(self, seconds: int, now: float, *, route: str, version: str, regions: Sequence[str]) -> Seen:
        """Return its figures. route: NAMESPACE/NAME; version: name of the Service, or empty; no regions are all."""


class TrafficConfig(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The plugin's configuration in a metric. `seconds` is `for`; spans are texts such as 30s; shares such as 0.3%."""

    route: str
    canary: str
    stable: str = ""
    regions: tuple[str, ...] = ()
    errors: str = "0.3%"
    p95: str = "800ms"
    seconds: str = msgspec.field(default="", name="for")
    window: str = "5s"
    long_window: str = "60s"
    least_requests: int = 50
    least_errors: int = 5
    false_alarms: str = "0.1%"

    def limits(self) -> Limits:
        """Return what a judge wants. Raises ValueError for what is no span or share."""
        return Limits(
            errors=_share(self.errors),
            p95=_seconds(self.p95),
            window=max(1, int(_seconds(self.window))),
            long_window=max(1, int(_seconds(self.long_window))),
            least_requests=self.least_requests,
            least_bad=self.least_errors,
            false_alarms=_share(self.false_alarms),
        )


class TrafficProvider:
    """Asks `numbers` each second. Verdicts' figures are the measurement's value, as JSON."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._judges: dict[tuple[str, str], Judge] = {}

    async def measure(
        self, run: AnalysisRun, metric: Metric, started: Measurement | None, now: datetime
    ) -> Measurement:
        """Look at the last second; see `Provider`."""
        config, limits = _config(metric)
        judge = self._judge(run, metric, started, limits)
        verdict = judge.look(
            self._sight(run, config, config.canary, limits, now), self._sight(run, config, config.stable, limits, now)
        )
        began = (started.started_at if started is not None else None) or times.format_micros(now)
        phase = self._phase(config, verdict, (now - times.parse(began)).total_seconds())
        value = json.dumps(verdict.figures, separators=(",", ":"))
        if phase != RUNNING:
            self._judges.pop((run.metadata.uid, metric.name), None)
            return ended(phase, now, began, message=verdict.message, value=value)
        return Measurement(
            phase=RUNNING,
            message=verdict.message,
            started_at=began,
            resume_at=times.format_micros(_next_look(now)),
            value=value,
            metadata={_STATE: json.dumps(judge.state, separators=(",", ":"))},
        )

    async def end(self, run: AnalysisRun, metric: Metric, started: Measurement, now: datetime) -> Measurement:
        """Say what was seen until now: nothing spoke against the version."""
        self._judges.pop((run.metadata.uid, metric.name), None)
        return ended(SUCCESSFUL, now, started.started_at, message=started.message, value=started.value)

    def _judge(self, run: AnalysisRun, metric: Metric, started: Measurement | None, limits: Limits) -> Judge:
        key = run.metadata.uid, metric.name
        found = self._judges.get(key)
        if found is None:
            if len(self._judges) >= _MOST_RUNS:
                raise MetricError(f"metric '{metric.name}': {_MOST_RUNS} are measured already; end some")
            found = self._judges[key] = Judge(limits, _remembered(started))
        return found

    def _sight(self, run: AnalysisRun, config: TrafficConfig, version: str, limits: Limits, now: datetime) -> Sight:
        if not version:
            return Sight()
        route = config.route if "/" in config.route else f"{run.metadata.namespace}/{config.route}"

        def over(seconds: int) -> Answers:
            seen = self._numbers.over(seconds, now.timestamp(), route=route, version=version, regions=config.regions)
            return Answers(seen.requests, seen.errors, seen.slower(limits.p95), seen.p95)

        return Sight(over(1), over(limits.window), over(limits.long_window))

    def _phase(self, config: TrafficConfig, verdict: Verdict, seconds: float) -> str:
        if verdict.outcome == "Failed":
            return FAILED
        wanted = _seconds(config.seconds) if config.seconds else None
        if wanted is None or seconds < wanted:
            return RUNNING
        if verdict.outcome == "Healthy":
            return SUCCESSFUL
        return INCONCLUSIVE if seconds >= 2 * wanted else RUNNING


def _next_look(now: datetime) -> datetime:
    whole = now.replace(microsecond=0) + timedelta(seconds=_SETTLED)
    return whole if whole > now else whole + _SECOND


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
