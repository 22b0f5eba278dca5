"""A dashboard before a control plane with made-up rollouts, numbers and logs: the context manager `helm`."""

from __future__ import annotations

import asyncio
import functools
import math
import tempfile
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pilothouse.apiserver.http import HttpServer
from pilothouse.apiserver.model import Answer, Request, Sink, StreamingResponse, User
from pilothouse.apiserver.options import ServerOptions
from pilothouse.client import Client
from pilothouse.client.config import ClientConfig
from pilothouse.dashboard.numbers import Flow, NoNumbers, Sample
from pilothouse.dashboard.server import Dashboard
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.incidents import Incident
from pilothouse.delivery.resources.installing import definitions
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.resources.servicelevels import ServiceLevel
from pilothouse.foundation import tls
from pilothouse.foundation.metrics import Metrics
from pilothouse.operator import install
from pilothouse.testing import ControlPlane
from support.rolloutkit import open_definitions

__all__ = ["ADMIN", "APPLICATIONS", "ROLLOUTS", "STRANGER", "VIEWER", "FakeNumbers", "Helm", "helm", "rollout_at"]

ADMIN, VIEWER, STRANGER = "token-of-admin", "token-of-viewer", "token-of-stranger"
ROLLOUTS = "/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts"
INCIDENTS = "/apis/pilothouse.dev/v1alpha1/namespaces/shop/incidents"
LEVELS = "/apis/pilothouse.dev/v1alpha1/namespaces/shop/servicelevels"
APPLICATIONS = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"
IMAGE = "registry.example/shop/checkout"
_TRACKING = "argocd.argoproj.io/tracking-id"
REGIONS = {"cn-east": 290.0, "cn-north": 180.0, "eu-west": 140.0}


class FakeNumbers:
    """Numbers that are said. canary: its share by region."""

    def __init__(self) -> None:
        self.route = "shop/checkout"
        self.canary: dict[str, float] = dict.fromkeys(REGIONS, 0.0)
        self.errors = 0.0004
        self.p95 = 0.212
        self.problem = ""
        self.looks = 0

    def flows(self, at: float) -> tuple[list[Flow], list[Flow]]:
        """Return what is seen at a time, a little uneven as traffic is."""
        regions: list[Flow] = []
        for number, (region, rate) in enumerate(REGIONS.items()):
            whole = rate * (1 + 0.06 * math.sin(at / 17 + number) + 0.03 * math.sin(at / 3.1 + 2 * number))
            share = self.canary[region]
            wave = 1 + 0.12 * math.sin(at / 7 + number)
            for version, part, errors, p95 in (
                ("checkout-canary", share, self.errors, self.p95),
                ("checkout", 1 - share, 0.0006, 0.246),
            ):
                if part:
                    regions.append(Flow(self.route, version, region, whole * part, errors * wave, p95 * wave))
        versions = []
        for version in ("checkout-canary", "checkout"):
            mine = [each for each in regions if each.version == version]
            if mine:
                rate = sum(each.rate for each in mine)
                errors = sum(each.rate * each.errors for each in mine) / rate
                versions.append(Flow(self.route, version, "", rate, errors, max(each.p95 for each in mine)))
        return versions, regions

    async def look(self) -> tuple[Sequence[Flow], Sequence[Flow]]:
        self.looks += 1
        if self.problem:
            raise NoNumbers(self.problem)
        return self.flows(datetime.now(UTC).timestamp())


class Log:
    """What pods have written."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = asyncio.Event()

    def write(self, text: str) -> None:
        """Write a line."""
        self._lines.append(f"{datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')} {text}\n")
        self._more.set()

    async def follow(self, sink: Sink) -> None:
        """Send all lines, and those to come."""
        sent = 0
        while True:
            for line in self._lines[sent:]:
                sink.write(line.encode())
            sent = len(self._lines)
            await sink.drain()
            self._more.clear()
            await self._more.wait()


@dataclass
class Helm:
    """What a test has: the plane, the dashboard and where it is."""

    plane: ControlPlane
    dashboard: Dashboard
    url: str
    numbers: FakeNumbers
    log: Log = field(default_factory=Log)

    async def show(self, status: dict[str, Any], name: str = "checkout") -> None:
        """Set a rollout's status."""
        await self.plane.call("PATCH", f"{ROLLOUTS}/{name}/status", {"status": status})

    async def application(self, name: str = "shop") -> Any:
        """Return an application as it is."""
        return await self.plane.call("GET", f"{APPLICATIONS}/{name}")

    async def rollout(self, name: str = "checkout") -> Any:
        """Return a rollout as it is."""
        return await self.plane.call("GET", f"{ROLLOUTS}/{name}")

    def remember(self, seconds: int = 300) -> None:
        """Put minutes of numbers where they would be had somebody looked: the canary comes in cn-east first."""
        now = int(datetime.now(UTC).timestamp())
        kept = dict(self.numbers.canary)
        for at in range(now - seconds, now):
            passed = at - (now - seconds)
            self.numbers.canary = {
                region: (0.0 if passed < 60 or (region != "cn-east" and passed < 220) else min(share, 0.2))
                if region != "cn-east" or passed < 140
                else share
                for region, share in kept.items()
            }
            self.dashboard.board.samples.append(Sample(at, *self.numbers.flows(at)))
        self.numbers.canary = kept


