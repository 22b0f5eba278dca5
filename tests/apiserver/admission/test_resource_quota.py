"""Quotas: usage by kind and scope, reservation under concurrency, conflicts, words of refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.admission.podresources import add, pod_resources
from pilothouse.apiserver.admission.quota import ResourceQuota
from pilothouse.apiserver.admission.quota_usage import counted_resources, matches, observed, relevant, usage
from pilothouse.apiserver.ports import AdmissionRequest, Object
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import status
from pilothouse.kinds.quantity import Quantity
from support.dictview import DictLocal, DictView, write

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def pod(name: str = "p", cpu: str | None = "500m", **spec: Any) -> Object:
    container: Object = {"name": "c", "image": "i"}
    if cpu is not None:
        container["resources"] = {"requests": {"cpu": cpu}}
    return {"metadata": {"name": name, "namespace": "n"}, "spec": {"containers": [container], **spec}}


def quota(name: str = "q", used: dict[str, str] | None = None, spec: Object | None = None, **hard: Any) -> Object:
    counted = {key.replace("_", "."): value for key, value in hard.items()}
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"hard": counted, **(spec or {})},
        "status": {"hard": counted, "used": used if used is not None else dict.fromkeys(counted, "0")},
    }


class World:
    def __init__(self, *quotas: Object) -> None:
        self.view = DictView()
        for one in quotas:
            self.view.put("resourcequotas", one)
        self.local = DictLocal(self.view)
        self.clock = FakeClock()
        self.step = ResourceQuota(self.view, self.local, self.clock)

    async def ask(self, item: Object, resource: str = "pods", **more: Any) -> None:
        request: AdmissionRequest = write(more.pop("operation", "CREATE"), resource, item, **more)
        assert self.step.handles(request.operation, request.resource, request.subresource)
        pending = self.step.validate(request)
        if pending is not None:
            await pending

    def used(self, name: str = "q") -> dict[str, str]:
        found = self.view.get("resourcequotas", "n", name)
        assert found is not None
        used: dict[str, str] = found["status"]["used"]
        return used


async def test_usage_is_reserved() -> None:
    world = World(quota(pods="2", requests_cpu="1"))
    await world.ask(pod("a"))
    assert world.used() == {"pods": "1", "requests.cpu": "500m"}
    await world.ask(pod("b"))
    with pytest.raises(status.Forbidden) as caught:
        await world.ask(pod("c", cpu="100m"))
    assert caught.value.message == (
        'pods "c" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=100m, used: pods=2,requests.cpu=1, '
        "limited: pods=2,requests.cpu=1"
    )
    assert world.used() == {"pods": "2", "requests.cpu": "1"}


def test_nothing_is_awaited_where_nothing_is_counted() -> None:
    world = World()
    assert world.step.validate(write("CREATE", "pods", pod())) is None
    other = World(quota(configmaps="1"))
    assert other.step.validate(write("CREATE", "pods", pod())) is None
    assert other.step.validate(write("CREATE", "configmaps", pod(), dry_run=True)) is None
    assert other.local.calls == []


async def test_dry_runs_are_refused_alike_but_reserve_nothing() -> None:
    world = World(quota(pods="1", used={"pods": "1"}))
    with pytest.raises(status.Forbidden, match="exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"):
        await world.ask(pod(), dry_run=True)


async def test_resources_must_be_stated_and_counted() -> None:
    world = World(quota(requests_cpu="1", limits_memory="1Gi"))
    with pytest.raises(status.Forbidden) as caught:
        await world.ask(pod(cpu=None))
    assert caught.value.message == (
        'pods "p" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c'
    )
    fresh = World(quota(pods="1", used={}))
    with pytest.raises(status.Forbidden, match="status unknown for quota: q, resources: pods"):
        await fresh.ask(pod())


async def test_concurrent_requests_share_writes_and_never_exceed() -> None:
    world = World(quota(pods="10"))
    first = asyncio.Event()

    async def slow() -> None:
        first.set()
        for _ in range(3):
            await asyncio.sleep(0)

    world.local.before = slow
    results = await asyncio.gather(*(world.ask(pod(f"p{n}")) for n in range(25)), return_exceptions=True)
    refused = [one for one in results if isinstance(one, status.Forbidden)]
    assert len(refused) == 15
    assert all(one is None or isinstance(one, status.Forbidden) for one in results)
    assert world.used() == {"pods": "10"}
    assert len(world.local.calls) == 1


async def test_what_was_written_counts_before_the_view_has_it() -> None:
    world = World(quota(pods="2"))
    world.local.lag = True
    await world.ask(pod("a"))
    await world.ask(pod("b"))
    assert world.used() == {"pods": "0"}
    with pytest.raises(status.Forbidden, match="used: pods=2"):
        await world.ask(pod("c"))


async def test_conflicts_are_tried_again() -> None:
    world = World(quota(pods="2"))
    world.local.conflicts = 3
    await world.ask(pod())
    assert world.used() == {"pods": "1"}
    world.local.conflicts = 4
    with pytest.raises(status.Conflict):
        await world.ask(pod("b"))


async def test_a_quota_deleted_meanwhile_stops_nobody() -> None:
    world = World(quota(pods="1"))

    async def gone() -> None:
        if len(world.local.calls) == 1:
            world.view.drop("resourcequotas", "n", "q")

    world.local.before = gone
    await world.ask(pod())
    assert [method for method, _ in world.local.calls] == ["PUT", "GET"] or [
        method for method, _ in world.local.calls
    ] == ["PUT"]


async def test_a_stuck_write_is_given_up() -> None:
    world = World(quota(pods="1"))
    stuck = asyncio.Event()

    async def wait() -> None:
        await stuck.wait()

    world.local.before = wait
    asking = asyncio.ensure_future(world.ask(pod()))
    await world.clock.run(11)
    with pytest.raises(status.InternalError, match="resource quota evaluation timed out"):
        await asking
    stuck.set()
    await world.clock.run(0)


async def test_updates_charge_what_is_more() -> None:
    def service(kind: str, ports: int) -> Object:
        meta = {"name": "s", "namespace": "n", "resourceVersion": "1"}
        return {"metadata": meta, "spec": {"type": kind, "ports": [{"port": n} for n in range(ports)]}}

    hard: dict[str, Any] = {"services": "1", "services_nodeports": "2"}
    world = World(quota(used={"services": "1", "services.nodeports": "0"}, **hard))
    await world.ask(service("NodePort", 2), "services", operation="UPDATE", old=service("ClusterIP", 2))
    assert world.used() == {"services": "1", "services.nodeports": "2"}
    with pytest.raises(status.Forbidden, match=r"requested: services\.nodeports=1, used: services\.nodeports=2"):
        await world.ask(service("NodePort", 3), "services", operation="UPDATE", old=service("NodePort", 2))


@pytest.mark.parametrize(
    ("resource", "item", "hard"),
    [
        ("configmaps", {}, {"configmaps": "1"}),
        ("configmaps", {}, {"count/configmaps": "1"}),
        ("deployments.apps", {}, {"count/deployments.apps": "1"}),
        ("secrets", {}, {"secrets": "1"}),
    ],
)
async def test_object_counts(resource: str, item: Object, hard: dict[str, Any]) -> None:
    world = World(quota(**hard))
    await world.ask({"metadata": {"name": "x", "namespace": "n"}, **item}, resource)
    assert world.used() == dict.fromkeys(hard, "1")


def test_claims_count_by_class() -> None:
    spec = {"storageClassName": "gold", "resources": {"requests": {"storage": "1.5Gi"}}}
    counted = usage("", "persistentvolumeclaims", {"spec": spec}, NOW)
    assert {name: str(value) for name, value in counted.items()} == {
        "persistentvolumeclaims": "1",
        "count/persistentvolumeclaims": "1",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "requests.storage": "1536Mi",
        "gold.storageclass.storage.k8s.io/requests.storage": "1536Mi",
    }


def test_load_balancers() -> None:
    spec: Object = {"type": "LoadBalancer", "ports": [{"port": 1, "nodePort": 30000}, {"port": 2}]}
    counted = usage("", "services", {"spec": spec}, NOW)
    assert (str(counted["services.nodeports"]), str(counted["services.loadbalancers"])) == ("2", "1")
    spec["allocateLoadBalancerNodePorts"] = False
    assert str(usage("", "services", {"spec": spec}, NOW)["services.nodeports"]) == "1"


def test_devices() -> None:
    requests = [
        {"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}},
        {"name": "b", "exactly": {"deviceClassName": "nic", "allocationMode": "All"}},
        {"name": "c", "firstAvailable": [{"deviceClassName": "gpu", "count": 4}, {"deviceClassName": "gpu"}]},
    ]
    counted = usage("resource.k8s.io", "resourceclaims", {"spec": {"devices": {"requests": requests}}}, NOW)
    assert {name: str(value) for name, value in counted.items()} == {
        "count/resourceclaims.resource.k8s.io": "1",
        "gpu.deviceclass.resource.k8s.io/devices": "6",
        "nic.deviceclass.resource.k8s.io/devices": "32",
    }
    assert counted_resources(["gpu.deviceclass.resource.k8s.io/devices"]) == [("resource.k8s.io", "resourceclaims")]


def test_ended_pods_count_as_objects_only() -> None:
    done = {**pod(), "status": {"phase": "Succeeded"}}
    assert set(usage("", "pods", done, NOW)) == {"count/pods"}
    going = pod()
    going["metadata"] |= {"deletionTimestamp": "2024-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30}
    assert set(usage("", "pods", going, NOW)) == {"count/pods"}


def test_what_a_pod_asks_for() -> None:
    spec = {
        "initContainers": [
            {"name": "i", "resources": {"requests": {"cpu": "3"}}},
            {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
            {"name": "j", "resources": {"requests": {"cpu": "4"}}},
        ],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "vendor.com/gpu": "1"}}}],
        "overhead": {"cpu": "250m"},
    }
    assert {name: str(value) for name, value in pod_resources(spec, "requests").items()} == {
        "cpu": "5250m",
        "vendor.com/gpu": "1",
    }
    assert str(usage("", "pods", {"spec": spec}, NOW)["requests.vendor.com/gpu"]) == "1"
    whole = {**spec, "resources": {"requests": {"cpu": "6"}}}
    assert str(pod_resources(whole, "requests", overhead=False)["cpu"]) == "6"


@pytest.mark.parametrize(
    ("scope", "spec", "holds"),
    [
        ({"scopes": ["Terminating"]}, {"activeDeadlineSeconds": 1}, True),
        ({"scopes": ["Terminating"]}, {}, False),
        ({"scopes": ["NotTerminating", "NotBestEffort"]}, {}, True),
        ({"scopes": ["BestEffort"]}, {}, False),
        ({"scopes": ["PriorityClass"]}, {"priorityClassName": "x"}, True),
        ({"scopes": ["PriorityClass"]}, {}, False),
        ({"scopes": ["CrossNamespacePodAffinity"]}, {}, False),
        (
            {"scopes": ["CrossNamespacePodAffinity"]},
            {
                "affinity": {
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]}
                }
            },
            True,
        ),
    ]
    + [
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]
                }
            },
            {"priorityClassName": "high"},
            holds,
        )
        for operator, values, holds in [
            ("In", ["high"], True),
            ("In", ["low"], False),
            ("NotIn", ["high"], False),
            ("NotIn", ["low"], True),
            ("DoesNotExist", [], False),
            ("Exists", [], True),
        ]
    ],
)
def test_scopes(scope: Object, spec: Object, holds: bool) -> None:
    assert matches(quota(spec=scope, pods="1"), "", "pods", pod(**spec)) is holds


def test_names_of_a_quota() -> None:
    hard = ["pods", "requests.nvidia.com/gpu", "services", "count/jobs.batch", "configmaps", "requests.cpu"]
    assert relevant("", "pods", hard) == ["pods", "requests.cpu", "requests.nvidia.com/gpu"]
    assert counted_resources(hard) == [("", "pods"), ("", "services"), ("batch", "jobs"), ("", "configmaps")]


def test_counting_anew() -> None:
    """The numbers are those that a real controller wrote for two pods, one deployment and two config maps."""
    objects: dict[tuple[str, str], list[Object]] = {
        ("", "pods"): [pod("a", cpu="250m"), pod("b", cpu="250m")],
        ("apps", "deployments"): [{}],
        ("", "configmaps"): [{}, {}],
    }

    def listing(group: str, plural: str) -> Iterable[Object]:
        return objects[group, plural]

    hard = {"pods": "10", "configmaps": "10", "count/deployments.apps": "5", "requests.cpu": "4"}
    assert observed({"spec": {"hard": hard}}, listing, NOW) == {
        "configmaps": "2",
        "count/deployments.apps": "1",
        "pods": "2",
        "requests.cpu": "500m",
    }


def test_reviews_and_events_are_not_counted() -> None:
    step = World().step
    assert not step.handles("CREATE", ("", "v1", "events"), "")
    assert not step.handles("CREATE", ("authorization.k8s.io", "v1", "localsubjectaccessreviews"), "")
    assert not step.handles("CREATE", ("", "v1", "pods"), "binding")
    assert step.handles("UPDATE", ("", "v1", "pods"), "resize")
    assert not step.handles("UPDATE", ("", "v1", "pods"), "")


numbers = st.dictionaries(
    st.sampled_from(["cpu", "memory", "pods"]), st.integers(-1000, 1000).map(lambda n: Quantity(n, -3)), max_size=3
)


@given(numbers, numbers, numbers)
def test_adding_is_a_commutative_monoid(a: dict[str, Quantity], b: dict[str, Quantity], c: dict[str, Quantity]) -> None:
    assert add(a, b) == add(b, a)
    assert add(add(a, b), c) == add(a, add(b, c))
    assert add(a, {}) == a
