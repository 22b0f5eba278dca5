"""GitOps with self-heal beside the rollouts controller: an update goes its way, and both are content."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml

from pilothouse.client import Client
from pilothouse.delivery.gitops import Gitops, GitopsOptions, add_gitops, install_gitops_kinds
from pilothouse.delivery.gitops.comparing import MANAGER
from pilothouse.delivery.gitops.executing import Executor, Options
from pilothouse.delivery.gitops.syncing import Task
from pilothouse.delivery.gitops.targets import Key, Target
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.installing import ROLLOUT_KINDS, definitions
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import verbs
from pilothouse.delivery.rollouts.claims import Claim
from pilothouse.delivery.rollouts.names import HASH
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Namespace, ObjectMeta, Service, from_dict
from pilothouse.operator import Harness, definition, install
from pilothouse.testing import ControlPlane
from pilothouse.traffic.control.kinds import GRPCRoute, HTTPRoute, RegionWeights
from support.gitrepo import GitRepo
from support.rolloutkit import ROUTE, SERVICES, Fleet, add_controllers, open_definitions

NAMES: Final = ("shop-stable", "shop-canary")
STEPS: Final = [
    {"setHeaderRoute": {"name": "vip", "match": [{"headerName": "x-vip", "headerValue": {"exact": "1"}}]}},
    {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 50}}},
    {"setWeight": 30},
    {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 50}}},
    {"pause": {}},
]


def rollout(image: str) -> str:
    container = {"name": "shop", "image": f"shop:{image}", "ports": [{"containerPort": 8080, "protocol": "TCP"}]}
    canary = {
        "canaryService": "shop-canary",
        "stableService": "shop-stable",
        "trafficRouting": {
            "managedRoutes": [{"name": "vip"}],
            "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "shop"}},
        },
        "steps": STEPS,
    }
    return yaml.safe_dump(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": "shop"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [container]}},
                "strategy": {"canary": canary},
            },
        }
    )


class Yard(Fleet):
    """Rollouts out of git."""

    repo: GitRepo
    gitops: Gitops

    async def app(self) -> Application:
        return await self.client.get(Application, "shop", "argocd")

    async def push(self, **files: str | None) -> None:
        """Commit files of `app/`, and have them synced."""
        self.repo.commit({f"app/{name}.yaml": text for name, text in files.items()})
        self.gitops.repositories.news(self.repo.url)
        await self.gitops.repositories.idle()
        await self.settle()
        await self.advance(3)

    async def hashes(self) -> list[str]:
        return [(await self.client.get(Service, name)).spec.selector.get(HASH, "") for name in NAMES]

    async def content(self) -> None:
        """Check that nothing differs, and that nobody writes: not gitops, and not rollouts either."""
        before, asked = await self.versions(), self.gitops.operator.executor.requests
        await self.advance(40)
        app = await self.app()
        assert [(str(key), *each) for key, each in self.gitops.drift(app)] == []
        assert app.status.sync.status == "Synced"
        assert self.gitops.operator.executor.requests == asked
        assert await self.versions() == before

    async def versions(self) -> list[str | None]:
        services = [await self.client.get(Service, name) for name in NAMES]
        route = (await self.route())["metadata"]["resourceVersion"]
        return [*(each.metadata.resource_version for each in services), route]


@asynccontextmanager
async def yard(path: Path, *, heal: bool = True, **files: str) -> AsyncIterator[Yard]:
    clock = FakeClock()
    repo = GitRepo(path / "repo")
    repo.commit({f"app/{name}.yaml": text for name, text in files.items()})
    async with ControlPlane(clock=clock) as plane, Client.for_transport(plane.transport, plane.user) as client:
        routes = [definition(kind) for kind in (HTTPRoute, GRPCRoute, RegionWeights)]
        await install(client, *open_definitions([*definitions(ROLLOUT_KINDS), *routes]))
        await install_gitops_kinds(client)
        await client.create(Namespace(metadata=ObjectMeta(name="argocd")))
        harness = Harness(client, clock=clock)
        add_controllers(harness.manager)
        gitops = add_gitops(harness.manager, GitopsOptions(directory=str(path / "gitops")))
        made = Yard(plane, client, harness, clock)
        made.repo, made.gitops = repo, gitops
        async with harness:
            await client.create(from_dict(application(repo.url, heal=heal), Application))
            await made.settle()
            await made.advance(3)
            yield made
        await gitops.aclose()


def application(url: str, *, heal: bool) -> dict[str, Any]:
    return {
        "metadata": {"name": "shop", "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {"repoURL": url, "path": "app", "targetRevision": "main"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "default"},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": heal}},
        },
    }


async def test_a_canary_goes_its_way_under_self_heal(tmp_path: Path) -> None:
    async with yard(tmp_path, services=SERVICES, route=ROUTE, rollout=rollout("v1")) as made:
        (stable, canary) = await made.hashes()
        assert stable == canary != ""
        await made.content()

        await made.push(rollout=rollout("v2"))
        assert (await made.status()).phase == "Paused"
        new = (await made.hashes())[1]
        assert await made.hashes() == [stable, new]
        assert new != stable
        split = {"shop-stable": 70, "shop-canary": 30}
        assert await made.weights() == split
        assert [rule.get("name") for rule in (await made.route())["spec"]["rules"]] == ["vip", None]
        await made.content()

        # A commit that changes other fields of the same objects, and weights: these wait.
        services = SERVICES.replace("app: shop}", "app: shop, tier: web}").replace("port: 80", "port: 81")
        route = ROUTE.replace("- backendRefs", "- timeouts: {request: 9s}\n    backendRefs")
        await made.push(services=services, route=route.replace("weight: 100", "weight: 90"))
        assert await made.hashes() == [stable, new]
        selector = (await made.client.get(Service, "shop-canary")).spec.selector
        assert selector == {"app": "shop", "tier": "web", HASH: new}
        assert [each.port for each in (await made.client.get(Service, "shop-stable")).spec.ports] == [81]
        assert await made.weights() == split
        rules = (await made.route())["spec"]["rules"]
        assert [rule["timeouts"] for rule in rules] == [{"request": "9s"}] * 2
        assert {each["type"] for each in rules[1]["filters"]} == {"ExtensionRef"}
        await made.content()

        await made.verb(verbs.promote(await made.rollout()))
        await made.settle()
        await made.advance(60)
        assert (await made.status()).phase == "Healthy"
        assert await made.hashes() == [new, new]
        assert await made.weights() == {"shop-stable": 100, "shop-canary": 0}
        marks = (await made.route())["metadata"]["annotations"]
        assert marks["pilothouse.dev/git-traffic"] == '{"shop-canary":"0","shop-stable":"90"}'
        await made.content()


async def test_services_are_healed_beside_what_is_the_rollouts(tmp_path: Path) -> None:
    async with yard(tmp_path, services=SERVICES, route=ROUTE, rollout=rollout("v1")) as made:
        before = await made.hashes()
        patch = {"spec": {"selector": {"app": "other", "own": "1"}}}
        await made.client.patch(Service, "shop-stable", patch)
        await made.settle()
        await made.advance(5)
        found = await made.client.get(Service, "shop-stable")
        assert found.spec.selector == {"app": "shop", HASH: before[0]}
        await made.content()


async def test_a_rollout_that_goes_leaves_services_and_routes_to_git(tmp_path: Path) -> None:
    async with yard(tmp_path, services=SERVICES, route=ROUTE, rollout=rollout("v1")) as made:
        await made.push(rollout=rollout("v2"))
        assert await made.weights() == {"shop-stable": 70, "shop-canary": 30}
        await made.push(rollout=None)
        await made.advance(10)
        assert [one async for one in made.client.list(Rollout)] == []
        assert await made.hashes() == ["", ""]
        assert await made.weights() == {"shop-stable": 100, "shop-canary": 0}
        (rule,) = (await made.route())["spec"]["rules"]
        assert "filters" not in rule
        await made.content()


async def test_without_a_rollout_a_hash_by_hand_is_drift(tmp_path: Path) -> None:
    async with yard(tmp_path, services=SERVICES, route=ROUTE) as made:
        await made.client.patch(Service, "shop-stable", {"spec": {"selector": {HASH: "x"}}})
        await made.settle()
        await made.advance(5)
        assert await made.hashes() == ["", ""]


async def test_a_rollout_of_nobody_counts_too(tmp_path: Path) -> None:
    async with yard(tmp_path, services=SERVICES, route=ROUTE) as made:
        await made.apply(rollout("v1"))
        await made.settle()
        assert all(await made.hashes())
        await made.set_image("v2")
        await made.settle()
        assert await made.weights() == {"shop-stable": 70, "shop-canary": 30}
        await made.content()


class Live:
    """Where a sync writes; a rollout claims all of it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def handle(self, api_version: str, kind: str) -> Any:
        return self.client.dynamic(api_version, kind)

    def claims(self, key: Key) -> tuple[Claim, ...]:
        return (Claim("shop", busy=True),)

    def wrote(self, key: Key, obj: Mapping[str, Any]) -> None:
        pass


