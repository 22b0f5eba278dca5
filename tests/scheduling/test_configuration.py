"""Files for kube-scheduler are read as they are; what is wrong in them is told by its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse.scheduling import ConfigurationError, load, parse
from pilothouse.scheduling.configuration import POINTS
from pilothouse.scheduling.profile import Profile

from .kit import Scene, configured, node, pod

WHOLE = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
parallelism: 16
leaderElection:
  leaderElect: true
clientConnection:
  kubeconfig: /etc/kubernetes/scheduler.conf
percentageOfNodesToScore: 50
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
profiles:
- schedulerName: default-scheduler
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      scoringStrategy:
        type: MostAllocated
        resources: [{name: cpu, weight: 3}, {name: memory}]
  plugins:
    multiPoint:
      enabled: [{name: ImageLocality, weight: 7}]
      disabled: [{name: PodTopologySpread}]
    score:
      enabled: [{name: NodeAffinity, weight: 9}]
      disabled: [{name: TaintToleration}]
- schedulerName: filters-only
  plugins:
    score:
      disabled: [{name: "*"}]
"""


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    found = load(path)
    assert (found.pod_initial_backoff_seconds, found.pod_max_backoff_seconds) == (2, 20)
    assert found.percentage_of_nodes_to_score == 50
    first, second = (Profile(one) for one in found.profiles)
    assert [(plugin.name, weight) for plugin, weight in first.scores] == [
        ("NodeAffinity", 9),
        ("NodeResourcesFit", 1),
        ("InterPodAffinity", 2),
        ("NodeResourcesBalancedAllocation", 1),
        ("ImageLocality", 7),
    ]
    assert "PodTopologySpread" not in [plugin.name for plugin in first.filters]
    assert "TaintToleration" in [plugin.name for plugin in first.filters]
    assert second.scores == []


def test_the_default_profile_is_upstreams() -> None:
    profile = Profile(
        parse({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}).profiles[0]
    )
    assert profile.name == "default-scheduler"
    assert [plugin.name for plugin in profile.filters] == [
        "NodeUnschedulable",
        "NodeName",
        "TaintToleration",
        "NodeAffinity",
        "NodePorts",
        "NodeResourcesFit",
        "VolumeRestrictions",
        "NodeVolumeLimits",
        "VolumeBinding",
        "VolumeZone",
        "PodTopologySpread",
        "InterPodAffinity",
    ]
    assert {plugin.name: weight for plugin, weight in profile.scores} == {
        "TaintToleration": 3,
        "NodeAffinity": 2,
        "PodTopologySpread": 2,
        "InterPodAffinity": 2,
        "NodeResourcesFit": 1,
        "NodeResourcesBalancedAllocation": 1,
        "ImageLocality": 1,
    }


def args(plugin: str, **values: Any) -> dict[str, Any]:
    return {"profiles": [{"pluginConfig": [{"name": plugin, "args": values}]}]}


def plugins(**points: Any) -> dict[str, Any]:
    return {"profiles": [{"plugins": points}]}


