"""`pilothouse app`, end to end: the program against a control plane, a git repository and the controllers."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from pilothouse.cli import _root
from pilothouse.delivery.gitops.showing import differences_of, page_of
from pilothouse.delivery.gitops.verbs import AppVerbError, sync
from pilothouse.delivery.resources.applications import Application
from pilothouse.kinds.structs import from_dict
from support.gitopskit import World, config_map


class Done(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


async def call(world: World, *words: str) -> Done:
    """Run the program in a thread, while controllers work."""
    arguments = ["app", *words, "--kubeconfig", world.plane.kubeconfig]
    done = await asyncio.to_thread(CliRunner().invoke, _root, arguments, catch_exceptions=False)
    return Done(done.exit_code, done.stdout, done.stderr)


async def said(world: World, *words: str) -> str:
    done = await call(world, *words)
    assert done.code == 0, done
    return done.out


async def test_an_application_is_synced_rolled_back_and_shown(world: World) -> None:
    first = world.repo.commit({"app/a.yaml": config_map("a", colour="red")})
    await world.make(sync={})
    await world.settle()
    diff = await call(world, "diff", "shop")
    assert diff.code == 1
    assert [line.split() for line in diff.out.splitlines()] == [
        ["WHAT", "KIND", "NAMESPACE", "NAME", "MESSAGE"], ["Missing", "ConfigMap", "default", "a"],
    ]  # fmt: skip
    assert "1 of its objects are not as git says" in diff.err
    synced = await said(world, "sync", "app/shop", "--timeout", "60s")
    assert synced.splitlines()[-1].startswith(f"Synced, Healthy; operation Succeeded (to {first[:7]})")
    assert await world.data("a") == {"colour": "red"}
    assert (await call(world, "diff", "shop")) == (0, "", "")
    assert "Synced, Healthy" in await said(world, "wait", "shop", "--timeout", "60s")

    await world.push({"app/a.yaml": config_map("a", colour="blue"), "app/b.yaml": config_map("b", colour="green")})
    fields = await call(world, "diff", "shop", "--fields")
    assert fields.code == 1, fields
    assert fields.out.splitlines() == [
        "OutOfSync: ConfigMap default/a", "  data.colour", "  - red", "  + blue", "Missing: ConfigMap default/b",
    ]  # fmt: skip
    assert await call(world, "diff", "shop", "--revision", first) == (0, "", "")
    await said(world, "sync", "shop", "--resource", ":ConfigMap:a")
    assert (await world.data("a"), await world.data("b")) == ({"colour": "blue"}, None)
    await said(world, "sync", "shop")
    rows = json.loads(await said(world, "history", "shop", "-o", "json"))
    assert [row["id"] for row in rows] == [1, 0]
    page = await said(world, "get", "shop")
    assert "Sync:         ✔ Synced at " in page
    assert "└──default/b  ConfigMap" in page

    back = await said(world, "rollback", "shop", "0", "--prune", "--timeout", "60s")
    assert f"operation Succeeded (to {first[:7]})" in back
    assert (await world.data("a"), await world.data("b")) == ({"colour": "red"}, None)
    missing = await call(world, "rollback", "shop", "9")
    assert (missing.code, "its history has no id 9" in missing.err) == (1, True)


async def test_a_failing_sync_and_a_revision_that_is_not_there(world: World) -> None:
    world.repo.commit({"app/a.yaml": config_map("a", colour="red")})
    await world.make(sync={})
    await world.settle()
    done = await call(world, "sync", "shop", "--revision", "nowhere", "--timeout", "60s")
    assert done.code == 1
    assert "error: application shop: the sync failed: Error: " in done.err
    assert "nowhere" in done.err
    diff = await call(world, "diff", "shop", "--revision", "nowhere")
    assert (diff.code, diff.out, "nowhere" in diff.err) == (1, "", True)
    data = json.loads((await call(world, "diff", "shop", "--fields", "-o", "json")).out)
    assert data == [{"what": "Missing", "object": "ConfigMap default/a", "fields": [], "problem": ""}]


async def test_an_automated_application_rejects_instead_of_rolling_back(world: World) -> None:
    world.repo.commit({"app/a.yaml": config_map("a", colour="red")})
    await world.make()
    await world.settle()
    bad = await world.push({"app/a.yaml": config_map("a", colour="blue")})
    assert await world.data("a") == {"colour": "blue"}
    refused = await call(world, "rollback", "shop")
    assert (refused.code, "--reject" in refused.err) == (1, True)
    done = await said(world, "rollback", "shop", "--reject", "too blue")
    assert done == f"application 'shop': revision {bad} is rejected\n"
    await world.settle()
    assert await world.data("a") == {"colour": "red"}
    assert f"Rejected:     {bad[:7]}: too blue" in await said(world, "get", "shop")
    await world.settle()


async def test_lists_refreshes_and_what_is_wrong(world: World) -> None:
    commit = world.repo.commit({"app/a.yaml": config_map("a", colour="red")})
    await world.make()
    await world.settle()
    lines = (await said(world, "list")).splitlines()
    assert lines[0].split() == ["NAME", "PROJECT", "SYNC", "HEALTH", "REVISION", "REPOSITORY", "PATH", "CONDITIONS"]
    assert lines[1].split()[:5] == ["shop", "default", "Synced", "Healthy", commit[:7]]
    assert f"✔ Synced at {commit}" in await said(world, "get", "shop", "--refresh")
    data = json.loads(await said(world, "get", "shop", "-o", "json"))
    assert (data["sync"], data["revisions"], data["resources"][0]["name"]) == ("Synced", [commit], "a")
    assert json.loads(await said(world, "list", "-A", "-o", "json")) == [data]
    near = await call(world, "get", "shp")
    assert (near.code, near.err) == (
        4, "error: namespace argocd: there is no application 'shp'\nhint: there is shop\n",
    )  # fmt: skip
    over = await call(world, "wait", "shop", "--timeout", "soon")
    assert (over.code, "want a span of time" in over.err) == (2, True)


STATUS: dict[str, Any] = {
    "sync": {"status": "OutOfSync", "revision": "0123456789abcdef"},
    "health": {"status": "Degraded"},
    "conditions": [{"type": "SyncError", "message": "it failed"}],
    "operationState": {"phase": "Running", "message": "waiting for web",
                       "syncResult": {"revision": "0123456789abcdef"}},
    "resources": [
        {"group": "apps", "version": "v1", "kind": "Deployment", "namespace": "web", "name": "front",
         "status": "OutOfSync", "health": {"status": "Degraded", "message": "no progress"}},
        {"version": "v1", "kind": "ConfigMap", "namespace": "web", "name": "old", "status": "OutOfSync",
         "requiresPruning": True},
        {"version": "v1", "kind": "Service", "namespace": "web", "name": "front", "status": "OutOfSync",
         "health": {"status": "Missing"}},
    ],
}  # fmt: skip
APP = {
    "metadata": {"name": "shop", "namespace": "argocd"},
    "spec": {
        "source": {"repoURL": "https://git.example/shop.git", "path": "deploy", "targetRevision": "main"},
        "destination": {"name": "in-cluster", "namespace": "web"},
        "syncPolicy": {"automated": {"selfHeal": True}},
    },
    "status": STATUS,
}


def test_the_page_of_an_application() -> None:
    assert page_of(from_dict(APP, Application)) == [
        "Name:         shop",
        "Namespace:    argocd",
        "Project:      default",
        "Destination:  in-cluster, namespace web",
        "Source:       https://git.example/shop.git deploy at main",
        "Automated:    yes (self-heal)",
        "Sync:         ⚠ OutOfSync at 0123456789abcdef",
        "Health:       ✖ Degraded",
        "Operation:    Running (to 0123456): waiting for web",
        "Condition:    SyncError: it failed",
        "",
        "NAME          KIND         SYNC         HEALTH      MESSAGE",
        "shop          Application  ⚠ OutOfSync  ✖ Degraded",
        "├──web/front  Deployment   ⚠ OutOfSync  ✖ Degraded  no progress",
        "├──web/old    ConfigMap    ⚠ OutOfSync              to be pruned",
        "└──web/front  Service      ⚠ OutOfSync  ⚠ Missing",
    ]


def test_what_differs_and_what_waits() -> None:
    app = from_dict(APP, Application)
    assert [(one.what, one.kind) for one in differences_of(app)] == [
        ("OutOfSync", "Deployment.apps"), ("Extra", "ConfigMap"), ("Missing", "Service"),
    ]  # fmt: skip
    with pytest.raises(AppVerbError, match=r"another operation goes on \(Running \(to 0123456\)"):
        sync(app)
