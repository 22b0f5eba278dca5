"""A rollback that is whole: traffic, replicas, template and git, with GitOps and a real repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.client import Client
from pilothouse.delivery.gitops import GITOPS_KINDS, GitopsOptions, add_gitops, install_gitops_kinds
from pilothouse.delivery.gitops.rejections import read_rejections
from pilothouse.delivery.notices import recording
from pilothouse.delivery.notices.recording import IncidentOptions, add_incidents
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.incidents import Incident
from pilothouse.delivery.resources.installing import ROLLOUT_KINDS, install_kinds
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import verbs
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from pilothouse.kinds.structs import Namespace, ObjectMeta, Secret, from_dict
from pilothouse.operator import Harness, definition, install
from pilothouse.testing import ControlPlane
from pilothouse.traffic.control.kinds import GRPCRoute, HTTPRoute, RegionWeights
from support.gitrepo import GitRepo
from support.loglines import logged
from support.rolloutkit import ROUTE, SERVICES, Fleet, add_controllers

TEMPLATE = """
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: errors}
spec:
  metrics:
  - name: errors
    provider: {web: {url: "http://metrics.example/"}}
"""
MARK = {"pilothouse.dev/people": "ada@shop.test"}


def rollout(image: str) -> str:
    """Return the manifest of a version."""
    container = {"name": "shop", "image": f"shop:{image}", "ports": [{"containerPort": 8080, "protocol": "TCP"}]}
    canary = {
        "canaryService": "shop-canary",
        "stableService": "shop-stable",
        "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "shop"}}},
        "steps": [{"setWeight": 30}, {"pause": {}}],
        "analysis": {"templates": [{"templateName": "errors"}]},
    }
    return yaml.safe_dump(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": "shop", "annotations": MARK},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [container]}},
                "strategy": {"canary": canary},
            },
        }
    )


class Yard(Fleet):
    """Rollouts out of git. controllers of incidents come and go with `keeping`."""

    repo: GitRepo
    gitops: Any

    async def incident(self) -> Incident:
        (found,) = [each async for each in self.client.list(Incident, "default")]
        return found

    async def app(self) -> Application:
        return await self.client.get(Application, "shop", "argocd")

    async def push(self, image: str) -> str:
        """Commit a version, and have it synced."""
        commit = self.repo.commit({"app/rollout.yaml": rollout(image)})
        await self.synced()
        return commit

    async def synced(self) -> None:
        self.gitops.repositories.news(self.repo.url)
        await self.gitops.repositories.idle()
        await self.settle()
        await self.advance(3)

    async def jump(self, seconds: float) -> None:
        """Let time pass at once."""
        await self.harness.clock.run(seconds)
        await self.settle()

    async def image(self) -> str:
        template = (await self.rollout()).spec.template
        assert template is not None
        return (template.spec.containers[0].image or "").removeprefix("shop:")

    async def fail(self) -> None:
        """Have the analysis of the present version fail."""
        status = {
            "phase": "Failed",
            "message": "Metric errors: 2.1 %",
            "completedAt": "2099-01-01T00:00:00Z",
            "metricResults": [
                {
                    "name": "errors",
                    "phase": "Failed",
                    "measurements": [{"phase": "Failed", "value": "0.021", "startedAt": "2025-01-01T00:00:00Z"}],
                }
            ],
        }
        async for run in self.client.list(AnalysisRun, "default"):
            if run.status.phase in {"", "Pending", "Running"}:
                await self.client.patch(AnalysisRun, run.metadata.name, {"status": status}, "default")
        await self.settle()


@dataclass
class Second:
    requests: int = 100
    errors: int = 0
    p95: float = 0.1

    def slower(self, seconds: float) -> int:
        return 0


class Plane:
    """A data plane whose seconds are bad from one on."""

    clock: FakeClock
    since = float("inf")

    def last(self) -> tuple[int, float]:
        return int(self.clock.now().timestamp()) - 1, 0.5

    def over(self, seconds: int, last: int, *, route: str, version: str, regions: Sequence[str]) -> Second:
        assert (seconds, route, version, regions) == (1, "default/shop", "shop-canary", ())
        return Second(errors=2 if last >= self.since else 0)


@asynccontextmanager
async def yard(
    path: Path, *, secret: str = "", samples: Any = None, numbers: Plane | None = None
) -> AsyncIterator[Yard]:
    clock = FakeClock()
    repo = GitRepo(path / "repo")
    repo.git("config", "receive.denyCurrentBranch", "ignore")
    repo.commit({"app/base.yaml": SERVICES + "---" + ROUTE + "---" + TEMPLATE, "app/rollout.yaml": rollout("v1")})
    async with ControlPlane(clock=clock) as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client)
        await install_kinds(client, [Incident])
        await install_gitops_kinds(client)
        await install(client, *(definition(kind) for kind in (HTTPRoute, GRPCRoute, RegionWeights)))
        await client.create(Namespace(metadata=ObjectMeta(name="argocd")))
        data = {"url": repo.url.encode(), **({"pilothouseRevert": secret.encode()} if secret else {})}
        labels = {"argocd.argoproj.io/secret-type": "repository"}
        await client.create(Secret(metadata=ObjectMeta(name="repo", namespace="argocd", labels=labels), data=data))
        harness = Harness(client, clock=clock)
        add_controllers(harness.manager)
        gitops = add_gitops(harness.manager, GitopsOptions(directory=str(path / "gitops")))
        if numbers is not None:
            numbers.clock = clock
        given = IncidentOptions(directory=str(path / "incidents"))
        add_incidents(harness.manager, given, numbers=numbers, samples=samples)
        made = Yard(plane, client, harness, clock)
        made.repo, made.gitops = repo, gitops
        async with harness:
            await client.create(from_dict(APPLICATION(repo.url), Application))
            await made.settle()
            await made.advance(3)
            assert (await made.status()).phase == "Healthy"
            yield made
        await gitops.aclose()


def APPLICATION(url: str) -> dict[str, Any]:  # noqa: N802
    return {
        "metadata": {"name": "shop", "namespace": "argocd", "annotations": {"pilothouse.dev/people": "bo@shop.test"}},
        "spec": {
            "project": "default",
            "source": {"repoURL": url, "path": "app", "targetRevision": "main"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "default"},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
        },
    }


async def test_a_bad_commit_is_taken_back_in_the_cluster_and_in_git(tmp_path: Path) -> None:
    begun: list[float] = []

    def samples(route: str, version: str, since: float) -> Sequence[str]:
        begun.append(since)
        return [f"{version} of {route} said 500"]

    numbers = Plane()
    async with yard(tmp_path, secret="commit", samples=samples, numbers=numbers) as made:
        good = made.repo.git("rev-parse", "main")
        bad = await made.push("v2")
        assert await made.weights() == {"shop-stable": 70, "shop-canary": 30}
        await made.jump(20)
        first = made.clock.now()
        numbers.since = first.timestamp()
        await made.jump(4)
        await made.fail()
        assert await made.weights() == {"shop-stable": 100, "shop-canary": 0}
        await made.jump(40)
        found = await made.incident()
        assert (found.spec.cause, found.spec.git_revisions, found.spec.good_revision) == ("Analysis", [bad], good)
        assert found.spec.people == ["ada@shop.test", "bo@shop.test"]
        assert found.status.phase == "Closed"
        assert abs((times.parse(found.status.first_bad_at or "") - first).total_seconds()) <= 1
        assert found.status.samples == ["shop-canary of default/shop said 500"]
        assert begun == [times.parse(found.spec.started_at or "").timestamp()]
        (evidence,) = found.status.evidence
        assert (evidence.metric, evidence.value) == ("errors", "0.021")
        assert (found.status.git.state, found.status.git.branch) == ("Reverted", "main")
        words = {each.what for each in found.status.timeline}
        assert {"Started", "Updated", "Decided", "TrafficBack", "ReplicasDown", "Rejected", "Git"} <= words
        assert [each.revision for each in read_rejections(await made.app())] == [bad]
        assert "shop:v1" in made.repo.git("show", "main:app/rollout.yaml")
        assert "Pilothouse-Incident: default/shop-" in made.repo.git("log", "-1", "--format=%B", "main")
        await made.synced()
        assert await made.image() == "v1"
        assert (await made.status()).phase == "Healthy"
        await made.push("v3")
        assert await made.image() == "v3"
        assert len([each async for each in made.client.list(Incident, "default")]) == 1


async def test_self_heal_does_not_bring_it_back_also_without_write_access(tmp_path: Path) -> None:
    async with yard(tmp_path) as made:
        bad = await made.push("v2")
        await made.fail()
        await made.jump(60)
        assert await made.image() == "v1"
        assert made.repo.git("rev-parse", "main") == bad
        found = await made.incident()
        assert (found.status.phase, found.status.git.state) == ("Closed", "Off")
        assert "set pilothouseRevert" in (found.status.git.message or "")
        assert found.status.git.rejected == [bad]


async def test_a_git_server_that_is_down_holds_up_nothing_and_is_told_later(tmp_path: Path) -> None:
    async with yard(tmp_path, secret="branch") as made:
        bad = await made.push("v2")
        away = made.repo.path.with_name("away")
        made.repo.path.rename(away)
        with logged(recording):
            await made.fail()
        assert await made.weights() == {"shop-stable": 100, "shop-canary": 0}
        assert (await made.incident()).status.traffic_back_at is not None
        await made.jump(40)
        found = await made.incident()
        assert (found.status.phase, found.status.git.state) == ("Open", "Pending")
        assert found.status.git.attempts >= 2
        assert [each.revision for each in read_rejections(await made.app())] == [bad]
        away.rename(made.repo.path)
        await made.jump(120)
        found = await made.incident()
        assert (found.status.phase, found.status.git.state) == ("Closed", "Reverted")
        assert found.status.git.next_at is None
        assert "shop:v1" in made.repo.git("show", f"pilothouse/revert-{bad[:12]}:app/rollout.yaml")
        assert made.repo.git("rev-parse", "main") == bad


async def test_who_aborts_by_hand_keeps_git_as_it_is(tmp_path: Path) -> None:
    async with yard(tmp_path, secret="commit") as made:
        bad = await made.push("v2")
        await made.verb(verbs.abort(await made.rollout()))
        await made.advance(10)
        assert (await made.status()).abort
        assert [each async for each in made.client.list(Incident, "default")] == []
        assert read_rejections(await made.app()) == []
        assert made.repo.git("rev-parse", "main") == bad


async def test_an_incident_stays_when_its_rollout_goes(tmp_path: Path) -> None:
    async with yard(tmp_path) as made:
        await made.push("v2")
        await made.fail()
        await made.client.delete(Application, "shop", "argocd")
        await made.settle()
        await made.client.delete(Rollout, "shop", "default")
        await made.jump(40)
        assert (await made.incident()).status.phase == "Closed"


@pytest.mark.parametrize("writes", [1, 2, 3, 4])
async def test_a_controller_that_dies_at_any_write_leaves_the_same_behind(tmp_path: Path, writes: int) -> None:
    repo = GitRepo(tmp_path / "repo")
    repo.git("config", "receive.denyCurrentBranch", "ignore")
    good, bad = repo.commit({"app/a": "v1"}), repo.commit({"app/a": "v2"})
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client, [*ROLLOUT_KINDS, *GITOPS_KINDS, Incident])
        await client.create(Namespace(metadata=ObjectMeta(name="argocd")))
        data = {"url": repo.url.encode(), "pilothouseRevert": b"commit"}
        labels = {"argocd.argoproj.io/secret-type": "repository"}
        await client.create(Secret(metadata=ObjectMeta(name="repo", namespace="argocd", labels=labels), data=data))
        await client.create(from_dict(synced(repo.url, good, bad), Application))
        await client.create(from_dict(ABORTED, Rollout))
        await client.patch(Rollout, "shop", {"status": ABORTED["status"]}, subresource="status")
        options = IncidentOptions(directory=str(tmp_path / "incidents"))
        for left in (writes, 1000):
            harness = Harness(client, clock=FakeClock())
            add_incidents(harness.manager, options)
            with pytest.MonkeyPatch.context() as patch:
                dies(patch, left)
                async with harness:
                    await harness.settle()
            if left == 1000:
                break
        (found,) = [each async for each in client.list(Incident, "default")]
        assert (found.status.phase, found.status.git.state) == ("Closed", "Reverted")
        app = await client.get(Application, "shop", "argocd")
        assert [each.revision for each in read_rejections(app)] == [bad]
        assert repo.git("rev-list", "--count", "main") == "3"
        assert repo.git("show", "main:app/a") == "v1"


def dies(patch: pytest.MonkeyPatch, left: int) -> None:
    """Have all writes fail after so many; those of events do not count."""
    count = 0

    def wrapped(name: str) -> None:
        real = getattr(Client, name)

        async def write(self: Client, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > left:
                raise ConnectionError("dead")
            return await real(self, *arguments, **options)

        patch.setattr(Client, name, write)

    for name in ("create", "patch", "delete"):
        wrapped(name)


ABORTED: dict[str, Any] = {
    "metadata": {
        "name": "shop",
        "namespace": "default",
        "annotations": {"argocd.argoproj.io/tracking-id": "shop:argoproj.io/Rollout:default/shop"},
    },
    "spec": {"selector": {}, "strategy": {"canary": {}}},
    "status": {
        "abort": True,
        "abortedAt": "2025-01-01T00:00:00Z",
        "currentPodHash": "v2",
        "stableRS": "v1",
        "duration": {"rolloutStartedAt": "2024-12-31T23:59:00Z"},
        "conditions": [
            {
                "type": "Progressing",
                "status": "False",
                "reason": "RolloutAborted",
                "message": "Rollout aborted update to revision 2: Background analysis phase error/failed",
                "lastUpdateTime": "2025-01-01T00:00:00Z",
                "lastTransitionTime": "2025-01-01T00:00:00Z",
            }
        ],
    },
}


def synced(url: str, good: str, bad: str) -> dict[str, Any]:
    """Return an application that was synced to two commits."""
    times_of = {good: "2024-12-31T10:00:00Z", bad: "2024-12-31T23:58:59Z"}
    history = [
        {"id": number, "revision": each, "deployStartedAt": at, "deployedAt": at, "source": {"repoURL": url}}
        for number, (each, at) in enumerate(times_of.items())
    ]
    state = {
        "operation": {},
        "phase": "Succeeded",
        "startedAt": times_of[bad],
        "syncResult": {"revision": bad, "source": {"repoURL": url}},
    }
    return {**APPLICATION(url), "status": {"history": history, "operationState": state}}


def test_columns_of_kubectl() -> None:
    columns = definition(Incident)["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [each["name"] for each in columns] == ["Rollout", "Cause", "Phase", "Decided", "Git", "Message", "Age"]
