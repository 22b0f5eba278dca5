"""Quotas are counted anew: when objects go, when limits change, and now and then in any case."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Pod, ResourceQuota, Service, from_dict
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.quotas import Measure, frees, measure, needs_count, status_of
from pilothouse.workloads.reconcilers.quota import add_quotas

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUOTAS = "/api/v1/namespaces/default/resourcequotas"
SIZED = {"resources": {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}}


def quota(hard: dict[str, str], **more: Any) -> ResourceQuota:
    status = more.pop("status", {})
    tree = {"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": hard} | more, "status": status}
    return from_dict(tree, ResourceQuota)


def pod(container: dict[str, Any] | None = None, **spec: Any) -> Measure:
    return measure("", "pods", {"spec": {"containers": [{"name": "c"} | (container or {})]} | spec}, NOW)


def test_pods_are_summed_within_scopes() -> None:
    pods = [pod(), pod(SIZED), pod(SIZED, activeDeadlineSeconds=5)]
    hard = {"pods": "9", "requests.cpu": "2", "limits.memory": "4Gi", "cpu": "3"}

    def used(**scope: Any) -> dict[str, str]:
        made = status_of(quota(hard, **scope), lambda group, plural: pods)
        return {name: str(value) for name, value in made.status.used.items()}

    assert used() == {"pods": "3", "requests.cpu": "500m", "limits.memory": "2Gi", "cpu": "500m"}
    assert used(scopes=["BestEffort"])["pods"] == "1"
    assert used(scopes=["NotBestEffort", "NotTerminating"])["requests.cpu"] == "250m"


def test_what_nobody_serves_stays_and_equal_amounts_are_not_written() -> None:
    found = quota({"count/widgets.example.com": "3", "pods": "5"}, status={"used": {"count/widgets.example.com": "2"}})
    made = status_of(found, lambda group, plural: [pod()] if plural == "pods" else None)
    assert dict(made.status.used) == {"count/widgets.example.com": "2", "pods": "1"}
    assert dict(made.status.hard) == {"count/widgets.example.com": "3", "pods": "5"}
    assert status_of(made, lambda group, plural: [pod()] if plural == "pods" else None) is made
    same = quota({"cpu": "1"}, status={"hard": {"cpu": "1000m"}, "used": {"cpu": "0"}})
    assert status_of(same, lambda group, plural: ()) is same


def test_what_frees_something() -> None:
    def phase(name: str) -> Pod:
        return from_dict({"status": {"phase": name}}, Pod)

    def kind(name: str) -> Service:
        return from_dict({"spec": {"type": name}}, Service)

    assert frees(phase("Running"), phase("Failed"))
    assert not frees(phase("Failed"), phase("Failed"))
    assert frees(kind("NodePort"), kind("ClusterIP"))
    assert not frees(kind("ClusterIP"), kind("ClusterIP"))


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [({"a": "1"}, {"a": "1"}, False), ({"a": "2"}, {"a": "1"}, True), ({"a": "1", "b": "1"}, {"a": "1"}, True)],
)
def test_only_other_limits_want_a_count(spec: dict[str, str], status: dict[str, str], expected: bool) -> None:
    new = quota(spec, status={"hard": status, "used": {"a": "1"}})
    assert needs_count(quota(spec), new) is expected


async def test_a_quota_that_is_wrong_is_repaired() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client, clock=FakeClock())
        add_quotas(harness.manager)
        hard = {"secrets": "10", "count/deployments.apps": "3", "count/widgets.example.com": "1"}
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}

        async def used() -> dict[str, str]:
            found: dict[str, str] = (await plane.call("GET", f"{QUOTAS}/q"))["status"]["used"]
            return found

        async with harness:
            await plane.call("POST", QUOTAS, body)
            await harness.converge()
            assert await used() == {"secrets": "0", "count/deployments.apps": "0"}
            secrets = "/api/v1/namespaces/default/secrets"
            for name in ("a", "b"):
                await plane.call("POST", secrets, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})
            assert (await used())["secrets"] == "2"
            await plane.call("DELETE", f"{secrets}/a")
            await harness.converge()
            assert (await used())["secrets"] == "1"
            await plane.call("PATCH", f"{QUOTAS}/q/status", {"status": {"used": {"secrets": "9"}}})
            await harness.advance(301)
            assert (await used())["secrets"] == "1"