def rollout_at(step: int, weight: int, **more: Any) -> dict[str, Any]:
    """Return the status of a canary at a step."""
    return {
        "phase": "Paused",
        "message": "CanaryPauseStep",
        "observedGeneration": "2",
        "currentStepIndex": step,
        "currentPodHash": "7d9f8c6b5",
        "stableRS": "5c4b8d7f9",
        "replicas": 6,
        "readyReplicas": 6,
        "updatedReplicas": 2,
        "availableReplicas": 6,
        "controllerPause": True,
        "abort": False,
        "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": _ago(40)}],
        "canary": {
            "weights": {"canary": {"weight": weight}, "stable": {"weight": 100 - weight}},
            "currentBackgroundAnalysisRunStatus": {"name": "checkout-7d9f8c6b5-2", "status": "Running"},
        },
        **more,
    }


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def _definitions() -> list[dict[str, Any]]:
    return open_definitions(definitions((Rollout, AnalysisRun, Application, ServiceLevel, Incident)))


@asynccontextmanager
async def helm(*, full: bool = True) -> AsyncIterator[Helm]:
    """Run all of it. full: with the rollout `checkout` and what is around it."""
    tokens = {
        ADMIN: User("ada@shop.example", groups=("system:masters", "system:authenticated")),
        VIEWER: User("vera@shop.example", groups=("viewers", "system:authenticated")),
        STRANGER: User("sam@elsewhere.example", groups=("system:authenticated",)),
    }
    options = ServerOptions(metrics=Metrics(), tokens=tokens)
    async with ControlPlane(options=options, lifecycle=False) as plane:
        made: list[Helm] = []

        def front(request: Request) -> Answer | Awaitable[Answer]:
            if request.path.endswith("/log"):
                return StreamingResponse(made[0].log.follow, 200, (), "text/plain")
            return plane.server.handle(request)

        with tempfile.TemporaryDirectory() as directory:
            ca, context = _certificates(Path(directory))
            behind, before = HttpServer(front, tls=context), None
            _, port = await behind.start("127.0.0.1")
            config = ClientConfig(server=f"https://127.0.0.1:{port}", ca_data=ca)
            numbers = FakeNumbers()
            async with Dashboard(config, numbers=numbers) as dashboard:
                before = HttpServer(dashboard.handle, tls=_certificates(Path(directory))[1])
                _, port = await before.start("127.0.0.1")
                made.append(Helm(plane, dashboard, f"https://pilothouse.example:{port}", numbers))
                await _make_viewer(plane)
                if full:
                    await _fill(plane)
                yield made[0]
                await before.close(0.2)
            await behind.close(0.2)


def _certificates(directory: Path) -> tuple[bytes, Any]:
    ca = tls.make_ca("test")
    pair = tls.issue(ca, "dashboard", hosts=["127.0.0.1", "pilothouse.example"], server=True)
    paths = str(directory / "tls.crt"), str(directory / "tls.key")
    tls.write(pair, *paths)
    return ca.certificate, tls.server_context(*paths)


