"""Lists and watches agree: what a watch tells, put onto a list, is always the next list."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.foundation.clock import FakeClock
from pilothouse.store.errors import Compacted
from support.apiserverkit import Api, Object, Watcher, api_server, config_map, until

MAPS = "/api/v1/namespaces/default/configmaps"
NAMES = ("a", "b", "c", "d")
LABELS = ("red", "green", "blue")
MANAGERS = ("one", "two", "three")
SELECTORS = (
    "",
    "labelSelector=colour%3Dred",
    "labelSelector=colour+in+(red,green)",
    "labelSelector=!colour",
    "labelSelector=colour!%3Dred",
    "fieldSelector=metadata.name%3Da",
    "fieldSelector=metadata.name!%3Da&labelSelector=colour",
)
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "merge", "apply", "delete", "status", "collect", "compact"]),
        st.sampled_from(NAMES),
        st.sampled_from((*LABELS, "")),
        st.sampled_from(MANAGERS),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)
WATCHES = st.lists(st.tuples(st.integers(0, 25), st.sampled_from(SELECTORS), st.booleans()), min_size=1, max_size=5)


class Follower:
    """A client as they are: lists in pages, watches from the list's version, and watches anew where it was cut off."""

    def __init__(self, api: Api, selector: str, page: int) -> None:
        self.api = api
        self.selector = selector
        self.page = page
        self.known: dict[str, Object] = {}
        self.version = ""
        self.watcher: Watcher | None = None
        self.lists = 0

    async def list(self) -> None:
        self.lists += 1
        self.known, token = {}, ""
        while True:
            path = f"{MAPS}?{self.selector}&limit={self.page}" + (f"&continue={quote(token)}" if token else "")
            reply = await self.api.get(path)
            if reply.status == 410:
                return await self.list()
            assert reply.status == 200, reply.raw
            for item in reply.body["items"]:
                assert item["metadata"]["name"] not in self.known
                self.known[item["metadata"]["name"]] = item
            assert self.version in {"", reply.version} or not token, "pages are of different versions"
            self.version = reply.version
            token = reply.body["metadata"].get("continue", "")
            if not token:
                return None

    async def watch(self) -> None:
        self.watcher = await self.api.watch(f"{MAPS}?{self.selector}&resourceVersion={self.version}")

    async def cut(self) -> None:
        if self.watcher is not None:
            await self.watcher.close()
            self.watcher = None

    async def catch_up(self, version: int) -> None:
        """Take events until nothing more can come: a bookmark object of the test's own marks the end."""
        if self.watcher is None:
            await self.watch()
        assert self.watcher is not None
        while int(self.version) < version:
            event = await self.watcher.next(0.05 if self.selector else 10)
            if event is None:
                await self.cut()
                await self.watch()
                continue
            if await self.take(event):
                return

    async def take(self, event: Object) -> bool:
        """Take one event; True where it told that the past is gone, and everything was listed anew."""
        if event["type"] == "ERROR":
            assert event["object"]["code"] == 410, event
            await self.cut()
            await self.list()
            await self.watch()
            return True
        obj = event["object"]
        name, version = obj["metadata"]["name"], obj["metadata"]["resourceVersion"]
        assert int(version) > int(self.version), (event["type"], version, self.version)
        assert (event["type"] == "ADDED") is (name not in self.known), (event["type"], name)
        self.version = version
        if event["type"] == "DELETED":
            del self.known[name]
        else:
            self.known[name] = {key: obj[key] for key in obj if key not in {"kind", "apiVersion"}}
        return False


