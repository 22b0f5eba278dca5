"""Objects that a cache keeps packed: what is known without reading them, what reading gives, and what stays at hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.client import Answer, BadAnswer, Client
from pilothouse.client.codecs import DictCodec, TypedCodec
from pilothouse.client.collector import return_memory
from pilothouse.client.factory import SharedInformerFactory
from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.objects import DeletedFinalStateUnknown, key_of, labels_of, resource_version_of, uid_of
from pilothouse.client.packed import Packed, of_head, reads_head, unpacked
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.client.resources import Mapping
from pilothouse.client.shelf import Shelf
from pilothouse.client.tidying import Tidier
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.labels import parse
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Pod, Resource, decode, replace
from pilothouse.testing import ControlPlane

MUCH = 1 << 20
UNPACKED = "pilothouse_client_unpacked_objects_total{"
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1", "controller": True}


class Gadget(Resource, group="packed.example.com", version="v1", plural="gadgets"):
    """A kind of a user's own."""

    size: int = 0


def tree(name: str = "a", version: int = 1, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata | more.pop("metadata", {}), **more}


def encoded(name: str = "a", version: int = 1, **more: Any) -> bytes:
    return json.dumps(tree(name, version, **more), separators=(",", ":")).encode()


class Counting(TypedCodec[ConfigMap]):
    """Counts what is read."""

    def __init__(self, *, deferrable: bool = True) -> None:
        super().__init__(ConfigMap)
        self.deferrable = deferrable
        self.reads = 0

    def decode(self, data: Any) -> ConfigMap:
        self.reads += 1
        return super().decode(data)


def packed_of(shelf: Shelf[Any], data: bytes) -> Packed[Any]:
    made = shelf.pack(data)
    assert type(made) is Packed
    return made


# One object


def test_key_and_head_are_known_without_reading() -> None:
    codec = Counting()
    metadata = {"labels": {"app": "x"}, "generation": 3, "ownerReferences": [OWNER], "deletionTimestamp": "t"}
    packed = packed_of(Shelf(codec, MUCH), encoded("a", 7, metadata=metadata))
    assert (key_of(packed), resource_version_of(packed), uid_of(packed)) == ("ns/a", "7", "uid-a")
    assert labels_of(packed) == {"app": "x"}
    head = packed.metadata
    assert (head.name, head.namespace, head.generation, head.deletion_timestamp) == ("a", "ns", 3, "t")
    assert [(one.name, one.controller) for one in head.owner_references] == [("web", True)]
    assert codec.reads == 0
    assert packed.get() is packed.get() is unpacked(packed)
    assert codec.reads == 1
    cluster = packed_of(Shelf(codec, MUCH), b'{"metadata":{"name":"node","labels":null,"ownerReferences":[]}}')
    assert (key_of(cluster), labels_of(cluster), cluster.metadata.owner_references) == ("node", {}, ())
    with pytest.raises(TypeError):
        packed.metadata.labels["app"] = "y"  # type: ignore[index]  # they are shared


_texts = st.text(max_size=12)
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), _texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_texts, inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.dictionaries(_texts, _texts, max_size=3), st.dictionaries(_texts.map("x{}".format), _values)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 400),
)
def test_what_is_read_is_what_came_however_little_is_kept(
    contents: list[tuple[dict[str, str], dict[str, Any]]], bound: int
) -> None:
    shelf = Shelf(TypedCodec(ConfigMap), bound)
    came = [encoded(f"c{number}", number, data=data, **odd) for number, (data, odd) in enumerate(contents)]
    cached = [packed_of(shelf, data) for data in came]
    assert shelf.raw_bytes <= 7 * bound
    for turn in range(2):
        for packed, data in zip(cached, came, strict=True):
            assert packed.peek() == packed.get() == decode(data, ConfigMap)
            assert shelf.read_bytes <= bound
        shelf.tidy(len(cached))
        assert shelf.raw_bytes <= bound or turn == 0
        assert not shelf.is_untidy
    for packed in cached:
        packed.drop()
    assert (shelf.raw_bytes, shelf.read_bytes) == (0, 0)


