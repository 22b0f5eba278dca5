"""The pages of rollouts by golden texts: canary by pods, by routes and by region, blue-green, aborted, experiments."""

# ruff: noqa: RUF001  # Argo's sign of an analysis run is a Greek letter

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from textwrap import dedent
from typing import Any

import pytest

from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts.tree import phase_now, progress_of, view_of
from pilothouse.delivery.rollouts.treelines import page_of, row_of
from pilothouse.delivery.rollouts.view import View
from pilothouse.delivery.showing import bar, marked, sparkline
from pilothouse.kinds import times
from pilothouse.kinds.structs import Pod, ReplicaSet, from_dict
from support.rolloutworld import rollout_of, template

NOW = datetime(2025, 1, 1, 1, tzinfo=UTC)
UID = "00000000-0000-0000-0000-000000000001"
BY_ROUTES = """
canary:
  canaryService: shop-canary
  stableService: shop-stable
  trafficRouting: {plugins: {argoproj-labs/gatewayAPI: {httpRoute: shop}}}
  steps:
  - setWeight: 10
  - plugin: {name: pilothouse.dev/regions, config: {regions: [cn-east], weight: 40}}
  - pause: {duration: 10m}
"""


def stamp(minutes: float) -> str:
    return times.format_seconds(NOW - timedelta(minutes=minutes))


def meta(name: str, minutes: float, revision: int, owner: str = UID, **labels: str) -> dict[str, Any]:
    return {
        "name": name,
        "uid": f"uid-{name}",
        "creationTimestamp": stamp(minutes),
        "labels": labels,
        "annotations": {"rollout.argoproj.io/revision": str(revision)},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Any", "name": "shop", "uid": owner}],
    }


def replica_set(
    image: str, minutes: float, revision: int, wanted: int, ready: int, *, owner: str = UID, **extra: str
) -> ReplicaSet:
    metadata = meta(f"shop-{image}", minutes, revision, owner, app="shop", **{"rollouts-pod-template-hash": image})
    metadata["annotations"] |= extra
    spec = {"replicas": wanted, "selector": {}, "template": template(image)}
    status = {"replicas": max(wanted, ready), "availableReplicas": ready}
    return from_dict({"metadata": metadata, "spec": spec, "status": status}, ReplicaSet)


def pod(image: str, number: int, minutes: float, *, ready: bool = True, waiting: str = "", restarts: int = 0) -> Pod:
    metadata = meta(f"shop-{image}-{number}", minutes, 0)
    metadata["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"shop-{image}", "uid": f"uid-shop-{image}"}
    ]
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    container = {
        "name": "shop",
        "image": image,
        "imageID": "",
        "ready": ready,
        "restartCount": restarts,
        "state": state,
    }
    status = {"phase": "Running", "containerStatuses": [container]}
    return from_dict({"metadata": metadata, "spec": template(image)["spec"], "status": status}, Pod)


def run_of(
    name: str, phase: str, minutes: float, revision: int, owner: str = UID, said: str = "", **counts: int
) -> AnalysisRun:
    measurements = [{"phase": phase, "message": said}] if said else []
    result = {"name": "errors", "phase": phase, "measurements": measurements, **counts}
    status = {"phase": phase, "metricResults": [result]}
    return from_dict(
        {"metadata": meta(name, minutes, revision, owner), "spec": {"metrics": []}, "status": status}, AnalysisRun
    )


def shop(strategy: str, **status: Any) -> Rollout:
    made = rollout_of(strategy, replicas=2, **status.pop("spec", {}))
    from pilothouse.kinds.structs import to_dict

    tree = to_dict(made)
    tree["metadata"] |= {"creationTimestamp": stamp(60), "generation": 3}
    tree["status"] = {"observedGeneration": "3", **status}
    return from_dict(tree, Rollout)


def drawn(view: View, *pods: Pod) -> str:
    return "\n".join(page_of(view_of(view, pods, NOW), NOW))


def expected(text: str) -> str:
    return dedent(text).strip("\n")


