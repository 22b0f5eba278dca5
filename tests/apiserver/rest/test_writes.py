"""What creates, updates, patches and deletes do to objects, and to nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pilothouse.foundation.clock import FakeClock
from support.apiserverkit import Api, api_server, config_map, silence

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
SECRETS = "/api/v1/namespaces/default/secrets"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
PDBS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
async def api(clock: FakeClock) -> AsyncIterator[Api]:
    async with api_server(ready=False, clock=clock) as found:
        await found.made(
            "/api/v1/namespaces/default/serviceaccounts",
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
        )
        yield found


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "x"}], "terminationGracePeriodSeconds": 30}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def deployment(name: str) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }


class TestCreating:
    async def test_the_server_sets_what_is_its_own(self, api: Api) -> None:
        sent = config_map("a", uid="mine", creationTimestamp="2000-01-01T00:00:00Z", generation=7, selfLink="x")
        made = (await api.post(MAPS, sent)).body["metadata"]
        assert made["uid"] != "mine"
        assert made["creationTimestamp"] == "2026-01-01T00:00:00Z"
        assert "generation" not in made
        assert "selfLink" not in made

    async def test_names_are_generated(self, api: Api) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}
        names = {(await api.made(MAPS, body))["metadata"]["name"] for _ in range(20)}
        assert len(names) == 20
        assert all(name.startswith("made-") and len(name) == 10 for name in names)

    async def test_a_long_prefix_is_cut(self, api: Api) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "x" * 70}}
        assert len((await api.made(MAPS, body))["metadata"]["name"]) == 63

    async def test_a_second_one_of_a_name_is_refused(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        reply = await api.post(MAPS, config_map("a"))
        assert (reply.status, reply.reason) == (409, "AlreadyExists")
        assert reply.message == 'configmaps "a" already exists'

    async def test_of_many_at_once_one_is_made(self, api: Api) -> None:
        replies = await asyncio.gather(*(api.post(MAPS, config_map("a", {"n": str(n)})) for n in range(30)))
        assert sorted(reply.status for reply in replies) == [201] + [409] * 29

    async def test_another_namespace_in_the_body_is_refused(self, api: Api) -> None:
        assert (await api.post(MAPS, config_map("a", namespace="other"))).status == 400

    async def test_a_missing_namespace_is_refused(self, api: Api) -> None:
        reply = await api.post("/api/v1/namespaces/nowhere/configmaps", config_map("a"))
        assert (reply.status, reply.message) == (404, 'namespaces "nowhere" not found')

    async def test_put_creates_the_kinds_that_it_may(self, api: Api) -> None:
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
        assert (await api.put(f"{LEASES}/l", lease)).status == 201
        assert (await api.put(f"{MAPS}/a", config_map("a"))).status == 404

    async def test_of_many_puts_at_once_one_creates_and_all_land(self, api: Api) -> None:
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}}
        path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/r"
        rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
        bodies = [{**role, "rules": [{**rule, "resourceNames": [str(n)]}]} for n in range(20)]
        replies = await asyncio.gather(*(api.put(path, body) for body in bodies))
        assert sorted(reply.status for reply in replies) == [200] * 19 + [201]


class TestCreatingOddly:
    async def test_a_fault_shows_the_empty_map_that_was_sent(self, api: Api) -> None:
        body = deployment("d")
        for labels, shown in (({}, "{}"), (None, "null")):
            body["spec"]["template"]["metadata"] = {"labels": labels}
            reply = await api.post(DEPLOYMENTS, body)
            why = f"Invalid value: {shown}: `selector` does not match template `labels`"
            assert reply.message.endswith(f"spec.template.metadata.labels: {why}"), reply.raw

    async def test_an_empty_list_that_is_always_written_is_owned_and_null(self, api: Api) -> None:
        roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
        body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": []}
        made = await api.made(roles, body)
        assert made["rules"] is None
        assert made["metadata"]["managedFields"][0]["fieldsV1"] == {"f:rules": {}}
        assert (await api.put(f"{roles}/r", body)).body == made

    async def test_a_limit_range_without_a_name_gets_one(self, api: Api) -> None:
        ranges = "/api/v1/namespaces/default/limitranges"
        made = await api.made(ranges, {"apiVersion": "v1", "kind": "LimitRange", "spec": {"limits": []}})
        assert (await api.get(f"{ranges}/{made['metadata']['name']}")).body == made

    async def test_callers_are_warned_of_what_is_taken(self, api: Api) -> None:
        ports = [{"containerPort": 80}, {"containerPort": 80}]
        body = {**pod("p"), "spec": {"containers": [{"name": "c", "image": "x", "ports": ports}]}}
        reply = await api.post(PODS, body)
        at = "spec.containers[0].ports"
        told = [value for name, value in reply.headers if name.lower() == "warning"]
        assert told == [f'299 - "{at}[1]: duplicate port definition with {at}[0]"']
        assert reply.status == 201


class TestUpdating:
    @pytest.mark.parametrize("metadata", [{}, None, {"name": ""}])
    async def test_what_is_put_has_its_name(self, api: Api, metadata: object) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        reply = await api.put(f"{MAPS}/none", body)
        why = "the name of the object (none based on URL) was undeterminable: name must be provided"
        assert (reply.status, reply.message) == (400, why), "which is seen before the object is looked for"

    async def test_an_old_version_is_a_conflict(self, api: Api) -> None:
        first = await api.made(MAPS, config_map("a"))
        assert (await api.put(f"{MAPS}/a", {**first, "data": {"x": "1"}})).status == 200
        reply = await api.put(f"{MAPS}/a", {**first, "data": {"x": "2"}})
        assert (reply.status, reply.reason) == (409, "Conflict")
        assert (await api.get(f"{MAPS}/a")).body["data"] == {"x": "1"}

    async def test_another_uid_is_a_conflict(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        assert (await api.put(f"{MAPS}/a", config_map("a", {"x": "1"}, uid="other"))).status == 409

    async def test_one_that_changes_nothing_keeps_the_version(self, api: Api, clock: FakeClock) -> None:
        await silence(api.server)
        first = await api.made(MAPS, config_map("a", {"x": "1"}))
        revision = api.server.cacher.revision
        clock.advance(3600)
        for reply in (
            await api.put(f"{MAPS}/a", first),
            await api.put(f"{MAPS}/a", config_map("a", {"x": "1"})),
            await api.merge(f"{MAPS}/a", {"data": {"x": "1"}}),
        ):
            assert reply.version == first["metadata"]["resourceVersion"]
            assert reply.body["metadata"] == first["metadata"]
        assert api.server.cacher.revision == revision

    async def test_the_name_stays(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        assert (await api.put(f"{MAPS}/a", config_map("b"))).status == 400
        assert (await api.merge(f"{MAPS}/a", {"metadata": {"name": "b"}})).status in {400, 422}
        assert (await api.merge(f"{MAPS}/a", {"metadata": {"namespace": "b"}})).status in {400, 422}
        assert (await api.merge(f"{MAPS}/a", {"metadata": {"uid": "b"}})).status in {409, 422}
        assert (await api.get(f"{MAPS}/b")).status == 404

    async def test_generation_counts_changes_of_the_spec(self, api: Api) -> None:
        await api.made(DEPLOYMENTS, deployment("d"))
        path = f"{DEPLOYMENTS}/d"
        assert (await api.merge(path, {"metadata": {"labels": {"x": "y"}}})).body["metadata"]["generation"] == 1
        assert (await api.merge(path, {"spec": {"replicas": 3}})).body["metadata"]["generation"] == 2
        assert (await api.merge(path, {"metadata": {"generation": 99}})).body["metadata"]["generation"] == 2
        assert (await api.merge(f"{path}/status", {"status": {"replicas": 1}})).body["metadata"]["generation"] == 2

    async def test_status_and_the_rest_are_kept_apart(self, api: Api) -> None:
        await api.made(DEPLOYMENTS, {**deployment("d"), "status": {"replicas": 9}})
        path = f"{DEPLOYMENTS}/d"
        assert (await api.get(path)).body["status"] == {}
        assert (await api.merge(path, {"status": {"replicas": 5}})).body["status"] == {}
        both = {"spec": {"replicas": 7}, "status": {"replicas": 2}, "metadata": {"labels": {"l": "m"}}}
        found = (await api.merge(f"{path}/status", both)).body
        assert found["spec"]["replicas"] == 1
        assert found["status"]["replicas"] == 2
        assert found["metadata"].get("labels") == {"l": "m"}

    async def test_fifty_patches_at_once_all_land(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        replies = await asyncio.gather(*(api.merge(f"{MAPS}/a", {"data": {f"k{n}": "v"}}) for n in range(50)))
        assert [reply.status for reply in replies] == [200] * 50
        assert set((await api.get(f"{MAPS}/a")).body["data"]) == {f"k{n}" for n in range(50)}
        assert len({reply.version for reply in replies}) == 50

    async def test_fifty_applies_at_once_all_land(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        bodies = [config_map("a", {f"k{n}": "v"}) for n in range(50)]
        replies = await asyncio.gather(*(api.apply(f"{MAPS}/a", body, f"m{n}") for n, body in enumerate(bodies)))
        assert [reply.status for reply in replies] == [200] * 50
        assert set((await api.get(f"{MAPS}/a")).body["data"]) == {f"k{n}" for n in range(50)}

    async def test_a_patch_with_a_version_does_not_try_again(self, api: Api) -> None:
        first = await api.made(MAPS, config_map("a"))
        body = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}}
        replies = await asyncio.gather(
            *(api.merge(f"{MAPS}/a", {**body, "data": {f"k{n}": "v"}}) for n in range(10)),
        )
        assert sorted(reply.status for reply in replies) == [200] + [409] * 9

    async def test_kinds_that_want_a_version_get_one(self, api: Api) -> None:
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "b"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}},
        }
        await api.made(PDBS, budget)
        reply = await api.put(f"{PDBS}/b", budget)
        assert reply.status == 422
        assert "metadata.resourceVersion" in reply.message


class TestDryRun:
    async def test_nothing_is_written(self, api: Api) -> None:
        await silence(api.server)
        await api.made(MAPS, config_map("a", {"x": "1"}))
        await api.made(DEPLOYMENTS, deployment("d"))
        await api.made("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
        await api.made(PODS, pod("p"))
        await until_quiet(api)
        before = await everything(api)
        dry = "dryRun=All"
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}}
        scale = {"spec": {"replicas": 4}}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "node"}}
        replies = [
            await api.post(f"{MAPS}?{dry}", config_map("b")),
            await api.put(f"{MAPS}/a?{dry}", config_map("a", {"x": "2"})),
            await api.merge(f"{MAPS}/a?{dry}", {"data": {"x": "2"}}),
            await api.delete(f"{MAPS}/a?{dry}"),
            await api.delete(f"{MAPS}/a", {"dryRun": ["All"]}),
            await api.delete(f"{MAPS}?{dry}"),
            await api.post(f"/api/v1/namespaces/default/services?{dry}", service),
            await api.merge(f"{DEPLOYMENTS}/d/scale?{dry}", scale),
            await api.merge(f"{DEPLOYMENTS}/d/status?{dry}", {"status": {"replicas": 3}}),
            await api.delete(f"/api/v1/namespaces/n?{dry}"),
            await api.put(
                f"/api/v1/namespaces/n/finalize?{dry}",
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "spec": {}},
            ),
            await api.post(f"{PODS}/p/binding?{dry}", binding),
            await api.post(
                f"{PODS}/p/eviction?{dry}",
                {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}},
            ),
            await api.call(
                "PATCH",
                f"{MAPS}/new?{dry}&fieldManager=m",
                config_map("new"),
                content_type="application/apply-patch+yaml",
            ),
        ]
        assert [reply.status for reply in replies] == [
            201, 200, 200, 200, 200, 200, 201, 200, 200, 200, 200, 201, 201, 201,
        ]  # fmt: skip
        await until_quiet(api)
        assert await everything(api) == before

    async def test_a_refused_value_is_told(self, api: Api) -> None:
        assert (await api.post(f"{MAPS}?dryRun=Some", config_map("b"))).status == 422
        assert (await api.delete(f"{MAPS}/b?dryRun=Some")).status == 422


async def until_quiet(api: Api) -> None:
    await api.server.storage.close()


async def everything(api: Api) -> dict[str, list[tuple[str, int]]]:
    """Return all that the store holds."""
    caches = api.server.cacher.caches()
    held = {cache.name: [(entry.key, entry.rv) for entry in cache.entries()] for cache in caches}
    return {**{name: found for name, found in held.items() if found}, "revision": [("", api.server.cacher.revision)]}


class TestDeleting:
    async def test_preconditions_must_hold(self, api: Api) -> None:
        made = await api.made(MAPS, config_map("a"))
        for wrong in ({"uid": "other"}, {"resourceVersion": "1"}):
            reply = await api.delete(f"{MAPS}/a", {"preconditions": wrong})
            assert (reply.status, reply.reason) == (409, "Conflict"), wrong
        right = {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}
        reply = await api.delete(f"{MAPS}/a", {"preconditions": right})
        assert (reply.status, reply.body["status"]) == (200, "Success")
        assert (await api.delete(f"{MAPS}/a")).status == 404

    async def test_finalizers_hold_an_object(self, api: Api) -> None:
        await api.made(MAPS, config_map("a", finalizers=["example.com/one", "example.com/two"]))
        held = (await api.delete(f"{MAPS}/a")).body["metadata"]
        assert held["deletionTimestamp"] == "2026-01-01T00:00:00Z"
        assert held["deletionGracePeriodSeconds"] == 0
        again = await api.delete(f"{MAPS}/a")
        assert again.version == held["resourceVersion"]
        added = await api.merge(f"{MAPS}/a", {"metadata": {"finalizers": ["example.com/three", "example.com/one"]}})
        assert added.status == 422
        first = await api.merge(f"{MAPS}/a", {"metadata": {"finalizers": ["example.com/two"]}})
        assert first.status == 200
        assert (await api.get(f"{MAPS}/a")).status == 200
        gone = await api.merge(f"{MAPS}/a", {"metadata": {"finalizers": None}})
        assert gone.status == 200
        assert (await api.get(f"{MAPS}/a")).status == 404

    async def test_deletion_cannot_be_taken_back(self, api: Api) -> None:
        await api.made(MAPS, config_map("a", finalizers=["example.com/one"]))
        await api.delete(f"{MAPS}/a")
        body = config_map("a", finalizers=["example.com/one"])
        found = (await api.put(f"{MAPS}/a", body)).body
        assert found["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"

    async def test_pods_that_run_get_their_time(self, api: Api) -> None:
        await api.made(PODS, pod("p"))
        await api.post(
            f"{PODS}/p/binding",
            {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}},
        )
        held = (await api.delete(f"{PODS}/p")).body["metadata"]
        assert held["deletionGracePeriodSeconds"] == 30
        assert held["deletionTimestamp"] == "2026-01-01T00:00:30Z"
        longer = (await api.delete(f"{PODS}/p?gracePeriodSeconds=60")).body["metadata"]
        assert longer["resourceVersion"] == held["resourceVersion"]
        shorter = (await api.delete(f"{PODS}/p?gracePeriodSeconds=10")).body["metadata"]
        assert shorter["deletionTimestamp"] == "2026-01-01T00:00:10Z"
        assert (await api.delete(f"{PODS}/p?gracePeriodSeconds=0")).status == 200
        assert (await api.get(f"{PODS}/p")).status == 404

    async def test_pods_without_a_node_go_at_once_and_are_seen_to_end(self, api: Api) -> None:
        made = await api.made(PODS, pod("p"))
        watcher = await api.watch(f"{PODS}?watch=1&resourceVersion={made['metadata']['resourceVersion']}")
        assert (await api.delete(f"{PODS}/p")).status == 200
        assert (await api.get(f"{PODS}/p")).status == 404
        ending, gone = await watcher.take(2)
        assert (ending["type"], gone["type"]) == ("MODIFIED", "DELETED")
        for event in (ending, gone):
            assert event["object"]["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
            assert event["object"]["metadata"]["deletionGracePeriodSeconds"] == 0

    @pytest.mark.parametrize(
        ("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan"), ("Background", "")]
    )
    async def test_propagation_is_written_down(self, api: Api, policy: str, finalizer: str) -> None:
        await api.made(MAPS, config_map("a"))
        await api.delete(f"{MAPS}/a?propagationPolicy={policy}")
        found = await api.get(f"{MAPS}/a")
        assert found.status == (200 if finalizer else 404)
        if finalizer:
            assert found.body["metadata"]["finalizers"] == [finalizer]

    async def test_wrong_options_are_refused(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        assert (await api.delete(f"{MAPS}/a?propagationPolicy=Sideways")).status == 422
        assert (await api.delete(f"{MAPS}/a?gracePeriodSeconds=soon")).status == 400
        assert (await api.delete(f"{MAPS}/a", {"gracePeriodSeconds": "soon"})).status == 400
        assert (await api.delete(f"{MAPS}/a", {"kind": "Pod", "apiVersion": "v1"})).status == 400
        assert (await api.get(f"{MAPS}/a")).status == 200

    async def test_a_collection_goes_as_selected(self, api: Api) -> None:
        for number in range(40):
            await api.made(MAPS, config_map(f"c{number}", labels={"even": str(number % 2 == 0)}))
        reply = await api.delete(f"{MAPS}?labelSelector=even%3DTrue")
        assert len(reply.body["items"]) == 20
        left = (await api.get(MAPS)).body["items"]
        assert [one["metadata"]["labels"]["even"] for one in left if one["metadata"]["name"].startswith("c")] == (
            ["False"] * 20
        )

    async def test_of_many_deletions_at_once_one_counts(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        replies = await asyncio.gather(*(api.delete(f"{MAPS}/a") for _ in range(20)))
        assert sorted(reply.status for reply in replies) == [200] + [404] * 19
