"""The judge finds bad versions quickly, leaves healthy ones alone, and blames no version for a common outage."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator, Sequence

import pytest

from pilothouse.delivery.analysis.evidence import Evidence, threshold
from pilothouse.delivery.analysis.judge import Answers, Judge, Limits, Sight, Verdict

HEALTHY = 0.0005


class Version:
    """Answers of a version, drawn at random; `bad`, `slow`: shares."""

    def __init__(self, source: random.Random, rate: int, bad: float = HEALTHY, slow: float = 0.002) -> None:
        self._source = source
        self.rate, self.bad, self.slow = rate, bad, slow
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=60)

    def second(self) -> Sight:
        draws = [self._source.random() for _ in range(self.rate)]
        slow = sum(self._source.random() < self.slow for _ in range(self.rate))
        self._seconds.append((self.rate, sum(each < self.bad for each in draws), slow))
        return Sight(self._over(1), self._over(5), self._over(60))

    def _over(self, seconds: int) -> Answers:
        last = list(self._seconds)[-seconds:]
        requests, errors, slow = (sum(each[part] for each in last) for part in range(3))
        return Answers(requests, errors, slow, 1.2 if requests and slow / requests > 0.05 else 0.1)


def verdicts(judge: Judge, canary: Version, stable: Version, seconds: int) -> Iterator[Verdict]:
    for _ in range(seconds):
        yield judge.look(canary.second(), stable.second())


def seconds_to_failure(found: Sequence[Verdict]) -> int | None:
    return next((second for second, each in enumerate(found, 1) if each.outcome == "Failed"), None)


def test_two_percent_of_errors_are_found_within_eight_seconds() -> None:
    source, took = random.Random(7), []
    for _ in range(60):
        judge, canary, stable = Judge(Limits()), Version(source, 150), Version(source, 450)
        assert seconds_to_failure(list(verdicts(judge, canary, stable, 10))) is None
        canary.bad = 0.02
        found = seconds_to_failure(list(verdicts(judge, canary, stable, 30)))
        assert found is not None
        took.append(found)
    assert sorted(took)[30] <= 4
    assert max(took) <= 10


def test_a_slow_version_is_found() -> None:
    source = random.Random(3)
    judge, canary, stable = Judge(Limits()), Version(source, 150, slow=0.3), Version(source, 450)
    found = list(verdicts(judge, canary, stable, 10))
    assert seconds_to_failure(found) is not None
    failed = next(each for each in found if each.outcome == "Failed")
    assert "95th percentile is 1200 ms (limit 800 ms)" in failed.message
    assert failed.figures["p95"] == 1.2


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 1.0])
def test_a_common_outage_is_nobodys_fault(share: float) -> None:
    source = random.Random(5)
    judge, canary, stable = Judge(Limits()), Version(source, 150), Version(source, 450)
    list(verdicts(judge, canary, stable, 10))
    canary.bad = stable.bad = share
    found = list(verdicts(judge, canary, stable, 40))
    assert seconds_to_failure(found) is None
    assert found[-1].is_common
    assert found[-1].message.startswith("common outage, for which the new version is not blamed: ")
    assert "errors (limit 0.30%), of the stable version " in found[-1].message
    canary.bad = stable.bad = 0.0
    assert not list(verdicts(judge, canary, stable, 70))[-1].is_common


def test_a_common_outage_at_low_rates_blames_nobody_when_it_begins() -> None:
    for seed in range(60):
        source = random.Random(seed)
        judge, canary, stable = Judge(Limits()), Version(source, 60), Version(source, 90)
        list(verdicts(judge, canary, stable, 6))
        canary.bad = stable.bad = 0.1
        assert seconds_to_failure(list(verdicts(judge, canary, stable, 15))) is None, seed


def test_an_outage_that_is_over_is_no_excuse_for_a_version_that_fails_now() -> None:
    source, took = random.Random(4), []
    for _ in range(20):
        judge, canary, stable = Judge(Limits()), Version(source, 150, bad=0.1), Version(source, 450, bad=0.1)
        list(verdicts(judge, canary, stable, 20))
        canary.bad = stable.bad = HEALTHY
        assert seconds_to_failure(list(verdicts(judge, canary, stable, 6))) is None
        judge = Judge(Limits(), json.loads(json.dumps(judge.state)))
        canary.bad = 0.02
        took.append(seconds_to_failure(list(verdicts(judge, canary, stable, 60))) or 99)
    assert sorted(took)[10] <= 10
    assert max(took) <= 20


def test_a_common_slowness_is_said_too() -> None:
    source = random.Random(8)
    judge = Judge(Limits())
    canary, stable = Version(source, 150, bad=0.0, slow=0.3), Version(source, 450, bad=0.0, slow=0.3)
    last = list(verdicts(judge, canary, stable, 20))[-1]
    assert (last.outcome, last.is_common) == ("Healthy", True)
    assert last.message.endswith("95th percentile 1200 ms (limit 800 ms), of the stable version 1200 ms")


def test_healthy_versions_are_left_alone() -> None:
    source = random.Random(11)
    for _ in range(20):
        judge, canary, stable = Judge(Limits()), Version(source, 150), Version(source, 450)
        assert seconds_to_failure(list(verdicts(judge, canary, stable, 60))) is None


def test_thin_traffic_is_said_and_its_evidence_is_gathered_over_longer() -> None:
    source = random.Random(2)
    judge, canary, stable = Judge(Limits()), Version(source, 2, bad=0.0), Version(source, 4, bad=0.0)
    found = list(verdicts(judge, canary, stable, 20))
    assert {each.outcome for each in found} == {"Thin"}
    assert found[-1].message == "thin traffic: 40 requests within 60 s, 50 are wanted for a verdict"
    canary.bad = 0.5
    assert seconds_to_failure(list(verdicts(judge, canary, stable, 60))) is not None


def test_one_of_three_is_no_verdict() -> None:
    judge = Judge(Limits(least_requests=1))
    seen = Answers(3, 1)
    assert judge.look(Sight(seen, seen, seen), Sight()).outcome == "Healthy"


def test_it_goes_on_where_another_was() -> None:
    for cut in (1, 3, 5):
        whole_source, parts_source = random.Random(9), random.Random(9)
        whole = Judge(Limits())
        expected = [each.figures for each in verdicts(whole, *versions(whole_source), 12)]
        canary, stable = versions(parts_source)
        first = Judge(Limits())
        found = [each.figures for each in verdicts(first, canary, stable, cut)]
        second = Judge(Limits(), json.loads(json.dumps(first.state)))
        found += [each.figures for each in verdicts(second, canary, stable, 12 - cut)]
        assert found == expected


def versions(source: random.Random) -> tuple[Version, Version]:
    return Version(source, 150, bad=0.004), Version(source, 450)


def test_evidence_passes_its_threshold_as_seldom_as_it_says() -> None:
    """200 runs of 200 looks at the very edge of what is healthy: one alarm in ten at most."""
    source, alarms = random.Random(1), 0
    for _ in range(200):
        evidence, enough = Evidence(), threshold(200, 0.1)
        alarms += any(
            evidence.look(sum(source.random() < 0.02 for _ in range(50)), 50, 0.02) >= enough for _ in range(200)
        )
    assert alarms <= 20


def test_a_second_without_answers_says_nothing() -> None:
    evidence = Evidence()
    before = evidence.look(1, 10, 0.01)
    assert evidence.look(0, 0, 0.01) == before
    assert Evidence(evidence.parts).value == before