def test_a_canary_by_routes_with_regions() -> None:
    weights = {"canary": {"weight": 10}, "stable": {"weight": 90}}
    rollout = shop(
        BY_ROUTES, phase="Paused", message="CanaryPauseStep", currentPodHash="v2", stableRS="v1", currentStepIndex=2,
        replicas=3, updatedReplicas=1, readyReplicas=3, availableReplicas=2, canary={"weights": weights},
    )  # fmt: skip
    backends = [{"name": "shop-stable", "weight": 60}, {"name": "shop-canary", "weight": 40}]
    view = View(
        rollout,
        sets=[replica_set("v1", 50, 1, 2, 2), replica_set("v2", 5.5, 2, 1, 0)],
        runs=[run_of("shop-v2-2", "Running", 5, 2, said="0.10% errors", successful=7, failed=1, error=2)],
        regions={"spec": {"weights": [{"regions": ["cn-east"], "backends": backends}]}},
    )
    page = drawn(
        view, pod("v1", 1, 50), pod("v1", 2, 50, restarts=3), pod("v2", 1, 5.5, ready=False, waiting="ErrImagePull")
    )
    assert page == expected(
        """
        Name:            shop
        Namespace:       default
        Status:          ॥ Paused
        Message:         CanaryPauseStep
        Strategy:        Canary
          Step:          2/3 (pause: 10m)
          SetWeight:     10 (cn-east: 40)
          ActualWeight:  10 (cn-east: 40)
        Images:          shop:v2 (canary)
                         shop:v1 (stable)
        Replicas:
          Desired:       2
          Current:       3
          Updated:       1
          Ready:         3
          Available:     2

        NAME                  KIND         STATUS          AGE    INFO
        ⟳ shop                Rollout      ॥ Paused        60m
        ├──# revision:2
        │  ├──⧉ shop-v2       ReplicaSet   ◌ Progressing   5m30s  canary
        │  │  └──□ shop-v2-1  Pod          ✖ ErrImagePull  5m30s  ready:0/1
        │  └──α shop-v2-2     AnalysisRun  ◌ Running       5m     ✔ 7,✖ 1,⚠ 2,0.10% errors
        └──# revision:1
           └──⧉ shop-v1       ReplicaSet   ✔ Healthy       50m    stable
              ├──□ shop-v1-1  Pod          ✔ Running       50m    ready:1/1
              └──□ shop-v1-2  Pod          ✔ Running       50m    ready:1/1,restarts:3
        """
    )


def test_an_aborted_canary_by_pods() -> None:
    rollout = shop(
        "canary: {steps: [{setWeight: 50}, {pause: {}}]}", phase="Degraded", message="RolloutAborted: bad", abort=True,
        abortedAt=stamp(1), currentPodHash="v2", stableRS="v1", currentStepIndex=0,
        replicas=2, updatedReplicas=0, readyReplicas=2, availableReplicas=2,
    )  # fmt: skip
    deadline = times.format_seconds(NOW + timedelta(seconds=20))
    old = replica_set("v0", 55, 1, 0, 0)
    bad = replica_set("v2", 5, 3, 0, 0, **{"scale-down-deadline": deadline})
    view = View(
        rollout,
        sets=[old, replica_set("v1", 50, 2, 2, 2), bad],
        runs=[run_of("shop-v2-3-0", "Failed", 4, 3, failed=4)],
    )
    page = drawn(view)
    assert "  Step:          0/2 (setWeight: 50)\n  SetWeight:     0\n  ActualWeight:  0\n" in page
    assert page.partition("\n\n")[2] == expected(
        """
        NAME                 KIND         STATUS        AGE  INFO
        ⟳ shop               Rollout      ✖ Degraded    60m
        ├──# revision:3
        │  ├──⧉ shop-v2      ReplicaSet   • ScaledDown  5m   canary,delay:20s
        │  └──α shop-v2-3-0  AnalysisRun  ✖ Failed      4m   ✖ 4
        ├──# revision:2
        │  └──⧉ shop-v1      ReplicaSet   ✔ Healthy     50m  stable
        └──# revision:1
           └──⧉ shop-v0      ReplicaSet   • ScaledDown  55m
        """
    )  # fmt: skip


def test_blue_green() -> None:
    rollout = shop(
        "blueGreen: {activeService: shop, previewService: next}", phase="Paused", message="BlueGreenPause",
        currentPodHash="v2", stableRS="v1", blueGreen={"activeSelector": "v1", "previewSelector": "v2"},
    )  # fmt: skip
    view = View(rollout, sets=[replica_set("v1", 50, 1, 2, 2), replica_set("v2", 5, 2, 2, 2)])
    page = drawn(view)
    assert (
        "Strategy:        BlueGreen\nImages:          shop:v2 (preview)\n                 shop:v1 (stable, active)"
        in page
    )
    assert "Step" not in page
    assert "⧉ shop-v1  ReplicaSet  ✔ Healthy  50m  stable,active" in page