def test_what_came_last_stays_as_it_came_and_the_others_are_deflated() -> None:
    data = {"text": "some text " * 50}
    size = len(encoded("c00", data=data))
    shelf = Shelf(Counting(), 3 * size)
    cached = [packed_of(shelf, encoded(f"c{number:02}", data=data)) for number in range(23)]
    sizes = [len(packed.data) for packed in cached]
    assert sizes[2:] == [size] * 21  # seven times as much may wait
    assert max(sizes[:2]) < size / 5
    assert [shelf.tidy(10), shelf.tidy(10), shelf.tidy(10)] == [10, 8, 0]
    assert [len(packed.data) == size for packed in cached] == [False] * 20 + [True] * 3
    assert max(len(packed.data) for packed in cached[:20]) < size / 5


def test_what_was_read_last_stays_read_and_who_passes_displaces_nothing() -> None:
    codec = Counting()
    size = len(encoded("c0"))
    shelf = Shelf(codec, 3 * size)
    cached = [packed_of(shelf, encoded(f"c{number}")) for number in range(10)]
    assert cached[0].get() is cached[0].get() is cached[0].peek()
    assert codec.reads == 1
    for _ in range(2):
        for packed in cached:
            packed.peek()
    assert codec.reads == 1 + 2 + 2 * 7  # there was room for two more
    assert [packed.value is not None for packed in cached] == [True] * 3 + [False] * 7
    cached[5].get()
    assert [packed.value is not None for packed in cached[:6]] == [False, True, True, False, False, True]
    assert shelf.read_bytes == 3 * size


def test_a_state_that_was_replaced_does_not_count_and_stays_readable() -> None:
    codec = Counting()
    shelf = Shelf(codec, 10_000)
    old, new = (packed_of(shelf, encoded("a", version, data={"v": str(version)})) for version in (1, 2))
    size = len(encoded("a", 2, data={"v": "2"}))
    old.get()
    old.drop()
    old.drop()
    assert (shelf.raw_bytes, shelf.read_bytes) == (size, 0)
    assert old.get().data == {"v": "1"}
    assert old.get() is old.get()
    assert new.get().data == {"v": "2"}
    assert (shelf.raw_bytes, shelf.read_bytes) == (size, size)


def test_managed_fields_are_left_out_if_asked() -> None:
    data = encoded(metadata={"managedFields": [{"manager": "m", "fieldsV1": {"f:data": {}}}]})
    full, lean = Shelf(TypedCodec(ConfigMap), MUCH), Shelf(TypedCodec(ConfigMap), MUCH, managed_fields=False)
    assert packed_of(full, data).get().metadata.managed_fields
    assert packed_of(lean, data).get() == decode(encoded(), ConfigMap)


def test_a_misfit_of_kubernetes_kinds_shows_when_it_is_read_and_of_own_kinds_at_once() -> None:
    wrong = b'{"metadata":{"name":"bad","namespace":"n"},"data":5,"size":"big"}'
    packed = packed_of(Shelf(TypedCodec(ConfigMap), MUCH), wrong)
    for read in (packed.get, packed.peek, packed.get):
        with pytest.raises(BadAnswer, match="n/bad: does not fit the type ConfigMap"):
            read()
    with pytest.raises(BadAnswer, match="n/bad: does not fit the type Gadget"):
        Shelf(TypedCodec(Gadget), MUCH).pack(wrong)


@pytest.mark.parametrize("data", [b'{"metadata":{"name":"a","namespace":null}}', b'{"metadata":{"labels":null},"x":1}'])
def test_odd_objects_are_read_at_once(data: bytes) -> None:
    made = Shelf(TypedCodec(ConfigMap), MUCH).pack(data)
    assert unpacked(made) == decode(data, ConfigMap)
    assert unpacked(Shelf(DictCodec(Mapping("", "v1", "ConfigMap", "configmaps", True)), MUCH).pack(data))["kind"]


