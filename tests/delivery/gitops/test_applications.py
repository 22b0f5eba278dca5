"""Applications from a commit to the cluster, on a real API server with real git."""

from __future__ import annotations

import shutil

import pytest

from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.gitops import reject_revision, request_refresh, request_sync, rollback
from pilothouse.delivery.resources.applications import Application, AppProject
from pilothouse.kinds.structs import ConfigMap, Deployment, ObjectMeta, from_dict
from support.gitopskit import Begin, World, config_map
from support.gitrepo import GitRepo

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: shop:1
        resources: {limits: {cpu: 1000m, memory: 1024Mi}}
        ports: [{containerPort: 80}]
"""


async def test_a_commit_becomes_objects_and_the_status_says_so(world: World, repo: GitRepo) -> None:
    commit = repo.commit({"app/a.yaml": config_map("a", x="1"), "app/b.yaml": config_map("b", w="2")})
    await world.make()
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    assert await world.data("b") == {"w": "2"}
    app = await world.app()
    assert (app.status.sync.status, app.status.health.status) == ("Synced", "Healthy")
    assert app.status.sync.revision == commit
    state = app.status.operation_state
    assert state is not None
    assert (state.phase, state.message) == ("Succeeded", "successfully synced (all tasks run)")
    assert [each.revision for each in app.status.history] == [commit]
    live = await world.client.get(ConfigMap, "a", "default")
    assert live.metadata.annotations["argocd.argoproj.io/tracking-id"] == "shop:/ConfigMap:default/a"
    assert live.metadata.managed_fields[0].manager == "argocd-controller"
    figures = {each.name: each for each in world.gitops.figures.samples()}
    assert figures["pilothouse_gitops_applications"].labels == {"sync": "Synced", "health": "Healthy"}
    assert figures["argocd_app_sync_total"].value == 1
    assert figures["argocd_git_request_total"].value == 1


async def test_a_newer_commit_is_synced_and_what_it_lacks_is_pruned(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1", gone="1"), "app/b.yaml": config_map("b", w="2")})
    await world.make()
    await world.settle()
    await world.push({"app/a.yaml": config_map("a", x="3"), "app/b.yaml": None})
    assert await world.data("a") == {"x": "3"}
    assert await world.data("b") is None
    assert await world.sync_of() == ("Synced", "Healthy")
    assert len((await world.app()).status.history) == 2


async def test_polling_finds_a_commit_by_itself(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle()
    repo.commit({"app/a.yaml": config_map("a", x="2")})
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    for _ in range(10):
        await world.settle(1)
        await world.gitops.repositories.idle()
    await world.settle()
    assert await world.data("a") == {"x": "2"}


async def test_drift_is_healed_with_growing_pauses(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle()
    for value in ("hand", "again"):
        await world.client.patch(ConfigMap, "a", {"data": {"x": value}}, "default")
        await world.settle()
        if value == "again":
            assert await world.data("a") == {"x": "again"}
            assert await world.sync_of() == ("OutOfSync", "Healthy")
            await world.settle(3)
        assert await world.data("a") == {"x": "1"}
    assert len(await history(world)) == 1


async def history(world: World) -> list[str]:
    return [each.revision for each in (await world.app()).status.history]


async def test_without_self_heal_drift_stays_and_is_said(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make(sync={"automated": {}})
    await world.settle()
    await world.client.patch(ConfigMap, "a", {"data": {"x": "hand"}}, "default")
    await world.settle(60)
    assert await world.data("a") == {"x": "hand"}
    app = await world.app()
    assert app.status.sync.status == "OutOfSync"
    drift = world.gitops.drift(app)
    assert [(key.name, one.path, one.wanted, one.live) for key, one in drift] == [("a", "data.x", "1", "hand")]


async def test_defaults_and_normal_forms_are_no_drift(world: World, repo: GitRepo) -> None:
    repo.commit({"app/web.yaml": DEPLOYMENT})
    await world.make()
    await world.settle()
    app = await world.app()
    assert (app.status.sync.status, app.status.health.status) == ("Synced", "Progressing")
    requests = world.gitops.operator.executor.requests
    await world.client.patch(Deployment, "web", {"spec": {"replicas": 5}}, "default")
    await world.settle()
    assert (await world.client.get(Deployment, "web", "default")).spec.replicas == 2
    assert world.gitops.operator.executor.requests == requests + 1


async def test_an_empty_source_deletes_nothing(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1"), "app/readme.md": "text"})
    await world.make()
    await world.settle()
    await world.push({"app/a.yaml": None})
    assert await world.data("a") == {"x": "1"}
    app = await world.app()
    assert "allowEmpty" in app.status.conditions[0].message
    patch = {"spec": {"syncPolicy": {"automated": {"allowEmpty": True}}}}
    await world.client.patch(Application, "shop", patch, "argocd")
    await world.settle()
    assert await world.data("a") is None


async def test_without_prune_what_git_lacks_stays_and_is_out_of_sync(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1"), "app/b.yaml": config_map("b", x="1")})
    await world.make(sync={"automated": {}})
    await world.settle()
    await world.push({"app/b.yaml": None})
    assert await world.data("b") == {"x": "1"}
    resources = {each.name: each for each in (await world.app()).status.resources}
    assert resources["b"].requires_pruning
    assert resources["a"].status == "Synced"


async def test_a_manual_application_waits_for_its_operation(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make(sync={})
    await world.settle()
    assert await world.data("a") is None
    assert await world.sync_of() == ("OutOfSync", "Missing")
    operation = {"sync": {"revision": "main"}, "initiatedBy": {"username": "ada"}}
    await world.client.patch(Application, "shop", {"operation": operation}, "argocd")
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    app = await world.app()
    assert app.operation is None
    assert app.status.history[0].initiated_by.username == "ada"


async def test_a_sync_to_an_older_revision_is_a_rollback(world: World, repo: GitRepo) -> None:
    first = repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make(sync={"automated": {}})
    await world.settle()
    await world.push({"app/a.yaml": config_map("a", x="2")})
    patch = {"spec": {"syncPolicy": {"automated": None}}, "operation": {"sync": {"revision": first}}}
    await world.client.patch(Application, "shop", patch, "argocd")
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    app = await world.app()
    assert app.status.sync.status == "OutOfSync"
    assert app.status.history[-1].revision == first


async def test_a_rejected_revision_is_not_brought_back_by_anything_but_a_fix(world: World, repo: GitRepo) -> None:
    good = repo.commit({"app/a.yaml": config_map("a", x="1"), "other/b.yaml": config_map("b", x="1")})
    await world.make()
    await world.settle()
    bad = await world.push({"app/a.yaml": config_map("a", x="bad")})
    assert await world.data("a") == {"x": "bad"}
    clock = world.harness.clock
    assert await reject_revision(world.client, "argocd", "shop", reason="2 % errors", now=clock.now()) == bad
    await world.settle(5)
    assert await world.data("a") == {"x": "1"}
    await world.settle(40)
    app = await world.app()
    assert (app.status.sync.revision, app.status.sync.status) == (good, "Synced")
    assert "2 % errors" in app.status.conditions[0].message
    # A commit that changes something else renders to the same, so it is as bad.
    await world.push({"other/b.yaml": config_map("b", x="2")})
    await world.settle(10)
    assert await world.data("a") == {"x": "1"}
    await world.push({"app/a.yaml": config_map("a", x="fixed")})
    await world.settle(10)
    assert await world.data("a") == {"x": "fixed"}
    assert not (await world.app()).status.conditions


async def test_a_repository_that_is_gone_is_said_and_what_was_seen_of_it_goes_on(begin: Begin, repo: GitRepo) -> None:
    first = repo.commit({"app/a.yaml": config_map("a", x="1")})
    away = repo.path.with_name("away")
    async with begin() as world:
        clock = world.harness.clock
        await world.make()
        await world.settle()
        await world.push({"app/a.yaml": config_map("a", x="2")})
        shutil.move(repo.path, away)
        await world.news()
        assert [each.type for each in (await world.app()).status.conditions] == ["RepositoryWarning"]
    async with begin(clock) as world:  # what was seen is also known to a controller that begins anew
        await world.settle()
        await world.client.patch(ConfigMap, "a", {"data": {"x": "hand"}}, "default")
        await world.settle(10)
        assert await world.data("a") == {"x": "2"}, "drift is healed"
        await reject_revision(world.client, "argocd", "shop", now=clock.now())
        await world.settle(10)
        assert await world.data("a") == {"x": "1"}, "it goes back"
        assert (await world.app()).status.sync.revision == first
        await world.make("other", path="other")
        await world.settle()
        shutil.move(away, repo.path)
        await world.push({"app/a.yaml": config_map("a", x="3"), "other/b.yaml": config_map("b", x="1")})
        await world.settle(10)
        assert await world.data("a") == {"x": "3"}
        assert not (await world.app()).status.conditions


async def test_a_repository_that_never_answered_is_an_error(world: World, repo: GitRepo) -> None:
    await world.make(source={"repoURL": f"{repo.url}-nowhere"})
    await world.settle()
    app = await world.app()
    assert app.status.sync.status == "Unknown"
    assert app.status.conditions[0].type == "ComparisonError"


async def test_a_rewritten_history_is_followed(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle()
    await world.push({"app/a.yaml": config_map("a", x="2")})
    repo.write({"app/a.yaml": config_map("a", x="rewritten")})
    repo.commits += 1
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "--amend", "--message", "another one")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    await world.news()
    assert await world.data("a") == {"x": "rewritten"}


async def test_a_broken_manifest_changes_nothing_and_names_the_file(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle()
    await world.push({"app/a.yaml": config_map("a", x="2"), "app/b.yaml": "kind: {{ .Values.kind }}\n"})
    assert await world.data("a") == {"x": "1"}
    condition = (await world.app()).status.conditions[0]
    assert condition.type == "ComparisonError"
    assert condition.message.startswith("app/b.yaml, document 1: ")


async def test_one_object_that_the_server_refuses_keeps_all_others_back(world: World, repo: GitRepo) -> None:
    repo.commit(
        {"app/a.yaml": config_map("a", x="1"), "app/web.yaml": DEPLOYMENT.replace("name: web\n", "name: 'W B'\n")}
    )
    await world.make(sync={"automated": {}, "retry": {"limit": 1, "backoff": {"duration": "5s"}}})
    await world.settle()
    state = (await world.app()).status.operation_state
    assert state is not None
    assert state.phase == "Running"
    assert "Retrying attempt #1" in state.message
    await world.settle(10)
    app = await world.app()
    assert app.status.operation_state is not None
    assert app.status.operation_state.phase == "Failed"
    assert await world.data("a") is None
    assert app.status.conditions[0].type == "SyncError"
    # A newer commit goes ahead though the former failed.
    await world.push({"app/web.yaml": DEPLOYMENT})
    assert await world.data("a") == {"x": "1"}


async def test_the_finalizer_deletes_what_the_application_has(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make(metadata={"finalizers": ["resources-finalizer.argocd.argoproj.io"]})
    await world.settle()
    await world.client.delete(Application, "shop", "argocd")
    await world.settle(10)
    assert await world.data("a") is None
    assert not await world.client.list_all(Application, "argocd")


async def test_an_object_of_another_application_is_left_alone(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1"), "other/a.yaml": config_map("a", x="2")})
    await world.make()
    await world.settle()
    await world.make("thief", path="other")
    await world.settle(30)
    assert await world.data("a") == {"x": "1"}
    assert any("part of application shop" in each.message for each in (await world.app("thief")).status.conditions)
    assert await world.sync_of() == ("Synced", "Healthy")


async def test_a_controller_that_begins_anew_writes_nothing(begin: Begin, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1"), "app/web.yaml": DEPLOYMENT})
    async with begin() as world:
        await world.make()
        await world.settle()
        before = await world.app()
        clock = world.harness.clock
    async with begin(clock=clock) as world:
        await world.settle()
        after = await world.app()
        assert world.gitops.operator.executor.requests == 0
        assert after.metadata.resource_version == before.metadata.resource_version


async def test_dependencies_are_synced_and_healthy_first(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1"), "base/b.yaml": config_map("b", x="1")})
    await world.make(metadata={"annotations": {"pilothouse.dev/depends-on": "base"}})
    await world.settle()
    assert await world.data("a") is None
    assert (await world.app()).status.conditions[0].type == "WaitingForDependencies"
    await world.make("base", path="base")
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    assert not (await world.app()).status.conditions


async def test_a_namespace_is_made_where_it_is_said(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    sync = {
        "automated": {},
        "syncOptions": ["CreateNamespace=true"],
        "managedNamespaceMetadata": {"labels": {"team": "shop"}},
    }
    await world.make(sync=sync, destination={"name": "in-cluster", "namespace": "new"})
    await world.settle()
    assert (await world.client.get(ConfigMap, "a", "new")).data == {"x": "1"}
    assert await world.sync_of() == ("Synced", "Healthy")


async def test_fields_that_are_ignored_do_not_count(world: World, repo: GitRepo) -> None:
    repo.commit({"app/web.yaml": DEPLOYMENT})
    rules = [{"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]}]
    await world.make(ignoreDifferences=rules)
    await world.settle()
    await world.client.patch(Deployment, "web", {"spec": {"replicas": 5}}, "default")
    await world.settle(30)
    assert (await world.client.get(Deployment, "web", "default")).spec.replicas == 5
    assert (await world.sync_of())[0] == "Synced"


async def test_objects_made_by_hand_are_taken_over(world: World, repo: GitRepo) -> None:
    made = ConfigMap(metadata=ObjectMeta(name="a", namespace="default"), data={"x": "hand", "w": "kept"})
    await world.client.create(made)
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle()
    assert await world.data("a") == {"x": "1", "w": "kept"}
    assert await world.sync_of() == ("Synced", "Healthy")


async def test_a_closed_window_holds_automatic_syncs_back(world: World, repo: GitRepo) -> None:
    # The clock stands at midnight of January 1st, 2025.
    deny = {"kind": "deny", "schedule": "0 0 * * *", "duration": "1h", "applications": ["*"], "manualSync": True}
    tree = {
        "metadata": {"name": "default", "namespace": "argocd"},
        "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}], "syncWindows": [deny]},
    }
    await world.client.create(from_dict(tree, AppProject))
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle(2)
    assert await world.data("a") is None
    assert (await world.app()).status.conditions[0].type == "SyncWindow"
    await request_sync(world.client, "argocd", "shop", by="ada")
    await world.settle(2)
    assert await world.data("a") == {"x": "1"}


async def test_a_project_refuses_kinds_and_applications(world: World, repo: GitRepo) -> None:
    tree = {
        "metadata": {"name": "narrow", "namespace": "argocd"},
        "spec": {
            "sourceRepos": [f"{repo.url}*"],
            "destinations": [{"name": "in-cluster", "namespace": "default"}],
            "namespaceResourceBlacklist": [{"group": "", "kind": "ConfigMap"}],
        },
    }
    await world.client.create(from_dict(tree, AppProject))
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make(project="narrow", sync={"automated": {}, "retry": {"limit": 0}})
    await world.make("elsewhere", project="narrow", destination={"name": "in-cluster", "namespace": "kube-system"})
    await world.make("nowhere", project="none")
    await world.make("far", destination={"server": "https://far.example.com", "namespace": "default"})
    await world.settle(2)
    state = (await world.app()).status.operation_state
    assert state is not None
    assert state.phase == "Failed"
    assert "not permitted in project narrow" in state.message
    for name, why in (("elsewhere", "destination"), ("nowhere", "does not exist"), ("far", "only this cluster")):
        condition = (await world.app(name)).status.conditions[0]
        assert condition.type == "InvalidSpecError"
        assert why in condition.message
    assert await world.data("a") is None


async def test_what_tools_ask_for(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make(sync={})
    await world.settle()
    client = world.client
    await request_sync(client, "argocd", "shop", prune=True)
    await world.settle()
    repo.commit({"app/a.yaml": config_map("a", x="2")})
    await request_refresh(client, "argocd", "shop")
    await world.settle()
    assert (await world.app()).metadata.annotations == {}
    assert (await world.sync_of())[0] == "OutOfSync"
    await request_sync(client, "argocd", "shop")
    await world.settle()
    assert await world.data("a") == {"x": "2"}
    await rollback(client, "argocd", "shop", 0)
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    with pytest.raises(DeliveryError, match="no deployment 9"):
        await rollback(client, "argocd", "shop", 9)
    await client.patch(Application, "shop", {"spec": {"syncPolicy": {"automated": {}}}}, "argocd")
    with pytest.raises(DeliveryError, match="automated"):
        await rollback(client, "argocd", "shop", 0)


async def test_rules_of_health_for_kinds_of_ones_own(world: World, repo: GitRepo) -> None:
    rules = "- {status: Degraded, path: data.x, value: broken, message: data.why}\n"
    made = ConfigMap(
        metadata=ObjectMeta(name="argocd-cm", namespace="argocd", labels={"app.kubernetes.io/part-of": "argocd"}),
        data={"pilothouse.health.ConfigMap": rules},
    )
    await world.client.create(made)
    repo.commit({"app/a.yaml": config_map("a", x="broken", why="no wind")})
    await world.make()
    await world.settle(2)
    assert await world.sync_of() == ("Synced", "Degraded")
    health = (await world.app()).status.resources[0].health
    assert health is not None
    assert health.message == "no wind"