async def _make_viewer(plane: ControlPlane) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    verbs = ["get", "list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["events", "namespaces", "pods"], "verbs": verbs},
        {"apiGroups": ["apps", "argoproj.io", "pilothouse.dev"], "resources": ["*"], "verbs": verbs},
    ]
    await plane.call("POST", f"{rbac}/clusterroles", {"metadata": {"name": "viewer"}, "rules": rules})
    binding = {
        "metadata": {"name": "viewers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "viewer"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "viewers"}],
    }
    await plane.call("POST", f"{rbac}/clusterrolebindings", binding)


async def _fill(plane: ControlPlane) -> None:
    async with Client.for_transport(plane.transport, plane.user) as client:
        await install(client, *_definitions())
    for name in ("shop", "argocd"):
        await plane.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    await plane.call("POST", "/api/v1/namespaces/shop/serviceaccounts", {"metadata": {"name": "default"}})
    uid = (await plane.call("POST", ROLLOUTS, _rollout("checkout", "v2.7.0")))["metadata"]["uid"]
    await plane.call("PATCH", f"{ROLLOUTS}/checkout/status", {"status": rollout_at(4, 48)})
    await _quiet(plane)
    await _pods(plane, uid)
    await _run(plane, uid)
    await _applications(plane)
    await _levels(plane)
    await _incident(plane)
    await _events(plane)


def _rollout(name: str, version: str) -> dict[str, Any]:
    def regions(*names: str, weight: int) -> dict[str, Any]:
        return {
            "plugin": {"name": "pilothouse.dev/regions", "config": {"regions": [*names], "weight": weight}},
        }

    steps = [
        {"setCanaryScale": {"replicas": 2}},
        regions("cn-east", weight=20),
        {"pause": {"duration": "2m"}},
        regions("cn-east", weight=100),
        {"pause": {}},
        regions("cn-north", "eu-west", weight=50),
        {"analysis": {"templates": [{"templateName": "smoke"}]}},
        regions("*", weight=100),
    ]
    canary = {
        "canaryService": f"{name}-canary",
        "stableService": name,
        "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": name}}},
        "steps": steps,
    }
    labels = {"app": name}
    container = {"name": name, "image": f"{IMAGE.rpartition('/')[0]}/{name}:{version}"}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": 6,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": {"canary": canary},
        },
    }


async def _quiet(plane: ControlPlane) -> None:
    """Make rollouts and deployments around the one that moves."""
    for name, status in {
        "catalogue": {"phase": "Healthy", "currentPodHash": "a1", "stableRS": "a1", "currentStepIndex": 8},
        "payments": {
            "phase": "Degraded",
            "currentPodHash": "b2",
            "stableRS": "b1",
            "abort": True,
            "message": "metric traffic: 2.1 % of 412 canary requests failed, limit 0.3 %",
        },
    }.items():
        await plane.call("POST", ROLLOUTS, _rollout(name, "v1.12.3"))
        full = {"replicas": 6, "readyReplicas": 6, "availableReplicas": 6, "observedGeneration": "1", **status}
        await plane.call("PATCH", f"{ROLLOUTS}/{name}/status", {"status": full})
    where = "/apis/apps/v1/namespaces/shop/deployments"
    for name, replicas, ready in (("storefront", 4, 4), ("search", 3, 2), ("mailer", 1, 1)):
        labels = {"app": name}
        container = {"name": name, "image": f"registry.example/shop/{name}:v1.4.1"}
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        await plane.call("POST", where, {"metadata": {"name": name}, "spec": spec})
        counts = {"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": replicas}
        condition = {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
        status = {**counts, "observedGeneration": 1, "conditions": [condition]}
        await plane.call("PATCH", f"{where}/{name}/status", {"status": status})


async def _pods(plane: ControlPlane, uid: str) -> None:
    sets = "/apis/apps/v1/namespaces/shop/replicasets"
    pods = "/api/v1/namespaces/shop/pods"
    for digest, count, revision, tag in (("5c4b8d7f9", 4, "6", "v2.6.4"), ("7d9f8c6b5", 2, "7", "v2.7.0")):
        labels = {"app": "checkout", "rollouts-pod-template-hash": digest}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "checkout", "image": f"{IMAGE}:{tag}"}]},
        }
        owner = _owner("argoproj.io/v1alpha1", "Rollout", "checkout", uid)
        metadata = {
            "name": f"checkout-{digest}",
            "labels": labels,
            "ownerReferences": [owner],
            "annotations": {"rollout.argoproj.io/revision": revision},
        }
        spec = {"replicas": count, "selector": {"matchLabels": labels}, "template": template}
        made = await plane.call("POST", sets, {"metadata": metadata, "spec": spec})
        status = {"replicas": count, "readyReplicas": count, "availableReplicas": count, "observedGeneration": 1}
        await plane.call("PATCH", f"{sets}/checkout-{digest}/status", {"status": status})
        for number in range(count):
            name = f"checkout-{digest}-{['xk2vq', 'mzt8d', 'p4wlr', '9hsbn'][number]}"
            owner = _owner("apps/v1", "ReplicaSet", f"checkout-{digest}", made["metadata"]["uid"])
            body = {"metadata": {"name": name, "labels": labels, "ownerReferences": [owner]}, "spec": template["spec"]}
            await plane.call("POST", pods, body)
            state = {"name": "checkout", "image": "i", "imageID": "", "ready": True, "restartCount": 0}
            running: dict[str, Any] = {
                "phase": "Running",
                "podIP": f"10.244.0.{10 + number}",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{**state, "state": {"running": {"startedAt": _ago(60)}}}],
            }
            await plane.call("PATCH", f"{pods}/{name}/status", {"status": running})


