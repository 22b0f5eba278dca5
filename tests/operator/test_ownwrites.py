"""Own writes: seen in lists at once, until the cache has them; never older than the cache."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.client.objects import key_of
from pilothouse.kinds.structs import ConfigMap, ObjectMeta
from pilothouse.operator import Context, Harness, Reconciler, Result, Scheme, controller
from pilothouse.operator.owners import with_owner
from pilothouse.operator.ownwrites import OwnWrites
from support.operatorkit import Site, plane_and_client, site

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def page(name: str, version: int, *, uid: str = "", value: str = "") -> ConfigMap:
    metadata = ObjectMeta(name=name, namespace="default", uid=uid or name, resource_version=str(version))
    return ConfigMap(metadata=metadata, data={"v": value})


class Cache:
    """What a watch has brought so far."""

    def __init__(self) -> None:
        self.objects: dict[str, ConfigMap] = {}
        self.version = 1
        self.writes: OwnWrites[ConfigMap] = OwnWrites(lambda: str(self.version))

    def brings(self, obj: ConfigMap) -> None:
        self.objects[key_of(obj)] = obj
        self.version = int(obj.metadata.resource_version)

    def takes(self, name: str, version: int) -> None:
        del self.objects[f"default/{name}"]
        self.version = version

    def list(self) -> list[ConfigMap]:
        return self.writes.merged(self.objects.values(), lambda _: True, self.objects.get)

    def get(self, name: str) -> ConfigMap | None:
        key = f"default/{name}"
        return self.writes.get(key, self.objects.get(key))


def test_what_was_made_is_there_before_the_cache_has_it() -> None:
    cache = Cache()
    made = page("a", 5)
    cache.writes.wrote(made)
    assert cache.list() == [made]
    cache.brings(page("b", 4))
    assert cache.get("a") is made
    cache.brings(made)
    assert cache.get("a") is made
    assert not len(cache.writes)


def test_a_change_is_seen_and_a_later_one_of_others_goes_before_it() -> None:
    cache = Cache()
    cache.brings(page("a", 3, value="old"))
    cache.writes.wrote(page("a", 5, value="mine"))
    (found,) = cache.list()
    assert found.data == {"v": "mine"}
    cache.brings(page("a", 6, value="theirs"))
    (found,) = cache.list()
    assert found.data == {"v": "theirs"}


def test_what_was_made_and_removed_by_another_before_the_cache_saw_it_goes_away() -> None:
    cache = Cache()
    cache.writes.wrote(page("a", 5))
    cache.version = 7  # the cache is past both
    assert cache.list() == []
    assert not len(cache.writes)


def test_what_was_deleted_is_shown_as_being_deleted_until_the_cache_knows() -> None:
    cache = Cache()
    cache.brings(page("a", 5))
    cache.writes.deleted(cache.objects["default/a"], NOW)
    (found,) = cache.list()
    assert found.metadata.deletion_timestamp == "2026-01-02T03:04:05Z"
    cache.takes("a", 6)
    assert cache.list() == []
    assert not len(cache.writes)


def test_what_was_made_and_deleted_before_the_cache_saw_it_is_being_deleted() -> None:
    cache = Cache()
    made = page("a", 5)
    cache.writes.wrote(made)
    cache.writes.deleted(made, NOW)
    (found,) = cache.list()
    assert found.metadata.deletion_timestamp is not None
    cache.brings(made)
    (found,) = cache.list()
    assert found.metadata.deletion_timestamp is not None


def test_another_object_of_the_name_is_told_apart() -> None:
    cache = Cache()
    cache.brings(page("a", 5, uid="first"))
    cache.writes.wrote(page("a", 9, uid="second"))
    (found,) = cache.list()
    assert found.metadata.uid == "second"
    cache.brings(page("a", 12, uid="third"))
    (found,) = cache.list()
    assert found.metadata.uid == "third"


def test_an_object_that_a_write_took_out_of_a_list_is_not_in_it() -> None:
    cache = Cache()
    cache.brings(page("a", 5, value="in"))
    cache.writes.wrote(page("a", 6, value="out"))
    found = cache.writes.merged(cache.objects.values(), lambda obj: obj.data["v"] == "in", cache.objects.get)
    assert found == []


def test_they_are_bounded() -> None:
    writes: OwnWrites[ConfigMap] = OwnWrites(lambda: "1", max_writes=2)
    for number in range(5):
        writes.wrote(page(f"p{number}", 10 + number))
    assert [found.metadata.name for found in writes.merged([], lambda _: True, lambda _: None)] == ["p3", "p4"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["write", "remove", "bring"])), max_size=30))
@pytest.mark.timeout(60)
def test_a_list_is_what_the_server_has_if_only_we_write(steps: list[tuple[str, str]]) -> None:
    """The server's history is ours; the watch is behind by some events. Removals are seen when the watch has them."""
    cache, server, events = Cache(), dict[str, ConfigMap](), list[tuple[int, str, ConfigMap | None]]()
    version, removed = 1, dict[str, int]()
    for name, step in steps:
        key = f"default/{name}"
        if step == "write":
            version += 1
            uid = server[key].metadata.uid if key in server else f"{name}{version}"
            server[key] = page(name, version, uid=uid)
            cache.writes.wrote(server[key])
            events.append((version, key, server[key]))
            removed.pop(key, None)
        elif step == "remove" and key in server:
            version += 1
            cache.writes.deleted(server.pop(key), NOW)
            events.append((version, key, None))
            removed[key] = version
        elif step == "bring" and events:
            cache.version, key, obj = events.pop(0)
            if obj is None:
                del cache.objects[key]
            else:
                cache.objects[key] = obj
        shown = {key_of(obj): obj for obj in cache.list()}
        live = {key: obj for key, obj in shown.items() if obj.metadata.deletion_timestamp is None}
        assert live == server
        assert {key for key in shown if key not in live} <= set(removed)