async def operate(api: Api, operation: tuple[str, str, str, str, int]) -> None:
    verb, name, label, manager, number = operation
    labels = {"colour": label} if label else {}
    body = config_map(name, {f"k{manager}": str(number)}, labels=labels)
    path = f"{MAPS}/{name}"
    match verb:
        case "create":
            reply = await api.post(f"{MAPS}?fieldManager={manager}", body)
        case "update":
            reply = await api.put(f"{path}?fieldManager={manager}", body)
        case "merge":
            changes = {"metadata": {"labels": {"colour": label or None}}, "data": {f"k{number}": manager}}
            reply = await api.merge(f"{path}?fieldManager={manager}", changes)
        case "apply":
            reply = await api.apply(path, body, manager, force=bool(number % 2))
        case "delete":
            reply = await api.delete(path)
        case "collect":
            reply = await api.delete(f"{MAPS}?labelSelector=colour%3D{label}")
        case "compact":
            revision = api.server.cacher.revision
            with contextlib.suppress(Compacted):
                await api.server.store.compact(revision)
            api.server.cacher.compacted(revision)
            return
        case _:
            reply = await api.merge(f"{path}", {"metadata": {"annotations": {"n": str(number)}}})
    assert reply.status in {200, 201, 404, 409}, reply.raw


async def listed(api: Api, selector: str) -> tuple[dict[str, Object], int]:
    reply = await api.get(f"{MAPS}?{selector}")
    return {item["metadata"]["name"]: item for item in reply.body["items"]}, int(reply.version)


async def settled(follower: Follower, expected: dict[str, Object], version: int) -> None:
    """Let a follower take all events; what it then knows must be the list."""
    assert follower.watcher is not None
    with contextlib.suppress(TimeoutError):  # where a selector hides the newest change nothing more comes
        await follower.catch_up(version)
    assert follower.known == expected


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server(quiet=True) as found:
        yield found


