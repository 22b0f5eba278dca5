"""Seconds from the first bad answer of a version to the verdict, and how often healthy versions are blamed.

Goals: 150 requests/s of which 2 % fail are found with p50 <= 4 and p99 <= 8 over 500 rollouts; at most 1 of 1,000
healthy rollouts of ten minutes is blamed. Answers are drawn at random, the clock is counted: the judge is the real one.
A healthy version fails 0.05 % of its requests, as the stable version does, and 1 % of its answers are slow. A verdict
comes 0.15 s after the end of a second, when its numbers are there; the first bad answer is somewhere in a second.
How long it takes at other rates and ratios is told line by line; `scripts/plot-detection` draws them.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import numpy as np

from _kit import arguments, fraction, note, report
from pilothouse.delivery.analysis.judge import Answers, Judge, Limits, Sight

HEALTHY: Final = 0.0005
SLOW: Final = 0.01
STABLE_RATE: Final = 450
SETTLED: Final = 0.15
LONG: Final = 60
SHORT: Final = 5
RATES: Final = (15, 30, 50, 100, 150, 300, 500, 1000)
RATIOS: Final = (0.005, 0.01, 0.02, 0.05, 0.2)
SEED: Final = 20260101
MOST_SECONDS: Final = 120
"""What is not found until then is not found."""


class Drawn:
    """One version's answers, second by second."""

    def __init__(self, source: np.random.Generator, rate: float, share: float) -> None:
        self.source, self.rate, self.share = source, rate, share
        self.seconds: deque[tuple[int, int, int]] = deque(maxlen=LONG)

    def next(self) -> Sight:
        """Draw another second."""
        requests = int(self.source.poisson(self.rate))
        errors, slow = self.source.binomial(requests, (self.share, SLOW))
        self.seconds.append((requests, int(errors), int(slow)))
        kept = list(self.seconds)
        return Sight(*(summed(kept[-span:]) for span in (1, SHORT, LONG)))


def summed(seconds: list[tuple[int, int, int]]) -> Answers:
    """Sum up seconds as a window does."""
    requests, errors, slow = (sum(each[part] for each in seconds) for part in range(3))
    return Answers(requests, errors, slow, 1.0 if requests and slow / requests > 0.05 else 0.1)


def rollout(source: np.random.Generator, rate: float, share: float, healthy: int, seconds: int) -> float | None:
    """Return the seconds from the first bad answer after `healthy` seconds to the verdict; None where there is none."""
    judge = Judge(Limits())
    canary, stable = Drawn(source, rate, HEALTHY), Drawn(source, STABLE_RATE, HEALTHY)
    first = None
    for second in range(healthy + seconds):
        if second == healthy:
            canary.share = share
        verdict = judge.look(seen := canary.next(), stable.next())
        if first is None and second >= healthy and seen.second.errors:
            # The first of several in a second is the earlier the more there are.
            first = second + float(source.random(seen.second.errors).min())
        if verdict.outcome == "Failed":
            return second + 1 + SETTLED - (first if first is not None else second)
    return None


def detection(source: np.random.Generator, rate: float, share: float, runs: int) -> tuple[float, float, int]:
    """Return p50, p99 and how many runs found nothing in time; those took endlessly long."""
    found = [rollout(source, rate, share, 20, MOST_SECONDS) for _ in range(runs)]
    took = sorted(math.inf if each is None else each for each in found)
    return fraction(took, 0.5), fraction(took, 0.99), found.count(None)


def tell_table(runs: int) -> None:
    """Report how long it takes by rate and ratio. Each has a source of its own, so that one more changes no other."""
    for rate in RATES:
        for ratio in RATIOS:
            p50, p99, missed = detection(np.random.default_rng([SEED, rate, round(ratio * 1e6)]), rate, ratio, runs)
            if p50 == math.inf:
                note(f"{rate} requests/s, {ratio:.1%} errors: {missed} of {runs} took more than {MOST_SECONDS} s")
                continue
            most = None if p99 == math.inf else round(p99, 3)
            name = "canary_judgement/detection"
            report(name, p50, "s", digits=3, p99=most, rate=rate, errors=ratio, missed=missed, runs=runs)


def main() -> None:
    """Measure detection and false alarms; tell how long it takes at other rates and ratios."""
    options = arguments(__doc__, runs=500)
    runs = 20 if options.quick else options.runs
    source = np.random.default_rng(SEED)
    p50, p99, missed = detection(source, 150, 0.02, runs)
    report("canary_judgement/p50", p50, "s", goal=4, runs=runs, missed=missed)
    report("canary_judgement/p99", p99, "s", goal=8, runs=runs, missed=missed)
    rollouts = 2 * runs
    blamed = sum(rollout(source, 150, HEALTHY, 600, 0) is not None for _ in range(rollouts))
    report("canary_judgement/false_alarms", blamed, "rollouts", goal=1, runs=rollouts, healthy_errors=f"{HEALTHY:.2%}")
    tell_table(max(10, 2 * runs // 5))


if __name__ == "__main__":
    main()