def test_lines_of_a_watch() -> None:
    shelf = Shelf(TypedCodec(ConfigMap), MUCH)
    found = shelf.event(b'{"type":"MODIFIED","object":%s}' % encoded("a", 5))
    assert found is not None
    assert (found[0], found[1].metadata.resource_version) == ("MODIFIED", "5")
    assert found[1].get() == decode(encoded("a", 5), ConfigMap)
    for other in (
        b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5"}}}',
        b'{"type":"ERROR","object":{"metadata":{}}}',
        b'{"object":%s,"type":"ADDED"}' % encoded(),
        b'{"type":"ADDED","object":%s,"more":1}' % encoded(),
        b'{"type": "ADDED","object":%s}' % encoded(),
        b'{"type":"ADDED","object":{"metadata":{"labels":3}}}',
        b'{"type":"ADDED"',
    ):
        assert shelf.event(other) is None


def test_other_threads_may_read() -> None:
    shelf = Shelf(TypedCodec(ConfigMap), 2_000)
    cached = [packed_of(shelf, encoded(f"c{number}", data={"n": str(number)})) for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda packed: packed.get().data["n"], cached * 5)]
    assert found == [str(number) for number in range(200)] * 5
    assert shelf.read_bytes <= 2_000


def test_functions_say_that_the_head_is_enough() -> None:
    assert reads_head(of_head(lambda _: []))
    assert not reads_head(lambda _: [])


# In an informer


class Line:
    """A transport: of each watch it gives what is put into `lines`, of lists nothing."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()

    def tell(self, kind: str, data: bytes) -> None:
        self.lines.put_nowait(b'{"type":"%b","object":%b}\n' % (kind.encode(), data))

    def synced(self) -> None:
        self.tell("BOOKMARK", encoded(metadata={"annotations": {"k8s.io/initial-events-end": "true"}}))

    async def request(self, method: str, target: str, *_: Any, **__: Any) -> Answer:
        assert "watch=true" in target
        return Answer(200, (("content-type", "application/json"),), stream=self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await self.lines.get()

    async def aclose(self) -> None:
        return None


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.001)


def informer_of(line: Line, recent_bytes: int = 300, **more: Any) -> Informer[ConfigMap]:
    options = InformerOptions(recent_bytes=recent_bytes)
    lister_watcher = Client.for_transport(line).list_watch(ConfigMap)
    return Informer(lister_watcher, options=options, **{"metrics": Metrics(), **more})


class Told:
    """A handler that notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_add(self, obj: Any, is_in_initial_list: bool) -> None:
        self.events.append(("add", obj))

    def on_update(self, old: Any, new: Any) -> None:
        self.events.append(("update", old, new))

    def on_delete(self, obj: Any) -> None:
        self.events.append(("delete", obj))


async def test_handlers_get_objects_and_who_wants_them_packed_gets_them_so() -> None:
    line, told, light, metrics = Line(), Told(), Told(), Metrics()
    informer = informer_of(line, recent_bytes=0, metrics=metrics)
    informer.add_handler(told)
    informer.add_packed_handler(light)
    for number in range(5):
        line.tell("ADDED", encoded(f"c{number}", number + 1, data={"v": "1"}))
    line.synced()
    async with informer:
        await informer.wait_synced()
        line.tell("MODIFIED", encoded("c0", 10, data={"v": "2"}))
        line.tell("DELETED", encoded("c0", 11, data={"v": "2"}))
        await until(lambda: len(told.events) == len(light.events) == 7)
    assert [event[0] for event in told.events] == ["add"] * 5 + ["update", "delete"]
    assert {type(obj) for event in told.events for obj in event[1:]} == {ConfigMap}
    assert {type(obj) for event in light.events for obj in event[1:]} == {Packed}
    old, new = told.events[5][1:]
    assert (old.data, new.data) == ({"v": "1"}, {"v": "2"})
    assert [unpacked(obj) for obj in light.events[5][1:]] == [old, new]
    assert told.events[6][1].metadata.resource_version == "11"
    (shown,) = [line for line in metrics.exposition().decode().splitlines() if line.startswith(UNPACKED)]
    assert float(shown.rpartition(" ")[2]) >= 8  # each state, as there is no room