async def test_a_reconciler_that_is_called_again_at_once_counts_what_it_made() -> None:
    class Three(Reconciler[Site]):
        async def reconcile(self, obj: Site, context: Context) -> Result | None:
            own = context.owned(ConfigMap, obj)
            if len(own) == 3:
                return None
            metadata = ObjectMeta(generate_name="page-", namespace="default")
            await context.create(with_owner(ConfigMap(metadata=metadata), obj))
            assert len(context.owned(ConfigMap, obj)) == len(own) + 1
            return Result(requeue_after=0)

    async with plane_and_client() as (_, client):
        harness = Harness(client, scheme=Scheme(Site))
        controller(harness.manager).for_(Site).owns(ConfigMap).build(Three())
        async with harness:
            made = await client.create(site())
            await harness.advance(1)
            await harness.settle()
            owned = [found async for found in client.list(ConfigMap) if found.metadata.owner_references]
            assert len(owned) == 3
            await client.patch(ConfigMap, owned[0].metadata.name, {"metadata": {"ownerReferences": None}}, "default")
            await harness.advance(1)
            await harness.settle()
            assert len(harness.manager.controlled(ConfigMap, made.metadata.uid)) == 3
            orphans = harness.manager.controlled(ConfigMap, "", "default")
            assert owned[0].metadata.name in {found.metadata.name for found in orphans}


async def test_what_a_reconciler_deleted_is_never_shown_as_alive() -> None:
    calls = 0

    async def remove(obj: Site, context: Context) -> Result | None:
        nonlocal calls
        for page in context.owned(ConfigMap, obj):
            await context.delete(page)
            calls += 1
            left = context.owned(ConfigMap, obj)
            assert all(
                one.metadata.deletion_timestamp is not None for one in left if one.metadata.uid == page.metadata.uid
            )
        return None

    async with plane_and_client() as (_, client):
        harness = Harness(client, scheme=Scheme(Site))
        controller(harness.manager).for_(Site).owns(ConfigMap).build(remove)
        made = await client.create(site())
        for number in range(3):
            await client.create(with_owner(ConfigMap(metadata=ObjectMeta(name=f"page{number}")), made))
        async with harness:
            await harness.converge(1)
            assert calls == 3
            assert harness.manager.controlled(ConfigMap, made.metadata.uid) == []