def run_with_server(examples: int, strategies: dict[str, Any], test: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Run a property against one server that all examples share."""
    with asyncio.Runner() as runner:
        manager = api_server(quiet=True)
        api = runner.run(manager.__aenter__())

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(**strategies)
        def tried(**values: Any) -> None:
            runner.run(test(api, **values))

        try:
            tried()
        finally:
            runner.run(manager.__aexit__(None, None, None))


async def rebuilt(api: Api, operations: list[Any], watches: list[Any], page: int) -> None:
    for name in NAMES:
        await api.delete(f"{MAPS}/{name}")
    followers: list[tuple[int, bool, Follower]] = []
    for place, operation in enumerate(operations):
        for start, selector, cut in watches:
            if start == place:
                follower = Follower(api, selector, page)
                await follower.list()
                if not cut:
                    await follower.watch()
                followers.append((start, cut, follower))
        await operate(api, operation)
    for _, cut, follower in followers:
        if cut:
            await follower.watch()  # from a version of the past
        expected, version = await listed(api, follower.selector)
        await settled(follower, expected, version)
        await follower.cut()


REBUILT = {"operations": OPERATIONS, "watches": WATCHES, "page": st.integers(1, 5)}


def test_events_rebuild_the_list() -> None:
    run_with_server(40, REBUILT, rebuilt)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_events_rebuild_the_list_for_long() -> None:
    run_with_server(3000, REBUILT, rebuilt)


FIELDS = st.dictionaries(st.sampled_from(["k0", "k1", "k2", "k3"]), st.sampled_from(["x", "y"]), max_size=4)


def configured(name: str, data: dict[str, str]) -> Object:
    """A configuration that has data only where it says some: an empty map would be owned, too."""
    made = config_map(name, data)
    if not data:
        del made["data"]
    return made


async def applied(api: Api, first: dict[str, str], second: dict[str, str], third: dict[str, str]) -> None:
    """Apply again changes nothing; who applies nothing owns nothing; a conflict names its fields."""
    path = f"{MAPS}/owned"
    await api.delete(path)
    made = await api.apply(path, configured("owned", first), "one")
    assert made.status == 201, made.raw
    again = await api.apply(path, configured("owned", first), "one")
    assert again.body == made.body
    changed = await api.apply(path, configured("owned", second), "one")
    assert (changed.body.get("data") or {}) == second
    clash = {name for name in third if name in second and second[name] != third[name]}
    reply = await api.apply(path, configured("owned", third), "two")
    assert reply.status == (409 if clash else 200), reply.raw
    if clash:
        assert {cause["field"] for cause in reply.body["details"]["causes"]} == {f".data.{name}" for name in clash}
        reply = await api.apply(path, configured("owned", third), "two", force=True)
    assert (reply.body.get("data") or {}) == {**second, **third}
    gone = await api.apply(path, configured("owned", {}), "two")
    # What both had, "one" keeps; what was taken from it by force is nobody's any more.
    assert (gone.body.get("data") or {}) == {name: value for name, value in second.items() if name not in clash}
    owners = {each["manager"]: each for each in gone.body["metadata"].get("managedFields", ())}
    owned = owners.get("two", {}).get("fieldsV1", {}).get("f:data", {})
    assert set(owned) <= {"."}, owners


async def commuting(api: Api, first: dict[str, str], second: dict[str, str]) -> None:
    second = {f"other-{name}": value for name, value in second.items()}
    results = []
    for order in ((("one", first), ("two", second)), (("two", second), ("one", first))):
        path = f"{MAPS}/shared"
        await api.delete(path)
        for manager, data in order:
            reply = await api.apply(path, configured("shared", data), manager)
            assert reply.status in {200, 201}, reply.raw
        body = (await api.get(path)).body
        fields = {each["manager"]: each["fieldsV1"] for each in body["metadata"].get("managedFields", ())}
        results.append((body.get("data"), fields))
    assert results[0] == results[1]


def test_apply_is_idempotent_and_forgets_nothing() -> None:
    run_with_server(60, {"first": FIELDS, "second": FIELDS, "third": FIELDS}, applied)


def test_disjoint_managers_commute() -> None:
    run_with_server(40, {"first": FIELDS, "second": FIELDS}, commuting)


async def test_pages_are_one_snapshot_while_writes_go_on(api: Api) -> None:
    for number in range(60):
        await api.made(MAPS, config_map(f"c{number:02}", {"round": "0"}))
    stop = asyncio.Event()

    async def disturb() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            await api.merge(f"{MAPS}/c{count % 60:02}", {"data": {"round": str(count)}})
            await api.delete(f"{MAPS}/c{(count * 7) % 60:02}")
            await api.post(MAPS, config_map(f"c{(count * 7) % 60:02}", {"round": str(count)}))

    writer = asyncio.create_task(disturb())
    try:
        for limit in (1, 7, 13, 59):
            await asyncio.sleep(0.01)
            pages, token = [], ""
            while True:
                path = f"{MAPS}?limit={limit}" + (f"&continue={quote(token)}" if token else "")
                pages.append((await api.get(path)).body)
                token = pages[-1]["metadata"].get("continue", "")
                if not token:
                    break
            assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
            items = [item for page in pages for item in page["items"]]
            version = pages[0]["metadata"]["resourceVersion"]
            whole = (await api.get(f"{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).body
            assert items == whole["items"]
            assert [len(page["items"]) for page in pages[:-1]] == [limit] * (len(pages) - 1)
            lefts = [page["metadata"].get("remainingItemCount", 0) for page in pages]
            assert lefts == [len(items) - min(limit * (n + 1), len(items)) for n in range(len(pages))]
    finally:
        stop.set()
        await writer


async def test_a_token_shows_no_other_namespace(api: Api) -> None:
    await api.made("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "another"}})
    await api.made("/api/v1/namespaces/another/configmaps", config_map("hidden"))
    for number in range(3):
        await api.made(MAPS, config_map(f"c{number}"))
    everywhere = (await api.get("/api/v1/configmaps?limit=1")).body
    assert everywhere["items"][0]["metadata"]["namespace"] == "another"
    stolen = everywhere["metadata"]["continue"]
    own = (await api.get(f"{MAPS}?limit=1")).body["metadata"]["continue"]
    for token in (stolen, own):
        for path in (f"{MAPS}?continue={token}", "/api/v1/namespaces/zzz/configmaps?continue=" + token):
            found = (await api.get(path)).body["items"]
            assert all(item["metadata"]["namespace"] == "default" for item in found)


async def test_a_compacted_token_goes_on_with_what_is_there(api: Api) -> None:
    for number in range(6):
        await api.made(MAPS, config_map(f"c{number}"))
    token = (await api.get(f"{MAPS}?limit=2")).body["metadata"]["continue"]
    await api.delete(f"{MAPS}/c3")
    await operate(api, ("compact", "", "", "", 0))
    reply = await api.get(f"{MAPS}?limit=2&continue={token}")
    assert (reply.status, reply.reason) == (410, "Expired")
    token = reply.body["metadata"]["continue"]
    reply = await api.get(f"{MAPS}?limit=2&continue={token}")
    assert [item["metadata"]["name"] for item in reply.body["items"]] == ["c2", "c4"]
    await api.made(MAPS, config_map("c6"))
    token = reply.body["metadata"]["continue"]
    assert [item["metadata"]["name"] for item in (await api.get(f"{MAPS}?continue={token}")).body["items"]] == ["c5"]


async def test_a_version_with_a_limit_is_exact(api: Api) -> None:
    await api.made(MAPS, config_map("a"))
    version = (await api.made(MAPS, config_map("b")))["metadata"]["resourceVersion"]
    await api.made(MAPS, config_map("c"))

    async def names(query: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await api.get(f"{MAPS}?{query}")).body["items"]]

    assert await names(f"resourceVersion={version}") == ["a", "b", "c"]
    assert await names(f"resourceVersion={version}&limit=5") == ["a", "b"]
    assert await names(f"resourceVersion={version}&resourceVersionMatch=Exact") == ["a", "b"]
    assert await names(f"resourceVersion={version}&resourceVersionMatch=NotOlderThan") == ["a", "b", "c"]
    assert await names("resourceVersion=0&limit=5") == ["a", "b", "c"]


class TestWatching:
    async def test_selectors_turn_changes_into_arrivals_and_departures(self, api: Api) -> None:
        watcher = await api.watch(f"{MAPS}?labelSelector=colour%3Dred")
        await until(lambda: api.server.watching.running == 1)
        made = await api.made(MAPS, config_map("a", labels={"colour": "green"}))
        red = (await api.merge(f"{MAPS}/a", {"metadata": {"labels": {"colour": "red"}}})).body
        await api.merge(f"{MAPS}/a", {"data": {"x": "y"}})
        green = (await api.merge(f"{MAPS}/a", {"metadata": {"labels": {"colour": "green"}}})).body
        await api.delete(f"{MAPS}/a")
        await api.made(MAPS, config_map("b", labels={"colour": "red"}))
        events = await watcher.take(4)
        assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]
        assert events[0]["object"] == red
        left = events[2]["object"]
        assert left["metadata"]["labels"] == {"colour": "red"}, "what left is shown as it was"
        assert left["metadata"]["resourceVersion"] == green["metadata"]["resourceVersion"]
        assert made["metadata"]["uid"] == left["metadata"]["uid"]
        await watcher.close()

    async def test_what_is_deleted_carries_the_version_of_its_deletion(self, api: Api) -> None:
        made = await api.made(MAPS, config_map("a"))
        watcher = await api.watch(f"{MAPS}?resourceVersion={made['metadata']['resourceVersion']}")
        await api.delete(f"{MAPS}/a")
        event = (await watcher.take(1))[0]
        assert event["type"] == "DELETED"
        assert int(event["object"]["metadata"]["resourceVersion"]) == api.server.cacher.revision
        await watcher.close()

    async def test_initial_events_end_with_a_bookmark(self, api: Api) -> None:
        for name in ("a", "b"):
            await api.made(MAPS, config_map(name))
        query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        watcher = await api.watch(f"{MAPS}?{query}")
        events = await watcher.take(3)
        assert [event["type"] for event in events] == ["ADDED", "ADDED", "BOOKMARK"]
        assert events[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(events[2]["object"]["metadata"]["resourceVersion"]) == api.server.cacher.revision
        await api.made(MAPS, config_map("c"))
        assert [event["type"] for event in await watcher.take(1)] == ["ADDED"]
        await watcher.close()

    async def test_a_version_that_is_compacted_is_told_in_the_stream(self, api: Api) -> None:
        made = await api.made(MAPS, config_map("a"))
        await api.made(MAPS, config_map("b"))
        await operate(api, ("compact", "", "", "", 0))
        watcher = await api.watch(f"{MAPS}?resourceVersion={made['metadata']['resourceVersion']}")
        event = await watcher.next()
        assert event is not None
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert await watcher.next() is None

    async def test_a_version_to_come_is_refused(self, api: Api) -> None:
        reply = await api.get(f"{MAPS}?watch=1&resourceVersion=999999999")
        assert (reply.status, reply.reason) == (504, "Timeout")

    async def test_the_old_path_of_one_object_shows_no_other(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        await api.made(MAPS, config_map("b"))
        for query in ("", "?fieldSelector=metadata.name%3Db", "?labelSelector=!x"):
            path = f"/api/v1/watch/namespaces/default/configmaps/a{query}"
            answer = await api.send("GET", path)
            assert answer.stream is not None
            watcher = Watcher(answer.stream)
            await until(lambda: api.server.watching.running == 1)
            await api.merge(f"{MAPS}/b", {"data": {"query": query}})
            await api.merge(f"{MAPS}/a", {"data": {"query": query}})
            if "name" not in query:
                events = await watcher.take(2)
                assert {event["object"]["metadata"]["name"] for event in events} == {"a"}
            await watcher.close()
            await until(lambda: api.server.watching.running == 0)

    async def test_namespaces_are_kept_apart(self, api: Api) -> None:
        await api.made("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "another"}})
        here, everywhere = await api.watch(MAPS), await api.watch("/api/v1/configmaps?labelSelector=x")
        await until(lambda: api.server.watching.running == 2)
        await api.made("/api/v1/namespaces/another/configmaps", config_map("a", labels={"x": "y"}))
        await api.made(MAPS, config_map("b", labels={"x": "y"}))
        assert [event["object"]["metadata"]["name"] for event in await everywhere.take(2)] == ["a", "b"]
        assert [event["object"]["metadata"]["name"] for event in await here.take(1)] == ["b"]
        await here.close()
        await everywhere.close()

    async def test_bookmarks_come_each_minute_and_at_the_end(self) -> None:
        clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
        async with api_server(quiet=True, clock=clock) as api:
            watcher = await api.watch(f"{MAPS}?allowWatchBookmarks=true&timeoutSeconds=130")
            plain = await api.watch(f"{MAPS}?timeoutSeconds=130")
            await until(lambda: api.server.watching.running == 2)
            await asyncio.sleep(0.01)
            await api.made("/api/v1/namespaces/default/secrets", {"kind": "Secret", "metadata": {"name": "s"}})
            await clock.run(61)
            event = await watcher.next()
            assert event is not None
            assert event["type"] == "BOOKMARK"
            assert int(event["object"]["metadata"]["resourceVersion"]) == api.server.cacher.revision
            await clock.run(70)
            second = await watcher.next()
            assert second is not None
            assert second["type"] == "BOOKMARK"
            assert await watcher.next() is None
            assert await plain.next() is None

    async def test_one_that_reads_too_slowly_is_ended(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pilothouse.apiserver.rest.watching._BUFFERED", 50_000)
        await api.made(MAPS, config_map("a"))
        slow, quick = await api.watch(MAPS), await api.watch(MAPS)
        await quick.next()
        for number in range(20):
            await api.merge(f"{MAPS}/a", {"data": {"x": str(number) + "y" * 10_000}})
            await quick.next()
        await until(lambda: api.server.watching.running == 1)
        told = 0
        while await slow.next() is not None:
            told += 1
        assert 2 <= told < 20
        await api.merge(f"{MAPS}/a", {"data": {"x": "z"}})
        assert (await quick.next() or {})["object"]["data"] == {"x": "z"}
        await quick.close()

    async def test_one_encoding_serves_all(self, api: Api) -> None:
        watchers = [await api.watch(MAPS) for _ in range(10)]
        await until(lambda: api.server.watching.running == 10)
        await asyncio.sleep(0.01)
        await api.made(MAPS, config_map("a"))
        cache = api.server.cacher.named("configmaps")
        assert cache is not None
        (change,) = cache.changes_after(cache.entries()[0].rv - 1)
        assert len(change._pieces) == 1
        for watcher in watchers:
            assert (await watcher.next() or {})["type"] == "ADDED"
            await watcher.close()

    async def test_tables_and_metadata_are_streamed(self, api: Api) -> None:
        await api.made(MAPS, config_map("a", {"x": "y"}))
        table = await api.watch(MAPS, [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")])
        event = await table.next()
        assert event is not None
        assert event["object"]["kind"] == "Table"
        assert event["object"]["columnDefinitions"]
        await api.made(MAPS, config_map("b"))
        second = await table.next()
        assert second is not None
        assert not second["object"].get("columnDefinitions"), "the columns come once"
        await table.close()
        partial = await api.watch(MAPS, [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")])
        found = await partial.next()
        assert found is not None
        assert found["object"]["kind"] == "PartialObjectMetadata"
        assert "data" not in found["object"]
        await partial.close()


async def test_nothing_is_encoded_to_be_read(api: Api) -> None:
    from pilothouse.apiserver.cache.entries import encodings

    before = encodings.count
    await api.made(MAPS, config_map("a"))
    assert encodings.count == before + 1
    await api.merge(f"{MAPS}/a", {"data": {"x": "y"}})
    assert encodings.count == before + 2
    await api.delete(f"{MAPS}/a")
    assert encodings.count == before + 2
    await api.made(MAPS, config_map("b"))
    before = encodings.count
    for path in (MAPS, f"{MAPS}/b", f"{MAPS}?labelSelector=x", "/api/v1/configmaps?limit=1", f"{MAPS}?limit=1"):
        assert (await api.get(path)).status == 200
    watcher = await api.watch(MAPS)
    await watcher.next()
    await watcher.close()
    assert encodings.count == before


class TestForms:
    PROTOBUF = "application/vnd.kubernetes.protobuf"
    PARTIAL = "as=PartialObjectMetadata;v=v1;g=meta.k8s.io"

    async def test_streams_of_protobuf(self, api: Api) -> None:
        await api.made(MAPS, config_map("a", {"key": "hidden"}))
        for accept, kind, shown in (
            (self.PROTOBUF, b"ConfigMap", True),
            (f"{self.PROTOBUF};{self.PARTIAL}", b"PartialObjectMetadata", False),
        ):
            answer = await api.send("GET", f"{MAPS}?watch=1", headers=[("accept", accept)])
            assert answer.header("content-type") == f"{self.PROTOBUF};stream=watch"
            assert answer.stream is not None
            frame = await anext(answer.stream)
            assert int.from_bytes(frame[:4], "big") == len(frame) - 4
            assert b"ADDED" in frame
            assert kind in frame
            assert (b"hidden" in frame) is shown
            await answer.aclose()

    async def test_forms_that_are_not_streamed(self, api: Api) -> None:
        for accept in ("application/yaml", f"{self.PROTOBUF};as=Table;v=v1;g=meta.k8s.io"):
            reply = await api.get(f"{MAPS}?watch=1", headers=[("accept", accept)])
            assert (reply.status, reply.reason) == (406, "NotAcceptable"), accept


async def test_version_zero_means_any(api: Api) -> None:
    """As in Kubernetes, where a version that is not set is 0."""
    assert (await api.post(MAPS, config_map("a", resourceVersion="0"))).status == 201
    assert (await api.post(MAPS, config_map("b", resourceVersion="7"))).status == 500
    await api.merge(f"{MAPS}/a", {"data": {"x": "y"}})
    assert (await api.merge(f"{MAPS}/a", {"metadata": {"resourceVersion": "0"}, "data": {"x": "z"}})).status == 200
    assert (await api.put(f"{MAPS}/a", config_map("a", {"x": "0"}, resourceVersion="0"))).status == 200
