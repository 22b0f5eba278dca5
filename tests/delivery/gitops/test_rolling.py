"""Progressive syncs: steps by labels, as many at a time as may be, and none after a step that is not healthy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.appsets.rolling import is_rolling, roll, steps_of
from pilothouse.delivery.gitops.errors import TemplateError
from pilothouse.delivery.resources.applications import Application, ApplicationSet
from pilothouse.kinds.structs import from_dict, to_dict
from support.gitopskit import World, config_map
from support.gitrepo import GitRepo


def step(*values: str, **more: Any) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "env", "operator": "In", "values": [*values]}], **more}


def strategy(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RollingSync", "rollingSync": {"steps": [*steps]}}


def app(name: str, env: str, sync: str = "OutOfSync", health: str = "Healthy", phase: str = "") -> Application:
    status: dict[str, Any] = {"sync": {"status": sync, "revision": "1" * 40}, "health": {"status": health}}
    if phase:
        status["operationState"] = {"phase": phase, "message": "why", "operation": {}, "startedAt": "x"}
    tree = {"metadata": {"name": name, "namespace": "argocd", "labels": {"env": env}}, "spec": {}, "status": status}
    return from_dict(tree, Application)


def stands(turns: Any) -> dict[str, str]:
    return {turn.entry["application"]: turn.entry["status"] + ("!" if turn.sync else "") for turn in turns}


def test_a_step_waits_for_the_one_before() -> None:
    steps = steps_of(strategy(step("dev"), step("prod")))
    apps = [app("a", "dev"), app("b", "prod"), app("c", "none")]
    turns = roll(steps, apps, [], "t0")
    assert stands(turns) == {"a": "Pending!", "b": "Waiting"}
    entries = [turn.entry for turn in turns]
    assert stands(roll(steps, apps, entries, "t1")) == {"a": "Pending", "b": "Waiting"}, "it is synced once"
    for changed, expected in (
        (app("a", "dev", phase="Running"), "Progressing"),
        (app("a", "dev", "Synced", "Progressing", "Succeeded"), "Progressing"),
        (app("a", "dev", phase="Failed"), "Progressing"),
        (app("a", "dev", "Synced", "Degraded", "Succeeded"), "Progressing"),
    ):
        assert stands(roll(steps, [changed, *apps[1:]], entries, "t1")) == {"a": expected, "b": "Waiting"}
    done = [app("a", "dev", "Synced", phase="Succeeded"), *apps[1:]]
    assert stands(roll(steps, done, entries, "t1")) == {"a": "Healthy", "b": "Pending!"}
    failed = roll(steps, [app("a", "dev", phase="Failed"), *apps[1:]], entries, "t1")
    assert failed[0].entry["message"] == "its sync failed, and the steps after wait: why"


def test_a_step_waits_until_the_ones_before_were_compared_with_the_same_commit() -> None:
    """Otherwise the second could go ahead while the first has not seen yet that there is something to do."""
    steps = steps_of(strategy(step("dev"), step("prod")))
    source = {"repoURL": "https://example.com/x", "targetRevision": "main"}
    first, second = (
        from_dict({**to_dict(each), "spec": {"source": {**source, "path": each.metadata.name}}}, Application)
        for each in (app("a", "dev", "Synced"), app("b", "prod"))
    )
    assert stands(roll(steps, [first, second], [], "t0")) == {"a": "Healthy", "b": "Pending!"}
    newer = from_dict(
        to_dict(second) | {"status": {"sync": {"status": "OutOfSync", "revision": "2" * 40}}}, Application
    )
    assert stands(roll(steps, [first, newer], [], "t0")) == {"a": "Healthy", "b": "Waiting"}


@pytest.mark.parametrize(
    ("most", "count"), [(None, 5), (2, 2), (0, 0), ("40%", 2), ("10%", 1), ("0%", 0), ("100%", 5), (9, 5), ("3", 3)]
)
def test_how_many_at_a_time(most: Any, count: int) -> None:
    steps = steps_of(strategy(step("dev", **({} if most is None else {"maxUpdate": most}))))
    apps = [app(f"a{number}", "dev") for number in range(5)]
    turns = roll(steps, apps, [], "t0")
    assert sum(turn.sync for turn in turns) == count
    again = roll(steps, apps, [turn.entry for turn in turns], "t1")
    assert not any(turn.sync for turn in again), "those on their way count"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (strategy(), "there are none"),
        (strategy({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), "In or NotIn"),
        (strategy(step("a", maxUpdate="many")), "no number"),
        (strategy(step("a", maxUpdate=-1)), "no number"),
    ],
)
def test_what_is_not_understood_is_said(wrong: dict[str, Any], why: str) -> None:
    assert is_rolling(wrong)
    with pytest.raises(TemplateError, match=why) as raised:
        steps_of(wrong)
    assert str(raised.value).startswith("strategy.rollingSync.steps")


STATES = st.builds(
    app,
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["dev", "prod", "other"]),
    st.sampled_from(["Synced", "OutOfSync", "Unknown", ""]),
    st.sampled_from(["Healthy", "Progressing", "Degraded", ""]),
    st.sampled_from(["", "Running", "Succeeded", "Failed"]),
)


@given(st.lists(st.lists(STATES, max_size=4, unique_by=lambda each: each.metadata.name), max_size=6))
def test_no_step_begins_before_the_one_before_is_done(history: list[list[Application]]) -> None:
    steps = steps_of(strategy(step("dev", maxUpdate=1), step("prod")))
    entries: list[dict[str, Any]] = []
    for apps in history:
        turns = roll(steps, apps, entries, "t")
        first = [turn for turn in turns if turn.entry["step"] == "1"]
        if any(turn.sync for turn in turns if turn.entry["step"] == "2"):
            assert all(turn.is_done for turn in first)
        assert sum(turn.sync for turn in first) <= 1
        entries = [turn.entry for turn in turns]


def rolling_set(repo: GitRepo, **spec: Any) -> ApplicationSet:
    template = {
        "metadata": {"name": "{{env}}", "labels": {"env": "{{env}}"}},
        "spec": {
            "project": "default",
            "source": {"repoURL": repo.url, "path": "{{env}}", "targetRevision": "main"},
            "destination": {"name": "in-cluster", "namespace": "default"},
            "syncPolicy": {"automated": {"prune": True}},
        },
    }
    elements = [{"env": each} for each in ("dev", "prod", "other")]
    tree = {
        "metadata": {"name": "all", "namespace": "argocd"},
        "spec": {"generators": [{"list": {"elements": elements}}], "template": template, **spec},
    }
    return from_dict(tree, ApplicationSet)


async def statuses(world: World) -> dict[str, str]:
    found = await world.client.get(ApplicationSet, "all", "argocd")
    return {each["application"]: each["status"] for each in found.status.application_status}


async def rolling(world: World) -> Any:
    found = await world.client.get(ApplicationSet, "all", "argocd")
    return next(each["status"] for each in found.status.conditions if each["type"] == "RolloutProgressing")


async def test_a_commit_goes_step_by_step(world: World, repo: GitRepo) -> None:
    wave = {f"{env}/x.yaml": config_map(env, x="1") for env in ("dev", "prod", "other")}
    repo.commit({**wave, "dev/gone.yaml": config_map("gone", x="1")})
    await world.client.create(rolling_set(repo, strategy=strategy(step("dev"), step("prod"))))
    await world.settle(5)
    assert await statuses(world) == {"dev": "Healthy", "prod": "Healthy"}
    assert await world.data("prod") == {"x": "1"}
    assert await world.data("other") is None, "no step has it, so it is synced by hand"
    policy = (await world.app("dev")).spec.sync_policy
    assert policy is None or policy.automated is None
    assert await rolling(world) == "False"
    # The first step fails: the second stays as it is.
    broken = config_map("dev", x="2").replace("x: '2'", "x: [2]")
    await world.push({"dev/x.yaml": broken, "prod/x.yaml": config_map("prod", x="2"), "dev/gone.yaml": None})
    await world.settle(5)
    assert (await statuses(world))["prod"] == "Waiting"
    assert (await statuses(world))["dev"] == "Progressing"
    assert await world.data("prod") == {"x": "1"}
    assert await rolling(world) == "True"
    await world.push({"dev/x.yaml": config_map("dev", x="3")})
    await world.settle(5)
    assert await statuses(world) == {"dev": "Healthy", "prod": "Healthy"}
    assert await world.data("dev") == {"x": "3"}
    assert await world.data("prod") == {"x": "2"}
    assert await world.data("gone") is None, "the template's policy prunes"


async def test_a_strategy_that_is_wrong_changes_nothing(world: World, repo: GitRepo) -> None:
    repo.commit({"dev/x.yaml": config_map("dev", x="1")})
    await world.client.create(rolling_set(repo, strategy=strategy(step("dev", maxUpdate="x"))))
    await world.settle(2)
    found = await world.client.get(ApplicationSet, "all", "argocd")
    assert "strategy.rollingSync.steps[0].maxUpdate" in found.status.conditions[0]["message"]
    assert await world.client.list_all(Application, "argocd") == []


@pytest.mark.parametrize("preserve", [True, False])
async def test_what_a_set_had_stays_where_it_says_so(world: World, repo: GitRepo, preserve: bool) -> None:
    repo.commit({f"{env}/x.yaml": config_map(env, x="1") for env in ("dev", "prod", "other")})
    policy = {"preserveResourcesOnDeletion": preserve}
    await world.client.create(rolling_set(repo, syncPolicy=policy))
    await world.settle(2)
    assert await world.data("dev") == {"x": "1"}
    assert bool((await world.app("dev")).metadata.finalizers) is not preserve
    generators = [{"list": {"elements": [{"env": "prod"}]}}]
    await world.client.patch(ApplicationSet, "all", {"spec": {"generators": generators}}, "argocd")
    await world.settle(2)
    assert [each.metadata.name for each in await world.client.list_all(Application, "argocd")] == ["prod"]
    assert await world.data("dev") == ({"x": "1"} if preserve else None)
