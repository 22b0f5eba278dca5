"""Analysis runs measure when Argo's do, and say what they say of the same outcomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.analysis.runs import COMPLETED, due, taken
from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement
from pilothouse.kinds import times
from pilothouse.kinds.structs import from_dict, replace

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def run_of(*metrics: dict[str, Any], **spec: Any) -> AnalysisRun:
    given_metrics = [{"provider": {"web": {"url": "http://x"}}, **each} for each in metrics]
    return from_dict({"metadata": {"name": "run"}, "spec": {"metrics": given_metrics, **spec}}, AnalysisRun)


def measurement(phase: str, now: datetime, **more: Any) -> Measurement:
    moment = times.format_micros(now)
    done = moment if phase in COMPLETED else None
    return Measurement(phase=phase, started_at=moment, finished_at=done, **more)


def play(run: AnalysisRun, outcomes: dict[str, str], seconds: int = 600) -> tuple[AnalysisRun, list[tuple[float, str]]]:
    """Play a run with these outcomes of metrics, a letter each; return it and when what was measured."""
    letters = {"S": "Successful", "F": "Failed", "I": "Inconclusive", "E": "Error"}
    left, now, log = {name: list(text) for name, text in outcomes.items()}, BEGIN, []
    while run.status.phase not in COMPLETED and (now - BEGIN).total_seconds() < seconds:
        asked, wait = due(run, now)
        results = {}
        for each in asked:
            log.append(((now - BEGIN).total_seconds(), each.metric.name))
            line = left[each.metric.name]
            results[each.metric.name] = measurement(letters[line.pop(0) if len(line) > 1 else line[0]], now)
        run = replace(run, status=taken(run, results, now))
        again, wait = due(run, now)
        now += timedelta(seconds=0 if again else (wait if wait is not None else 1))
    return run, log


def said(run: AnalysisRun) -> tuple[str, str | None]:
    return run.status.phase, run.status.message


@pytest.mark.parametrize(
    ("metric", "outcomes", "phase", "message", "moments"),
    [
        ({}, "S", "Successful", None, [0]),
        ({}, "F", "Failed", 'Metric "m" assessed Failed due to failed (1) > failureLimit (0)', [0]),
        ({"interval": "10s", "count": 3}, "S", "Successful", None, [0, 10, 20]),
        ({"interval": "10s", "count": 3, "failureLimit": 1}, "SFS", "Successful", None, [0, 10, 20]),
        (
            {"interval": "10s", "count": 9, "failureLimit": 1},
            "FSF",
            "Failed",
            'Metric "m" assessed Failed due to failed (2) > failureLimit (1)',
            [0, 10, 20],
        ),
        ({"interval": "10s", "count": 3, "failureLimit": -1}, "F", "Successful", None, [0, 10, 20]),
        (
            {"interval": "5s", "inconclusiveLimit": 1},
            "II",
            "Inconclusive",
            'Metric "m" assessed Inconclusive due to inconclusive (2) > inconclusiveLimit (1)',
            [0, 5],
        ),
        (
            {"interval": "5s"},
            "E",
            "Error",
            'Metric "m" assessed Error due to consecutiveErrors (5) > consecutiveErrorLimit (4)',
            [0, 5, 10, 15, 20],
        ),
        ({"interval": "5s", "count": 2}, "EEESEEES", "Successful", None, [0, 5, 10, 15, 20, 25, 30, 35]),
        ({}, "ES", "Successful", None, [0, 10]),
        ({"initialDelay": "30s"}, "S", "Successful", None, [30]),
        (
            {"interval": "5s", "consecutiveSuccessLimit": 2, "failureLimit": -1},
            "SFSS",
            "Successful",
            None,
            [0, 5, 10, 15],
        ),
        (
            {"interval": "5s", "count": 2, "consecutiveSuccessLimit": 2, "failureLimit": -1},
            "SF",
            "Inconclusive",
            'Metric "m" assessed Inconclusive due to consecutiveSuccess (0) < consecutiveSuccessLimit (2)',
            [0, 5],
        ),
    ],
)
def test_limits_are_argos(
    metric: dict[str, Any], outcomes: str, phase: str, message: str | None, moments: list[float]
) -> None:
    run, log = play(run_of({"name": "m", **metric}), {"m": outcomes})
    assert said(run) == (phase, message)
    assert [moment for moment, _ in log] == moments
    assert run.status.completed_at is not None


def test_the_first_metric_that_fails_ends_the_others() -> None:
    run = run_of({"name": "slow", "interval": "5s"}, {"name": "bad", "initialDelay": "12s"})
    run, log = play(run, {"slow": "S", "bad": "F"})
    assert said(run)[0] == "Failed"
    assert log == [(0, "slow"), (5, "slow"), (10, "slow"), (12, "bad")]
    assert [each.phase for each in run.status.metric_results] == ["Successful", "Failed"]
    assert run.status.run_summary is not None
    assert (run.status.run_summary.count, run.status.run_summary.failed) == (2, 1)


def test_what_goes_on_is_ended_when_nobody_wants_it_any_more() -> None:
    run = run_of({"name": "m", "interval": "5s"})
    going = measurement("Running", BEGIN, resume_at=times.format_micros(BEGIN + timedelta(seconds=5)))
    run = replace(run, status=taken(run, {"m": going}, BEGIN))
    assert due(run, BEGIN) == ([], 5.0)
    run = replace(run, spec=replace(run.spec, terminate=True))
    asked, _ = due(run, BEGIN)
    assert [each.started for each in asked] == [going]
    run = replace(run, status=taken(run, {"m": measurement("Successful", BEGIN)}, BEGIN))
    assert said(run) == ("Successful", "Run Terminated")
    assert due(run, BEGIN) == ([], None)


def test_a_run_that_is_ended_before_it_began_is_successful() -> None:
    run = run_of({"name": "m", "initialDelay": "1h"}, terminate=True)
    assert due(run, BEGIN) == ([], None)
    assert taken(run, {}, BEGIN).phase == "Successful"


def test_dry_runs_judge_nothing() -> None:
    run = run_of({"name": "m"}, {"name": "try"}, dryRun=[{"metricName": "tr.*"}])
    run, _ = play(run, {"m": "S", "try": "F"})
    assert said(run)[0] == "Successful"
    assert run.status.dry_run_summary is not None
    assert run.status.dry_run_summary.failed == 1


def test_measurements_kept_are_bounded() -> None:
    run = run_of({"name": "m", "interval": "1s", "count": 40}, {"name": "n", "interval": "1s", "count": 40},
                 measurementRetention=[{"metricName": "n", "limit": 3}])  # fmt: skip
    run, _ = play(run, {"m": "S", "n": "S"})
    assert [len(each.measurements) for each in run.status.metric_results] == [10, 3]
    assert [each.count for each in run.status.metric_results] == [40, 40]


@given(st.text(alphabet="SFIE", min_size=1, max_size=12), st.integers(0, 3), st.integers(1, 8))
def test_runs_always_end_and_count_what_was_measured(outcomes: str, limit: int, count: int) -> None:
    metric = {"name": "m", "interval": "1s", "count": count, "failureLimit": limit, "inconclusiveLimit": limit}
    run, log = play(run_of(metric), {"m": outcomes})
    (result,) = run.status.metric_results
    assert run.status.phase in COMPLETED
    assert (result.count or 0) + (result.error or 0) == len(log)
    assert (result.successful or 0) + (result.failed or 0) + (result.inconclusive or 0) == (result.count or 0)
    assert (run.status.phase == "Failed") == ((result.failed or 0) > limit)
