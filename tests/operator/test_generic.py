"""The generic reconciler: children are made, kept, removed, waited for, reported, and judged by their status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from pilothouse.client import Client, ignore_not_found
from pilothouse.kinds.structs import (
    ConfigMap,
    Deployment,
    Job,
    ObjectMeta,
    PersistentVolumeClaim,
    Pod,
    Resource,
    Service,
    from_dict,
)
from pilothouse.operator import (
    BuildError,
    Context,
    GenericReconciler,
    Harness,
    Manager,
    NotConverged,
    Readiness,
    Result,
    Scheme,
    TerminalError,
    controller,
)
from pilothouse.operator.readiness import readiness_of
from pilothouse.operator.status import condition_of
from support.operatorkit import Site, SiteSpec, plane_and_client, site

Child = ConfigMap | Deployment


class Sites(GenericReconciler[Site, Child]):
    """A config map a page, each word of `page` one; then a deployment."""

    owned = (ConfigMap, Deployment)
    finalizer = "operator.example.com/site"

    def __init__(self) -> None:
        self.finalized: list[str] = []
        self.may_go = False

    def children(self, parent: Site) -> Iterable[Child]:
        raise NotImplementedError

    def stages(self, parent: Site) -> Iterable[Iterable[Child]]:
        if parent.spec.page == "bad":
            raise TerminalError("spec.page: bad is no page")
        labels = {"app": parent.metadata.name}
        container = {"name": "web", "image": parent.spec.image or "web:1"}
        spec = {
            "replicas": parent.spec.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        yield [from_dict({"metadata": {"name": f"{parent.metadata.name}-db"}, "spec": spec}, Deployment)]
        yield [ConfigMap(metadata=ObjectMeta(name=word), data={"is": word}) for word in parent.spec.page.split()]

    def status(self, parent: Site, children: Sequence[Child]) -> Mapping[str, Any]:
        return {"url": f"https://{parent.metadata.name}/{len(children)}"}

    async def finalize(self, parent: Site, context: Context) -> bool:
        self.finalized.append(parent.metadata.name)
        return self.may_go


async def names(client: Client) -> set[str]:
    return {found.metadata.name for found in await client.list_all(ConfigMap, "default")}


async def roll_out(client: Client, name: str) -> None:
    made = await client.get(Deployment, name)
    count = made.spec.replicas
    status = {
        "observedGeneration": made.metadata.generation,
        "replicas": count,
        "updatedReplicas": count,
        "readyReplicas": count,
        "availableReplicas": count,
    }
    await client.patch(Deployment, name, {"status": status}, subresource="status")


async def ready_of(client: Client) -> tuple[str, str, str]:
    found = condition_of((await client.get(Site, "web")).status.conditions, "Ready")
    assert found is not None
    return found.status, found.reason, found.message


async def test_children_are_made_in_stages_kept_and_removed() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site(page="home news"))
        harness = Harness(client, scheme=Scheme(Site))
        controller(harness.manager).for_(Site).build(Sites())
        async with harness:
            await harness.converge()
            assert await names(client) == set()
            not_yet = ("False", "ChildrenNotReady", "Deployment web-db: its last change is not observed yet")
            assert await ready_of(client) == not_yet

            await roll_out(client, "web-db")
            await harness.converge()
            assert await names(client) == {"home", "news"}
            assert await ready_of(client) == ("True", "ChildrenReady", "3 objects are ready")
            made = await client.get(Site, "web")
            assert made.status.url == "https://web/3"
            assert made.status.observed_generation == made.metadata.generation
            await harness.assert_stable()

            await client.create(ConfigMap(metadata=ObjectMeta(name="foreign", namespace="default")))
            await client.patch(Site, "web", {"spec": {"page": "news"}})
            await harness.converge()
            assert await names(client) == {"news", "foreign"}
            await harness.assert_stable()


async def test_the_transition_time_moves_only_with_the_status() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site(page="home"))
        harness = Harness(client, scheme=Scheme(Site))
        controller(harness.manager).for_(Site).build(Sites())
        async with harness:
            await harness.converge()
            await harness.advance(60)
            await client.patch(Site, "web", {"spec": {"replicas": 3}})
            await harness.converge()
            before = condition_of((await client.get(Site, "web")).status.conditions, "Ready")
            assert before is not None
            assert before.last_transition_time == "2025-01-01T00:00:00Z"
            assert before.observed_generation == 2
            await roll_out(client, "web-db")
            await harness.converge()
            after = condition_of((await client.get(Site, "web")).status.conditions, "Ready")
            assert after is not None
            assert after.last_transition_time is not None
            assert after.last_transition_time >= "2025-01-01T00:01:00Z"


async def test_what_another_controls_is_left_alone_and_said() -> None:
    async with plane_and_client() as (_, client):
        other = await client.create(site("other"))
        await client.create(site(page=""))
        harness = Harness(client, scheme=Scheme(Site))
        controller(harness.manager).for_(Site).build(Sites())
        owner = {
            "apiVersion": other.api_version,
            "kind": "Site",
            "name": "other",
            "uid": other.metadata.uid,
            "controller": True,
        }
        taken = {
            "metadata": {"name": "taken", "namespace": "default", "ownerReferences": [owner]},
            "data": {"is": "theirs"},
        }
        async with harness:
            await harness.converge()
            await roll_out(client, "web-db")
            # First wanted, then there: else its owner removes what it does not want, if it looks in between.
            await client.patch(Site, "other", {"spec": {"page": "taken"}})
            await client.create(from_dict(taken, ConfigMap))
            await harness.converge()
            await client.patch(Site, "web", {"spec": {"page": "taken"}})
            with pytest.raises(NotConverged, match="Site other controls it, so Site web leaves it alone"):
                await harness.converge(5)
            assert (await ready_of(client))[:2] == ("False", "AlreadyOwned")
            assert (await client.get(ConfigMap, "taken")).data == {"is": "theirs"}


async def test_a_parent_that_cannot_be_fulfilled_says_so_and_waits_for_a_change() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site(page="bad"))
        await client.create(site("twice", page="same same"))
        harness = Harness(client, scheme=Scheme(Site))
        built = controller(harness.manager).for_(Site).build(Sites())
        async with harness:
            await harness.settle()
            assert await ready_of(client) == ("False", "Invalid", "spec.page: bad is no page")
            with pytest.raises(NotConverged, match=r"default/twice .* ConfigMap default/same is wanted twice"):
                await harness.converge(2)
            assert built.metrics.terminal == built.metrics.results["error"]
            await client.delete(Site, "twice")
            await client.patch(Site, "web", {"spec": {"page": "good"}})
            await harness.converge(2)
            assert (await ready_of(client))[1] == "ChildrenNotReady"


async def test_a_finalizer_keeps_the_parent_until_all_is_cleaned_up() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site(page=""))
        harness = Harness(client, scheme=Scheme(Site))
        reconciler = Sites()
        controller(harness.manager).for_(Site).build(reconciler)
        async with harness:
            await harness.converge()
            assert (await client.get(Site, "web")).metadata.finalizers == ["operator.example.com/site"]
            await client.delete(Site, "web")
            await harness.converge()
            assert reconciler.finalized
            assert (await client.get(Site, "web")).metadata.deletion_timestamp
            reconciler.may_go = True
            await client.patch(Site, "web", {"metadata": {"labels": {"look": "again"}}})
            await harness.converge()
            assert await ignore_not_found(client.get(Site, "web")) is None


async def test_a_parent_whose_status_cannot_hold_the_condition_is_refused() -> None:
    class Bare(Resource, group="operator.example.com", version="v1", plural="bares"):
        """A kind without a status."""

    class Poor(Resource, group="operator.example.com", version="v1", plural="poors"):
        status: SiteSpec = SiteSpec()

    class Whatever(GenericReconciler[Resource, ConfigMap]):
        owned = (ConfigMap,)

        def children(self, parent: Resource) -> Iterable[ConfigMap]:
            return ()

    async with plane_and_client(crd=False) as (_, client):
        manager = Manager(client, scheme=Scheme(Bare, Poor))
        for kind in (Bare, Poor):
            with pytest.raises(BuildError, match="has no conditions and no observed_generation; give it a struct with"):
                controller(manager).for_(kind).build(Whatever())


async def test_a_child_of_a_type_that_is_not_owned_is_refused() -> None:
    class Wrong(GenericReconciler[Site, ConfigMap | Service]):
        owned = (ConfigMap,)

        def children(self, parent: Site) -> Iterable[Service]:
            return [Service(metadata=ObjectMeta(name=parent.metadata.name))]

    async with plane_and_client() as (_, client):
        await client.create(site())
        harness = Harness(client, scheme=Scheme(Site))
        controller(harness.manager).for_(Site).build(Wrong())
        async with harness:
            with pytest.raises(NotConverged, match=r"Wrong: it made a Service, which is not in `owned`; add it"):
                await harness.converge(2)


@pytest.mark.parametrize(
    ("kind", "tree", "expected"),
    [
        (ConfigMap, {}, Readiness(True)),
        (Deployment, {"metadata": {"generation": 1}}, Readiness(False, "its last change is not observed yet")),
        (
            Deployment,
            {"metadata": {"generation": 2}, "status": {"observedGeneration": 1}},
            Readiness(False, "its last change is not observed yet"),
        ),
        (
            Deployment,
            {"spec": {"replicas": 3}, "status": {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 2}},
            Readiness(False, "2 of 3 replicas are updated"),
        ),
        (
            Deployment,
            {
                "spec": {"replicas": 1},
                "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1},
            },
            Readiness(False, "1 old replicas are still there"),
        ),
        (
            Deployment,
            {
                "status": {
                    "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
                }
            },
            Readiness(False, "its progress deadline is exceeded", failed=True),
        ),
        (Job, {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, Readiness(True)),
        (
            Job,
            {"status": {"conditions": [{"type": "Failed", "status": "True", "message": "too often"}]}},
            Readiness(False, "too often", failed=True),
        ),
        (Job, {}, Readiness(False, "it is not complete yet")),
        (PersistentVolumeClaim, {"status": {"phase": "Bound"}}, Readiness(True)),
        (PersistentVolumeClaim, {}, Readiness(False, "it is Pending")),
        (Pod, {"status": {"phase": "Running"}}, Readiness(False, "it is Running")),
        (Pod, {"status": {"phase": "Failed"}}, Readiness(False, "it has failed", failed=True)),
        (
            Site,
            {"status": {"conditions": [{"type": "Ready", "status": "False", "message": "no"}]}},
            Readiness(False, "no"),
        ),
        (Site, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, Readiness(True)),
    ],
)
def test_readiness(kind: type[Resource], tree: dict[str, Any], expected: Readiness) -> None:
    assert readiness_of(from_dict(tree, kind)) == expected


class Leaving(Sites):
    """Its parents go while they are reconciled."""

    finalizer = ""

    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        await context.client.delete(Site, obj.metadata.name)
        return await super().reconcile(obj, context)


async def test_a_parent_that_goes_while_it_is_reconciled_is_no_failure() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        harness = Harness(client, scheme=Scheme(Site))
        built = controller(harness.manager).for_(Site).build(Leaving())
        async with harness:
            await harness.converge()
        assert built.metrics.results["error"] == 0
        assert built.metrics.results["success"] > 0