async def test_what_waits_is_deflated_beside_other_work_and_the_memory_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_back = []
    monkeypatch.setattr("pilothouse.client.tidying.return_memory", lambda: given_back.append(True))
    line, size = Line(), len(encoded("c1000", 1000))
    informer = informer_of(line, recent_bytes=500 * size)
    for number in range(1_000, 2_600):
        line.tell("ADDED", encoded(f"c{number}", number))
    line.synced()
    async with informer:
        await informer.wait_synced()
        shelf = informer._shelf
        assert shelf is not None
        assert shelf.raw_bytes == 1_600 * size
        await until(lambda: not shelf.is_untidy)
        await until(lambda: given_back)
        assert shelf.raw_bytes == 500 * size
        line.tell("MODIFIED", encoded("c1001", 3_000))
        await until(lambda: informer.resource_version == "3000" and not shelf.is_untidy)
    assert given_back == [True]


def test_deflating_takes_small_turns_and_can_be_stopped() -> None:
    clock, size = FakeClock(), len(encoded("c1000"))
    shelf = Shelf(Counting(), 20 * size)
    for number in range(1_000, 1_100):
        packed_of(shelf, encoded(f"c{number}"))
    tidier = Tidier(shelf, clock, returns_memory=True)
    for left in (100, 68, 36, 20, 20):
        assert shelf.raw_bytes == left * size
        tidier.look()
        tidier.look()
        clock.advance(0.005)
    packed_of(shelf, encoded("c2000"))
    tidier.look()
    tidier.stop()
    tidier.look()
    clock.advance(1)
    assert shelf.raw_bytes == 21 * size


def test_memory_can_be_given_back() -> None:
    assert return_memory() in {True, False}


async def test_a_resync_tells_of_one_object() -> None:
    line, told = Line(), Told()
    informer = informer_of(line, recent_bytes=0)
    informer.add_handler(told, resync_seconds=1.0)
    line.tell("ADDED", encoded("a", 1))
    line.synced()
    async with informer:
        await informer.wait_synced()
        informer._queue.resync()
        informer._pump()
        await until(lambda: len(told.events) == 2)
    assert told.events[1][1] is told.events[1][2]


