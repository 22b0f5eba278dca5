"""The platform's controllers work as their own user: whatever they do, no request of theirs is refused."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pilothouse.apiserver.options import ServerOptions
from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.node.services.loadbalancers import add_load_balancers
from pilothouse.operator import Manager
from pilothouse.platform import GATEWAY_OBJECTS
from pilothouse.platform.dnsservice import add_dns_service
from pilothouse.scheduling.reconcilers import PodScheduler
from pilothouse.testing import ControlPlane
from pilothouse.testing.caller import user_of
from pilothouse.traffic.config import Configuration
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.controller import add_gateway
from pilothouse.workloads.controllers import add_controllers

USER = "system:pilothouse:controllers"
_REFUSED = re.compile(r'^pilothouse_apiserver_requests_total\{.*code="403".*\} .*$', re.MULTILINE)


@asynccontextmanager
async def platform() -> AsyncIterator[ControlPlane]:
    options = ServerOptions(metrics=Metrics(), platform=True)
    async with ControlPlane(options=options) as plane, Client.for_transport(plane.transport, user_of(USER)) as client:
        manager = Manager(client, metrics=Metrics())
        add_controllers(manager)
        PodScheduler(manager)
        add_load_balancers(manager)
        add_dns_service(manager, "10.96.0.10")
        async with manager:
            yield plane


def template(app: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "host", "resources": {"requests": {"cpu": "1m"}}}
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [container], **spec}}


def workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    wanted = {"selector": {"matchLabels": {"app": name}}, "template": template(name), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": wanted}


CLAIM = {
    "metadata": {"name": "d"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
APPS, CORE, BATCH = (
    "/apis/apps/v1/namespaces/default",
    "/api/v1/namespaces/default",
    "/apis/batch/v1/namespaces/default",
)
OBJECTS: list[tuple[str, dict[str, Any]]] = [
    (f"{APPS}/deployments", workload("Deployment", "web", replicas=2)),
    (f"{APPS}/statefulsets", workload("StatefulSet", "db", serviceName="db", volumeClaimTemplates=[CLAIM])),
    (f"{APPS}/daemonsets", workload("DaemonSet", "all")),
    (f"{BATCH}/jobs", {"metadata": {"name": "job"}, "spec": {"template": template("job", restartPolicy="Never")}}),
    (
        f"{CORE}/services",
        {
            "metadata": {"name": "web"},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]},
        },
    ),
    (
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
        {"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}},
    ),
    (
        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
        {
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 3,
                "maxReplicas": 4,
            },
        },
    ),
    (f"{CORE}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "50", "secrets": "50"}}}),
]


async def node(plane: ControlPlane, name: str) -> None:
    await plane.call("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
    room = {"cpu": "8", "memory": "8Gi", "pods": "110"}
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    status = {
        "capacity": room,
        "allocatable": room,
        "conditions": [condition],
        "nodeInfo": {"kubeletVersion": "v1.36.0"},
        "addresses": [{"type": "InternalIP", "address": "192.0.2.3"}],
    }
    await plane.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": status})


async def test_no_request_of_theirs_is_refused() -> None:
    async with platform() as plane:
        await node(plane, "one")
        for path, obj in OBJECTS:
            await plane.call("POST", path, obj)
        pods = f"{CORE}/pods"
        await plane.wait_for(pods, lambda found: _bound(found) >= 6, timeout=30)  # 3 of web, db-0, all, job
        await plane.wait_for(f"{CORE}/persistentvolumeclaims/d-db-0", _is_bound, timeout=30)
        await plane.wait_for(f"{CORE}/services/web", _has_ingress, timeout=30)
        await plane.wait_for("/api/v1/namespaces/kube-system/services/kube-dns", bool, timeout=30)
        for path, obj in OBJECTS:
            await plane.call("DELETE", f"{path}/{obj['metadata']['name']}?propagationPolicy=Background")
        await plane.call("DELETE", "/api/v1/nodes/one")
        await plane.wait_for(pods, _all_go, timeout=30)
        assert _REFUSED.findall(plane.options.metrics.exposition().decode()) == []


GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/default"
FOR_A_GATEWAY: list[tuple[str, dict[str, Any]]] = [
    (
        f"{GATEWAYS}/gateways",
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "front"},
            "spec": {
                "gatewayClassName": "pilothouse",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
        },
    ),
    (
        f"{GATEWAYS}/httproutes",
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "web"},
            "spec": {"parentRefs": [{"name": "front"}], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
        },
    ),
    (
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
        {"metadata": {"name": "web"}, "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}},
    ),
    (
        "/apis/pilothouse.dev/v1alpha1/namespaces/default/trafficpolicies",
        {
            "apiVersion": "pilothouse.dev/v1alpha1",
            "kind": "TrafficPolicy",
            "metadata": {"name": "web"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
                "healthCheck": {"path": "/healthz"},
            },
        },
    ),
    (f"{CORE}/services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}),
]


class Plane:
    """Takes up every configuration."""

    async def push(self, configuration: Configuration) -> None:
        del configuration


async def test_no_request_of_the_gateway_is_refused() -> None:
    options = ServerOptions(metrics=Metrics(), platform=True, bundled=(GATEWAY_OBJECTS,))
    user = user_of("system:pilothouse:gateway")
    async with ControlPlane(options=options) as plane, Client.for_transport(plane.transport, user) as client:
        manager = Manager(client, metrics=Metrics())
        add_gateway(manager, Plane(), Addresses(("127.5.0.0/24",)))
        async with manager:
            for path, obj in FOR_A_GATEWAY:
                await plane.call("POST", path, obj)
            await plane.wait_for(f"{GATEWAYS}/gateways/front", _is_programmed, timeout=30)
            await plane.wait_for(f"{GATEWAYS}/httproutes/web", _has_parents, timeout=30)
            await plane.wait_for(FOR_A_GATEWAY[2][0] + "/web", _has_ingress, timeout=30)
            await plane.wait_for(
                FOR_A_GATEWAY[3][0] + "/web", lambda it: it.get("status", {}).get("ancestors"), timeout=30
            )
        assert _REFUSED.findall(plane.options.metrics.exposition().decode()) == []
        for path in (f"{CORE}/pods", f"{CORE}/serviceaccounts", "/apis/rbac.authorization.k8s.io/v1/clusterroles"):
            assert (await plane.as_user(user.name).request("GET", path)).status == 403
        assert (await plane.as_user(user.name).request("DELETE", f"{CORE}/secrets/x")).status == 403


async def test_refusals_would_be_seen() -> None:
    async with ControlPlane(options=ServerOptions(metrics=Metrics())) as plane:
        answer = await plane.as_user(USER).request("GET", f"{CORE}/secrets")
        assert answer.status == 403
        assert len(_REFUSED.findall(plane.options.metrics.exposition().decode())) == 1


def _all_go(pods: Any) -> bool:
    return all(pod["metadata"].get("deletionTimestamp") for pod in pods)


def _bound(pods: Any) -> int:
    return sum(bool(pod["spec"].get("nodeName")) for pod in pods)


def _is_programmed(gateway: Any) -> bool:
    conditions = gateway.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Programmed" and each["status"] == "True" for each in conditions)


def _has_parents(route: Any) -> bool:
    return bool(route.get("status", {}).get("parents"))


def _has_ancestors(policy: Any) -> bool:
    return bool(policy.get("status", {}).get("ancestors"))


def _is_bound(claim: Any) -> bool:
    return claim is not None and claim["status"].get("phase") == "Bound"


def _has_ingress(service: Any) -> bool:
    return bool(service["status"]["loadBalancer"].get("ingress"))
