"""`pilothouse up`: a deployment is rolled and scaled while it serves, and no request fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.platformkit import USERS, Platform, eventually, platform_of
from support.platformload import PORT, Load, configured, deployment, service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Users write this so that no new connection comes when the program is told to end.
PAUSE = {"preStop": {"exec": {"command": ["sleep", "1"]}}}


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        yield made


def container(version: str) -> dict[str, Any]:
    return configured(version, lifecycle=PAUSE)


def rolled_out(found: dict[str, Any]) -> bool:
    wanted, status = found["spec"]["replicas"], found["status"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")}
    return status.get("observedGeneration") == found["metadata"]["generation"] and counts == {wanted}


def test_a_new_version_and_other_numbers_of_pods_cost_no_request(platform: Platform) -> None:
    platform.create(deployment("web", 2, container("1")), service("web"))
    platform.until("Deployment", "web", rolled_out)
    address = platform.get("Service", "web")["spec"]["clusterIP"]
    with Load(address, PORT) as load:
        eventually(lambda: load.count >= 100 and len(load.pods) == 2, lambda: (load.failures, load.pods))
        platform.patch("Deployment", "web", {"spec": {"template": {"spec": {"containers": [container("2")]}}}})
        platform.until("Deployment", "web", rolled_out)
        eventually(lambda: len(platform.items("Pod", "app=web")) == 2)
        assert set(load.answers) == {"1", "2"}
        load.forget()
        eventually(lambda: load.count >= 100)
        assert (set(load.answers), load.failures) == ({"2"}, [])
        for number in (4, 1):
            platform.patch("Deployment", "web", {"spec": {"replicas": number}})
            platform.until("Deployment", "web", rolled_out)
            eventually(lambda wanted=number: len(platform.items("Pod", "app=web")) == wanted)  # type: ignore[misc]
            load.forget()
            eventually(lambda wanted=number: load.count >= 100 and len(load.pods) == wanted, lambda: load.pods)  # type: ignore[misc]
    assert (load.failures, load.longest < 5) == ([], True)


def test_a_version_that_is_never_ready_harms_nobody_and_is_undone(platform: Platform) -> None:
    platform.create(deployment("firm", 2, container("1")), service("firm"))
    platform.until("Deployment", "firm", rolled_out)
    address = platform.get("Service", "firm")["spec"]["clusterIP"]
    with Load(address, PORT) as load:
        broken = container("2") | {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}
        change = {"progressDeadlineSeconds": 2, "template": {"spec": {"containers": [broken]}}}
        platform.patch("Deployment", "firm", {"spec": change})
        found = platform.until(
            "Deployment",
            "firm",
            lambda it: any(each.get("reason") == "ProgressDeadlineExceeded" for each in it["status"]["conditions"]),
        )
        assert found["status"]["availableReplicas"] == 2
        assert platform.kubectl("rollout", "undo", "deployment/firm") == "deployment.apps/firm rolled back"
        platform.until("Deployment", "firm", rolled_out)
    assert (set(load.answers), load.failures) == ({"1"}, [])
