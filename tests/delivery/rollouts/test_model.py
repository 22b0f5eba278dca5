"""A model check: whatever happens in whatever order, traffic stays off rejected versions and rollouts end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.delivery.resources.experiments import TemplateStatus
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import actions as writes
from pilothouse.delivery.rollouts import verbs
from pilothouse.delivery.rollouts.names import HASH
from pilothouse.delivery.rollouts.view import View
from pilothouse.kinds.structs import replace, to_dict
from support.rolloutworld import Conflict, World, rollout_of

ROUTING = "trafficRouting: {managedRoutes: [{name: vip}], plugins: {argoproj-labs/gatewayAPI: {httpRoute: shop}}}"
STRATEGIES: Final[Mapping[str, str]] = {
    "routed": f"""
canary:
  canaryService: shop-canary
  stableService: shop-stable
  analysis: {{templates: [{{templateName: errors}}], startingStep: 1}}
  {ROUTING}
  steps:
  - setWeight: 20
  - setHeaderRoute: {{name: vip, match: [{{headerName: x-vip, headerValue: {{exact: "1"}}}}]}}
  - pause: {{duration: 5}}
  - plugin: {{name: pilothouse.dev/regions, config: {{regions: [cn-east], weight: 60}}}}
  - analysis: {{templates: [{{templateName: errors}}]}}
  - setWeight: 50
  - pause: {{}}
""",
    "dynamic": f"""
canary:
  canaryService: shop-canary
  stableService: shop-stable
  dynamicStableScale: true
  {ROUTING}
  steps: [{{setWeight: 20}}, {{setWeight: 60}}, {{analysis: {{templates: [{{templateName: errors}}]}}}}]
""",
    "experiment": f"""
canary:
  canaryService: shop-canary
  stableService: shop-stable
  {ROUTING}
  steps:
  - setWeight: 10
  - experiment:
      duration: 1m
      templates: [{{name: base, specRef: stable, weight: 5}}, {{name: trial, specRef: canary, weight: 5}}]
      analyses: [{{name: errors, templateName: errors}}]
  - setWeight: 50
  - pause: {{}}
""",
    "pods": """
canary:
  maxSurge: 1
  maxUnavailable: 1
  steps: [{setWeight: 25}, {pause: {duration: 5}}, {analysis: {templates: [{templateName: errors}]}}, {setWeight: 50}]
""",
    "bluegreen": """
blueGreen:
  activeService: shop-stable
  previewService: shop-canary
  autoPromotionEnabled: false
  previewReplicaCount: 2
  prePromotionAnalysis: {templates: [{templateName: errors}]}
  postPromotionAnalysis: {templates: [{templateName: errors}]}