async def test_indexes_and_selectors_read_no_more_than_they_have_to() -> None:
    codec = Counting()
    shelf = Shelf(codec, 0)
    by_head = of_head(lambda found: [found.metadata.labels["app"]])
    cache = informer_of(Line(), indexers={"app": by_head, "size": lambda found: [found.data["size"]]}).indexer
    for number in range(6):
        metadata = {"labels": {"app": "web" if number % 2 else "db"}}
        key = f"ns/c{number}"
        cache.put(key, packed_of(shelf, encoded(f"c{number}", 1, metadata=metadata, data={"size": str(number // 2)})))
    assert codec.reads == 6  # for the index by size
    assert cache.index_keys("app", "web") == ["ns/c1", "ns/c3", "ns/c5"]
    assert [found.metadata.name for found in cache.by_index("size", "1")] == ["c2", "c3"]
    assert codec.reads == 8
    assert [found.metadata.name for found in cache.list(parse("app=db"))] == ["c0", "c2", "c4"]
    assert codec.reads == 11
    cache.put("ns/c1", packed_of(shelf, encoded("c1", 2, metadata={"labels": {"app": "db"}}, data={"size": "9"})))
    assert codec.reads == 12  # the old state is not read again
    assert cache.index_keys("app", "web") == ["ns/c3", "ns/c5"]
    assert cache.index_values("size") == ["0", "1", "2", "9"]
    cache.remove("ns/c1")
    assert "9" not in cache.index_values("size")
    assert codec.reads == 12


async def test_a_misfit_is_skipped_and_told_wherever_it_is_read() -> None:
    line, told = Line(), Told()
    informer = informer_of(line)
    informer.add_handler(told)
    line.tell("ADDED", encoded("good", 1))
    line.tell("ADDED", encoded("bad", 2, data=5))
    line.tell("ADDED", encoded("turning", 3))
    line.synced()
    async with informer:
        await informer.wait_synced()
        await until(lambda: len(told.events) == 2)
        line.tell("MODIFIED", encoded("turning", 4, data=5))
        line.tell("MODIFIED", encoded("bad", 5, data={"now": "well"}))
        line.tell("DELETED", encoded("turning", 6, data=5))
        await until(lambda: len(told.events) == 4)
        assert [event[0] for event in told.events] == ["add", "add", "add", "delete"]
        assert told.events[2][1].data == {"now": "well"}
        assert told.events[3][1] == DeletedFinalStateUnknown("ns/turning", None)
        line.tell("MODIFIED", encoded("bad", 7, data=[]))
        await until(lambda: informer.resource_version == "7")
        assert [found.metadata.name for found in informer.lister().list()] == ["good"]
        with pytest.raises(BadAnswer, match="ns/bad: does not fit"):
            informer.lister().namespaced("ns").get("bad")
        assert informer.core.counts.skipped >= 4
        assert all(not listener.failures for listener in informer.listeners)


async def test_a_misfit_of_a_kind_of_ones_own_is_skipped_before_it_is_cached() -> None:
    line, told = Line(), Told()
    informer = Informer(Client.for_transport(line).list_watch(Gadget), metrics=Metrics())
    informer.add_handler(told)
    line.tell("ADDED", encoded("good", 1, size=3))
    line.synced()
    async with informer:
        await informer.wait_synced()
        line.tell("MODIFIED", encoded("good", 2, size="big"))
        line.tell("ADDED", encoded("other", 3))
        await until(lambda: len(told.events) == 2)
        assert informer.core.counts.skipped == 1
        good = informer.lister().namespaced("ns").get("good")
        assert (good.size, good.metadata.resource_version) == (3, "1")


async def test_a_transform_sees_objects_and_what_it_makes_is_packed() -> None:
    def shorter(found: ConfigMap) -> ConfigMap:
        if found.metadata.name == "odd":
            raise ValueError("no")
        return found if found.metadata.name == "same" else replace(found, data={"short": found.data["v"]})

    line, told = Line(), Told()
    informer = informer_of(line, transform=shorter)
    informer.add_handler(told)
    for number, name in enumerate(("a", "same", "odd")):
        line.tell("ADDED", encoded(name, number, data={"v": "1"}, unknown=[1]))
    line.synced()
    async with informer:
        await informer.wait_synced()
        await until(lambda: len(told.events) == 3)
        line.tell("MODIFIED", encoded("a", 9, data={"v": "2"}))
        await until(lambda: len(told.events) == 4)
        assert [type(obj) for obj in informer.indexer.entries.values()] == [Packed] * 3
        seen = {name: informer.lister().namespaced("ns").get(name).data for name in ("a", "same", "odd")}
    assert seen == {"a": {"short": "2"}, "same": {"v": "1"}, "odd": {"v": "1"}}
    assert told.events[0][1].carried == {"unknown": [1]}
    assert informer.user_failures == 1


@pytest.mark.parametrize("streamed", [True, False])
async def test_against_a_server_with_hardly_any_room(streamed: bool) -> None:
    async with ControlPlane(lifecycle=False) as plane, Client.for_transport(plane.transport, plane.user) as client:
        made = [
            await client.create(ConfigMap(metadata=ObjectMeta(name=f"c{number}", namespace="default"), data={"a": "b"}))
            for number in range(20)
        ]
        reflector = ReflectorOptions(stream_initial_list=streamed, page_size=7)
        options = InformerOptions(recent_bytes=1_000, reflector=reflector)
        factory = SharedInformerFactory(client, namespace="default", options=options, metrics=Metrics())
        maps, pods = factory.informer(ConfigMap), factory.informer(Pod)
        async with factory:
            await factory.wait_for_sync(10)
            assert {type(obj) for obj in maps.indexer.entries.values()} == {Packed}
            assert sorted(maps.lister().list(), key=key_of) == sorted(made, key=key_of)
            assert pods.lister().list() == []
            changed = await client.patch(ConfigMap, "c7", {"data": {"a": "c"}}, "default")
            version = changed.metadata.resource_version
            await until(lambda: maps.resource_version == version)
            assert maps.lister().namespaced("default").get("c7") == changed