def test_an_experiment_has_its_sets_and_runs() -> None:
    rollout = shop("canary: {steps: [{experiment: {templates: [{name: a, specRef: canary}]}}]}", phase="Progressing",
                   currentPodHash="v2", stableRS="v1", currentStepIndex=0)  # fmt: skip
    trial = from_dict(
        {"metadata": meta("shop-v2-2-0", 4, 2), "spec": {"templates": []}, "status": {"phase": "Running"}}, Experiment
    )
    own = replica_set("try", 4, 0, 1, 1, owner="uid-shop-v2-2-0", **{
        "experiment.argoproj.io/name": "shop-v2-2-0", "experiment.argoproj.io/template-name": "a",
    })  # fmt: skip
    view = View(
        rollout,
        sets=[replica_set("v1", 50, 1, 2, 2), replica_set("v2", 5, 2, 0, 0), own],
        experiments=[trial],
        runs=[run_of("shop-v2-2-0-errors", "Inconclusive", 3, 0, "uid-shop-v2-2-0", inconclusive=1)],
    )
    page = drawn(view)
    assert "shop:try (Σ:a)" in page
    assert page.partition("revision:2\n")[2].partition("\n└")[0] == expected(
        """
        │  ├──⧉ shop-v2                ReplicaSet   • ScaledDown    5m   canary
        │  └──Σ shop-v2-2-0            Experiment   ◌ Running       4m
        │     ├──⧉ shop-try            ReplicaSet   ✔ Healthy       4m
        │     └──α shop-v2-2-0-errors  AnalysisRun  ? Inconclusive  3m   ? 1
        """
    )  # fmt: skip


def test_the_row_of_a_list() -> None:
    rollout = shop("canary: {steps: [{setWeight: 50}]}", phase="Healthy", currentPodHash="v1", stableRS="v1",
                   currentStepIndex=1, updatedReplicas=2, readyReplicas=2, availableReplicas=2)  # fmt: skip
    row = row_of(view_of(View(rollout), (), NOW))
    assert (row["step"], row["set-weight"], row["ready"], row["up-to-date"]) == ("1/1", 100, "2/2", 2)


@pytest.mark.parametrize(
    ("status", "phase", "message"),
    [
        ({"observedGeneration": "2", "phase": "Healthy"}, "Progressing", "the specification was not seen"),
        ({"phase": "Healthy", "abort": True}, "Progressing", "the abort was not seen"),
        ({"phase": "Paused", "promoteFull": True}, "Progressing", "the promotion was not seen"),
        ({"phase": "Degraded", "abort": True, "abortedAt": stamp(1), "message": "bad"}, "Degraded", "bad"),
    ],
)
def test_what_was_not_seen_yet_is_progressing(status: dict[str, Any], phase: str, message: str) -> None:
    found = phase_now(shop("canary: {}", **status))
    assert found[0] == phase
    assert found[1].startswith(message)


@pytest.mark.parametrize("config", ["{regions: 7, weight: x}", "{regions: [7]}", "{}"])
def test_steps_that_make_no_sense_are_shown_too(config: str) -> None:
    steps = f"{{plugin: {{name: pilothouse.dev/regions, config: {config}}}}}, {{}}"
    rollout = shop(f"canary: {{steps: [{steps}]}}", phase="Degraded", currentStepIndex=5)
    page = drawn(View(rollout, regions={"spec": {"weights": [{"regions": ["a"]}]}}))
    assert "  Step:          5/2\n" in page
    assert row_of(view_of(View(rollout), (), NOW))["step"] == "5/2"


def test_progress_in_one_line() -> None:
    rollout = shop(BY_ROUTES, phase="Progressing", message="more replicas need to be updated", currentStepIndex=0)
    assert progress_of(rollout) == "Progressing at step 0/3 (setWeight: 10): more replicas need to be updated"
    assert progress_of(shop(BY_ROUTES, phase="Healthy", currentStepIndex=3)) == "Healthy"


def test_marks_bars_and_lines() -> None:
    assert marked("Healthy") == "✔ Healthy"
    assert marked("Strange") == "Strange"
    assert [bar(share, 4) for share in (None, -1.0, 0.0, 0.5, 1.0)] == ["", "░░░░", "░░░░", "██░░", "████"]
    assert sparkline([None, 0.0, 0.5, 1.0]) == "·▁▅█"
