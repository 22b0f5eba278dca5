"""What is made of objects: steps in words, verdicts, limits, trees, numbers; and that no object breaks a page."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.dashboard import digests
from pilothouse.dashboard.incidents import INCIDENTS
from pilothouse.dashboard.levels import SERVICE_LEVELS, service_level
from pilothouse.dashboard.numbers import Flow, Sample, sample_for
from pilothouse.dashboard.steps import described
from pilothouse.dashboard.streams import difference
from pilothouse.dashboard.tree import grown, node
from pilothouse.dashboard.verdicts import DEFAULT_LIMITS, limits_of, stand_of


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"setWeight": 20}, "20 %"),
        ({"pause": {}}, "wait for promotion"),
        ({"pause": {"duration": "2m"}}, "wait 2m"),
        ({"pause": {"duration": 30}}, "wait 30 s"),
        ({"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["a", "b"], "weight": 5}}}, "a, b 5 %"),
        ({"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["*"], "weight": 5}}}, "everywhere 5 %"),
        ({"plugin": {"name": "acme/x"}}, "acme/x"),
        ({"analysis": {"templates": [{"templateName": "a"}, {"templateName": "b"}]}}, "analysis a, b"),
        ({"setCanaryScale": {"replicas": 2}}, "2 pods"),
        ({"setCanaryScale": {"matchTrafficWeight": True}}, "pods as traffic"),
        ({"setHeaderRoute": {"name": "r", "match": [{"headerName": "x-team"}]}}, "header x-team"),
        ({"setMirrorRoute": {"name": "r", "percentage": 10, "match": [{}]}}, "mirror 10 %"),
        ({"experiment": {"duration": "5m"}}, "experiment 5m"),
        ({"newKind": {"a": 1}}, "newKind"),
        ({}, "unknown step"),
    ],
)
def test_steps_in_words(step: dict[str, Any], text: str) -> None:
    assert described(step)["text"] == text


def rollout(**status: Any) -> dict[str, Any]:
    spec = {"strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}, {"pause": {"duration": "2m"}}]}}}
    return digests.rollout({"metadata": {"name": "web", "namespace": "x"}, "spec": spec, "status": status})


def run(phase: str, message: str = "", **limits: str) -> dict[str, Any]:
    plugin = {"pilothouse.dev/traffic": limits}
    result = {"name": "m", "phase": phase, "message": message}
    return digests.analysis_run(
        {
            "metadata": {"name": "r"},
            "spec": {"metrics": [{"name": "m", "provider": {"plugin": plugin}}]},
            "status": {"phase": phase, "metricResults": [result]},
        }
    )


PAUSED: dict[str, Any] = {"phase": "Paused", "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": ""}]}


@pytest.mark.parametrize(
    ("status", "runs", "word", "text"),
    [
        ({"phase": "Healthy"}, [], "Healthy", "all traffic is on one version"),
        ({"phase": "Progressing", "message": "more replicas"}, [], "Progressing", "more replicas"),
        ({"phase": "Progressing"}, [run("Running", "0 % failed")], "Healthy so far", "0 % failed"),
        ({**PAUSED, "currentStepIndex": 1}, [], "Waiting", "until somebody promotes it"),
        ({**PAUSED, "currentStepIndex": 2}, [], "Waiting", "goes on by itself: wait 2m"),
        (PAUSED, [run("Inconclusive", "3 requests only")], "Inconclusive", "3 requests only"),
        (PAUSED, [run("Failed", "2 % failed")], "Failed", "2 % failed"),
        ({"phase": "Degraded", "abort": True}, [run("Failed", "2 % failed")], "Rolled back", "2 % failed"),
        ({"phase": "Degraded", "abort": True, "message": "by hand"}, [], "Rolled back", "by hand"),
    ],
)
def test_verdicts(status: dict[str, Any], runs: list[dict[str, Any]], word: str, text: str) -> None:
    stand = stand_of(rollout(**status), runs)
    assert stand.word == word
    assert text in stand.text


def test_limits_are_those_of_the_metric_or_the_defaults() -> None:
    assert limits_of([]) == DEFAULT_LIMITS
    assert limits_of([run("Running", errors="1%", p95="1.5s")]) == {"errors": 0.01, "p95": 1.5}
    assert limits_of([run("Running", errors="0.02")]) == {"errors": 0.02, "p95": 0.8}
    assert limits_of([run("Running", errors="many", p95="300ms")]) == {"errors": 0.003, "p95": 0.3}


def test_a_tree_has_what_is_owned_and_no_history() -> None:
    sets = [
        {"namespace": "x", "name": "web-1", "owner": "Deployment/web", "replicas": 2, "ready": 1},
        {"namespace": "x", "name": "web-0", "owner": "Deployment/web", "replicas": 0, "ready": 0},
        {"namespace": "x", "name": "api-1", "owner": "Deployment/api", "replicas": 2, "ready": 2},
    ]
    pods = [
        {"namespace": "x", "name": "web-1-a", "owner": "ReplicaSet/web-1", "containers": ["c"], "ready": 1},
        {"namespace": "y", "name": "web-1-b", "owner": "ReplicaSet/web-1", "containers": ["c"], "ready": 1},
    ]
    nodes = grown([node("Deployment", {"namespace": "x", "name": "web"})], [("ReplicaSet", sets), ("Pod", pods)])
    assert {key: each["parent"] for key, each in nodes.items()} == {
        "Deployment/x/web": "",
        "ReplicaSet/x/web-1": "Deployment/x/web",
        "Pod/x/web-1-a": "ReplicaSet/x/web-1",
    }
    assert nodes["ReplicaSet/x/web-1"]["detail"] == "1/2"


def test_numbers_of_one_rollout_by_role_and_region() -> None:
    versions = [
        Flow("x/web", "web", "", 90, 0.001, 0.1),
        Flow("x/web", "web-canary", "", 10, 0.02, 0.3),
        Flow("y/web", "web", "", 500, 0.9, 9),
        Flow("x/other", "other", "", 7, 0, 0),
    ]
    regions = [Flow("x/web", "web-canary", "eu", 10, 0.02, 0.3), Flow("x/web", "web", "", 90, 0.001, 0.1)]
    roles = {"web": "stable", "web-canary": "canary"}
    found = sample_for(Sample(7, versions, regions), "x", ["x/web"], roles)
    assert found == {
        "t": 7,
        "v": {"stable": [90, 0.001, 0.1], "canary": [10, 0.02, 0.3]},
        "r": {"eu": {"canary": [10, 0.02, 0.3]}, "elsewhere": {"stable": [90, 0.001, 0.1]}},
    }
    assert sample_for(Sample(7, versions, []), "x", [], roles)["v"] == found["v"]


def test_several_routes_are_summed_up() -> None:
    flows = [Flow("x/a", "web", "", 30, 0.1, 0.1), Flow("x/b", "web", "", 10, 0.5, 0.4)]
    assert sample_for(Sample(7, flows, []), "x", [], {"web": "stable"})["v"] == {"stable": [40, 0.2, 0.4]}


items = st.dictionaries(st.sampled_from("abcde"), st.fixed_dictionaries({"n": st.integers(0, 3)}))


@settings(max_examples=60)
@given(items, items)
def test_a_difference_leads_from_one_state_to_the_other(before: Any, now: Any) -> None:
    change = difference(before, now)
    made = {key: each for key, each in before.items() if key not in change.get("gone", [])} | change.get("set", {})
    assert made == now
    assert bool(change) == (before != now)


json = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=4),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(st.text(max_size=4), each, max_size=2),
    max_leaves=6,
)
NAMES = ("metadata", "spec", "status", "strategy", "canary", "steps", "containers", "containerStatuses", "metrics")
odd = st.dictionaries(
    st.sampled_from(NAMES), st.dictionaries(st.sampled_from(NAMES), json, max_size=3) | json, max_size=4
)


@settings(max_examples=60)
@given(odd)
def test_odd_objects_have_digests_all_the_same(obj: dict[str, Any]) -> None:
    for source in (
        *(digests.APPLICATIONS, digests.ROLLOUTS, digests.ANALYSIS_RUNS, digests.EVENTS, digests.NAMESPACES),
        SERVICE_LEVELS,
        INCIDENTS,
    ):
        msgspec.json.encode(source.digest(obj))


def level(**status: Any) -> dict[str, Any]:
    return service_level({"metadata": {"name": "web", "namespace": "x"}, "spec": {"rollout": "web"}, "status": status})


@pytest.mark.parametrize(
    ("figures", "tone"),
    [
        ({}, "none"),
        ({"budgetLeft": "80.0%", "burnRate1h": "1.00"}, "good"),
        ({"budgetLeft": "80.0%", "burnRate1h": "15.00"}, "warn"),
        ({"budgetLeft": "80.0%", "burnRate6h": "6.50"}, "warn"),
        ({"budgetLeft": "20.0%"}, "warn"),
        ({"budgetLeft": "-3.0%"}, "bad"),
        ({"budgetLeft": "much"}, "none"),
    ],
)
def test_how_a_service_level_is(figures: dict[str, str], tone: str) -> None:
    assert level(figures=figures)["tone"] == tone


def test_the_budget_goes_day_by_day() -> None:
    days = [
        {"begin": "2026-03-01T00:00:00Z", "requests": 1_000, "bad": 1},
        {"begin": "2026-03-03T00:00:00Z", "requests": 1_000},
    ]
    found = level(days=days, countedUntil="2026-03-03T05:00:00Z")
    assert [each["day"] for each in found["days"]][-3:] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert found["left"][-4:] == [None, 0.5, 0.5, 0.5]
    assert [each["kept"] for each in found["days"]][-3:] == [0.0, None, 1.0]


def test_a_service_level_that_cannot_be_read_says_why() -> None:
    found = service_level({"metadata": {"name": "web"}, "spec": {"rollout": "web", "objective": "all"}})
    assert "want a share below 100%" in found["problem"]


def test_which_commits_an_application_rejects() -> None:
    def rejected(text: str) -> Any:
        note = {"pilothouse.dev/rejected-revisions": text}
        return digests.application({"metadata": {"annotations": note}})["rejected"]

    assert rejected('[{"revision": "abc", "reason": "bad"}]') == ["abc"]
    assert rejected("abc, def") == ["abc", "def"]
    assert rejected('[{"revision": "abc"') == []
