"""A pod's life, whatever happens in whatever order: it stays lawful, and it ends when it is asked to."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kinds.structs import Pod, from_dict
from pilothouse.node.agent.life import PodLife
from pilothouse.node.agent.model import (
    Adopted,
    CreateContainer,
    Created,
    Failed,
    HookDone,
    KillPod,
    Observed,
    PodGone,
    PodSeen,
    Probed,
    Pulled,
    PullImage,
    Record,
    RunSandbox,
    SandboxGone,
    SandboxMade,
    StartContainer,
    Tick,
    WriteStatus,
)
from pilothouse.node.agent.statuses import NodeFacts
from support.podworld import EPOCH, Rules, World, make_pod

_PROBE = {"exec": {"command": ["x"]}, "periodSeconds": 3, "failureThreshold": 2}
_HOOK = {"exec": {"command": ["x"]}}
_ANSWERS = st.lists(st.sampled_from(["success", "failure", "error"]), min_size=1, max_size=4)
_RUN = st.tuples(st.sampled_from([None, 0.0, 0.3, 2.0, 20.0]), st.sampled_from([0, 1, 42]))


@st.composite
def containers(draw: st.DrawFn, name: str, role: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name}
    if role == "side":
        made["restartPolicy"] = "Always"
    if role != "init":
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if draw(st.booleans()) and draw(st.booleans()):
                made[probe] = _PROBE
        hooks = {hook: _HOOK for hook in ("postStart", "preStop") if draw(st.integers(0, 3)) == 0}
        if hooks:
            made["lifecycle"] = hooks
    if role == "main" and draw(st.integers(0, 4)) == 0:
        made["restartPolicy"] = draw(st.sampled_from(["Always", "Never", "OnFailure"]))
    return made


RULES = st.builds(
    Rules,
    runs=st.lists(_RUN, min_size=1, max_size=3),
    stop_seconds=st.sampled_from([None, 0.1, 5.0]),
    pulls=st.integers(0, 2),
    creates=st.integers(0, 1),
    starts=st.integers(0, 1),
    probes=st.fixed_dictionaries({}, optional={"startup": _ANSWERS, "liveness": _ANSWERS, "readiness": _ANSWERS}),
    hook_seconds=st.sampled_from([0.1, 4.0, 40.0]),
    hook_message=st.sampled_from(["", "", "failed"]),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    inits = [
        draw(containers(f"{role}{number}", role))
        for number, role in enumerate(draw(st.lists(st.sampled_from(["init", "side"]), max_size=3)))
    ]
    mains = [draw(containers(f"main{number}", "main")) for number in range(draw(st.integers(1, 2)))]
    spec: dict[str, Any] = {"restartPolicy": draw(st.sampled_from(["Always", "OnFailure", "Never"]))}
    spec["terminationGracePeriodSeconds"] = draw(st.sampled_from([0, 3, 30]))
    if draw(st.integers(0, 4)) == 0:
        spec["activeDeadlineSeconds"] = draw(st.sampled_from([5, 30]))
    world = World(make_pod(*mains, inits=inits, **spec), {each["name"]: draw(RULES) for each in (*inits, *mains)})
    world.sandbox_failures = draw(st.integers(0, 1))
    return world


DISTURBANCES = st.lists(
    st.tuples(st.floats(0, 60), st.sampled_from(["crash", "lose", "seen", "evict", "delete", "shorter", "gone"])),
    max_size=5,
)


def disturb(world: World, what: str) -> None:
    if what == "crash":
        world.crash()
    elif what == "lose":
        world.lose_sandbox()
    elif what == "evict":
        world.tell(KillPod(reason="Evicted", message="low", grace=0.0))
    elif what == "gone":
        world.tell(PodGone())
    else:
        if what != "seen":
            grace = 30 if what == "delete" else 1
            world.change(deletionTimestamp="2023-11-14T22:13:30Z", deletionGracePeriodSeconds=grace)
        world.tell(PodSeen(world.pod))


@settings(max_examples=150, deadline=None)
@given(worlds(), DISTURBANCES)
def test_any_life_is_lawful_and_ends(world: World, disturbances: list[tuple[float, str]]) -> None:
    world.at(0, lambda: world.tell(PodSeen(world.pod)))
    for seconds, what in disturbances:
        world.at(seconds, lambda what=what: disturb(world, what))  # type: ignore[misc]
    world.run(120)
    world.change(deletionTimestamp="2023-11-14T22:13:30Z", deletionGracePeriodSeconds=10)
    world.tell(PodSeen(world.pod))
    world.run(60)
    shown = "\n".join(world.trace)
    assert world.finished, shown
    assert not world.running(), shown
    assert not any(world.sandboxes.values()), shown
    check_statuses(world)


def check_statuses(world: World) -> None:
    counts: dict[str, int] = {}
    for status in world.statuses:
        assert status.phase in {"Pending", "Running", "Succeeded", "Failed"}
        listed = (*status.init_container_statuses, *status.container_statuses)
        for each in listed:
            states = [each.state.waiting, each.state.running, each.state.terminated]
            assert sum(state is not None for state in states) == 1
            assert not (each.ready and each.state.running is None and not each.name.startswith("init"))
            if not world.incarnation:
                assert each.restart_count >= counts.get(each.name, 0)
            counts[each.name] = each.restart_count
        if status.phase == "Succeeded":
            assert all(each.state.terminated is not None for each in status.container_statuses)
        true = {each.type for each in status.conditions if each.status == "True"}
        assert not ("Ready" in true and "ContainersReady" not in true)
        if "ContainersReady" in true:
            assert all(each.ready for each in status.container_statuses)


_NAMES = st.sampled_from(["main", "side", "init", "nobody"])
_IDS = st.sampled_from(["a", "b", "c"])
_RECORDS = st.builds(
    Record,
    id=_IDS,
    attempt=st.integers(0, 2),
    state=st.sampled_from(["Created", "Running", "Exited"]),
    exit_code=st.sampled_from([0, 1]),
    started_at=st.just(EPOCH),
    finished_at=st.just(EPOCH),
)
_EVENTS = st.one_of(
    st.just(Tick()),
    st.just(PodGone()),
    st.builds(SandboxMade, _IDS, st.just("10.0.0.9")),
    st.builds(SandboxGone, _IDS),
    st.builds(Pulled, name=_NAMES, image_id=st.just("x"), text=st.just("x")),
    st.builds(Created, _NAMES, _IDS),
    st.builds(Failed, what=st.sampled_from(["sandbox", "mounts"]), message=st.just("x")),
    st.builds(Failed, what=st.sampled_from(["pull", "create", "start"]), name=_NAMES, reason=st.just("X")),
    st.builds(Observed, _NAMES, _RECORDS),
    st.builds(
        Probed,
        name=_NAMES,
        id=_IDS,
        kind=st.sampled_from(["startup", "liveness", "readiness"]),
        result=st.sampled_from(["success", "failure", "error"]),
    ),
    st.builds(HookDone, name=_NAMES, id=_IDS, hook=st.sampled_from(["postStart", "preStop"]), message=st.just("")),
    st.builds(
        Adopted, sandbox_id=_IDS, attempt=st.integers(0, 2), records=st.lists(st.tuples(_NAMES, _RECORDS)).map(tuple)
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 15.0]), _EVENTS), max_size=30))
def test_nonsense_is_taken_without_a_word(events: list[tuple[float, Any]]) -> None:
    side = {"name": "side", "restartPolicy": "Always", "startupProbe": _PROBE}
    main = {"name": "main", "livenessProbe": _PROBE, "lifecycle": {"preStop": _HOOK, "postStart": _HOOK}}
    pod = from_dict(make_pod(main, inits=[{"name": "init"}, side]), Pod)
    life, now = PodLife(pod, NodeFacts(host_ips=("192.0.2.1",))), EPOCH
    for seconds, event in [(0.0, PodSeen(pod)), *events]:
        now += seconds
        actions = life.handle(event, now)
        busy = [action.name for action in actions if isinstance(action, PullImage | CreateContainer | StartContainer)]
        assert len(busy) == len(set(busy)), actions
        assert sum(isinstance(action, WriteStatus) for action in actions) <= 2
        assert life.due is None or life.due >= now - 1e-6
        assert not (life.finished and any(isinstance(action, RunSandbox | StartContainer) for action in actions))