FIT = "profiles[0].pluginConfig[0].args"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"apiVersion": "kubescheduler.config.k8s.io/v1beta3"}, "apiVersion"),
        ({"kind": "SchedulerConfiguration"}, "kind"),
        ({"profile": []}, "profile"),
        ({"extenders": [{"urlPrefix": "http://x"}]}, "extenders"),
        ({"podInitialBackoffSeconds": 0}, "podInitialBackoffSeconds"),
        ({"podInitialBackoffSeconds": "1"}, "podInitialBackoffSeconds"),
        ({"podInitialBackoffSeconds": 20}, "podMaxBackoffSeconds"),
        ({"percentageOfNodesToScore": 101}, "percentageOfNodesToScore"),
        ({"profiles": {}}, "profiles"),
        ({"profiles": [{}, {}]}, "profiles[0].schedulerName"),
        ({"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]}, "profiles[1].schedulerName"),
        (plugins(filters={}), "profiles[0].plugins.filters"),
        (plugins(score={"enabled": [{"name": "Nope"}]}), "profiles[0].plugins.score.enabled[0].name"),
        (plugins(filter={"enabled": [{"name": "EBSLimits"}]}), "profiles[0].plugins.filter.enabled[0].name"),
        (
            plugins(score={"enabled": [{"name": "ImageLocality", "weight": -1}]}),
            "profiles[0].plugins.score.enabled[0].weight",
        ),
        (plugins(score={"disabled": [{}]}), "profiles[0].plugins.score.disabled[0].name"),
        (args("NodeResourcesFit", scoringStrategy={"type": "Best"}), f"{FIT}.scoringStrategy.type"),
        (
            args("NodeResourcesFit", scoringStrategy={"resources": [{"name": "cpu", "weight": 101}]}),
            f"{FIT}.scoringStrategy.resources[0].weight",
        ),
        (
            args("NodeResourcesFit", scoringStrategy={"type": "RequestedToCapacityRatio"}),
            f"{FIT}.scoringStrategy.requestedToCapacityRatio",
        ),
        (
            args(
                "NodeResourcesFit",
                scoringStrategy={
                    "type": "RequestedToCapacityRatio",
                    "requestedToCapacityRatio": {
                        "shape": [{"utilization": 50, "score": 1}, {"utilization": 50, "score": 2}]
                    },
                },
            ),
            f"{FIT}.scoringStrategy.requestedToCapacityRatio.shape[1].utilization",
        ),
        (args("NodeResourcesFit", ignoredResourceGroups=["a/b"]), f"{FIT}.ignoredResourceGroups[0]"),
        (args("NodeResourcesFit", ignored=["a"]), f"{FIT}.ignored"),
        (args("NodeResourcesFit", kind="InterPodAffinityArgs"), f"{FIT}.kind"),
        (args("InterPodAffinity", hardPodAffinityWeight=101), f"{FIT}.hardPodAffinityWeight"),
        (args("DefaultPreemption", minCandidateNodesPercentage=-1), f"{FIT}.minCandidateNodesPercentage"),
        (
            args("DefaultPreemption", minCandidateNodesPercentage=0, minCandidateNodesAbsolute=0),
            f"{FIT}.minCandidateNodesPercentage",
        ),
        (args("PodTopologySpread", defaultConstraints=[{}]), f"{FIT}.defaultingType"),
        (
            args("PodTopologySpread", defaultingType="List", defaultConstraints=[{"maxSkew": 0}]),
            f"{FIT}.defaultConstraints[0].maxSkew",
        ),
        (args("VolumeBinding", bindTimeoutSeconds=-1), f"{FIT}.bindTimeoutSeconds"),
        (
            args("NodeResourcesBalancedAllocation", resources=[{"name": "cpu", "weight": 2}]),
            f"{FIT}.resources[0].weight",
        ),
    ],
)
def test_what_is_wrong_is_told_by_its_field(change: dict[str, Any], field: str) -> None:
    tree = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", **change}
    with pytest.raises(ConfigurationError) as caught:
        parse(tree)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_a_file_that_is_no_yaml_is_told_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"broken\.yaml"):
        load(path)


def test_plugins_are_only_enabled_where_they_have_something_to_say() -> None:
    config = configured({"plugins": {"filter": {"enabled": [{"name": "ImageLocality"}]}}})
    with pytest.raises(ConfigurationError, match=r"plugins\.filter\.enabled: ImageLocality has nothing to say"):
        Profile(config.profiles[0])


@pytest.mark.parametrize("point", ["bind", "queueSort"])
def test_a_profile_needs_who_binds_and_who_sorts(point: str) -> None:
    assert point in POINTS
    config = configured({"plugins": {point: {"disabled": [{"name": "*"}]}}})
    with pytest.raises(ConfigurationError, match=point):
        Profile(config.profiles[0])


def test_pods_are_scheduled_by_the_profile_they_name() -> None:
    packed = {
        "schedulerName": "packed",
        "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated"}}}],
    }
    config = configured({"schedulerName": "default-scheduler"}, packed)
    scene = Scene(node("a"), node("b"), pod("x", {"cpu": "1", "memory": "2Gi"}, on="a"), configuration=config)
    wants = {"cpu": "1", "memory": "2Gi"}
    assert scene.where(pod("p", wants, schedulerName="packed")) == "a"
    assert scene.where(pod("q", wants)) == "b"
    assert scene.decide(pod("r", schedulerName="someone-else")) is None
