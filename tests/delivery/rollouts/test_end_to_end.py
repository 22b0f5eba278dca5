"""Rollouts on a control plane, with the project's replica sets and a made-up node: what users see of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest
import yaml

from pilothouse.delivery.analysis.reconciler import add_analyses
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import actions as writes
from pilothouse.delivery.rollouts import verbs
from pilothouse.delivery.rollouts.doing import Doer
from pilothouse.foundation.clock import Clock, FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import Deployment, Event, Pod, ReplicaSet, Service
from support.rolloutkit import ROUTE, SERVICES, Fleet, fleet

ROUTING: Final = {
    "managedRoutes": [{"name": "vip"}, {"name": "copies"}],
    "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "shop"}},
}
NAMES: Final = {"canaryService": "shop-canary", "stableService": "shop-stable"}
TEMPLATE: Final = """
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: errors}
spec:
  args: [{name: hash}, {name: team, value: none}, {name: token, valueFrom: {secretKeyRef: {name: secrets, key: token}}}]
  metrics:
  - name: errors
    interval: 5s
    failureLimit: 3
    provider: {web: {url: "http://metrics.example/{{args.hash}}"}}
"""
ERRORS: Final = {
    "templates": [{"templateName": "errors"}],
    "args": [
        {"name": "hash", "valueFrom": {"podTemplateHashValue": "Latest"}},
        {"name": "team", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
    ],
}


def rollout(strategy: dict[str, Any], replicas: int = 3, **spec: Any) -> str:
    """Return the manifest of a rollout."""
    container = {"name": "shop", "image": "shop:v1", "ports": [{"containerPort": 8080}]}
    return yaml.safe_dump(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": "shop", "labels": {"team": "cart"}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [container]}},
                "strategy": strategy,
                **spec,
            },
        }
    )


def canary(*steps: Any, **more: Any) -> dict[str, Any]:
    return {"canary": {**NAMES, "trafficRouting": ROUTING, "steps": [*steps], **more}}


async def test_a_version_comes_step_by_step_and_stays() -> None:
    steps = canary({"setWeight": 20}, {"pause": {"duration": 10}}, {"setWeight": 50}, {"pause": {}})
    async with fleet(SERVICES, ROUTE, rollout(steps)) as made:
        assert (await made.status()).phase == "Healthy"
        assert await made.selected("shop-stable") == "v1"
        await made.set_image("v2")
        await made.settle()
        assert (await made.status()).phase == "Paused"
        assert await made.weights() == {"shop-stable": 80, "shop-canary": 20}
        assert await made.selected("shop-canary") == "v2"
        page = (made.harness.manager.metrics or Metrics()).exposition().decode()
        assert 'strategy="canary",traffic_router="GatewayAPI"' in page
        assert 'rollout_info_replicas_desired{name="shop",namespace="default"} 3.0' in page
        assert 'pilothouse_rollout_canary_weight{name="shop",namespace="default"} 20.0' in page
        await made.advance(11)
        assert await made.weights() == {"shop-stable": 50, "shop-canary": 50}
        await made.verb(verbs.promote(await made.rollout()))
        await made.settle()
        await made.advance(4)
        status = await made.status()
        assert (status.phase, status.current_step_index) == ("Healthy", 4)
        assert await made.weights() == {"shop-stable": 100, "shop-canary": 0}
        assert await made.selected("shop-stable") == "v2"
        await made.advance(31)
        assert await made.sizes() == {"v1": 0, "v2": 3}
        await made.harness.assert_stable()
        reasons = {each.reason async for each in made.client.list(Event)}
        # A clock that stands still gives events of one moment the same name, so not all of them are here.
        assert {"NewReplicaSetCreated", "RolloutStepCompleted"} & reasons


async def test_a_bad_version_loses_its_traffic_before_anything_else() -> None:
    steps = canary({"setWeight": 30}, {"pause": {}}, analysis=ERRORS)
    async with fleet(SERVICES, ROUTE, TEMPLATE, rollout(steps)) as made:
        await made.set_image("v2")
        await made.settle()
        (run,) = [one async for one in made.client.list(AnalysisRun)]
        given = {one.name: one for one in run.spec.args}
        assert given["hash"].value == run.metadata.labels["rollouts-pod-template-hash"]
        assert given["team"].value == "cart"
        assert given["token"].value is None
        assert given["token"].value_from is not None
        assert await made.weights() == {"shop-stable": 70, "shop-canary": 30}
        seen: list[str] = []

        async def noted(self: Doer, action: writes.Action) -> None:
            seen.append(type(action).__name__)
            await done(self, action)

        done = Doer.do
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Doer, "do", noted)
            assert await made.judge("Failed") == [run.metadata.name]
            await made.settle()
        assert seen[:2] == ["WriteRoute", "WriteStatus"]
        assert "UpdateSet" in seen[2:]
        status = await made.status()
        assert (status.phase, status.abort) == ("Degraded", True)
        assert await made.weights() == {"shop-stable": 100, "shop-canary": 0}
        assert await made.selected("shop-canary") == "v1"
        await made.advance(31)
        assert await made.sizes() == {"v1": 3, "v2": 0}


async def test_what_an_analysis_says_that_cannot_tell_is_why_a_rollout_is_paused() -> None:
    steps = canary({"setWeight": 30}, {"pause": {}}, analysis=ERRORS)
    async with fleet(SERVICES, ROUTE, TEMPLATE, rollout(steps)) as made:
        await made.set_image("v2")
        await made.settle()
        (run,) = [one async for one in made.client.list(AnalysisRun)]
        said = {"phase": "Inconclusive", "message": "thin traffic: 3 requests"}
        await made.client.patch(AnalysisRun, run.metadata.name, {"status": said})
        await made.settle()
        status = await made.status()
        assert [one.reason for one in status.pause_conditions] == ["CanaryPauseStep", "InconclusiveAnalysisRun"]
        assert (status.phase, status.message) == ("Paused", "InconclusiveAnalysisRun: thin traffic: 3 requests")
        assert await made.weights() == {"shop-stable": 70, "shop-canary": 30}


async def test_header_mirror_and_regions_come_and_go() -> None:
    region = {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 20}}
    header = {"name": "vip", "match": [{"headerName": "x-vip", "headerValue": {"exact": "1"}}]}
    mirror = {"name": "copies", "percentage": 25, "match": [{"method": {"exact": "GET"}}]}
    steps = canary(
        {"setCanaryScale": {"replicas": 1}},
        {"setHeaderRoute": header},
        {"setMirrorRoute": mirror},
        {"plugin": region},
        {"pause": {}},
    )
    async with fleet(SERVICES, ROUTE, rollout(steps)) as made:
        await made.set_image("v2")
        await made.settle()
        rules = {one.get("name", ""): one for one in (await made.route())["spec"]["rules"]}
        assert rules["vip"]["matches"][0]["headers"] == [{"name": "x-vip", "type": "Exact", "value": "1"}]
        assert [ref["name"] for ref in rules["vip"]["backendRefs"]] == ["shop-canary"]
        assert {"RequestMirror", "ExtensionRef"} == {one["type"] for one in rules["copies"]["filters"]}
        assert rules[""]["filters"][0]["extensionRef"]["name"] == "shop-regions"
        regions = made.client.dynamic("pilothouse.dev/v1alpha1", "RegionWeights")
        (share,) = (await regions.get("shop-regions"))["spec"]["weights"]
        assert share["regions"] == ["cn-east"]
        assert [one["weight"] for one in share["backends"]] == [80, 20]
        await made.harness.assert_stable()
        await made.verb(verbs.abort(await made.rollout()))
        await made.settle()
        (rule,) = (await made.route())["spec"]["rules"]
        assert "filters" not in rule
        assert [one async for one in regions.list()] == []


async def test_an_experiment_runs_beside_and_decides() -> None:
    experiment = {
        "duration": "30s",
        "templates": [{"name": "base", "specRef": "stable", "replicas": 1, "weight": 5, "service": {}}],
        "analyses": [{"name": "compare", "templateName": "errors", "args": [{"name": "hash", "value": "x"}]}],
    }
    steps = canary({"setWeight": 20}, {"experiment": experiment}, {"pause": {}})
    async with fleet(SERVICES, ROUTE, TEMPLATE, rollout(steps)) as made:
        await made.set_image("v2")
        await made.settle()
        (found,) = [one async for one in made.client.list(Experiment)]
        assert found.status.phase == "Running"
        service = f"{found.metadata.name}-base"
        assert await made.weights() == {"shop-stable": 75, "shop-canary": 20, service: 5}
        selector = (await made.client.get(Service, service)).spec.selector
        stable = (await made.client.get(Service, "shop-stable")).spec.selector
        assert selector["rollouts-pod-template-hash"] != stable["rollouts-pod-template-hash"]
        assert len(await made.judge("Successful")) == 1
        await made.settle()
        await made.advance(31)
        status = await made.status()
        assert (status.phase, status.current_step_index) == ("Paused", 2)
        assert await made.weights() == {"shop-stable": 80, "shop-canary": 20}
        await made.advance(31)
        assert (await made.client.get(ReplicaSet, service)).spec.replicas == 0


async def test_an_experiment_that_fails_takes_the_version_back() -> None:
    experiment = {
        "templates": [{"name": "base", "specRef": "stable"}],
        "analyses": [{"name": "compare", "templateName": "errors", "args": [{"name": "hash", "value": "x"}]}],
    }
    async with fleet(SERVICES, ROUTE, TEMPLATE, rollout(canary({"experiment": experiment}))) as made:
        await made.set_image("v2")
        await made.settle()
        await made.judge("Failed")
        await made.settle()
        assert (await made.status()).abort
        (found,) = [one async for one in made.client.list(Experiment)]
        assert found.status.phase == "Failed"


async def test_blue_green_is_switched_and_taken_back() -> None:
    strategy = {
        "blueGreen": {
            "activeService": "shop-stable",
            "previewService": "shop-canary",
            "autoPromotionEnabled": False,
            "postPromotionAnalysis": ERRORS,
        }
    }
    async with fleet(SERVICES, TEMPLATE, rollout(strategy)) as made:
        assert await made.selected("shop-stable") == "v1"
        await made.set_image("v2")
        await made.settle()
        assert (await made.status()).phase == "Paused"
        assert (await made.selected("shop-stable"), await made.selected("shop-canary")) == ("v1", "v2")
        await made.verb(verbs.promote(await made.rollout()))
        await made.settle()
        assert await made.selected("shop-stable") == "v2"
        assert (await made.status()).message == "waiting for analysis to complete"
        made.broken.add("v2")
        await made.judge("Error")
        await made.settle()
        assert await made.selected("shop-stable") == "v1"
        assert (await made.status()).phase == "Degraded"


async def test_without_routes_pods_are_the_shares() -> None:
    strategy = {"canary": {"maxSurge": 1, "maxUnavailable": 0, "steps": [{"setWeight": 25}, {"pause": {}}]}}
    async with fleet(rollout(strategy, replicas=4)) as made:
        await made.set_image("v2")
        await made.settle()
        assert await made.sizes() == {"v1": 3, "v2": 1}
        await made.verb(verbs.abort(await made.rollout()))
        await made.settle()
        assert await made.sizes() == {"v1": 4, "v2": 0}
        undone = verbs.undo(await made.rollout(), [one async for one in made.client.list(ReplicaSet)])
        await made.verb(undone)
        await made.settle()
        assert (await made.status()).phase == "Healthy"
        await made.harness.assert_stable()


async def test_a_deployment_is_taken_over_by_reference() -> None:
    deployment = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:v1"}]}
"""
    text = yaml.safe_load(rollout({"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}, replicas=2))
    for name in ("template", "selector"):
        del text["spec"][name]
    text["spec"]["workloadRef"] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "shop",
        "scaleDown": "onsuccess",
    }
    async with fleet(deployment, yaml.safe_dump(text)) as made:
        status = await made.status()
        assert (status.phase, status.workload_observed_generation) == ("Healthy", "2")
        assert (await made.client.get(Deployment, "shop")).spec.replicas == 0
        change = verbs.set_image(
            await made.rollout(), {"shop": "shop:v2"}, {"spec": {"containers": [{"name": "shop"}]}}
        )
        await made.client.patch(Deployment, "shop", [dict(one) for one in change.json])
        await made.settle()
        assert (await made.status()).phase == "Paused"
        assert await made.sizes() == {"v1": 1, "v2": 1}
        before = {pod.metadata.name async for pod in made.client.list(Pod)}
        await made.advance(5)
        await made.verb(verbs.restart(await made.rollout(), made.clock.now()))
        await made.advance(95)
        assert not before & {pod.metadata.name async for pod in made.client.list(Pod)}


async def test_pods_are_restarted_a_few_at_a_time() -> None:
    async with fleet(rollout({"canary": {"maxUnavailable": 1}}, replicas=3)) as made:
        before = {pod.metadata.name async for pod in made.client.list(Pod)}
        await made.advance(5)
        await made.verb(verbs.restart(await made.rollout(), made.clock.now()))
        await made.harness.converge()
        await made.advance(95)
        after = {pod.metadata.name async for pod in made.client.list(Pod)}
        assert not before & after
        assert (await made.status()).restarted_at == (await made.rollout()).spec.restart_at


async def test_labels_of_pods_come_and_go_with_their_part() -> None:
    more = {"canaryMetadata": {"labels": {"part": "canary"}}, "stableMetadata": {"labels": {"part": "stable"}}}
    async with fleet(SERVICES, ROUTE, rollout(canary({"setWeight": 40}, {"pause": {}}, **more))) as made:
        await made.set_image("v2")
        await made.settle()
        assert await parts(made) == {("v1", "stable"), ("v2", "canary")}
        await made.verb(verbs.promote(await made.rollout(), full=True))
        await made.settle()
        await made.advance(40)
        assert await parts(made) == {("v2", "stable")}


async def parts(made: Fleet) -> set[tuple[str, str]]:
    found = [pod async for pod in made.client.list(Pod)]
    return {((pod.spec.containers[0].image or "")[-2:], pod.metadata.labels.get("part", "")) for pod in found}


async def test_what_is_wrong_is_said_and_put_right() -> None:
    steps = canary({"setWeight": 120}, {"analysis": {"templates": [{"templateName": "gone"}]}})
    async with fleet(SERVICES, rollout(steps)) as made:
        message = (await made.status()).message or ""
        assert "steps[0]: setWeight: 120; want 0 to 100" in message
        assert "AnalysisTemplate 'gone' is not there" in message
        assert "HTTPRoute 'default/shop' is not there" in message
        assert await made.sizes() == {}
        await made.apply(ROUTE)
        await made.apply(rollout(canary({"setWeight": 20}, {"pause": {}})))
        await made.settle()
        status = await made.status()
        assert status.phase == "Healthy"
        assert all(one.type != "InvalidSpec" for one in status.conditions)


async def test_fields_that_change_nothing_are_named() -> None:
    strategy = canary({"setWeight": 20})
    strategy["canary"]["trafficRouting"] = {**ROUTING, "nginx": {"stableIngress": "shop"}}
    async with fleet(SERVICES, ROUTE, rollout(strategy)) as made:
        conditions = {one.type: one.message for one in (await made.status()).conditions}
        assert "trafficRouting.nginx" in conditions["NotActedOn"]


async def test_a_controller_that_dies_after_every_write_comes_to_the_same() -> None:
    """Each write is done, and then whoever did it fails, once for every write that there is on the whole way."""
    steps = canary({"setWeight": 20}, {"analysis": ERRORS}, {"setWeight": 60}, {"pause": {}}, analysis=ERRORS)
    async with fleet(SERVICES, ROUTE, TEMPLATE, rollout(steps)) as made:
        done, died = Doer.do, list[str]()
        seen: set[str] = set()

        async def dies(self: Doer, action: writes.Action) -> None:
            await done(self, action)
            text = repr(action)
            if text not in seen and not isinstance(action, writes.Tell):
                seen.add(text)
                died.append(type(action).__name__)
                raise ConnectionError("killed")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Doer, "do", dies)
            await made.set_image("v2")
            await made.settle()
            assert await made.weights() == {"shop-stable": 80, "shop-canary": 20}
            await made.judge("Successful", "Step")
            await made.settle()
            assert await made.weights() == {"shop-stable": 40, "shop-canary": 60}
            await made.judge("Failed", "Background")
            await made.settle()
            assert await made.weights() == {"shop-stable": 100, "shop-canary": 0}
            await made.advance(60)
        assert len(died) > 25
        assert {"WriteRoute", "WriteStatus", "CreateSet", "UpdateSet", "SelectService", "StartRun"} <= {*died}
        assert (await made.status()).abort
        assert await made.sizes() == {"v1": 3, "v2": 0}
        assert len([one async for one in made.client.list(AnalysisRun)]) == 2
        assert len([one async for one in made.client.list(Rollout)]) == 1


async def test_services_outlive_their_rollout() -> None:
    async with fleet(SERVICES, ROUTE, rollout(canary({"setWeight": 20}))) as made:
        assert await made.selected("shop-stable") == "v1"
        await made.client.delete(Rollout, "shop")
        await made.settle()
        for name in ("shop-stable", "shop-canary"):
            service = await made.client.get(Service, name)
            assert service.spec.selector == {"app": "shop"}
            assert not service.metadata.annotations


class Figures:
    """What a window says: so many requests a second, and a share of them bad."""

    def __init__(self, requests: int, share: float) -> None:
        self.requests = requests
        self.errors = round(requests * share)
        self.p95 = 0.05

    def slower(self, seconds: float) -> int:
        del seconds
        return 0


class Plane:
    """The data plane's numbers; bad: the share of the canary's answers that are errors."""

    def __init__(self) -> None:
        self.bad = 0.0
        self.clock: Clock = FakeClock()

    def last(self) -> tuple[int, float]:
        now = self.clock.now().timestamp()
        return int(now) - 1, 1 - now % 1

    def over(self, seconds: int, last: int, *, route: str, version: str, regions: Sequence[str]) -> Figures:
        del last, route, regions
        return Figures(150 * seconds, self.bad if version == "shop-canary" else 0.0)


JUDGED: Final = """
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: judged}
spec:
  metrics:
  - name: traffic
    provider: {plugin: {pilothouse.dev/traffic: {route: default/shop, canary: shop-canary, stable: shop-stable}}}
"""


async def test_the_judgement_takes_a_version_back_even_with_all_traffic_at_it() -> None:
    numbers = Plane()
    steps = canary({"setWeight": 50}, analysis={"templates": [{"templateName": "judged"}]})
    add: Any = lambda manager: add_analyses(manager, numbers)  # noqa: E731
    async with fleet(SERVICES, ROUTE, JUDGED, rollout(steps), extra=[add]) as made:
        numbers.clock = made.clock
        await made.set_image("v2")
        await made.settle()
        await made.advance(10)
        assert (await made.status()).message == "watching the new version with all traffic"
        assert await made.weights() == {"shop-stable": 0, "shop-canary": 100}
        numbers.bad = 0.02
        await made.advance(8)
        status = await made.status()
        assert status.abort
        assert "Background analysis phase error/failed" in (status.message or "")
        assert await made.weights() == {"shop-stable": 100, "shop-canary": 0}
        numbers.bad = 0.0
        await made.set_image("v3")
        await made.settle()
        await made.advance(130)
        assert (await made.status()).phase == "Healthy"
        assert await made.selected("shop-stable") == "v3"