""",
}
PARTS: Final = ("rollout", "sets", "services", "routes", "runs", "regions", "experiments", "orphans")

HANDS: Final = ("weights", "rules", "service", "size", "set", "label", "run", "steps")
"""What somebody changes by hand."""

small = st.integers(0, 6)
events = st.one_of(
    st.tuples(st.just("decide"), st.none()),
    st.tuples(st.just("decide"), st.none()),
    st.tuples(st.just("settle"), st.integers(1, 12)),
    st.tuples(st.just("settle"), st.integers(1, 12)),
    st.tuples(st.just("kill"), st.integers(0, 8)),
    st.tuples(st.just("stale"), st.lists(small, min_size=len(PARTS), max_size=len(PARTS))),
    st.tuples(st.just("pods"), st.sampled_from(["", "v1", "v2", "v3"])),
    st.tuples(st.just("break"), st.sampled_from(["v2", "v3"])),
    st.tuples(st.just("heal"), st.none()),
    st.tuples(st.just("trial"), st.sampled_from(["Running", "Successful", "Failed", "Inconclusive"])),
    st.tuples(st.just("strategy"), st.sampled_from(sorted(STRATEGIES))),
    st.tuples(st.just("judge"), st.sampled_from(["Successful", "Failed", "Error", "Inconclusive", "Running"])),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 6.0, 40.0, 700.0])),
    st.tuples(st.just("image"), st.sampled_from(["v1", "v2", "v3"])),
    st.tuples(st.just("replicas"), st.integers(0, 6)),
    st.tuples(st.just("paused"), st.booleans()),
    st.tuples(st.just("verb"), st.sampled_from(["abort", "retry", "promote", "full"])),
    st.tuples(st.just("hand"), st.tuples(st.sampled_from(HANDS), small)),
)


class Model:
    """A world, what was rejected in it, and what has to hold after each write."""

    def __init__(self, strategy: str) -> None:
        self.world = World(rollout_of(STRATEGIES[strategy], replicas=4))
        self.world.add_route()
        self.world.add_template("errors")
        self.strategy = strategy
        self.rejected: set[str] = set()
        self.history: list[View] = [self.world.view()]
        self.shown: dict[str, int] = {}
        self.world.after_write = self.check
        self.tried = False

    # What holds

    def exposure(self, named: str) -> int:
        """Return how much a version is shown to users, in percent and for each route that steps have made."""
        world = self.world
        total, (route,) = 0, [*world.routes.values()]
        if self.strategy == "pods":
            found = next((one for one in world.sets.values() if one.metadata.labels[HASH] == named), None)
            total = 0 if found is None else found.spec.replicas or 0
        active = {name: found.spec.selector.get(HASH, "") for name, found in world.services.items()} | self.trials()
        for rule in route["spec"]["rules"]:
            for ref in rule["backendRefs"]:
                if active[ref["name"]] == named:
                    total += ref["weight"]
            if any(each["type"] == "ExtensionRef" for each in rule.get("filters") or ()) and world.regions:
                shares = [one["backends"] for one in world.regions["spec"]["weights"]]
                total += sum(ref["weight"] for refs in shares for ref in refs if active[ref["name"]] == named)
        return total

    def trials(self) -> dict[str, str]:
        """Return the version of each service that an experiment has made."""
        return {
            f"{name}-{one.name}": one.template.metadata.labels.get(HASH, "")
            for name, found in self.world.experiments.items()
            for one in found.spec.templates
        }

    def check(self, action: writes.Action) -> None:
        world = self.world
        for route in world.routes.values():
            for rule in route["spec"]["rules"]:
                if not rule.get("name"):
                    assert sum(ref["weight"] for ref in rule["backendRefs"]) == 100
        if world.regions:
            for share in world.regions["spec"]["weights"]:
                assert sum(ref["weight"] for ref in share["backends"]) == 100
        self.note()
        for named in self.rejected:
            now = self.exposure(named)
            assert now <= self.shown.get(named, now), f"{action} shows a rejected version to more users"
            self.shown[named] = now

    def note(self) -> None:
        """Take note of what the rollout has rejected."""
        status = self.world.rollout.status
        named = status.current_pod_hash
        if (
            status.abort
            and not (status.promote_full and status.aborted_at)
            and named
            and named != status.stable_rs
            and named not in self.rejected
        ):
            self.rejected.add(named)
            self.shown[named] = self.exposure(named)

    def forgive(self, named: str | None) -> None:
        self.rejected.discard(named or "")
        self.shown.pop(named or "", None)

    # What happens

    def play(self, event: str, value: Any) -> None:  # noqa: C901, PLR0912  one row an event
        world = self.world
        match event:
            case "decide":
                self.decide(world.view(), None)
            case "settle":
                for _ in range(value):
                    self.decide(world.view(), None)
                    world.play_pods()
            case "kill":
                self.decide(world.view(), value)
            case "stale":
                self.decide(self.stale(value), None)
            case "pods":
                world.play_pods(*([value] if value else []))
            case "break":
                world.broken.add(value)
            case "heal":
                world.broken.clear()
            case "judge":
                world.judge(value)
            case "trial":
                self.try_out(value)
            case "strategy":
                self.set_strategy(value)
            case "wait":
                world.wait(value)
            case "image":
                self.set_image(value)
            case "replicas":
                world.change(replicas=value)
            case "paused":
                world.change(paused=value)
            case "verb":
                self.verb(value)
            case "hand":
                self.hand(*value)
        self.history.append(world.view())

    def set_image(self, image: str) -> None:
        """Somebody sets a version; that was rejected before, and is wanted again."""
        world = self.world
        if (
            world.rollout.spec.template is None
            or world.rollout.spec.template.spec.containers[0].image != f"shop:{image}"
        ):
            world.set_image(image)
            for named, name in world.names.items():
                if name == image:
                    self.forgive(named)

    def set_strategy(self, name: str) -> None:
        """Somebody has versions come in another way; what was rejected stays so, and is measured anew."""
        if name != self.strategy:
            self.strategy = name
            self.world.change(strategy=yaml.safe_load(STRATEGIES[name]))
            self.shown = {named: self.exposure(named) for named in self.rejected}

    def try_out(self, phase: str) -> None:
        """Experiments that go on run, with a service for each version, or end."""
        world = self.world
        for name, found in world.experiments.items():
            if found.status.phase not in {"", "Pending", "Running"} or found.spec.terminate:
                continue
            statuses = [
                TemplateStatus(
                    name=one.name,
                    service_name=f"{name}-{one.name}",
                    pod_template_hash=one.template.metadata.labels.get(HASH, ""),
                )
                for one in found.spec.templates
            ]
            world.experiments[name] = replace(found, status__phase=phase, status__template_statuses=statuses)

    def verb(self, name: str) -> None:
        world = self.world
        if name == "retry" and not world.rollout.status.abort:
            return
        changes: dict[str, Callable[[Rollout], verbs.Change]] = {
            "abort": verbs.abort,
            "retry": verbs.retry,
            "promote": verbs.promote,
            "full": lambda rollout: verbs.promote(rollout, full=True),
        }
        world.verb(changes[name](world.rollout))
        status = world.rollout.status
        if name == "retry" or (name == "full" and (status.aborted_at or not status.abort)):
            self.forgive(world.rollout.status.current_pod_hash)
        self.note()

    def hand(self, what: str, number: int) -> None:
        """Somebody changes an object that the rollout made or keeps."""
        world, names = self.world, [*self.world.sets]
        key, route = next(iter(world.routes.items()))
        is_routed = self.strategy not in {"bluegreen", "pods"} and world.rollout.status.canary.weights is not None
        if not names or (what in {"weights", "rules"} and not is_routed):
            return  # a route that nobody looks after stays as somebody has it
        name = names[number % len(names)]
        found = world.sets[name]
        if what in {"weights", "rules"}:
            rule = copy.deepcopy(next(one for one in route["spec"]["rules"] if "name" not in one))
            for ref, weight in zip(rule["backendRefs"], (100 - number * 10, number * 10), strict=False):
                ref["weight"] = weight
            rules = (
                [rule] if what == "rules" else [rule if "name" not in one else one for one in route["spec"]["rules"]]
            )
            metadata = {**route["metadata"], "resourceVersion": f"9{world.version}"}
            world.version += 1
            world.routes[key] = {**route, "metadata": metadata, "spec": {**route["spec"], "rules": rules}}
        elif what == "service":
            service = ("shop-stable", "shop-canary")[number % 2]
            selector = {**world.services[service].spec.selector, HASH: found.metadata.labels[HASH]}
            world.services[service] = replace(world.services[service], spec__selector=selector)
        elif what == "size":
            world.version += 1
            world.sets[name] = replace(found, spec__replicas=number, metadata__resource_version=str(world.version))
        elif what == "set" and found.metadata.labels[HASH] != world.rollout.status.stable_rs:
            del world.sets[name]
        elif what == "label" and found.metadata.labels[HASH] != world.rollout.status.stable_rs:
            world.version += 1
            labels = {**found.metadata.labels, "app": "kept-for-a-look"}
            changes = {"metadata__labels": labels, "metadata__resource_version": str(world.version)}
            world.sets[name] = replace(found, **changes)
        elif what == "steps" and self.strategy != "bluegreen":
            strategy = to_dict(world.rollout.spec.strategy)
            strategy["canary"]["steps"] = [*strategy["canary"]["steps"], {"pause": {"duration": number}}][-9:]
            world.change(strategy=strategy)
        elif what == "run" and world.runs:
            world.runs.pop([*world.runs][number % len(world.runs)])
        self.shown = {named: self.exposure(named) for named in self.rejected}

    def stale(self, ages: list[int]) -> View:
        """Return a view of which each part is as old as caches may be."""
        parts: dict[str, Any] = {}
        for part, age in zip(PARTS, ages, strict=True):
            parts[part] = getattr(self.history[max(len(self.history) - 1 - age, 0)], part)
        return View(**parts, templates=self.world.view().templates)

    def decide(self, view: View, limit: int | None) -> None:
        try:
            self.world.step(view, limit)
        except Conflict:
            return

    def settle(self) -> None:
        for _ in range(9):
            try:
                self.world.settle()
            except Conflict:
                continue
            return
        raise AssertionError("no end of conflicts")

    def finish(self) -> None:
        """Be fair from now on: pods get ready, runs end well, people promote; then it has to come to an end."""
        world = self.world
        world.broken.clear()
        if world.rollout.spec.paused:
            world.change(paused=False)
        for _ in range(60):
            self.settle()
            world.judge("Successful")
            self.try_out("Successful" if self.tried else "Running")
            self.tried = not self.tried
            self.settle()
            status = world.rollout.status
            if status.pause_conditions:
                world.verb(verbs.promote(world.rollout))
            elif status.phase in {"Healthy", "Degraded"} and not world.step().actions:
                world.wait(700)
                if not world.step().actions and not world.play_pods():
                    return
            world.wait(7)
        raise AssertionError(f"no end of it: {world.rollout.status}")


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(events, max_size=40))
def test_rollouts_are_safe_and_end(strategy: str, happens: list[tuple[str, Any]]) -> None:
    model = Model(strategy)
    model.world.settle()
    model.world.wait(60)
    model.set_image("v2")
    for event, value in happens:
        model.play(event, value)
    model.finish()
    ended(model)


@pytest.mark.parametrize("is_aborted", [False, True], ids=["goes on", "aborted"])
@pytest.mark.parametrize("after", sorted(STRATEGIES))
@pytest.mark.parametrize("before", sorted(STRATEGIES))
def test_another_strategy_in_the_midst_of_an_update_is_safe_and_ends(
    before: str, after: str, *, is_aborted: bool
) -> None:
    model = Model(before)
    model.world.settle()
    model.world.wait(60)
    model.set_image("v2")
    model.world.settle()
    model.set_strategy(after)
    model.decide(model.world.view(), 2)
    if is_aborted:
        model.verb("abort")
    model.finish()
    ended(model)
    assert bool(model.world.rollout.status.abort) is is_aborted


def ended(model: Model) -> None:
    """Check what has to hold when all is over."""
    status = model.world.rollout.status
    assert status.phase == "Healthy" or status.abort
    for named in model.rejected:
        assert model.exposure(named) == 0
    assert bool(status.abort) is (status.stable_rs != status.current_pod_hash)
    if not status.abort and model.strategy != "pods":
        assert model.world.selected("shop-stable") == model.world.names[status.stable_rs or ""]
    if model.strategy in {"pods", "bluegreen"}:
        assert model.world.weights() == {"shop-stable": 100, "shop-canary": 0}
        assert status.canary.weights is None


def test_the_model_can_fail() -> None:
    """A machine that goes on with an aborted version would be noticed."""
    model = Model("routed")
    world = model.world
    world.settle()
    world.wait(60)
    model.set_image("v2")
    world.settle()
    model.verb("abort")
    world.rollout = replace(world.rollout, status__abort=None)
    world.wait(6)
    with pytest.raises(AssertionError, match="rejected version"):
        world.settle()