@pytest.mark.parametrize("option", ["Validate=false", "Replace=true"])
async def test_a_sync_does_not_write_back_what_a_rollout_has_changed_meanwhile(option: str) -> None:
    wanted = next(yaml.safe_load_all(SERVICES.replace("port: 80", "port: 81")))
    wanted["metadata"]["namespace"] = "default"
    key = Key("", "Service", "default", "shop-stable")
    target = Target(key, "v1", "f", msgspec.json.encode(wanted), b"", 0)
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        services = client.dynamic("v1", "Service")
        before = next(yaml.safe_load_all(SERVICES))
        seen = await services.apply(before, "default", field_manager=MANAGER)
        task = Task(key, "Sync", 0, target, seen)
        await services.patch("shop-stable", {"spec": {"selector": {HASH: "new"}}}, "default")
        executor = Executor(Live(client))  # type: ignore[arg-type]  # as much of it as is needed
        (result,) = (await executor.run([task], Options(frozenset({option})))).values()
        assert result.status == "Synced", result.message
        made = (await services.get("shop-stable", "default"))["spec"]
        assert (made["selector"], made["ports"][0]["port"]) == ({"app": "shop", HASH: "new"}, 81)
        await services.delete("shop-stable", "default")
        (result,) = (await executor.run([task], Options())).values()
        assert result.status == "Synced", result.message
        assert (await services.get("shop-stable", "default"))["spec"]["selector"] == {"app": "shop"}
