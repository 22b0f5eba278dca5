"""Phases, waves, hooks, pruning orders and restarts of syncs, on a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.delivery.gitops.executing import Executor
from pilothouse.delivery.gitops.repositories import Polling
from pilothouse.delivery.resources.applications import Application
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import ConfigMap, Deployment, Job, ObjectMeta
from pilothouse.operator import Context
from support.gitopskit import Begin, World, config_map
from support.gitrepo import GitRepo


def annotated(text: str, **annotations: str) -> str:
    lines = "".join(
        f"    argocd.argoproj.io/{key.replace('_', '-')}: '{value}'\n" for key, value in annotations.items()
    )
    return text.replace("metadata:\n", f"metadata:\n  annotations:\n{lines}")


def job(name: str, image: str = "shop:1", **annotations: str) -> str:
    text = f"""\
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: run, image: "{image}"}}]
"""
    return annotated(text, **annotations)


DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "shop:1"}]}
"""


async def end_job(client: Client, name: str, kind: str = "Complete") -> None:
    """Do what the controller of jobs does."""
    found = await client.get(Job, name, "default", raw=True)
    assert found
    now = "2025-01-01T00:00:01Z"
    criteria = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[kind]
    conditions = [{"type": each, "status": "True", "message": "so it is"} for each in (criteria, kind)]
    status: dict[str, Any] = {"conditions": conditions, "startTime": now}
    if kind == "Complete":
        status |= {"completionTime": now, "succeeded": 1}
    await client.patch(Job, name, {"status": status}, "default", subresource="status")


async def deployed(client: Client, name: str = "web") -> None:
    found = await client.get(Deployment, name, "default")
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
    status = {"observedGeneration": found.metadata.generation, **counts}
    await client.patch(Deployment, name, {"status": status}, "default", subresource="status")


async def exists(client: Client, kind: type[Any], name: str) -> bool:
    try:
        await client.get(kind, name, "default")
    except NotFound:
        return False
    return True


async def phase(world: World) -> tuple[str, str]:
    state = (await world.app()).status.operation_state
    assert state is not None
    return state.phase, state.message


async def test_hooks_run_before_and_after(world: World, repo: GitRepo) -> None:
    repo.commit(
        {
            "app/before.yaml": job("before", hook="PreSync", hook_delete_policy="HookSucceeded"),
            "app/a.yaml": config_map("a", x="1"),
            "app/after.yaml": job("after", hook="PostSync"),
        }
    )
    await world.make()
    await world.settle()
    assert await phase(world) == ("Running", "waiting for completion of hook batch/Job/before")
    assert await world.data("a") is None
    await end_job(world.client, "before")
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    assert (await phase(world))[1] == "waiting for completion of hook batch/Job/after"
    await end_job(world.client, "after")
    await world.settle()
    assert await phase(world) == ("Succeeded", "successfully synced (all tasks run)")
    assert not await exists(world.client, Job, "before")
    assert await exists(world.client, Job, "after")
    assert await world.sync_of() == ("Synced", "Healthy")


async def test_a_failed_hook_stops_the_sync_and_runs_what_is_for_failures(world: World, repo: GitRepo) -> None:
    repo.commit(
        {
            "app/before.yaml": job("before", hook="PreSync"),
            "app/a.yaml": config_map("a", x="1"),
            "app/fail.yaml": annotated(config_map("failed", x="1"), hook="SyncFail"),
        }
    )
    await world.make(sync={"automated": {}, "retry": {"limit": 0}})
    await world.settle()
    await end_job(world.client, "before", "Failed")
    await world.settle()
    found, message = await phase(world)
    assert found == "Failed"
    assert "so it is" in message
    assert await world.data("a") is None
    assert await world.data("failed") == {"x": "1"}


