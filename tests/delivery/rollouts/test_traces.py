"""Golden traces: what happens, and what the state machine writes then, line by line as in `tests/golden/rollouts`.

With PILOTHOUSE_WRITE_TRACES set they are written anew; look at each difference before it is committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from pilothouse.delivery.resources.experiments import TemplateStatus
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import verbs
from pilothouse.kinds.structs import Pod, from_dict, replace, to_dict
from support.rolloutworld import World, rollout_of, template

TRACES: Final = Path(__file__).parents[2] / "golden" / "rollouts"
ROUTING: Final = (
    "trafficRouting: {managedRoutes: [{name: vip}, {name: copies}],"
    " plugins: {argoproj-labs/gatewayAPI: {httpRoute: shop}}}"
)
SCENARIOS: Final[dict[str, Callable[[], World]]] = {}


def scenario(play: Callable[[], World]) -> Callable[[], World]:
    SCENARIOS[play.__name__] = play
    return play


def canary(steps: str, *more: str, routed: bool = True, **spec: object) -> World:
    """Return a world in which version 1 is stable and version 2 was just set."""
    services = "canaryService: shop-canary\n  stableService: shop-stable"
    lines = "\n  ".join([services, *([ROUTING] if routed else []), *more, f"steps: {steps}"])
    world = World(rollout_of(f"canary:\n  {lines}", replicas=int(str(spec.pop("replicas", 10))), **spec))
    world.add_route()
    world.add_template("errors", {"plugin": {"pilothouse.dev/traffic": {}}}, args=[{"name": "service"}])
    return started(world)


def blue_green(text: str = "", **spec: object) -> World:
    strategy = f"blueGreen:\n  activeService: shop-active\n  previewService: shop-preview\n{text}"
    world = World(rollout_of(strategy, replicas=4, **spec), services=("shop-active", "shop-preview"))
    world.add_template("errors")
    return started(world)


def started(world: World) -> World:
    world.settle()
    world.log.clear()
    world.wait(60)
    world.say("version 2 is set")
    world.set_image("v2")
    world.settle()
    return world


def later(world: World, seconds: float) -> None:
    world.wait(seconds)
    world.say("later")
    world.settle()


def judged(world: World, phase: str, role: str = "", message: str = "") -> None:
    world.say(f"{role or 'analysis'} ends: {phase}")
    assert world.judge(phase, role, message)
    world.settle()


def promoted(world: World, *, full: bool = False) -> None:
    world.say("promoted in full" if full else "promoted")
    world.verb(verbs.promote(world.rollout, full=full))
    world.settle()


@scenario
def first_deploy() -> World:
    world = World(rollout_of(f"canary:\n  canaryService: shop-canary\n  stableService: shop-stable\n  {ROUTING}"))
    world.add_route()
    world.say("applied")
    world.settle()
    return world


@scenario
def weights_and_pauses() -> World:
    world = canary('[{setWeight: 20}, {pause: {duration: "10"}}, {setWeight: 50}, {pause: {}}]')
    later(world, 10)
    promoted(world)
    later(world, 3)
    later(world, 30)
    return world


@scenario
def aborted_by_a_person_and_tried_again() -> World:
    world = canary("[{setWeight: 20}, {pause: {}}]")
    world.say("aborted")
    world.verb(verbs.abort(world.rollout))
    world.settle()
    later(world, 30)
    world.say("tried again")
    world.verb(verbs.retry(world.rollout))
    world.settle()
    return world


@scenario
def judged_bad_in_the_background() -> World:
    args = "args: [{name: service, value: shop-canary}]"
    background = f"analysis: {{templates: [{{templateName: errors}}], {args}, startingStep: 1}}"
    world = canary("[{setWeight: 20}, {pause: {duration: 1m}}, {setWeight: 50}]", background)
    judged(world, "Failed", "Background", "2 % of requests failed")
    later(world, 30)
    return world


@scenario
def watched_after_promotion() -> World:
    args = "args: [{name: service, value: shop-canary}]"
    world = canary("[{setWeight: 50}]", f"analysis: {{templates: [{{templateName: errors}}], {args}}}")
    later(world, 60)
    judged(world, "Failed", "Background", "slow")
    return world


@scenario
def watched_and_well() -> World:
    args = "args: [{name: service, value: shop-canary}]"
    world = canary("[{setWeight: 50}]", f"analysis: {{templates: [{{templateName: errors}}], {args}}}")
    later(world, 120)
    later(world, 3)
    return world


@scenario
def inline_analysis_that_cannot_tell() -> World:
    analysis = "{analysis: {templates: [{templateName: errors}], args: [{name: service, value: x}]}}"
    world = canary(f"[{{setWeight: 20}}, {analysis}, {{setWeight: 50}}, {{pause: {{}}}}]")
    judged(world, "Inconclusive")
    promoted(world)
    return world


@scenario
def routes_and_mirrors() -> World:
    header = "{setHeaderRoute: {name: vip, match: [{headerName: x-vip, headerValue: {prefix: a}}]}}"
    mirror = "{setMirrorRoute: {name: copies, percentage: 35, match: [{method: {exact: GET}, path: {prefix: /}}]}}"
    steps = f"[{{setCanaryScale: {{replicas: 2}}}}, {header}, {mirror}, {{pause: {{}}}}"
    steps += ", {setMirrorRoute: {name: copies}}"
    world = canary(steps + ", {pause: {}}, {setCanaryScale: {matchTrafficWeight: true}}, {setWeight: 40}, {pause: {}}]")
    promoted(world)
    promoted(world)
    world.say("aborted")
    world.verb(verbs.abort(world.rollout))
    world.settle()
    return world


@scenario
def region_by_region() -> World:
    def region(name: str, weight: int) -> str:
        return f'{{plugin: {{name: pilothouse.dev/regions, config: {{regions: ["{name}"], weight: {weight}}}}}}}'

    steps = [region("cn-east", 20), "{pause: {}}", region("cn-east", 100), "{pause: {}}", region("*", 100)]
    world = canary(f"[{', '.join(steps)}]")
    promoted(world)
    promoted(world)
    later(world, 3)
    return world


@scenario
def another_version_in_the_midst() -> World:
    world = canary("[{setWeight: 40}, {pause: {}}]")
    world.say("version 3 is set")
    world.set_image("v3")
    world.settle()
    return world


@scenario
def back_to_the_stable_version() -> World:
    world = canary("[{setWeight: 40}, {pause: {}}]")
    world.say("version 1 is set again")
    world.set_image("v1")
    world.settle()
    later(world, 30)
    return world


@scenario
def scaled_in_the_midst() -> World:
    world = canary("[{setWeight: 50}, {pause: {}}]")
    world.say("4 replicas")
    world.change(replicas=4)
    world.settle()
    return world


@scenario
def promoted_in_full() -> World:
    world = canary("[{setWeight: 10}, {pause: {}}, {setWeight: 20}, {pause: {}}]")
    promoted(world, full=True)
    later(world, 3)
    return world


@scenario
def stable_pods_follow_traffic() -> World:
    world = canary("[{setWeight: 20}, {setWeight: 60}, {pause: {}}]", "dynamicStableScale: true")
    world.say("aborted")
    world.verb(verbs.abort(world.rollout))
    world.settle()
    return world


@scenario
def without_routes() -> World:
    steps = "[{setWeight: 25}, {pause: {duration: 5}}, {setWeight: 50}]"
    world = canary(steps, "maxSurge: 1", "maxUnavailable: 0", routed=False, replicas=4)
    later(world, 5)
    return world


@scenario
def pods_that_never_come() -> World:
    world = World(
        rollout_of(
            "canary:\n  canaryService: shop-canary\n  stableService: shop-stable\n"
            f"  {ROUTING}\n  steps: [{{setWeight: 20}}]",
            progressDeadlineSeconds=30,
            progressDeadlineAbort=True,
        )
    )
    world.add_route()
    world.broken.add("v2")
    started(world)
    later(world, 31)
    return world


@scenario
def an_experiment_with_a_share() -> World:
    experiment = "{experiment: {duration: 1m, templates: [{name: baseline, specRef: stable, weight: 5}]}}"
    world = canary(f"[{{setWeight: 20}}, {experiment}, {{pause: {{}}}}]")
    (name,) = world.experiments
    share = TemplateStatus(name="baseline", service_name="shop-baseline", pod_template_hash="abc")
    running = replace(world.experiments[name], status__phase="Running", status__template_statuses=[share])
    world.say("the experiment runs")
    world.experiments[name] = running
    world.settle()
    world.say("it ends well")
    world.experiments[name] = replace(running, status__phase="Successful")
    world.settle()
    return world


@scenario
def blue_green_by_hand() -> World:
    world = blue_green("  autoPromotionEnabled: false\n  previewReplicaCount: 1\n")
    promoted(world)
    later(world, 30)
    return world


@scenario
def blue_green_by_time() -> World:
    world = blue_green("  autoPromotionSeconds: 20\n")
    later(world, 20)
    return world


@scenario
def blue_green_judged_before_and_after() -> World:
    world = blue_green(
        "  prePromotionAnalysis: {templates: [{templateName: errors}]}\n"
        "  postPromotionAnalysis: {templates: [{templateName: errors}]}\n"
    )
    judged(world, "Successful", "PrePromotion")
    judged(world, "Failed", "PostPromotion", "too slow")
    later(world, 30)
    return world


@scenario
def restarted() -> World:
    world = canary("[]", routed=False, replicas=2, restartAt="2025-01-01T00:00:50Z")
    world.log.clear()
    world.say("version 2 runs, and is to be restarted")
    labels = {"app": "shop", "rollouts-pod-template-hash": world.hash("v2")}
    for number in range(2):
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:10Z"}
        pod = {
            "metadata": {"name": f"shop-{number}", "labels": labels, "creationTimestamp": "2025-01-01T00:00:00Z"},
            "status": {"conditions": [ready]},
        }
        world.pods[f"shop-{number}"] = from_dict(pod, Pod)
    world.change(restartAt="2025-01-01T00:01:00Z")
    world.step()
    world.pods.pop("shop-0")
    world.step()
    world.pods.clear()
    world.say("all are new")
    world.settle()
    return world


@scenario
def a_workload_taken_over() -> World:
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "shop", "generation": 3},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "shop"}}, "template": template("v1")},
    }
    rollout = to_dict(rollout_of("canary: {}", replicas=2))
    del rollout["spec"]["template"], rollout["spec"]["selector"]
    rollout["spec"]["workloadRef"] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "shop",
        "scaleDown": "onsuccess",
    }
    world = World(from_dict(rollout, Rollout))
    world.workload = deployment
    world.say("applied")
    for _ in range(12):
        world.step()
        world.play_pods()
        deployment["spec"] = {**deployment["spec"], "replicas": world.workload_replicas(2)}  # type: ignore[dict-item]
    return world


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_trace_is_the_golden_one(name: str) -> None:
    world = SCENARIOS[name]()
    text = "\n".join(world.log) + "\n"
    path = TRACES / f"{name}.txt"
    if os.environ.get("PILOTHOUSE_WRITE_TRACES"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_no_trace_is_left_over() -> None:
    assert {path.stem for path in TRACES.glob("*.txt")} == {*SCENARIOS}
