"""The parts of the watch cache, by themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.cache.cacher import Cacher, key_of, prefix_of
from pilothouse.apiserver.cache.changes import ADDED, DELETED, MODIFIED, Change, json_line
from pilothouse.apiserver.cache.entries import Entry, decode, encode, form_of
from pilothouse.apiserver.cache.resourcecache import ResourceCache, TooOldError
from pilothouse.apiserver.cache.view import CacheView
from pilothouse.foundation.clock import FakeClock
from pilothouse.store import (
    DeleteRangeRequest,
    EmbeddedStore,
    Event,
    KeyValue,
    PutRequest,
    RangeRequest,
    StoreError,
    WatchResponse,
)
from pilothouse.store.errors import Compacted
from support.apiserverkit import config_map, memory_store, until

FORM = form_of("v1", "ConfigMap", custom=False)
TEXT = st.text(max_size=20)
NAMES = {"configmaps": "configmaps", "roles": "roles.rbac.authorization.k8s.io"}


def entry(name: str, rv: int = 7, namespace: str = "ns", **labels: str) -> Entry:
    obj = config_map(name, {"x": "y"}, namespace=namespace, labels=labels)
    return Entry(key_of(namespace, name), encode(obj), rv, FORM)


class TestEntries:
    @given(st.dictionaries(TEXT, TEXT), TEXT, st.integers(1, 2**63))
    def test_bytes_are_the_object(self, data: dict[str, str], note: str, rv: int) -> None:
        obj = config_map("a", data, annotations={"note": note, '"metadata":{': "x"})
        kept = Entry("a", encode({"data": data, **obj}), rv, FORM)
        expected = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(rv)}}
        assert json.loads(kept.encoded()) == expected
        assert kept.decoded() == expected
        item = json.loads(kept.item())
        assert item == {name: value for name, value in expected.items() if name not in {"kind", "apiVersion"}}

    def test_what_is_compared_byte_by_byte_is_kept_as_go_writes_it(self) -> None:
        obj = {"kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": {}, "data": {"a": "1 < 2 && \u2028"}}
        kept = encode(obj)
        assert rb'"1 \u003c 2 \u0026\u0026 \u2028"' in kept
        assert decode(kept) == obj

    def test_a_version_that_comes_along_is_not_kept(self) -> None:
        obj = config_map("a", resourceVersion="99")
        assert b"99" not in encode(obj)
        assert obj["metadata"]["resourceVersion"] == "99", "the input stays as it is"

    def test_other_versions_differ_in_their_name(self) -> None:
        one, two = form_of("example.com/v1", "Tug", custom=True), form_of("example.com/v2", "Tug", custom=True)
        assert form_of("example.com/v1", "Tug", custom=True) is one
        obj = {"apiVersion": "example.com/v1", "kind": "Tug", "metadata": {"name": "a"}, "spec": {"n": 1}}
        kept = Entry("a", encode(obj), 3, one)
        assert json.loads(kept.encoded(two))["apiVersion"] == "example.com/v2"
        assert json.loads(kept.item(two))["kind"] == "Tug", "items of custom lists say what they are"

    def test_the_decoded_object_can_be_forgotten(self) -> None:
        kept = entry("a", color="red")
        assert kept.metadata.labels == {"color": "red"}
        assert not kept.is_decoded
        shared = kept.object
        assert kept.object is shared
        assert kept.decoded() is not shared
        kept.forget()
        assert kept.object is not shared

    def test_empty_metadata_is_a_form_too(self) -> None:
        kept = Entry("", encode({"kind": "X", "apiVersion": "v1", "metadata": {}}), 3, form_of("v1", "X", custom=False))
        assert kept.value == b'{"kind":"X","apiVersion":"v1","metadata":{}}'


class Told:
    def __init__(self) -> None:
        self.changes: list[Change] = []

    def feed(self, change: Change) -> None:
        self.changes.append(change)


def put(cache: ResourceCache, name: str, rv: int, namespace: str = "ns") -> Change:
    made = entry(name, rv, namespace)
    change = Change(made, cache.get(made.key), deleted=False)
    cache.apply(change, made.key)
    return change


def delete(cache: ResourceCache, key: str, rv: int) -> Change:
    old = cache.get(key)
    assert old is not None
    change = Change(Entry(key, old.value, rv, old.form), old, deleted=True)
    cache.apply(change, key)
    return change


class TestResourceCache:
    def cache(self) -> ResourceCache:
        return ResourceCache("configmaps", b"/registry/configmaps/", custom=False, since=1)

    def test_objects_come_in_the_order_of_their_keys(self) -> None:
        cache = self.cache()
        for name, namespace in (("b", "z"), ("a", "z"), ("c", "a"), ("a", "a-b"), ("x", "a0")):
            put(cache, name, 2, namespace)
        assert [one.key for one in cache.entries()] == ["a-b/a", "a/c", "a0/x", "z/a", "z/b"]
        assert [one.key for one in cache.entries("a")] == ["a/c"]
        assert cache.entries("b") == []
        assert [one.key for one in cache.page("a/c", 2)] == ["a0/x", "z/a"]

    def test_a_snapshot_stays_what_it_was(self) -> None:
        cache = self.cache()
        put(cache, "a", 2)
        before = cache.entries()
        put(cache, "b", 3)
        delete(cache, "ns/a", 4)
        assert [one.key for one in before] == ["ns/a"]

    def test_changes_since_a_version(self) -> None:
        cache = self.cache()
        changes = [put(cache, "a", 2), put(cache, "a", 5), put(cache, "b", 6), delete(cache, "ns/a", 9)]
        assert [change.kind for change in changes] == [ADDED, MODIFIED, ADDED, DELETED]
        assert cache.changes_after(1) == changes
        assert cache.changes_after(2) == changes[1:]
        assert cache.changes_after(4) == changes[1:]
        assert cache.changes_after(9) == cache.changes_after(100) == []
        cache.compact(5)
        assert cache.changes_after(5) == changes[2:]
        with pytest.raises(TooOldError) as caught:
            cache.changes_after(4)
        assert caught.value.oldest == 5

    def test_the_window_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pilothouse.apiserver.cache.resourcecache._WINDOW", 10)
        cache = self.cache()
        for rv in range(2, 30):
            put(cache, "a", rv)
        assert [change.rv for change in cache.changes_after(cache.oldest)] == list(range(20, 30))
        assert cache.oldest == 19
        monkeypatch.setattr("pilothouse.apiserver.cache.resourcecache._WINDOW_BYTES", 3 * len(entry("a").value))
        put(cache, "a", 30)
        assert len(cache.changes_after(cache.oldest)) == 3

    def test_subscribers_are_told_until_they_stop(self) -> None:
        cache = self.cache()
        everywhere, here = Told(), Told()
        stop_all, stop_here = cache.subscribe(everywhere), cache.subscribe(here, "ns")
        assert cache.watchers == 2
        put(cache, "a", 2)
        put(cache, "a", 3, "other")
        assert [change.rv for change in everywhere.changes] == [2, 3]
        assert [change.rv for change in here.changes] == [2]
        stop_all()
        stop_here()
        stop_here()
        put(cache, "a", 4)
        assert len(everywhere.changes) == 2
        assert cache.watchers == 0

    def test_one_that_stops_while_it_is_told(self) -> None:
        cache = self.cache()

        class Once(Told):
            def feed(self, change: Change) -> None:
                super().feed(change)
                self.stop()

            stop: Any = None

        one, other = Once(), Told()
        one.stop = cache.subscribe(one)
        cache.subscribe(other)
        put(cache, "a", 2)
        put(cache, "a", 3)
        assert (len(one.changes), len(other.changes)) == (1, 2)

    def test_an_event_is_encoded_once_for_all_who_see_it_alike(self) -> None:
        cache, calls = self.cache(), 0
        line = json_line(FORM)

        def counted(kind: str, one: Entry) -> bytes:
            nonlocal calls
            calls += 1
            return line(kind, one)

        put(cache, "a", 2)
        change = put(cache, "a", 3)
        pieces = {id(change.piece(MODIFIED, counted)) for _ in range(5)}
        assert (len(pieces), calls) == (1, 1)
        left = json.loads(change.piece(Change.LEFT, counted).data)
        assert left["type"] == "DELETED"
        assert left["object"]["metadata"]["resourceVersion"] == "3"
        assert calls == 2


@pytest.fixture
async def store() -> AsyncIterator[EmbeddedStore]:
    async with await memory_store() as found:
        yield found


def stored(name: str, **data: str) -> bytes:
    return encode(config_map(name, data, namespace="ns"))


class TestCacher:
    async def test_it_knows_a_write_when_it_is_answered(self, store: EmbeddedStore) -> None:
        await store.put(PutRequest(b"/registry/configmaps/ns/a", stored("a")))
        await store.put(PutRequest(b"/elsewhere/x", b"no object"))
        cacher = Cacher(store, FakeClock(), NAMES)
        await cacher.start()
        cache = cacher.named("configmaps")
        assert cache is not None
        assert [one.key for one in cache.entries()] == ["ns/a"]
        for number in range(50):
            put = await store.put(PutRequest(b"/registry/configmaps/ns/b%d" % number, stored(f"b{number}")))
            found = cache.get(f"ns/b{number}")
            assert found is not None
            assert found.rv == put.revision == cacher.revision
        await store.delete_range(DeleteRangeRequest(b"/registry/configmaps/ns/a"))
        assert cache.get("ns/a") is None
        assert not cacher.shared
        await cacher.close()

    async def test_what_others_wrote_in_another_order_is_read(self, store: EmbeddedStore) -> None:
        other = b'{"apiVersion": "v1", "data": {}, "metadata": {"name": "a", "namespace": "ns"}, "kind": "ConfigMap"}'
        await store.put(PutRequest(b"/registry/configmaps/ns/a", other))
        cacher = Cacher(store, FakeClock(), NAMES)
        await cacher.start()
        cache = cacher.named("configmaps")
        assert cache is not None
        found = cache.get("ns/a")
        assert found is not None
        assert found.decoded()["metadata"] == {"name": "a", "namespace": "ns", "resourceVersion": str(found.rv)}
        await cacher.close()

    async def test_the_past_can_be_had_after_a_start(self, store: EmbeddedStore) -> None:
        revisions = [
            (await store.put(PutRequest(b"/registry/configmaps/ns/a", stored("a", n=str(n))))).revision
            for n in range(5)
        ]
        cacher = Cacher(store, FakeClock(), NAMES)
        await cacher.start()
        cache = cacher.named("configmaps")
        assert cache is not None
        assert [change.rv for change in cache.changes_after(revisions[1])] == revisions[2:]
        await cacher.close()

    async def test_custom_and_builtin_keys(self, store: EmbeddedStore) -> None:
        tug = {"apiVersion": "example.com/v1", "kind": "Tug", "metadata": {"name": "a", "namespace": "ns"}}
        await store.put(PutRequest(b"/registry/example.com/tugs/ns/a", encode(tug)))
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}}
        await store.put(PutRequest(b"/registry/roles/ns/r", encode(role)))
        cacher = Cacher(store, FakeClock(), NAMES)
        await cacher.start()
        for name, key in (("tugs.example.com", "ns/a"), ("roles.rbac.authorization.k8s.io", "ns/r")):
            cache = cacher.named(name)
            assert cache is not None
            assert cache.get(key) is not None
        assert prefix_of("example.com", "tugs", custom=True) == b"/registry/example.com/tugs/"
        assert cacher.named("nothing") is None
        await cacher.close()

    async def test_the_view_decodes_once_and_tells_of_changes(self, store: EmbeddedStore) -> None:
        cacher = Cacher(store, FakeClock(), NAMES)
        await cacher.start()
        view = CacheView(cacher)
        told: list[tuple[Any, Any]] = []
        names: list[tuple[str, str]] = []
        stop = view.subscribe("configmaps", lambda old, new: told.append((old, new)))
        view.notify("configmaps", lambda namespace, name: names.append((namespace, name)))
        before = view.version("configmaps")
        await store.put(PutRequest(b"/registry/configmaps/ns/a", stored("a")))
        found = view.get("configmaps", "ns", "a")
        assert found is not None
        assert view.get("configmaps", "ns", "a") is found
        assert list(view.list("configmaps", "ns")) == [found]
        assert view.version("configmaps") > before
        stop()
        await store.delete_range(DeleteRangeRequest(b"/registry/configmaps/ns/a"))
        assert [(old, new["metadata"]["name"]) for old, new in told] == [(None, "a")]
        assert names == [("ns", "a"), ("ns", "a")]
        with pytest.raises(LookupError, match="nothing"):
            view.subscribe("nothing", lambda old, new: None)
        await cacher.close()


GARBAGE = {
    b"/registry/configmaps/ns/bad": b"garbage",
    b"/registry/configmaps/ns/list": b"[]",
    b"/registry/configmaps/ns/protobuf": b"k8s\x00\x0a\x00",
    b"/registry/configmaps/ns/\xff": b"{}",
    b"/registry/x": b"1",
    b"/registry/": b"1",
}


class TestWhatOthersWrite:
    async def test_what_is_no_object_stops_nobody(self, store: EmbeddedStore, caplog: pytest.LogCaptureFixture) -> None:
        cacher = Cacher(store, FakeClock(), NAMES)
        await cacher.start()
        for key, value in GARBAGE.items():
            await store.put(PutRequest(key, value))
        await store.put(PutRequest(b"/registry/configmaps/ns/good", stored("good")))
        cache = cacher.named("configmaps")
        assert cache is not None
        assert [one.key for one in cache.entries()] == ["ns/good"]
        assert caplog.text.count("it is left out") == len(GARBAGE)
        assert "garbage" not in caplog.text
        await store.put(PutRequest(b"/registry/configmaps/ns/good", b"garbage"))
        assert cache.entries() == [], "what can no longer be read is not shown as it was"
        await cacher.close()

    async def test_a_start_is_refused_by_name(self, store: EmbeddedStore) -> None:
        await store.put(PutRequest(b"/registry/configmaps/ns/bad", b"garbage"))
        await store.put(PutRequest(b"/other", b"x"))
        await store.compact((await store.status()).revision)
        with pytest.raises(
            StoreError, match=r"/registry/configmaps/ns/bad.* holds no Kubernetes object in JSON; delete"
        ):
            await Cacher(store, FakeClock(), NAMES).start()

    async def test_only_what_is_there_now_has_to_be_readable(self, store: EmbeddedStore) -> None:
        key = b"/registry/configmaps/ns/a"
        await store.put(PutRequest(key, b"garbage"))
        with pytest.raises(StoreError, match="ns/a"):
            await Cacher(store, FakeClock(), NAMES).start()
        await store.put(PutRequest(key, stored("a")))
        cacher = Cacher(store, FakeClock(), NAMES)
        await cacher.start()
        cache = cacher.named("configmaps")
        assert cache is not None
        assert cache.get("ns/a") is not None
        await cacher.close()

    async def test_what_cannot_be_decrypted_is_told_without_the_value(self, store: EmbeddedStore) -> None:
        class Locked:
            def decrypt(self, key: bytes, stored: bytes) -> tuple[bytes, bool]:
                raise ValueError("no key fits")

        await store.put(PutRequest(b"/registry/configmaps/ns/a", b"hunter2"))
        await store.compact((await store.status()).revision)
        with pytest.raises(StoreError, match=r"ns/a.*no key fits") as caught:
            await Cacher(store, FakeClock(), NAMES, {"configmaps": Locked()}).start()
        assert "hunter2" not in str(caught.value)


class FakeWatch:
    def __init__(self, start: int) -> None:
        self.start = start
        self.queue: asyncio.Queue[WatchResponse | Exception] = asyncio.Queue()
        self.asked = 0

    def __aiter__(self) -> FakeWatch:
        return self

    async def __anext__(self) -> WatchResponse:
        found = await self.queue.get()
        if isinstance(found, Exception):
            raise found
        return found

    def request_progress(self) -> None:
        self.asked += 1

    async def cancel(self) -> None:
        return None


class FakeStore:
    """A store elsewhere: its watch says what a test lets it say."""

    def __init__(self) -> None:
        self.kvs: dict[bytes, KeyValue] = {}
        self.revision = 1
        self.compacted = 0
        self.watches: list[FakeWatch] = []
        self.failing: StoreError | None = None

    def write(self, name: str) -> None:
        self.revision += 1
        key = b"/registry/configmaps/ns/" + name.encode()
        self.kvs[key] = KeyValue(key, stored(name), self.revision, self.revision, 1)
        if self.watches:
            event = Event(kv=self.kvs[key])
            self.watches[-1].queue.put_nowait(WatchResponse(self.revision, [event]))

    async def status(self) -> Any:
        if self.failing:
            raise self.failing
        return SimpleNamespace(revision=self.revision, compact_revision=0)

    async def range(self, request: RangeRequest) -> Any:
        if request.revision and request.revision < self.compacted:
            raise Compacted("compacted")
        return SimpleNamespace(revision=self.revision, count=len(self.kvs), kvs=list(self.kvs.values()))

    def watch(self, request: Any) -> FakeWatch:
        self.watches.append(FakeWatch(request.start_revision))
        return self.watches[-1]


async def started(store: FakeStore) -> tuple[Cacher, FakeClock]:
    clock = FakeClock()
    cacher = Cacher(store, clock, NAMES)  # type: ignore[arg-type]
    starting = asyncio.create_task(cacher.start())
    await until(lambda: bool(store.watches))
    store.watches[-1].queue.put_nowait(WatchResponse(store.revision))
    await starting
    return cacher, clock


class TestStoreElsewhere:
    async def test_who_waits_asks_until_it_is_answered(self) -> None:
        store = FakeStore()
        cacher, clock = await started(store)
        watch = store.watches[-1]
        before = watch.asked
        waiting = asyncio.create_task(cacher.wait(cacher.revision + 5))
        await clock.run(1)
        assert watch.asked - before > 5
        watch.queue.put_nowait(WatchResponse(cacher.revision + 5))
        await waiting
        asked = watch.asked
        await clock.run(1)
        assert watch.asked == asked
        await cacher.close()

    async def test_a_watch_that_breaks_goes_on_where_it_was(self) -> None:
        store = FakeStore()
        cacher, clock = await started(store)
        store.write("a")
        await until(lambda: cacher.revision == store.revision)
        store.failing = StoreError("away")
        store.watches[-1].queue.put_nowait(StoreError("away"))
        await clock.run(1)
        assert "away" in cacher.behind
        store.failing = None
        await clock.run(30)
        assert cacher.behind == ""
        assert store.watches[-1].start == cacher.revision + 1
        store.write("b")
        await until(lambda: cacher.revision == store.revision)
        await cacher.close()

    async def test_a_gap_is_filled_and_told_within(self) -> None:
        store = FakeStore()
        store.write("stays")
        store.write("goes")
        cacher, clock = await started(store)
        told: list[tuple[str, str]] = []
        reloads: list[int] = []
        cacher.reloading.append(lambda: reloads.append(cacher.revision))
        cache = cacher.named("configmaps")
        assert cache is not None

        class Listener:
            def feed(self, change: Change) -> None:
                told.append((change.kind, change.entry.key))

        cache.subscribe(Listener())
        del store.kvs[b"/registry/configmaps/ns/goes"]
        store.revision += 1
        silent, store.watches[-1].queue = store.watches[-1].queue, asyncio.Queue()
        store.write("comes")
        silent.put_nowait(WatchResponse(0, [], True, store.revision, "compacted"))
        await until(lambda: len(reloads) == 1)
        await clock.run(1)
        assert sorted(told) == [("ADDED", "ns/comes"), ("DELETED", "ns/goes")]
        assert cacher.revision == store.revision
        with pytest.raises(TooOldError):
            cache.changes_after(store.revision - 1)
        await cacher.close()

    async def test_a_start_after_a_compaction(self) -> None:
        store = FakeStore()
        for number in range(5):
            store.write(f"n{number}")
        store.compacted = store.revision
        cacher, _ = await started(store)
        cache = cacher.named("configmaps")
        assert cache is not None
        assert len(cache.entries()) == 5
        assert cache.oldest == store.revision
        await cacher.close()

    async def test_one_that_ends_each_watch_at_once_is_not_asked_without_pause(self) -> None:
        store = FakeStore()
        cacher, clock = await started(store)
        for _ in range(5):
            store.watches[-1].queue.put_nowait(WatchResponse(0, [], True, 0, "no"))
            await clock.run(0.01)
        assert len(store.watches) == 1
        await clock.run(1)
        assert len(store.watches) == 2
        await cacher.close()


def test_decoding_is_the_opposite_of_encoding() -> None:
    obj = config_map("a", {"x": "y"})
    assert decode(encode(obj)) == obj