async def test_waves_wait_for_health(world: World, repo: GitRepo) -> None:
    repo.commit(
        {
            "app/web.yaml": annotated(DEPLOYMENT, sync_wave="-1"),
            "app/a.yaml": config_map("a", x="1"),
        }
    )
    await world.make()
    await world.settle()
    assert await phase(world) == ("Running", "waiting for healthy state of apps/Deployment/web")
    assert await world.data("a") is None
    await deployed(world.client)
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    assert (await phase(world))[0] == "Succeeded"


async def test_a_newer_commit_overtakes_a_sync_that_waits(world: World, repo: GitRepo) -> None:
    repo.commit({"app/web.yaml": annotated(DEPLOYMENT, sync_wave="-1"), "app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle()
    assert (await phase(world))[0] == "Running"
    fixed = annotated(DEPLOYMENT.replace("shop:1", "shop:2"), sync_wave="-1")
    commit = await world.push({"app/web.yaml": fixed})
    app = await world.app()
    state = app.status.operation_state
    assert state is not None
    assert state.sync_result is not None
    assert state.sync_result.revision == commit
    found = await world.client.get(Deployment, "web", "default")
    assert found.spec.template.spec.containers[0].image == "shop:2"


async def test_a_newer_commit_overtakes_one_that_fails_and_is_to_be_tried_again(begin: Begin, repo: GitRepo) -> None:
    bad = DEPLOYMENT.replace("name: web\n", "name: 'W B'\n")
    repo.commit({"app/web.yaml": bad, "app/a.yaml": config_map("a", x="1")})
    retry = {"limit": 5, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "1h"}}
    async with begin(polling=Polling(local=1e6)) as world:
        await world.make(sync={"automated": {"prune": True}, "retry": retry})
        await world.settle()
        for pauses, attempts in ((0, "#1"), (1.1, "#2"), (1, None), (1.1, "#3")):
            await world.settle(pauses * 10)
            state = (await world.app()).status.operation_state
            assert state is not None
            assert state.phase == "Running"
            assert attempts is None or f"Retrying attempt {attempts}" in state.message, "after 10 s, then 20 s"
        assert await world.data("a") is None
        commit = await world.push({"app/web.yaml": DEPLOYMENT})
        state = (await world.app()).status.operation_state
        assert state is not None
        assert state.sync_result is not None
        assert (state.phase, state.sync_result.revision) == ("Succeeded", commit)
        assert await world.data("a") == {"x": "1"}


async def test_a_hook_that_was_there_is_made_anew_for_each_sync(world: World, repo: GitRepo) -> None:
    repo.commit({"app/before.yaml": job("before", hook="PreSync"), "app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle()
    first = (await world.client.get(Job, "before", "default")).metadata.uid
    await end_job(world.client, "before")
    await world.settle()
    await world.settle(2)
    await world.push({"app/a.yaml": config_map("a", x="2")})
    second = (await world.client.get(Job, "before", "default")).metadata.uid
    assert first != second
    assert await world.data("a") == {"x": "1"}
    await end_job(world.client, "before")
    await world.settle()
    assert await world.data("a") == {"x": "2"}


async def test_a_controller_killed_at_any_write_goes_on_where_it_was(
    begin: Begin, repo: GitRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit(
        {
            "app/before.yaml": job("before", hook="PreSync"),
            "app/a.yaml": annotated(config_map("a", x="1"), sync_wave="1"),
            "app/b.yaml": annotated(config_map("b", x="1"), sync_wave="2"),
        }
    )
    uids = set()
    real = Executor._run
    clock = None
    for kills in range(6):
        done = 0

        async def run(self: Executor, task: Any, options: Any, limit: int = kills) -> Any:
            nonlocal done
            result = await real(self, task, options)
            done += 1
            if done > limit:
                raise OSError("the controller is gone")  # after the write, before it is noted
            return result

        monkeypatch.setattr(Executor, "_run", run)
        async with begin(clock) as world:
            clock = world.harness.clock
            if kills == 0:
                await world.make()
            await world.settle()
            if await exists(world.client, Job, "before"):
                uids.add((await world.client.get(Job, "before", "default")).metadata.uid)
                await end_job(world.client, "before")
                await world.settle()
    monkeypatch.setattr(Executor, "_run", real)
    async with begin(clock) as world:
        await world.harness.converge()
        await world.settle(2)
        assert await world.data("b") == {"x": "1"}
        assert (await phase(world))[0] == "Succeeded"
        assert len((await world.app()).status.history) == 1
    assert len(uids) == 1, "the hook ran once"


@pytest.mark.parametrize("lost", [True, False])
async def test_a_controller_killed_at_any_write_of_the_status_goes_on(
    begin: Begin, repo: GitRepo, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """It is gone before the server has the status, or before it knows that the server has it."""
    repo.commit({"app/before.yaml": job("before", hook="PreSync"), "app/a.yaml": config_map("a", x="1")})
    uids: set[str] = set()
    real = Context.patch
    clock = None
    for limit in range(5):
        writes = 0

        async def patch(self: Context, *arguments: Any, limit: int = limit, **options: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes > limit:
                if not lost:
                    await real(self, *arguments, **options)
                raise OSError("the controller is gone")
            return await real(self, *arguments, **options)

        monkeypatch.setattr(Context, "patch", patch)
        async with begin(clock) as world:
            clock = world.harness.clock
            if limit == 0:
                await world.make()
            await world.settle()
            if await exists(world.client, Job, "before"):
                uids.add((await world.client.get(Job, "before", "default")).metadata.uid)
                await end_job(world.client, "before")
                await world.settle()
    monkeypatch.setattr(Context, "patch", real)
    async with begin(clock) as world:
        await world.harness.converge()
        await world.settle(2)
        assert await world.data("a") == {"x": "1"}
        assert (await phase(world))[0] == "Succeeded"
        assert [each.id for each in (await world.app()).status.history] == [0]
    assert len(uids) == 1, "the hook ran once"


async def test_objects_go_in_the_opposite_order_of_waves(world: World, repo: GitRepo) -> None:
    files: dict[str, str | bytes | None] = {
        f"app/{name}.yaml": annotated(config_map(name, x="1"), sync_wave=wave)
        for name, wave in (("a", "1"), ("b", "2"))
    }
    repo.commit({**files, "app/keep.yaml": config_map("keep", x="1")})
    await world.make()
    await world.settle()
    first = (await world.client.get(ConfigMap, "b", "default")).metadata
    assert first.name == "b"
    await world.client.patch(ConfigMap, "b", {"metadata": {"finalizers": ["example.com/hold"]}}, "default")
    await world.settle()
    await world.push(dict.fromkeys(files))
    app = await world.app()
    state = app.status.operation_state
    assert state is not None
    assert state.sync_result is not None
    pruned = [each.name for each in state.sync_result.resources if each.status == "Pruned"]
    assert pruned == ["b", "a"]


async def test_what_says_so_is_not_pruned(world: World, repo: GitRepo) -> None:
    kept = annotated(config_map("kept", x="1"), sync_options="Prune=false")
    repo.commit({"app/a.yaml": config_map("a", x="1"), "app/kept.yaml": kept})
    await world.make()
    await world.settle()
    await world.push({"app/kept.yaml": None})
    assert await world.data("kept") == {"x": "1"}
    syncs = world.gitops.figures
    before = [each.value for each in syncs.samples() if each.name == "argocd_app_sync_total"]
    await world.settle(10)
    assert [each.value for each in syncs.samples() if each.name == "argocd_app_sync_total"] == before, "nothing to do"


async def test_replace_writes_the_whole_object(world: World, repo: GitRepo) -> None:
    made = ConfigMap(metadata=ObjectMeta(name="a", namespace="default"), data={"hand": "1"})
    await world.client.create(made)
    repo.commit({"app/a.yaml": annotated(config_map("a", x="1"), sync_options="Replace=true")})
    await world.make()
    await world.settle()
    assert await world.data("a") == {"x": "1"}


async def test_force_makes_what_cannot_change_anew(world: World, repo: GitRepo) -> None:
    repo.commit({"app/job.yaml": job("once", sync_options="Force=true")})
    await world.make()
    await world.settle()
    await world.push({"app/job.yaml": job("once", image="shop:2", sync_options="Force=true")})
    found = await world.client.get(Job, "once", "default")
    assert found.spec.template.spec.containers[0].image == "shop:2"


async def test_an_operation_is_terminated(world: World, repo: GitRepo) -> None:
    repo.commit({"app/before.yaml": job("before", hook="PreSync"), "app/a.yaml": config_map("a", x="1")})
    await world.make(sync={})
    await world.settle()
    await world.client.patch(Application, "shop", {"operation": {"sync": {}}}, "argocd")
    await world.settle()
    assert (await phase(world))[0] == "Running"
    await world.client.patch(Application, "shop", {"status": {"operationState": {"phase": "Terminating"}}}, "argocd")
    await world.settle()
    assert await phase(world) == ("Failed", "Operation terminated")
    assert (await world.app()).operation is None


async def test_chosen_objects_alone_are_synced(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1"), "app/b.yaml": config_map("b", x="1")})
    await world.make(sync={})
    await world.settle()
    operation = {"sync": {"resources": [{"group": "", "kind": "ConfigMap", "name": "b"}]}}
    await world.client.patch(Application, "shop", {"operation": operation}, "argocd")
    await world.settle()
    assert await world.data("a") is None
    assert await world.data("b") == {"x": "1"}


DEFINITION = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.example.com}}
spec:
  group: example.com
  scope: {scope}
  names: {{plural: {plural}, kind: {kind}}}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              parts:
                type: array
                items:
                  type: object
                  properties: {{name: {{type: string}}, size: {{type: integer, default: 3}}}}
"""


async def test_definitions_and_their_objects_in_one_sync(world: World, repo: GitRepo) -> None:
    thing = "apiVersion: example.com/v1\nkind: {kind}\nmetadata: {{name: one}}\nspec: {{parts: [{{name: a}}]}}\n"
    repo.commit(
        {
            "app/1.yaml": thing.format(kind="Boat"),
            "app/2.yaml": thing.format(kind="Sea"),
            "app/3.yaml": DEFINITION.format(plural="boats", kind="Boat", scope="Namespaced"),
            "app/4.yaml": DEFINITION.format(plural="seas", kind="Sea", scope="Cluster"),
        }
    )
    await world.make()
    await world.settle(5)
    assert await world.sync_of() == ("Synced", "Healthy")
    assert len((await world.app()).status.history) == 1
    boats = world.client.dynamic("example.com/v1", "Boat")
    made = await boats.get("one", "default")
    assert made["spec"]["parts"] == [{"name": "a", "size": 3}], "a default in a list, which is no drift"
    await boats.patch("one", {"spec": {"parts": [{"name": "hand"}]}}, "default")
    await world.settle(5)
    assert (await boats.get("one", "default"))["spec"]["parts"][0]["name"] == "a"
    assert await world.client.dynamic("example.com/v1", "Sea").get("one")
    await world.push({"app/1.yaml": None, "app/2.yaml": None})
    await world.settle(2)
    assert not await boats.list_all("default")


async def test_kinds_that_come_first_are_there_first(world: World, repo: GitRepo) -> None:
    repo.commit(
        {
            "app/a.yaml": config_map("a", x="1").replace("name: a", "name: a\n  namespace: made-too"),
            "app/n.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: made-too}\n",
        }
    )
    await world.make()
    await world.settle(3)
    assert await world.sync_of() == ("Synced", "Healthy")
    state = (await world.app()).status.operation_state
    assert state is not None
    assert not state.retry_count
