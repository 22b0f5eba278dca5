"""`EtcdStore` against real etcd: members that die, connections that break, TLS, users, slow consumers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.tls import client_context
from pilothouse.store import errors
from pilothouse.store.etcd.backend import EtcdStore, open_etcd
from pilothouse.store.etcd.settings import Endpoint, EtcdOptions, parse_url
from pilothouse.store.etcd.watches import ordered_progress
from pilothouse.store.model import (
    DeleteRangeRequest,
    Event,
    PutRequest,
    RangeRequest,
    WatchRequest,
    WatchResponse,
    prefix_end,
)
from pilothouse.store.protocol import Watch
from support.etcd import EtcdCluster, etcd_cluster, make_tls, wants_etcd
from support.linearizability import Kind, Operation, check_history
from support.proxy import Proxy, proxy_to
from support.watch_validators import Watched, validate

ALL = b"\0"


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One etcd member that no test kills."""
    wants_etcd()
    cluster = EtcdCluster(tmp_path_factory.mktemp("etcd"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@contextlib.asynccontextmanager
async def connected(options: EtcdOptions) -> AsyncIterator[EtcdStore]:
    store = await EtcdStore.open(options)
    try:
        yield store
    finally:
        await store.close()


def port_of(cluster: EtcdCluster) -> int:
    port = urlsplit(cluster.endpoints[0]).port
    assert port is not None
    return port


def through(proxy: Proxy, request_timeout: float = 10.0, clock: Clock | None = None) -> EtcdOptions:
    url = f"http://127.0.0.1:{proxy.port}"
    return EtcdOptions(endpoints=(url,), request_timeout=request_timeout, clock=clock or SystemClock())


async def put(store: EtcdStore, key: bytes, value: bytes = b"v") -> int:
    return (await store.put(PutRequest(key, value))).revision


async def collect(watch: Watch, until: int) -> list[WatchResponse]:
    """Return responses up to the event of revision `until`."""
    responses: list[WatchResponse] = []
    async with asyncio.timeout(60):
        async for response in watch:
            assert not response.canceled, response
            responses.append(response)
            if response.events and response.events[-1].kv.mod_revision >= until:
                break
    return responses


def flat(responses: list[WatchResponse]) -> list[Event]:
    return [event for response in responses for event in response.events]


# Fail-over


class Load:
    """Clients that write, read and delete a few keys, and note what they were told."""

    def __init__(self, store: EtcdStore) -> None:
        self.store = store
        self.history: list[Operation] = []
        self.values = itertools.count()
        self.acknowledged = 0
        self.unknown = 0
        self.stop = False

    async def client(self, seed: int) -> None:
        source = random.Random(seed)
        while not self.stop:
            key = b"load/%d" % source.randrange(6)
            kind = source.choice([Kind.PUT, Kind.PUT, Kind.GET, Kind.DELETE])
            value = b"%d" % next(self.values) if kind is Kind.PUT else None
            called = time.monotonic()
            returned: float | None = None
            result: bytes | bool | None = None
            try:
                result = await self.apply(key, kind, value)
                returned = time.monotonic()
                self.acknowledged += 1
            except errors.Timeout:
                self.unknown += 1
            except errors.Unavailable:
                continue
            self.history.append(Operation(key, kind, called, returned, value, None, result))

    async def apply(self, key: bytes, kind: Kind, value: bytes | None) -> bytes | bool | None:
        if kind is Kind.GET:
            found = await self.store.range(RangeRequest(key))
            return found.kvs[0].value if found.kvs else None
        if kind is Kind.DELETE:
            return (await self.store.delete_range(DeleteRangeRequest(key))).deleted == 1
        assert value is not None
        await self.store.put(PutRequest(key, value))
        return None


@pytest.mark.etcd
@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_when_the_leader_dies_during_writes(tmp_path: Path) -> None:
    async with etcd_cluster(tmp_path, 3) as cluster:
        leader = await asyncio.to_thread(cluster.leader)
        # The leader first, so that its death takes the connection too.
        others = [one.client_url for one in cluster.members if one is not leader]
        options = EtcdOptions(endpoints=(leader.client_url, *others), request_timeout=3, source=FirstFirst())
        async with connected(options) as store:
            start = await put(store, b"load/start")
            load = Load(store)
            request = WatchRequest(b"load/", prefix_end(b"load/"), prev_kv=True)
            async with store.watch(request) as watch:
                seen: list[WatchResponse] = []
                watching = asyncio.create_task(watch_into(watch, seen))
                clients = [asyncio.create_task(load.client(seed)) for seed in range(12)]
                await until(lambda: load.acknowledged >= 300)
                leader.kill()
                before = load.acknowledged
                await until(lambda: load.acknowledged >= before + 400)
                load.stop = True
                await asyncio.gather(*clients)
                last = await put(store, b"load/end")
                await until(lambda: bool(seen) and seen[-1].revision >= last)
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            history = await collect_history(store, request, start + 1, last)
            assert load.unknown + load.acknowledged == len(load.history)
            assert check_history(load.history) == []
            assert validate(Watched(request, seen, start + 1), history) == []
            assert [event.kv for event in flat(seen)] == [event.kv for event in history]


class FirstFirst(random.Random):
    """Chance that begins with the first endpoint."""

    def randrange(self, *_: int) -> int:  # type: ignore[override]
        return 0


async def watch_into(watch: Watch, seen: list[WatchResponse]) -> None:
    async for response in watch:
        assert not response.canceled, response
        seen.append(response)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in another process
            await asyncio.sleep(0.01)


async def collect_history(store: EtcdStore, request: WatchRequest, start: int, last: int) -> list[Event]:
    past = WatchRequest(request.key, request.range_end, start, prev_kv=True)
    async with store.watch(past) as watch:
        return flat(await collect(watch, last))


@pytest.mark.etcd
async def test_reads_and_keep_alives_go_to_another_member(tmp_path: Path) -> None:
    async with etcd_cluster(tmp_path, 3) as cluster:
        options = EtcdOptions(endpoints=cluster.endpoints, request_timeout=20, source=FirstFirst())
        async with connected(options) as store:
            await put(store, b"a", b"1")
            lease = await store.lease_grant(300)
            assert await store.lease_keep_alive(lease.id) == 300
            cluster.members[0].kill()
            found, ttl = await asyncio.gather(store.range(RangeRequest(b"a")), store.lease_keep_alive(lease.id))
            assert found.kvs[0].value == b"1"
            assert ttl == 300
            assert len(await store.members()) == 3
            assert (await put(store, b"a", b"2")) > found.revision


@pytest.mark.etcd
async def test_a_member_without_a_leader_is_left_and_says_so(tmp_path: Path) -> None:
    async with (
        etcd_cluster(tmp_path, 3) as cluster,
        connected(EtcdOptions(endpoints=cluster.endpoints, request_timeout=1)) as store,
    ):
        await put(store, b"a", b"1")
        for one in cluster.members[1:]:
            one.kill()
        # The last member first waits for the leader it knew, then says that it has none.
        message = ""
        async with asyncio.timeout(60):
            while "no leader" not in message:
                with pytest.raises(errors.Unavailable) as caught:
                    await store.range(RangeRequest(b"a"))
                message = caught.value.message
        assert all(f"{url}: " in message for url in cluster.endpoints)
        assert message.count("cannot connect") == 2
        local = await store.range(RangeRequest(b"a", serializable=True))
        assert local.kvs[0].value == b"1"


@pytest.mark.etcd
async def test_a_write_with_an_unknown_outcome_says_so_and_is_not_repeated(tmp_path: Path) -> None:
    async with (
        etcd_cluster(tmp_path) as cluster,
        proxy_to(port_of(cluster)) as proxy,
        connected(through(proxy, request_timeout=5)) as store,
    ):
        start = await put(store, b"a", b"0")
        cluster.members[0].signal(signal.SIGSTOP)
        relayed = proxy.relayed
        writing = asyncio.ensure_future(put(store, b"a", b"1"))
        await until(lambda: proxy.relayed > relayed)
        proxy.cut()
        with pytest.raises(errors.Timeout, match=r"Put: .*may or may not have been applied"):
            await writing
        cluster.members[0].signal(signal.SIGCONT)
        await proxy.mend()
        found = await store.range(RangeRequest(b"a"))
        assert found.kvs[0].version <= 2
        assert found.revision <= start + 1


@pytest.mark.etcd
async def test_a_write_that_was_not_sent_waits_for_the_cluster(member: EtcdCluster) -> None:
    clock = CountingClock()
    async with proxy_to(port_of(member)) as proxy, connected(through(proxy, clock=clock)) as store:
        revision = await put(store, b"a")
        proxy.cut()
        await until(lambda: not store.is_connected)
        writing = asyncio.ensure_future(put(store, b"a"))
        await until(lambda: clock.sleeps >= 2)
        assert not writing.done()
        await proxy.mend()
        assert await writing == revision + 1


class CountingClock(SystemClock):
    """The real clock, and how often something waited by it."""

    sleeps = 0

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        await super().sleep(seconds)


async def test_endpoints_that_are_down_are_named() -> None:
    options = EtcdOptions(endpoints=("http://127.0.0.1:1", "http://127.0.0.1:2"), request_timeout=0.2)
    with pytest.raises(
        errors.Unavailable, match=r"127\.0\.0\.1:1: .*Connect.*failed.*127\.0\.0\.1:2: .*Connect.*failed"
    ):
        await EtcdStore.open(options)
    store = EtcdStore(options)
    with pytest.raises(errors.Unavailable, match=r"Put was not served within 0.2 s"):
        await store.put(PutRequest(b"a"))
    with pytest.raises(errors.Unavailable, match="watch"):
        async with store.watch(WatchRequest(b"a")):
            pytest.fail("no member can have taken the watch")
    with pytest.raises(errors.Unavailable, match="keep-alive of lease 5"):
        await store.lease_keep_alive(5)
    await store.close()
    with pytest.raises(errors.Unavailable, match="closed"):
        store.watch(WatchRequest(b"a"))
    with pytest.raises(errors.Unavailable, match="closed"):
        await store.put(PutRequest(b"a"))


# Watches over broken connections


@pytest.mark.etcd
async def test_watches_go_on_where_they_were_when_the_connection_breaks(member: EtcdCluster) -> None:
    async with (
        proxy_to(port_of(member)) as proxy,
        connected(through(proxy)) as store,
        connected(EtcdOptions(endpoints=member.endpoints)) as direct,
        store.watch(WatchRequest(b"w/", prefix_end(b"w/"))) as prefix,
        store.watch(WatchRequest(b"w/1")) as single,
    ):
        start = await put(direct, b"w/1", b"0")
        assert [event.kv.value for event in flat(await collect(prefix, start))] == [b"0"]
        proxy.cut()
        missed = [await put(direct, b"w/%d" % number, b"missed") for number in range(5)]
        await proxy.mend()
        last = await put(direct, b"w/1", b"after")
        events = flat(await collect(prefix, last))
        assert [event.kv.mod_revision for event in events] == [*missed, last]
        events = flat(await collect(single, last))
        assert [event.kv.value for event in events] == [b"0", b"missed", b"after"]
        assert proxy.connections >= 2


@pytest.mark.etcd
async def test_each_event_comes_once_however_often_the_connection_breaks(member: EtcdCluster) -> None:
    source = random.Random(11)
    async with (
        proxy_to(port_of(member)) as proxy,
        connected(through(proxy)) as store,
        connected(EtcdOptions(endpoints=member.endpoints)) as direct,
    ):
        request = WatchRequest(b"x/", prefix_end(b"x/"), prev_kv=True)
        async with store.watch(request) as watch:
            seen: list[WatchResponse] = []
            watching = asyncio.create_task(watch_into(watch, seen))
            start = await put(direct, b"x/0", b"start")
            for number in range(12):
                proxy.cut()
                await put(direct, b"x/%d" % source.randrange(5), bytes(source.randrange(200_000)))
                await proxy.mend()
                if number % 3:
                    await until(lambda: store.is_connected)
                await direct.delete_range(DeleteRangeRequest(b"x/%d" % source.randrange(5)))
                await put(direct, b"x/%d" % source.randrange(5))
            last = await put(direct, b"x/0", b"end")
            await until(lambda: bool(seen) and seen[-1].revision >= last)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        history = await collect_history(direct, request, start, last)
        assert validate(Watched(request, seen, start), history) == []
        assert [event.kv for event in flat(seen)] == [event.kv for event in history]


@pytest.mark.etcd
async def test_a_watch_whose_place_was_compacted_while_away_is_cancelled(member: EtcdCluster) -> None:
    async with (
        proxy_to(port_of(member)) as proxy,
        connected(through(proxy)) as store,
        connected(EtcdOptions(endpoints=member.endpoints)) as direct,
        store.watch(WatchRequest(b"c")) as watch,
    ):
        await collect(watch, await put(direct, b"c", b"0"))
        proxy.cut()
        for _ in range(3):
            last = await put(direct, b"c", b"gone")
        await direct.compact(last)
        await proxy.mend()
        async with asyncio.timeout(30):
            response = await anext(watch)
            assert (response.canceled, response.compact_revision) == (True, last)
            with pytest.raises(StopAsyncIteration):
                await anext(watch)


@pytest.mark.etcd
async def test_a_slow_consumer_is_cancelled_and_can_resume(member: EtcdCluster) -> None:
    options = EtcdOptions(endpoints=member.endpoints, watch_buffer_events=10)
    async with connected(options) as store:
        async with store.watch(WatchRequest(b"s")) as watch, store.watch(WatchRequest(b"s")) as other:
            first = await put(store, b"s")
            await collect(watch, first)
            received: list[Event] = []
            for _ in range(30):
                last = await put(store, b"s")
                received += flat(await collect(other, last))
            async with asyncio.timeout(30):
                response = await anext(watch)
        assert response.canceled
        assert response.cancel_reason == (
            f"slow consumer: more than 10 events waited; resume from revision {first + 1}"
        )
        assert len(received) == 31
        async with store.watch(WatchRequest(b"s", start_revision=response.revision + 1)) as again:
            async with asyncio.timeout(30):
                resumed = await anext(again)
            assert [event.kv.mod_revision for event in resumed.events] == list(range(first + 1, last + 1))


@pytest.mark.etcd
async def test_responses_that_come_in_fragments_are_put_together(member: EtcdCluster) -> None:
    async with connected(EtcdOptions(endpoints=member.endpoints)) as store:
        revisions = [await put(store, b"f", bytes(1_000_000)) for _ in range(5)]
        async with store.watch(WatchRequest(b"f", start_revision=revisions[0])) as watch:
            async with asyncio.timeout(30):
                response = await anext(watch)
        assert [event.kv.mod_revision for event in response.events] == revisions
        assert all(len(event.kv.value) == 1_000_000 for event in response.events)


# TLS and users


@pytest.mark.etcd
async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    files, foreign = make_tls(tmp_path / "tls"), make_tls(tmp_path / "foreign")
    async with etcd_cluster(tmp_path / "etcd", tls_files=files) as cluster:
        host = cluster.endpoints[0].removeprefix("https://")
        query = f"cacert={files.ca}&cert={files.client_certificate}&key={files.client_key}&request-timeout=5"
        store = await open_etcd(f"etcd://{host}?{query}")
        try:
            async with store.watch(WatchRequest(b"a")) as watch:
                revision = await put(store, b"a", b"1")
                assert len(flat(await collect(watch, revision))) == 1
        finally:
            await store.close()
        with pytest.raises(errors.Unavailable, match=rf"{host}: .*certificate verify failed"):
            await open_etcd(f"etcd://{host}?cacert={foreign.ca}&request-timeout=0.5")
        anonymous = EtcdOptions(endpoints=cluster.endpoints, tls=client_context(ca=str(files.ca)), request_timeout=0.5)
        with pytest.raises(errors.Unavailable, match=host):
            await EtcdStore.open(anonymous)


def enable_auth(cluster: EtcdCluster) -> None:
    for line in (
        "user add root:secret",
        "user grant-role root root",
        "role add reader",
        "role grant-permission reader read ok",
        "user add alice:wonder",
        "user grant-role alice reader",
        "auth enable",
    ):
        if line.startswith("user grant-role root"):
            cluster.etcdctl("role", "add", "root", check=False)
        cluster.etcdctl(*line.split())


@pytest.mark.etcd
async def test_users_and_tokens(tmp_path: Path) -> None:
    async with etcd_cluster(tmp_path) as cluster:
        await asyncio.to_thread(enable_auth, cluster)
        ends = cluster.endpoints
        async with connected(EtcdOptions(endpoints=ends, username="root", password="secret")) as root:
            await put(root, b"ok", b"1")
            async with root.watch(WatchRequest(b"ok")) as watch:
                # Turning authentication off and on again makes every token invalid.
                for state in ("disable", "enable"):
                    extra = ("--user=root:secret",) if state == "disable" else ()
                    await asyncio.to_thread(cluster.etcdctl, *extra, "auth", state)
                revision = await put(root, b"ok", b"2")
                lease = await root.lease_grant(60)
                assert await root.lease_keep_alive(lease.id) == 60
                assert len(flat(await collect(watch, revision))) == 1
            async with root.watch(WatchRequest(b"ok")) as watch:
                assert len(flat(await collect(watch, await put(root, b"ok", b"3")))) == 1
        async with connected(EtcdOptions(endpoints=ends, username="alice", password="wonder")) as alice:
            assert (await alice.range(RangeRequest(b"ok"))).count == 1
            with pytest.raises(errors.AuthError) as caught:
                await put(alice, b"ok")
            assert caught.value.code == 7
            async with asyncio.timeout(20), alice.watch(WatchRequest(b"forbidden")) as denied:
                response = await anext(denied)
            assert response.canceled
            assert "permission denied" in response.cancel_reason
        with pytest.raises(errors.AuthError, match="authentication failed") as caught:
            await EtcdStore.open(EtcdOptions(endpoints=ends, username="alice", password="wrong"))
        assert "wrong" not in str(caught.value)
        async with connected(EtcdOptions(endpoints=ends)) as nobody:
            with pytest.raises(errors.AuthError):
                await nobody.range(RangeRequest(b"ok"))


# Snapshots


@pytest.mark.etcd
async def test_a_snapshot_restores_with_etcdctl(member: EtcdCluster, tmp_path: Path) -> None:
    async with connected(EtcdOptions(endpoints=member.endpoints)) as store:
        revision = await put(store, b"snap", bytes(300_000))
        file = tmp_path / "backup.db"
        with file.open("wb") as out:
            async for piece in store.snapshot():
                out.write(piece)
    status = json.loads(member.etcdctl("snapshot", "status", str(file), "-w", "json").stdout)
    assert status["revision"] == revision
    member.etcdctl("snapshot", "restore", str(file), "--data-dir", str(tmp_path / "restored"))
    assert (tmp_path / "restored" / "member" / "snap" / "db").exists()


# Settings


def test_a_url_names_everything(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    url = f"etcd://127.0.0.1,localhost:3379?user=me&password-file={tmp_path / 'password'}&dial-timeout=2"
    options = parse_url(url)
    assert options.endpoints == ("http://127.0.0.1", "http://localhost:3379")
    assert options.addresses() == [Endpoint("127.0.0.1", 2379, False), Endpoint("localhost", 3379, False)]
    assert (options.username, options.password, options.dial_timeout) == ("me", "s3cret", 2.0)
    assert "s3cret" not in repr(options)
    assert parse_url("etcd://[::1]:2379").addresses()[0].is_loopback
    assert parse_url("etcd://a,b?tls=true").endpoints == ("https://a", "https://b")
    assert parse_url("etcd://a?plaintext=true").endpoints == ("http://a",)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://a", "want etcd://"),
        ("etcd://", "none given"),
        ("etcd://10.0.0.1", "plain text leaves this machine"),
        ("etcd://me:secret@127.0.0.1", "password in it"),
        ("etcd://127.0.0.1?user=me", "etcd password: not given"),
        ("etcd://127.0.0.1?cert-file=x", "'cert-file' is not one of"),
        ("etcd://127.0.0.1?tls=yes", "want true or false"),
        ("etcd://127.0.0.1?dial-timeout=soon", "dial-timeout='soon'"),
        ("etcd://127.0.0.1?request-timeout=-1", "want seconds"),
        ("etcd://127.0.0.1:port", "etcd endpoint"),
        ("etcd://127.0.0.1?user=a&password-file=/nonexistent", "password-file /nonexistent"),
        ("etcd://127.0.0.1?user=a&password-file=/bin/sh", "password-file /bin/sh: it is not UTF-8 text"),
    ],
)
def test_wrong_urls_are_refused_by_name(url: str, message: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=message) as caught:
        parse_url(url)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://127.0.0.1:0", "port 0"),
        ("http://127.0.0.1:99999", "out of range"),
        ("http://root:secret@127.0.0.1", "user and password do not belong in it"),
        ("http://root:secret@127.0.0.1/path", "user and password do not belong in it"),
        ("ftp://127.0.0.1", "want http://HOST:PORT"),
    ],
)
def test_wrong_endpoints_are_refused_without_showing_a_password(endpoint: str, message: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=message) as caught:
        Endpoint.parse(endpoint)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("version", "ordered"),
    [
        ("3.4.23", False),
        ("3.4.25", True),
        ("3.5.7", False),
        ("3.5.8", True),
        ("3.6.0", True),
        ("3.6.0-rc.1", True),
        ("4.0.0", True),
        ("", False),
        ("?", False),
    ],
)
def test_members_whose_progress_reports_keep_order(version: str, ordered: bool) -> None:
    assert ordered_progress(version) is ordered
