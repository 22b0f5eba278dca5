"""What becomes of Endpoints whose service is gone, or that never had one."""

from __future__ import annotations

from typing import Any

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.reconcilers.endpoints import add_endpoints, add_mirroring

ENDPOINTS = "/api/v1/namespaces/default/endpoints"
SERVICES = "/api/v1/namespaces/default/services"
SUBSETS = [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 80}]}]


def written(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": SUBSETS}


def service(name: str, **spec: Any) -> dict[str, Any]:
    base = {"ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": base | spec}


async def test_endpoints_go_with_their_service_and_others_stay() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        ours = {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
        await plane.call("POST", ENDPOINTS, written("left", **ours))
        await plane.call("POST", ENDPOINTS, written("alone"))
        await plane.call("POST", ENDPOINTS, written("users"))
        await plane.call("POST", SERVICES, service("users"))
        harness = Harness(client, clock=FakeClock())
        add_endpoints(harness.manager)
        add_mirroring(harness.manager)

        async def names() -> set[str]:
            found = (await plane.call("GET", ENDPOINTS))["items"]
            return {each["metadata"]["name"] for each in found} - {"kubernetes"}

        async with harness:
            await plane.call("POST", SERVICES, service("made", selector={"a": "b"}))
            await harness.converge()
            assert await names() == {"alone", "users", "made"}
            await harness.assert_stable()
            await plane.call("DELETE", f"{ENDPOINTS}/made")
            await harness.converge()
            assert await names() == {"alone", "users", "made"}
            for name in ("users", "made"):
                await plane.call("DELETE", f"{SERVICES}/{name}")
            await harness.converge()
            assert await names() == {"alone"}
