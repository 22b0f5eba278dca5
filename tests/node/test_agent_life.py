"""A pod's life, played: golden traces of what is done when, and the same with the agent gone at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilothouse.node.agent.model import (
    Created,
    Event,
    Failed,
    KillPod,
    Observed,
    PodGone,
    PodSeen,
    Pulled,
    Record,
    SandboxMade,
    StopSandbox,
)
from support.podworld import Rules, World, make_pod

GOLDEN = Path(__file__).parent.parent / "golden" / "node"
PROBE = {"exec": {"command": ["true"]}, "periodSeconds": 5}
DELETED = "2023-11-14T22:13:30Z"

Scene = Callable[[], World]
SCENES: dict[str, Scene] = {}


def scene(made: Scene) -> Scene:
    SCENES[made.__name__.replace("_", "-")] = made
    return made


def play(world: World, seconds: float) -> World:
    world.at(0, lambda: world.tell(PodSeen(world.pod)))
    world.run(seconds)
    return world


def delete(world: World, grace: int = 30) -> None:
    world.change(deletionTimestamp=DELETED, deletionGracePeriodSeconds=grace)
    world.tell(PodSeen(world.pod))


@scene
def runs_and_is_deleted() -> World:
    world = World(make_pod("main"))
    world.at(10, lambda: delete(world))
    return play(world, 20)


@scene
def crash_loop() -> World:
    return play(World(make_pod("main"), {"main": Rules(runs=((1, 1),))}), 200)


@scene
def job_succeeds() -> World:
    world = World(make_pod("main", restartPolicy="Never"), {"main": Rules(runs=((5, 0),))})
    world.at(10, lambda: delete(world))
    return play(world, 20)


@scene
def job_fails_is_tried_again_on_failure() -> World:
    rules = {"main": Rules(runs=((1, 2), (1, 0)), reason="")}
    return play(World(make_pod("main", restartPolicy="OnFailure"), rules), 30)


@scene
def out_of_memory() -> World:
    rules = {"main": Rules(runs=((1, 137),), reason="OOMKilled")}
    return play(World(make_pod("main", restartPolicy="Never"), rules), 30)


@scene
def init_containers_in_order_one_fails_once() -> World:
    rules = {"a": Rules(runs=((1, 0),)), "b": Rules(runs=((1, 1), (1, 0)))}
    return play(World(make_pod("main", inits=[{"name": "a"}, {"name": "b"}]), rules), 30)


@scene
def init_container_fails_for_good() -> World:
    rules = {"a": Rules(runs=((1, 7),))}
    return play(World(make_pod("main", inits=[{"name": "a"}], restartPolicy="Never"), rules), 30)


@scene
def sidecars_start_first_and_stop_last() -> World:
    side = {"restartPolicy": "Always"}
    inits: list[dict[str, Any]] = [
        {"name": "one", **side, "startupProbe": PROBE},
        {"name": "init"},
        {"name": "two", **side, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
    ]
    rules = {
        "one": Rules(probes={"startup": ("failure", "success")}),
        "init": Rules(runs=((1, 0),)),
        "main": Rules(stop_seconds=3),
    }
    world = World(make_pod("main", inits=inits), rules)
    world.at(20, lambda: delete(world))
    return play(world, 40)


@scene
def sidecar_of_a_job_is_ended_by_the_node() -> World:
    rules = {"main": Rules(runs=((5, 0),)), "side": Rules(runs=((2, 1), (None, 0)))}
    inits = [{"name": "side", "restartPolicy": "Always"}]
    return play(World(make_pod("main", inits=inits, restartPolicy="Never"), rules), 30)


@scene
def startup_probe_then_liveness_kills() -> World:
    main = {"name": "main", "startupProbe": PROBE, "livenessProbe": {**PROBE, "failureThreshold": 2}}
    answers = {"startup": ("failure", "failure", "success"), "liveness": ("success", "failure", "error", "failure")}
    return play(World(make_pod(main), {"main": Rules(probes=answers)}), 60)


@scene
def startup_probe_fails_too_often() -> World:
    main = {"name": "main", "startupProbe": {**PROBE, "failureThreshold": 2, "terminationGracePeriodSeconds": 5}}
    return play(World(make_pod(main), {"main": Rules(probes={"startup": ("failure",)}, stop_seconds=None)}), 40)


@scene
def readiness_comes_and_goes() -> World:
    main = {"name": "main", "readinessProbe": {**PROBE, "successThreshold": 2, "initialDelaySeconds": 3}}
    answers = {"readiness": ("success", "success", "failure", "failure", "failure", "success", "success")}
    return play(World(make_pod(main), {"main": Rules(probes=answers)}), 45)


@scene
def hooks_share_the_grace() -> World:
    hooks = {"postStart": {"exec": {"command": ["x"]}}, "preStop": {"exec": {"command": ["y"]}}}
    main = {"name": "main", "lifecycle": hooks}
    world = World(make_pod(main), {"main": Rules(hook_seconds=4, stop_seconds=None)})
    world.at(20, lambda: delete(world, grace=10))
    return play(world, 50)


@scene
def hook_before_the_stop_takes_all_of_the_grace() -> World:
    main = {"name": "main", "lifecycle": {"preStop": {"exec": {"command": ["y"]}}}}
    world = World(make_pod(main), {"main": Rules(hook_seconds=100, stop_seconds=None)})
    world.at(5, lambda: delete(world, grace=10))
    return play(world, 30)


@scene
def hook_after_the_start_fails() -> World:
    main = {"name": "main", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}
    return play(World(make_pod(main), {"main": Rules(hook_message="exit 1")}), 15)


@scene
def image_is_not_there_at_first() -> World:
    return play(World(make_pod("main"), {"main": Rules(pulls=2)}), 60)


@scene
def config_is_not_there_at_first() -> World:
    return play(World(make_pod("main"), {"main": Rules(creates=1)}), 30)


@scene
def program_is_not_there() -> World:
    return play(World(make_pod("main"), {"main": Rules(starts=2)}), 30)


@scene
def sandbox_is_not_to_be_had_at_first() -> World:
    world = World(make_pod("main"))
    world.sandbox_failures = 2
    return play(world, 20)


@scene
def sandbox_is_lost() -> World:
    world = World(make_pod("main", inits=[{"name": "init"}]), {"init": Rules(runs=((1, 0),))})
    world.at(10, world.lose_sandbox)
    return play(world, 30)


@scene
def active_deadline() -> World:
    return play(World(make_pod("main", activeDeadlineSeconds=10, restartPolicy="Never")), 30)


@scene
def deletion_is_made_shorter() -> World:
    world = World(make_pod("main"), {"main": Rules(stop_seconds=None)})
    world.at(5, lambda: delete(world, grace=30))
    world.at(10, lambda: delete(world, grace=5))
    return play(world, 40)


@scene
def deleted_by_force() -> World:
    world = World(make_pod("main"), {"main": Rules(stop_seconds=None)})
    world.at(5, lambda: world.tell(PodGone()))
    return play(world, 30)


@scene
def deleted_while_the_image_is_pulled() -> World:
    world = World(make_pod("main"), {"main": Rules(pulls=99)})
    world.at(15, lambda: delete(world))
    return play(world, 30)


@scene
def evicted() -> World:
    world = World(make_pod("main"))
    kill = KillPod(reason="Evicted", message="The node was low on resource: memory. ", grace=0.0, condition="Test")
    world.at(5, kill)
    return play(world, 20)


@scene
def refused() -> World:
    world = World(make_pod("main"))
    world.at(0, KillPod(reason="OutOfcpu", message="Pod was rejected"))
    world.run(5)
    return world


@scene
def restart_rules_of_a_container() -> World:
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    main = {"name": "main", "restartPolicy": "Never", "restartPolicyRules": [rule]}
    rules = {"main": Rules(runs=((1, 42), (1, 1)))}
    return play(World(make_pod(main, restartPolicy="Never"), rules), 30)


@scene
def ephemeral_container_is_added() -> World:
    world = World(make_pod("main"), {"debug": Rules(runs=((3, 1),))})

    def add() -> None:
        extra = [{"name": "debug", "image": "tools:1"}]
        world.body = {**world.body, "spec": {**world.body["spec"], "ephemeralContainers": extra}}
        world.tell(PodSeen(world.pod))

    world.at(5, add)
    return play(world, 20)


@scene
def readiness_gates() -> World:
    world = World(make_pod("main", readinessGates=[{"conditionType": "example.com/ok"}]))

    def open_gate() -> None:
        world.body = {**world.body, "status": {"conditions": [{"type": "example.com/ok", "status": "True"}]}}
        world.tell(PodSeen(world.pod))

    world.at(5, open_gate)
    return play(world, 10)


@pytest.mark.parametrize("name", SCENES)
def test_traces_are_as_they_were(name: str) -> None:
    trace = "\n".join(SCENES[name]().trace) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN_WRITE"):
        path.write_text(trace)
    assert trace == path.read_text()


def test_every_trace_is_of_a_scene() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCENES)


CRASHED: dict[str, dict[str, Any]] = {
    "plain": {"pod": make_pod("main"), "starts": {"main": 1}},
    "ordered": {
        "pod": make_pod("main", inits=[{"name": "init"}, {"name": "side", "restartPolicy": "Always"}]),
        "rules": {"init": Rules(runs=((1, 0),))},
        "starts": {"init": 1, "side": 1, "main": 1},
    },
    "job": {
        "pod": make_pod("main", restartPolicy="Never"),
        "rules": {"main": Rules(runs=((2, 0),))},
        "starts": {"main": 1},
        "phase": "Succeeded",
    },
}


@pytest.mark.parametrize("name", CRASHED)
def test_an_agent_that_is_gone_at_any_moment_starts_nothing_twice(name: str) -> None:
    given = CRASHED[name]
    for step in range(0, 400, 1):
        world = World(given["pod"], given.get("rules", {}))
        world.at(0, lambda world=world: world.tell(PodSeen(world.pod)))  # type: ignore[misc]
        world.at(step / 100 + 0.005, world.crash)
        world.run(30)
        assert world.starts == given["starts"], (step, world.trace)
        assert world.statuses[-1].phase == given.get("phase", "Running"), (step, world.trace)


def test_runs_that_the_runtime_has_forgotten_count_too() -> None:
    body = make_pod("main")
    status = {"name": "main", "containerID": "test://old", "restartCount": 4, "state": {"running": {}}}
    body["status"] = {"phase": "Running", "containerStatuses": [status]}
    world = play(World(body), 5)
    assert world.statuses[-1].container_statuses[0].restart_count == 5


def test_restart_counts_and_back_off_are_those_of_a_kubelet() -> None:
    world = play(World(make_pod("main"), {"main": Rules(runs=((0.5, 1),))}), 2400)
    pauses = [round(later - earlier) for earlier, later in zip(_starts(world), _starts(world)[1:], strict=False)]
    assert pauses[:9] == [1, 11, 21, 41, 81, 161, 301, 301, 301]


def _starts(world: World) -> list[float]:
    found: list[float] = []
    moment = 0.0
    for line in world.trace:
        head = line[:9].strip()
        moment = float(head) if head else moment
        if "-> StartContainer" in line:
            found.append(moment)
    return found


@pytest.mark.parametrize("told_first", [True, False])
def test_a_start_that_failed_is_over_whichever_is_told_first_its_end_or_its_failure(told_first: bool) -> None:
    """A runtime's own word of the end may come before the answer of the call; the pod must not wait for another."""
    world = World(make_pod("main"))
    life = world.life
    life.handle(PodSeen(world.pod), 0)
    life.handle(SandboxMade("s", "10.0.0.1"), 0)
    life.handle(Pulled(name="main", image_id="i", text=""), 0)
    life.handle(Created("main", "c"), 0)
    record = Record(id="c", attempt=0, state="Exited", finished_at=1, exit_code=128, reason="StartError")
    events: list[Event] = [
        Observed("main", record),
        Failed(what="start", name="main", reason="RunContainerError", message="no such file"),
        Observed("main", record),
    ]
    done = [action for event in (events if told_first else events[1:]) for action in life.handle(event, 1)]
    assert [type(each).__name__ for each in done].count("PullImage") == 1  # for the next run, once
    life.handle(Pulled(name="main", image_id="i", text=""), 1)
    world.change(deletionTimestamp=DELETED, deletionGracePeriodSeconds=30)
    assert StopSandbox("s") not in life.handle(PodSeen(world.pod), 2)  # while the next run is being made
    assert StopSandbox("s") in life.handle(Created("main", "d"), 3)
