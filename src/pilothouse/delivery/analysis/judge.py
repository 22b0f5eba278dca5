"""Judge a version by its answers, second by second, beside those of the stable version.

A version fails when all of these say so:
- over the sliding window its share of errors is above the limit, or its 95th percentile is,
- bad answers are at least as many as a minimum, so that one of three is no verdict,
- the evidence over all seconds since the beginning passes the threshold for the stated rate of false alarms,
- the stable version does not have the same trouble, so that a common outage is nobody's fault.

Where traffic is thin the window grows to a longer one, and the verdict is inconclusive until there is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from .evidence import Evidence, threshold

__all__ = ["Answers", "Judge", "Limits", "Sight", "Verdict"]

Outcome: TypeAlias = Literal["Healthy", "Thin", "Failed"]

_SLOW_PART: Final = 0.05
"""The part of answers beyond the 95th percentile."""
_APART: Final = 3.0
"""How many standard deviations lie between a version and a stable one that has bad answers as well."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a version is held to.

    Shares are 0 to 1, times are seconds. healthy_errors, healthy_slow: the shares up to which the rate of false alarms
    is promised: errors, and answers slower than `p95`. false_alarms: for one version judged for `looks` seconds, of
    which each of both tests has a half. times_stable: how many times the stable version's share is still no blame.
    """

    errors: float = 0.003
    p95: float = 0.8
    window: int = 5
    long_window: int = 60
    least_requests: int = 50
    least_bad: int = 5
    healthy_errors: float = 0.0005
    healthy_slow: float = 0.02
    false_alarms: float = 0.001
    looks: int = 3600
    times_stable: float = 1.5


@dataclass(frozen=True, slots=True)
class Answers:
    """What came in a span of time. p95: seconds; slow: how many took longer than the limit of it."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    p95: float = 0.0

    def share(self, bad: int) -> float:
        """Return a part of all, 0 to 1; 0 where nothing came."""
        return bad / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a version at the end of a second: the second itself, the window, and the long window."""

    second: Answers = Answers()
    window: Answers = Answers()
    long_window: Answers = Answers()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says after a second. message: for people; figures: what it rests on.

    is_common: it would fail, were not the stable version as bad.
    """

    outcome: Outcome
    message: str
    figures: Mapping[str, float] = field(default_factory=dict)
    is_common: bool = False


@dataclass(frozen=True, slots=True)
class _Test:
    """One of both things that are tested."""

    name: str
    bad: Callable[[Answers], int]
    healthy: Callable[[Limits], float]
    limit: Callable[[Limits], float]


_TESTS: Final = (
    _Test("errors", lambda seen: seen.errors, lambda limits: limits.healthy_errors, lambda limits: limits.errors),
    _Test("slow", lambda seen: seen.slow, lambda limits: limits.healthy_slow, lambda _: _SLOW_PART),
)