def _owner(version: str, kind: str, name: str, uid: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": True}


async def _run(plane: ControlPlane, uid: str) -> None:
    runs = "/apis/argoproj.io/v1alpha1/namespaces/shop/analysisruns"
    plugin = {"pilothouse.dev/traffic": {"route": "shop/checkout", "canary": "checkout-canary", "stable": "checkout"}}
    owner = _owner("argoproj.io/v1alpha1", "Rollout", "checkout", uid)
    name = "checkout-7d9f8c6b5-2"
    spec = {"metrics": [{"name": "traffic", "provider": {"plugin": plugin}}]}
    await plane.call("POST", runs, {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": spec})
    says = "0.04 % of 1,420 canary requests failed in 5 s (limit 0.3 %), p95 212 ms (limit 800 ms)"
    result = {"name": "traffic", "phase": "Running", "count": 96, "message": says, "successful": 96}
    status = {"phase": "Running", "startedAt": _ago(96), "metricResults": [result]}
    await plane.call("PATCH", f"{runs}/{name}", {"status": status})


async def _applications(plane: ControlPlane) -> None:
    def resource(kind: str, name: str, health: str = "Healthy", sync: str = "Synced") -> dict[str, Any]:
        found = {"kind": kind, "namespace": "shop", "name": name, "status": sync, "version": "v1"}
        return found | ({"health": {"status": health}} if health else {})

    resources = [
        resource("Rollout", "checkout", "Suspended"),
        resource("Service", "checkout"),
        resource("Service", "checkout-canary"),
        resource("HTTPRoute", "checkout"),
        resource("ConfigMap", "checkout-settings", "", "OutOfSync"),
    ]
    for name, health, sync, listed in (
        ("shop", "Suspended", "OutOfSync", resources),
        ("platform", "Healthy", "Synced", [resource("Deployment", "mailer")]),
        ("search", "Progressing", "Synced", [resource("Deployment", "search", "Progressing")]),
    ):
        source = {"repoURL": "https://git.example/shop/deploy.git", "path": f"apps/{name}", "targetRevision": "main"}
        destination = {"server": "https://kubernetes.default.svc", "namespace": "shop"}
        revision = "3f9c1e7a5b2d4c6e8f0a1b2c3d4e5f6071829304"
        body = {
            "metadata": {"name": name},
            "spec": {"project": "default", "source": source, "destination": destination},
            "status": {
                "sync": {"status": sync, "revision": revision},
                "health": {"status": health},
                "resources": listed,
                "history": [
                    {"id": number, "revision": each, "deployedAt": _ago(seconds), "initiatedBy": {"username": "ada"}}
                    for number, each, seconds in ((1, "77" + revision[2:], 9_400), (2, revision, 5_400))
                ],
                "summary": {"images": [f"{IMAGE}:v2.7.0"]},
                "operationState": {
                    "phase": "Succeeded",
                    "message": "all is as git says",
                    "startedAt": _ago(130),
                    "finishedAt": _ago(125),
                },
            },
        }
        await plane.call("POST", APPLICATIONS, body)


async def _levels(plane: ControlPlane) -> None:
    """Make three service levels: one that does well, one that has spent its budget, one of which nothing is known."""
    now = datetime.now(UTC)
    begin = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for name, bad_day in (("checkout", 120), ("payments", 90_000), ("catalogue", 0)):
        level = {
            "metadata": {"name": name, "annotations": {_TRACKING: f"shop:pilothouse.dev/ServiceLevel:shop/{name}"}},
            "spec": {"rollout": name, "routes": [name], "objective": "99.9%", "latency": "800ms"},
        }
        await plane.call("POST", LEVELS, level)
        if not bad_day:
            continue
        days: list[dict[str, Any]] = [
            {
                "begin": _seconds(begin - timedelta(days=back)),
                "requests": 900_000 + 40_000 * (back % 7),
                "bad": bad_day if back in {3, 11} else 150 + 13 * (back * 7 % 23),
            }
            for back in reversed(range(74))
        ]
        requests, bad = sum(each["requests"] for each in days), sum(each["bad"] for each in days)
        outcomes = ("Succeeded", "Succeeded", "RolledBack", "Succeeded")
        deploys = [
            {
                "version": f"6f{number}c8b{number}d7",
                "revision": "3f9c1e7a5b2d4c6e8f0a1b2c3d4e5f6071829304",
                "startedAt": _ago(90_000 * (len(outcomes) - number)),
                "endedAt": _ago(90_000 * (len(outcomes) - number) - 400),
                "outcome": outcome,
                **({"message": "2.1 % of 412 canary requests failed"} if outcome == "RolledBack" else {}),
            }
            for number, outcome in enumerate(outcomes)
        ]
        figures = {
            "requests": requests,
            "attained": f"{100 * (1 - bad / requests):.3f}%",
            "budgetLeft": f"{100 * (1 - bad / requests / 0.001):.1f}%",
            "burnRate1h": "0.32",
            "burnRate6h": "0.41",
            "deploys": len(outcomes),
            "deploysPerDay": "1.1",
            "successRate": "75.0%",
            "leadTimeSeconds": 540,
            "restoreSeconds": "7.4",
        }
        status = {"figures": figures, "days": days, "deploys": deploys, "countedUntil": _seconds(now)}
        await plane.call("PATCH", f"{LEVELS}/{name}/status", {"status": status})


async def _incident(plane: ControlPlane) -> None:
    """Make the incident of the rollout that was taken back."""
    message = "metric traffic: 2.1 % of 412 canary requests failed, limit 0.3 %"
    spec = {
        "rollout": "payments",
        "version": "b2",
        "revision": "4",
        "cause": "Analysis",
        "decidedAt": _ago(300),
        "message": message,
        "gitRevisions": ["9d0c1e7a5b2d4c6e8f0a1b2c3d4e5f6071829304"],
        "people": ["Ada of the shop"],
    }
    made = {"metadata": {"name": "payments-b2"}, "spec": spec}
    await plane.call("POST", INCIDENTS, made)
    numbers = {"canary": {"requests": "412", "errorRatio": "2.18%", "p95": "190ms"}}
    numbers["stable"] = {"requests": "1630", "errorRatio": "0.00%", "p95": "186ms"}
    moments = ((4, "FirstBad", "the first bad answers"), (0, "Decided", message), (-1, "TrafficBack", "no traffic"))
    status = {
        "phase": "Closed",
        "evidence": [{"run": "payments-b2-4", "metric": "traffic", "phase": "Failed", **numbers}],
        "samples": ["GET /pay 500 cn-east"],
        "git": {"state": "Reverted"},
        "timeline": [{"at": _ago(300 + before), "what": what, "message": text} for before, what, text in moments],
    }
    await plane.call("PATCH", f"{INCIDENTS}/payments-b2/status", {"status": status})


def _seconds(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


async def _events(plane: ControlPlane) -> None:
    where = "/api/v1/namespaces/shop/events"
    for number, (kind, name, type_, reason, message, seconds) in enumerate(
        (
            ("Rollout", "checkout", "Normal", "RolloutUpdated", "Rollout updated to revision 7", 190),
            ("Rollout", "checkout", "Normal", "RolloutStepCompleted", "step 2 of 8: cn-east gets 20 %", 150),
            ("Pod", "checkout-7d9f8c6b5-xk2vq", "Warning", "Unhealthy", "Readiness probe failed: 503", 170),
            ("Rollout", "checkout", "Normal", "RolloutStepCompleted", "step 4 of 8: cn-east gets 100 %", 45),
            ("Deployment", "search", "Normal", "ScalingReplicaSet", "Scaled up replica set search-6f to 3", 300),
        )
    ):
        await plane.call(
            "POST",
            where,
            {
                "metadata": {"name": f"{name}.{number}"},
                "involvedObject": {"kind": kind, "namespace": "shop", "name": name},
                "type": type_,
                "reason": reason,
                "message": message,
                "count": 1 + 2 * (type_ == "Warning"),
                "firstTimestamp": _ago(seconds),
                "lastTimestamp": _ago(seconds),
                "source": {"component": "rollouts-controller"},
            },
        )
