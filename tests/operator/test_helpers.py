"""Helpers: owner references, finalizers, conditions, and applying only what changes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pilothouse.kinds.status import Conflict
from pilothouse.kinds.structs import ConfigMap, Namespace, ObjectMeta, replace
from pilothouse.kinds.structs.meta import Condition
from pilothouse.operator import AlreadyOwned
from pilothouse.operator.applying import Applier
from pilothouse.operator.finalizers import add_finalizer, has_finalizer, remove_finalizer
from pilothouse.operator.owners import controller_of, is_controlled_by, owner_reference, with_owner
from pilothouse.operator.status import condition_of, is_true, set_condition
from support.operatorkit import Site, plane_and_client, site

OWNER = replace(site(), metadata__uid="u1")
OTHER = replace(site("other"), metadata__uid="u2")


def page(text: str = "one", namespace: str = "default") -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="page", namespace=namespace), data={"text": text})


def test_an_owner_is_added_once_and_gives_its_namespace() -> None:
    made = with_owner(with_owner(page(namespace=""), OWNER), OWNER)
    assert made.metadata.namespace == "default"
    (reference,) = made.metadata.owner_references
    assert reference == owner_reference(OWNER)
    assert (reference.uid, reference.block_owner_deletion) == ("u1", True)
    assert is_controlled_by(made, OWNER)
    assert not is_controlled_by(made, OTHER)
    assert controller_of(page()) is None
    both = with_owner(made, OTHER, controller=False)
    assert [found.uid for found in both.metadata.owner_references] == ["u1", "u2"]
    assert both.metadata.owner_references[1].controller is None


def test_owners_that_the_garbage_collector_would_not_accept_are_refused() -> None:
    with pytest.raises(AlreadyOwned, match="Site web controls it, so Site other cannot"):
        with_owner(with_owner(page(), OWNER), OTHER)
    with pytest.raises(ValueError, match=r"ConfigMap elsewhere/page: .* is of another namespace"):
        with_owner(page(namespace="elsewhere"), OWNER)
    with pytest.raises(ValueError, match="it is of the whole cluster"):
        with_owner(Namespace(metadata=ObjectMeta(name="x")), OWNER)
    with pytest.raises(ValueError, match=r"metadata.uid is not set"):
        with_owner(page(), site())


def test_conditions() -> None:
    first, later = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC)
    none: list[Condition] = []
    made = set_condition(none, "Ready", False, reason="Waiting", now=first)
    assert not is_true(made, "Ready")
    assert set_condition(made, "Ready", False, reason="Waiting", now=later) is made
    changed = set_condition(made, "Ready", "False", reason="Other", message="still", observed_generation=3, now=later)
    found = condition_of(changed, "Ready")
    assert found is not None
    assert (found.reason, found.message, found.observed_generation) == ("Other", "still", 3)
    assert found.last_transition_time == "2025-01-01T00:00:00Z"
    turned = set_condition(changed, "Ready", True, reason="Done", now=later)
    assert is_true(turned, "Ready")
    assert condition_of(turned, "Ready").last_transition_time == "2025-01-02T00:00:00Z"  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="reason is empty"):
        set_condition(none, "Ready", True, reason="", now=first)


async def test_finalizers_are_written_where_that_changes_something_and_never_over_others() -> None:
    async with plane_and_client() as (_, client):
        made = await client.create(site())
        kept = await add_finalizer(client, made, "example.com/one")
        assert has_finalizer(kept, "example.com/one")
        assert await add_finalizer(client, kept, "example.com/one") is kept
        with pytest.raises(Conflict):
            await add_finalizer(client, made, "example.com/two")
        with pytest.raises(ValueError, match="want DOMAIN/NAME"):
            await add_finalizer(client, kept, "one")
        await client.delete(Site, "web")
        going = await client.get(Site, "web")
        with pytest.raises(ValueError, match="takes no new finalizer"):
            await add_finalizer(client, going, "example.com/two")
        assert await remove_finalizer(client, going, "example.com/two") is going
        await remove_finalizer(client, going, "example.com/one")
        assert await remove_finalizer(client, going, "example.com/one") is None


async def test_an_apply_asks_the_server_only_where_something_would_change() -> None:
    async with plane_and_client() as (_, client):
        applier = Applier(client, "pages")
        live = await applier.apply(page())
        assert await applier.apply(page(), live) is live
        assert (applier.applied, applier.skipped) == (1, 1)
        # others' labels are no reason for a write of theirs to be undone, yet the object is looked at again
        live = await client.patch(ConfigMap, "page", {"metadata": {"labels": {"theirs": "1"}}})
        live = await applier.apply(page(), live)
        assert live.metadata.labels == {"theirs": "1"}
        assert await applier.apply(page(), live) is live
        # what is wanted otherwise, and what was changed by hand, is written
        live = await applier.apply(page("two"), live)
        live = await client.patch(ConfigMap, "page", {"data": {"text": "by hand"}})
        live = await applier.apply(page("two"), live)
        assert live.data == {"text": "two"}
        # a field that is left out is dropped
        wanted = ConfigMap(metadata=ObjectMeta(name="page", namespace="default"), data={"more": "1"})
        live = await applier.apply(wanted, live)
        assert live.data == {"more": "1"}
        applier.forget(live)
        sent = applier.applied
        await applier.apply(wanted, live)
        assert applier.applied == sent + 1


async def test_a_status_is_written_only_where_it_lacks_something() -> None:
    async with plane_and_client() as (_, client):
        applier = Applier(client, "sites")
        made = await client.create(site(page="x"))
        made = await applier.apply_status(made, {"url": "a", "observedGeneration": 1})
        assert (made.status.url, made.spec.page) == ("a", "x")
        assert await applier.apply_status(made, {"url": "a", "observedGeneration": 1}) is made
        made = await applier.apply_status(made, {"url": "a"})
        assert made.status.observed_generation == 0
        assert applier.applied == 2


async def test_what_is_remembered_is_bounded() -> None:
    async with plane_and_client(crd=False) as (_, client):
        applier = Applier(client, "pages", max_remembered=1)
        first = await applier.apply(page())
        await applier.apply(replace(page(), metadata__name="other"))
        await applier.apply(page(), first)
        assert (applier.applied, applier.skipped) == (3, 0)
