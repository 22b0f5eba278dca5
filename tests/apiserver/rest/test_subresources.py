"""Scales, bindings, evictions and finalizers of namespaces; kinds in several versions; addresses of services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pilothouse.apiserver.allocation import AllocationOptions
from pilothouse.apiserver.rest import special
from pilothouse.foundation.clock import FakeClock
from support.apiserverkit import Api, api_server

PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SERVICES = "/api/v1/namespaces/default/services"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
NAMESPACES = "/api/v1/namespaces"
HPA = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
EVENTS = "/api/v1/namespaces/default/events"
NEW_EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
Object = dict[str, Any]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server(ready=False, clock=FakeClock(datetime(2026, 1, 1, tzinfo=UTC))) as found:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await found.made("/api/v1/namespaces/default/serviceaccounts", account)
        yield found


def pod(name: str, **spec: Any) -> Object:
    whole = {"containers": [{"name": "c", "image": "x"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": whole}


def deployment(name: str) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }


class TestScaling:
    async def test_a_scale_is_read_and_written(self, api: Api) -> None:
        made = await api.made(DEPLOYMENTS, deployment("d"))
        path = f"{DEPLOYMENTS}/d/scale"
        scale = (await api.get(path)).body
        assert scale["kind"] == "Scale"
        assert scale["spec"] == {"replicas": 3}
        assert scale["status"] == {"replicas": 0, "selector": "a=b"}
        assert scale["metadata"]["uid"] == made["metadata"]["uid"]
        scale["spec"]["replicas"] = 5
        changed = await api.put(path, scale)
        assert (changed.status, changed.body["spec"]) == (200, {"replicas": 5})
        assert (await api.get(f"{DEPLOYMENTS}/d")).body["spec"]["replicas"] == 5
        assert (await api.get(f"{DEPLOYMENTS}/d")).body["metadata"]["generation"] == 2
        assert (await api.put(path, scale)).status == 409, "the version is an old one"

    @pytest.mark.parametrize(
        ("media", "body"),
        [
            ("merge-patch", {"spec": {"replicas": 7}}),
            ("strategic-merge-patch", {"spec": {"replicas": 7}}),
            ("json-patch", [{"op": "replace", "path": "/spec/replicas", "value": 7}]),
        ],
    )
    async def test_patches(self, api: Api, media: str, body: object) -> None:
        await api.made(DEPLOYMENTS, deployment("d"))
        reply = await api.call("PATCH", f"{DEPLOYMENTS}/d/scale", body, content_type=f"application/{media}+json")
        assert (reply.status, reply.body["spec"]) == (200, {"replicas": 7})
        assert (await api.get(f"{DEPLOYMENTS}/d")).body["spec"]["replicas"] == 7

    @pytest.mark.parametrize("spec", [5, [1], "x", {"replicas": "many"}, {"replicas": -1}, {"replicas": 1.5}])
    async def test_what_is_no_scale_is_refused(self, api: Api, spec: object) -> None:
        await api.made(DEPLOYMENTS, deployment("d"))
        assert (await api.merge(f"{DEPLOYMENTS}/d/scale", {"spec": spec})).status in {400, 422}
        assert (await api.get(f"{DEPLOYMENTS}/d")).body["spec"]["replicas"] == 3

    async def test_many_at_once_all_land(self, api: Api) -> None:
        await api.made(DEPLOYMENTS, deployment("d"))
        replies = await asyncio.gather(
            *(api.merge(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": n}}) for n in range(1, 21)),
            *(api.merge(f"{DEPLOYMENTS}/d", {"metadata": {"labels": {f"k{n}": "v"}}}) for n in range(20)),
        )
        assert {reply.status for reply in replies} == {200}
        assert len((await api.get(f"{DEPLOYMENTS}/d")).body["metadata"]["labels"]) == 20

    async def test_one_that_is_not_there(self, api: Api) -> None:
        for reply in (
            await api.get(f"{DEPLOYMENTS}/none/scale"),
            await api.merge(f"{DEPLOYMENTS}/none/scale", {"spec": {"replicas": 1}}),
        ):
            assert (reply.status, reply.message) == (404, 'deployments.apps "none" not found')


def bound_to(node: str, name: str, **more: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, **more},
        "target": {"kind": "Node", "name": node},
    }


def _unwanted(obj: Object) -> bytes:
    raise AssertionError(f"{obj['metadata']['name']}: it is encoded")


class TestBinding:
    @pytest.mark.parametrize("path", [f"{PODS}/p/binding", "/api/v1/namespaces/default/bindings"])
    async def test_a_pod_is_put_on_a_node_once(self, api: Api, path: str) -> None:
        await api.made(PODS, pod("p"))
        reply = await api.post(path, bound_to("n1", "p", annotations={"x": "y"}))
        assert (reply.status, reply.body["status"]) == (201, "Success")
        found = (await api.get(f"{PODS}/p")).body
        assert found["spec"]["nodeName"] == "n1"
        assert found["metadata"]["annotations"] == {"x": "y"}
        assert [(each["type"], each["status"]) for each in found["status"]["conditions"]] == [("PodScheduled", "True")]
        again = await api.post(path, bound_to("n2", "p"))
        assert again.status == 409
        assert 'pod p is already assigned to node "n1"' in again.message

    async def test_a_binding_of_our_scheduler_does_the_same_and_encodes_no_pod(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        zone = {"topology.kubernetes.io/zone": "z1"}
        await api.made("/api/v1/nodes", {"kind": "Node", "metadata": {"name": "n1", "labels": zone}})
        pods = [pod(name, automountServiceAccountToken=False) for name in ("one", "two")]
        uids = {made["metadata"]["name"]: (await api.made(PODS, made))["metadata"]["uid"] for made in pods}
        slow = bound_to("n1", "two", uid=uids["two"])
        assert (await api.post(f"{PODS}/two/binding", slow)).status == 201
        monkeypatch.setattr(special, "encode", _unwanted)
        body: Object = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": "one", "namespace": "default", "uid": uids["one"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
        }
        fast = msgspec.json.encode(body)
        assert (await api.post(f"{PODS}/one/binding", fast)).status == 201
        one, two = [(await api.get(f"{PODS}/{name}")).body for name in ("one", "two")]
        assert one["metadata"]["labels"] == {"app": "web", **zone}
        for found in (one, two):
            for own in ("name", "uid", "resourceVersion"):
                del found["metadata"][own]
        assert one == two
        other = msgspec.json.encode({**body, "metadata": {**body["metadata"], "uid": uids["two"]}})
        assert (await api.post(f"{PODS}/one/binding", other)).status == 409
        assert (await api.post(f"{PODS}/one/binding", fast)).status == 409
        assert (await api.post(f"{PODS}/two/binding", fast)).status == 400

    async def test_of_two_schedulers_one_wins(self, api: Api) -> None:
        await api.made(PODS, pod("p"))
        replies = await asyncio.gather(*(api.post(f"{PODS}/p/binding", bound_to(f"n{n}", "p")) for n in range(10)))
        assert sorted(reply.status for reply in replies) == [201] + [409] * 9

    async def test_what_cannot_be_bound(self, api: Api) -> None:
        made = await api.made(PODS, pod("p"))
        path = f"{PODS}/p/binding"
        assert (await api.post(path, bound_to("n", "p", uid="other"))).status == 409
        assert (await api.post(path, bound_to("n", "q"))).status == 400
        for other in ("q", ""):
            reply = await api.post(path, bound_to("n", other))
            assert (reply.status, reply.message) == (400, "name in URL does not match name in Binding object")
        reply = await api.post(path, bound_to("", "p"))
        assert (reply.status, reply.message) == (500, "target.name: Required value")
        reply = await api.post(f"{PODS}/none/binding", bound_to("", "none"))
        assert reply.status == 500, "what is sent is looked at before the pod"
        assert (await api.post(f"{PODS}/none/binding", bound_to("n", "none"))).status == 404
        wrong = {**bound_to("n", "p"), "target": {"kind": "Toaster", "name": "n"}}
        assert (await api.post(path, wrong)).status == 500
        assert (await api.post(path, bound_to("n", "p", uid=made["metadata"]["uid"]))).status == 201
        await api.made(PODS, pod("gated", schedulingGates=[{"name": "example.com/wait"}]))
        reply = await api.post(f"{PODS}/gated/binding", bound_to("n", "gated"))
        assert reply.status == 409
        assert "schedulingGates" in reply.message


class TestEviction:
    async def running(self, api: Api, name: str, *, ready: bool = True) -> None:
        await api.made(PODS, pod(name))
        await api.post(f"{PODS}/{name}/binding", bound_to("n", name))
        conditions = [{"type": "Ready", "status": str(ready)}]
        reply = await api.merge(f"{PODS}/{name}/status", {"status": {"phase": "Running", "conditions": conditions}})
        assert reply.status == 200, reply.raw

    async def budget(self, api: Api, allowed: int, name: str = "b", **status: int) -> None:
        body = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        }
        await api.made(BUDGETS, body)
        whole = {"disruptionsAllowed": allowed, "observedGeneration": 1, "expectedPods": 2, **status}
        assert (await api.merge(f"{BUDGETS}/{name}/status", {"status": whole})).status == 200

    async def evict(self, api: Api, name: str, **options: Any) -> Any:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, **options}
        return await api.post(f"{PODS}/{name}/eviction", body)

    async def test_without_a_budget_a_pod_goes(self, api: Api) -> None:
        await self.running(api, "p")
        assert (await self.evict(api, "p")).status == 201
        assert "deletionTimestamp" in (await api.get(f"{PODS}/p")).body["metadata"]
        assert (await self.evict(api, "none")).status == 404

    async def test_an_eviction_names_its_pod(self, api: Api) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction"}
        reply = await api.post(f"{PODS}/p/eviction", body)
        assert (reply.status, reply.message) == (400, "name in URL does not match name in Eviction object")

    async def test_a_budget_is_counted_down(self, api: Api) -> None:
        for name in ("p", "q"):
            await self.running(api, name)
        await self.budget(api, 1, currentHealthy=2, desiredHealthy=1)
        assert (await self.evict(api, "p")).status == 201
        status = (await api.get(f"{BUDGETS}/b")).body["status"]
        assert status["disruptionsAllowed"] == 0
        assert list(status["disruptedPods"]) == ["p"]
        refused = await self.evict(api, "q")
        assert (refused.status, refused.reason) == (429, "TooManyRequests")
        assert refused.message == "Cannot evict pod as it would violate the pod's disruption budget."
        assert refused.body["details"]["causes"][0]["reason"] == "DisruptionBudget"
        assert "deletionTimestamp" not in (await api.get(f"{PODS}/q")).body["metadata"]

    async def test_at_once_no_more_go_than_may(self, api: Api) -> None:
        for number in range(6):
            await self.running(api, f"p{number}")
        await self.budget(api, 2, currentHealthy=6, desiredHealthy=4)
        replies = await asyncio.gather(*(self.evict(api, f"p{number}") for number in range(6)))
        assert sum(reply.status == 201 for reply in replies) <= 2
        assert {reply.status for reply in replies} <= {201, 429}
        held = [(await api.get(f"{PODS}/p{number}")).body["metadata"] for number in range(6)]
        assert sum("deletionTimestamp" in each for each in held) <= 2

    async def test_dry_runs_count_nothing(self, api: Api) -> None:
        await self.running(api, "p")
        await self.budget(api, 1, currentHealthy=2, desiredHealthy=1)
        assert (await self.evict(api, "p", deleteOptions={"dryRun": ["All"]})).status == 201
        assert (await api.get(f"{BUDGETS}/b")).body["status"]["disruptionsAllowed"] == 1
        assert "deletionTimestamp" not in (await api.get(f"{PODS}/p")).body["metadata"]

    async def test_two_budgets_are_not_supported(self, api: Api) -> None:
        await self.running(api, "p")
        await self.budget(api, 1)
        await self.budget(api, 1, "c")
        assert (await self.evict(api, "p")).status == 500

    async def test_pods_that_are_over_are_not_counted(self, api: Api) -> None:
        await self.running(api, "p")
        await api.merge(f"{PODS}/p/status", {"status": {"phase": "Succeeded"}})
        await self.budget(api, 0, currentHealthy=1, desiredHealthy=1)
        assert (await self.evict(api, "p")).status == 201

    async def test_preconditions_hold(self, api: Api) -> None:
        await self.running(api, "p")
        assert (await self.evict(api, "p", deleteOptions={"preconditions": {"uid": "other"}})).status == 409
        assert "deletionTimestamp" not in (await api.get(f"{PODS}/p")).body["metadata"]


class TestNamespaces:
    async def test_one_goes_with_its_last_finalizer(self, api: Api) -> None:
        made = await api.made(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
        assert made["spec"] == {"finalizers": ["kubernetes"]}
        held = (await api.delete(f"{NAMESPACES}/n")).body
        assert held["status"]["phase"] == "Terminating"
        again = await api.delete(f"{NAMESPACES}/n")
        assert (again.status, again.reason) == (409, "Conflict")
        refused = await api.post(
            f"{NAMESPACES}/n/configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}
        )
        assert refused.status == 403
        assert "because it is being terminated" in refused.message
        assert (await api.put(f"{NAMESPACES}/n", {**held, "spec": {}})).body["spec"] == {"finalizers": ["kubernetes"]}
        now = (await api.get(f"{NAMESPACES}/n")).body
        assert (await api.put(f"{NAMESPACES}/n/finalize", {**now, "spec": {}})).status == 200
        assert (await api.get(f"{NAMESPACES}/n")).status == 404


class TestVersions:
    async def test_autoscalers_in_both_versions(self, api: Api) -> None:
        body = {
            "apiVersion": "autoscaling/v1",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"},
            "spec": {
                "maxReplicas": 5,
                "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
                "targetCPUUtilizationPercentage": 70,
            },
        }
        old, new = HPA.format("v1"), HPA.format("v2")
        made = await api.made(old, body)
        assert made["spec"]["targetCPUUtilizationPercentage"] == 70
        second = (await api.get(f"{new}/h")).body
        assert second["apiVersion"] == "autoscaling/v2"
        target = {"type": "Utilization", "averageUtilization": 70}
        assert second["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        memory = {"type": "Resource", "resource": {"name": "memory", "target": target}}
        second["spec"]["metrics"].append(memory)
        second["spec"]["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 60}}
        changed = await api.put(f"{new}/h", second)
        assert changed.status == 200, changed.raw
        first = (await api.get(f"{old}/h")).body
        assert first["spec"]["targetCPUUtilizationPercentage"] == 70
        assert "memory" in first["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"]
        kept = await api.put(f"{old}/h", first)
        assert kept.status == 200
        assert (await api.get(f"{new}/h")).body["spec"] == changed.body["spec"], (
            "nothing is lost on the way there and back"
        )
        assert [one["spec"] for one in (await api.get(old)).body["items"]] == [kept.body["spec"]]
        watcher = await api.watch(f"{old}")
        event = await watcher.next()
        assert event is not None
        assert event["object"]["apiVersion"] == "autoscaling/v1"
        await watcher.close()

    async def test_events_in_both_groups(self, api: Api) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "reason": "Why",
            "message": "what",
            "type": "Normal",
            "source": {"component": "c"},
        }
        await api.made(EVENTS, body)
        found = (await api.get(f"{NEW_EVENTS}/e")).body
        assert found["apiVersion"] == "events.k8s.io/v1"
        assert found["regarding"]["name"] == "p"
        assert found["note"] == "what"
        assert found["deprecatedSource"] == {"component": "c"}
        for path, field in ((EVENTS, "involvedObject.name"), (NEW_EVENTS, "regarding.name")):
            for value, count in (("p", 1), ("q", 0)):
                reply = await api.get(f"{path}?fieldSelector={field}%3D{value}")
                assert reply.status == 200, reply.raw
                assert len(reply.body["items"]) == count, (path, value)
        await api.delete(f"{NEW_EVENTS}/e")
        assert (await api.get(f"{EVENTS}/e")).status == 404


def service(name: str, **spec: Any) -> Object:
    whole = {"ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


class TestAllocation:
    async def test_no_two_get_the_same(self, api: Api) -> None:
        made = await asyncio.gather(*(api.made(SERVICES, service(f"s{n}", type="NodePort")) for n in range(60)))
        assert len({each["spec"]["clusterIP"] for each in made}) == 60
        assert len({each["spec"]["ports"][0]["nodePort"] for each in made}) == 60
        for each in made:
            assert each["spec"]["clusterIPs"] == [each["spec"]["clusterIP"]]

    async def test_one_that_is_asked_for_is_given_once(self, api: Api) -> None:
        wanted = service("a", clusterIP="10.96.0.77", type="NodePort", ports=[{"port": 80, "nodePort": 30077}])
        await api.made(SERVICES, wanted)
        reply = await api.post(SERVICES, service("b", clusterIP="10.96.0.77"))
        assert reply.status == 422
        assert "provided IP is already allocated" in reply.message
        reply = await api.post(SERVICES, service("b", type="NodePort", ports=[{"port": 80, "nodePort": 30077}]))
        assert reply.status == 422
        assert "provided port is already allocated" in reply.message
        for wrong in (
            service("b", clusterIP="10.9.0.1"),
            service("b", type="NodePort", ports=[{"port": 1, "nodePort": 80}]),
        ):
            reply = await api.post(SERVICES, wrong)
            assert reply.status == 422
            assert "not in the valid range" in reply.message
        assert (await api.get(f"{SERVICES}/b")).status == 404
        await api.delete(f"{SERVICES}/a")
        await api.server.storage.close()
        assert (await api.post(SERVICES, {**wanted, "metadata": {"name": "b"}})).status == 201

    async def test_what_a_refused_service_took_is_given_back(self, api: Api) -> None:
        body = service("a", clusterIP="10.96.0.77", type="NodePort", ports=[{"port": 80, "nodePort": 1}])
        assert (await api.post(SERVICES, body)).status == 422
        await api.server.storage.close()
        assert (await api.post(SERVICES, service("b", clusterIP="10.96.0.77"))).status == 201
        assert (await api.post(SERVICES, service("b", clusterIP="10.96.0.78"))).status == 409
        await api.server.storage.close()
        assert (await api.post(SERVICES, service("c", clusterIP="10.96.0.78"))).status == 201

    async def test_an_address_is_kept_and_goes_with_the_type(self, api: Api) -> None:
        made = await api.made(SERVICES, service("a", type="NodePort"))
        address, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
        replaced = await api.put(f"{SERVICES}/a", service("a", type="NodePort"))
        assert replaced.body["spec"]["clusterIP"] == address
        assert replaced.body["spec"]["ports"][0]["nodePort"] == port
        plain = await api.merge(f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}})
        assert "nodePort" not in plain.body["spec"]["ports"][0]
        await api.server.storage.close()
        assert (
            await api.post(SERVICES, service("b", type="NodePort", ports=[{"port": 1, "nodePort": port}]))
        ).status == 201
        named = await api.merge(f"{SERVICES}/a", {"spec": {"type": "ExternalName", "externalName": "x.example.com"}})
        assert named.status == 200, named.raw
        assert "clusterIP" not in named.body["spec"]
        await api.server.storage.close()
        assert (await api.post(SERVICES, service("c", clusterIP=address))).status == 201

    async def test_an_update_that_fails_gives_nothing_away(self, api: Api) -> None:
        made = await api.made(SERVICES, service("a", type="NodePort"))
        port = made["spec"]["ports"][0]["nodePort"]
        original = api.server.storage.replace

        async def refused(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the store is gone")

        api.server.storage.replace = refused  # type: ignore[method-assign]
        assert (await api.merge(f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}})).status == 500
        api.server.storage.replace = original  # type: ignore[method-assign]
        await api.server.storage.close()
        taken = await api.post(SERVICES, service("b", type="NodePort", ports=[{"port": 1, "nodePort": port}]))
        assert taken.status == 422

    async def test_ports_for_health_checks_are_taken_too(self, api: Api) -> None:
        spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31999}
        await api.made(SERVICES, service("a", **spec))
        assert (await api.post(SERVICES, service("b", **spec))).status == 422
        assert (
            await api.post(SERVICES, service("c", type="NodePort", ports=[{"port": 1, "nodePort": 31999}]))
        ).status == 422

    async def test_headless_ones_get_none(self, api: Api) -> None:
        assert (await api.made(SERVICES, service("a", clusterIP="None")))["spec"]["clusterIP"] == "None"
        taken = (await api.get("/apis/networking.k8s.io/v1/ipaddresses")).body["items"]
        assert all(one["spec"]["parentRef"]["name"] != "a" for one in taken)

    async def test_repair_puts_right_what_a_crash_left(self, api: Api) -> None:
        await api.made(SERVICES, service("a", clusterIP="10.96.0.77", type="NodePort"))
        allocator, storage = api.server.allocator, api.server.storage
        assert await allocator.repair() == []
        cache = api.server.cacher.named("services")
        assert cache is not None
        await storage.delete(cache, cache.entries()[-1])  # as if the server had died before it gave back
        assert (await api.post(SERVICES, service("b", clusterIP="10.96.0.77"))).status == 422
        assert await allocator.repair() == [], "a service may be on its way: what is unused is left alone at first"
        told = await allocator.repair()
        assert any("ip/10.96.0.77 was taken by nobody" in line for line in told)
        assert (await api.post(SERVICES, service("b", clusterIP="10.96.0.77"))).status == 201
        address = api.server.cacher.named("ipaddresses.networking.k8s.io")
        assert address is not None
        entry = address.get("10.96.0.77")
        assert entry is not None
        await storage.delete(address, entry)
        assert any("was not taken and is now" in line for line in await allocator.repair())
        assert (await api.post(SERVICES, service("c", clusterIP="10.96.0.77"))).status == 422

    async def test_a_range_can_be_full(self) -> None:
        options = AllocationOptions(service_cidr="10.1.0.0/29", node_ports=(30000, 30002))
        async with api_server(allocation=options) as api:
            replies = [await api.post(SERVICES, service(f"s{n}")) for n in range(8)]
            given = [each.body["spec"]["clusterIP"] for each in replies if each.status == 201]
            assert len(set(given)) == len(given) >= 5
            assert replies[-1].status == 500
            assert "range is full" in replies[-1].message