class Judge:
    """Judges one version from its first request on.

    state: what another judge of the same version remembered; with it this one goes on where that one was.
    """

    def __init__(self, limits: Limits, state: Mapping[str, Any] | None = None) -> None:
        self._limits = limits
        self._enough = threshold(limits.looks, limits.false_alarms / len(_TESTS))
        state = state or {}
        self._evidence = {test.name: Evidence(_numbers(state.get(test.name))) for test in _TESTS}
        calm = [*_numbers(state.get("calm")), *[0.0] * 2 * len(_TESTS)]
        self._calm = {test.name: (calm[2 * at], calm[2 * at + 1]) for at, test in enumerate(_TESTS)}
        """Bad and all answers of the stable version since it had trouble last."""
        self._common: list[str] = []
        """Tests that fail, but those of the stable version as well."""
        self._stable = dict(zip((test.name for test in _TESTS), _numbers(state.get("stable")), strict=False))

    @property
    def state(self) -> Mapping[str, list[float]]:
        """What has to be remembered, as JSON takes it."""
        kept = {name: evidence.parts for name, evidence in self._evidence.items() if evidence.value > -1e300}
        calm = [each for test in _TESTS for each in self._calm[test.name]]
        return {**kept, "stable": [self._stable.get(test.name, 0.0) for test in _TESTS], "calm": calm}

    def look(self, version: Sight, stable: Sight) -> Verdict:
        """Take what came until the end of a second; say how the version is then."""
        self._common = []
        found = [self._test(test, version, stable) for test in _TESTS]
        seen = self._window(version)
        figures = {
            "requests": seen.requests,
            "errors": seen.errors,
            "errorRatio": seen.share(seen.errors),
            "p95": seen.p95,
            "stableErrorRatio": self._window(stable).share(self._window(stable).errors),
            "stableP95": self._window(stable).p95,
            **{f"{test.name}Evidence": max(self._evidence[test.name].value, 0.0) for test in _TESTS},
            "evidenceWanted": self._enough,
        }
        for message in found:
            if message:
                return Verdict("Failed", message, figures)
        if seen.requests < self._limits.least_requests:
            return Verdict("Thin", self._thin(seen), figures)
        beside = self._window(stable)
        if self._common:
            return Verdict("Healthy", self._outage(seen, beside), figures, is_common=True)
        return Verdict("Healthy", self._healthy(seen), figures)

    def _window(self, sight: Sight) -> Answers:
        return sight.window if sight.window.requests >= self._limits.least_requests else sight.long_window

    def _test(self, test: _Test, version: Sight, stable: Sight) -> str:
        """Return why the version fails; empty where it does not."""
        limits, seen, beside = self._limits, self._window(version), self._window(stable)
        blameless = limits.times_stable * self._share_of_stable(test, stable)
        held = max(test.healthy(limits), blameless)
        evidence = self._evidence[test.name].look(test.bad(version.second), version.second.requests, held)
        share = seen.share(test.bad(seen))
        if share <= test.limit(limits) or test.bad(seen) < limits.least_bad:
            return ""
        if share <= blameless or not _is_apart(test, seen, beside):
            self._common.append(test.name)
            return ""
        return self._why(test, seen, beside) if evidence >= self._enough else ""

    def _share_of_stable(self, test: _Test, stable: Sight) -> float:
        """Return the stable version's share of bad answers: over long, or of late if it has trouble now.

        Trouble that is over, as what it has answered of late shows, is no excuse for another's any more. Once it has no
        more traffic the last that was known of it counts: after a promotion there is nothing else.
        """
        limits, long_window = self._limits, stable.long_window
        if long_window.requests >= limits.least_requests:
            share = long_window.share(test.bad(long_window))
            self._stable[test.name] = min(share, self._of_late(test, stable))
        lately = [each for each in (stable.window, stable.second) if test.bad(each) >= limits.least_bad]
        return max(self._stable.get(test.name, 0.0), *(each.share(test.bad(each)) for each in lately), 0.0)

    def _of_late(self, test: _Test, stable: Sight) -> float:
        """Return what the stable version's share is at most, by its answers since it had trouble last."""
        seen, second = stable.window, stable.second
        calm = self._calm[test.name]
        if test.bad(seen) >= self._limits.least_bad and seen.share(test.bad(seen)) > test.limit(self._limits):
            calm = (0.0, 0.0)
        else:
            calm = (calm[0] + test.bad(second), calm[1] + second.requests)
        self._calm[test.name] = calm
        return _at_most(*calm)

    def _why(self, test: _Test, seen: Answers, beside: Answers) -> str:
        limits = self._limits
        if test.name == "errors":
            said = f"{seen.errors} of {seen.requests} answers are errors ({seen.share(seen.errors):.2%}"
            return f"{said}, limit {limits.errors:.2%}); of the stable version {beside.share(beside.errors):.2%}"
        said = f"the 95th percentile is {seen.p95 * 1000:.0f} ms (limit {limits.p95 * 1000:.0f} ms)"
        return f"{said} over {seen.requests} answers; of the stable version {beside.p95 * 1000:.0f} ms"

    def _outage(self, seen: Answers, beside: Answers) -> str:
        said = []
        if "errors" in self._common:
            ratios = seen.share(seen.errors), beside.share(beside.errors)
            said.append(
                f"{ratios[0]:.2%} errors (limit {self._limits.errors:.2%}), of the stable version {ratios[1]:.2%}"
            )
        if "slow" in self._common:
            said.append(
                f"95th percentile {seen.p95 * 1000:.0f} ms (limit {self._limits.p95 * 1000:.0f} ms), of the stable"
                f" version {beside.p95 * 1000:.0f} ms"
            )
        return f"common outage, for which the new version is not blamed: {'; '.join(said)}"

    def _thin(self, seen: Answers) -> str:
        wanted, span = self._limits.least_requests, self._limits.long_window
        return f"thin traffic: {seen.requests} requests within {span} s, {wanted} are wanted for a verdict"

    def _healthy(self, seen: Answers) -> str:
        return (
            f"{seen.share(seen.errors):.2%} errors, 95th percentile {seen.p95 * 1000:.0f} ms, {seen.requests} answers"
        )


def _at_most(bad: float, all_: float) -> float:
    """Return which share is hardly exceeded where so many of all were bad: two standard deviations, and some."""
    return (bad + 2 * math.sqrt(bad) + 3) / all_ if all_ else 1.0


def _is_apart(test: _Test, seen: Answers, beside: Answers) -> bool:
    """Whether a version is worse than a stable one that has bad answers too, by more than chance would have it.

    At the beginning of an outage that both have, one of them is often the first to have many.
    """
    bad, bad_beside = test.bad(seen), test.bad(beside)
    if not bad_beside:
        return True
    whole = (bad + bad_beside) / (seen.requests + beside.requests)
    deviation = math.sqrt(whole * (1 - whole) * (1 / seen.requests + 1 / beside.requests))
    return seen.share(bad) - beside.share(bad_beside) > _APART * deviation


def _numbers(found: Any) -> Sequence[float]:
    return [float(each) for each in found] if isinstance(found, list) else ()
