"""The etcd v3 service over the embedded engine, seen from the wire."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from pilothouse.foundation import tls
from pilothouse.foundation.grpc import ClientStream, GrpcChannel, GrpcCode, GrpcError
from pilothouse.foundation.metrics import Metrics
from pilothouse.store import offline
from pilothouse.store.auth import AuthEnable, UserAdd, UserGrantRole
from pilothouse.store.auth_tokens import hash_password
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.etcd import codec, watch_session, wire
from pilothouse.store.etcd import etcd_pb2 as pb
from pilothouse.store.etcd.metrics_endpoint import MetricsEndpoint
from pilothouse.store.etcd.requests import WatchCancel, WatchCreate, WatchInput, WatchProgress
from pilothouse.store.etcd.responses import WatchMessage
from pilothouse.store.etcd.service import EtcdService
from pilothouse.store.etcd.service_context import API_VERSION
from pilothouse.store.etcd.snapshot_file import snapshot_size
from pilothouse.store.model import (
    DeleteRangeRequest,
    Event,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchFilter,
    WatchRequest,
)
from support.etcd import make_tls
from support.service import Served, serving

KV = "/etcdserverpb.KV/"
LEASE = "/etcdserverpb.Lease/"
MAINTENANCE = "/etcdserverpb.Maintenance/"
AUTH = "/etcdserverpb.Auth/"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as one:
        yield one


class Watching:
    """A raw watch stream."""

    def __init__(self, served: Served, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.stream: ClientStream = served.channel.stream("/etcdserverpb.Watch/Watch", metadata=metadata)

    def say(self, message: WatchInput) -> None:
        self.stream.send(codec.encode_watch(message))

    def create(
        self, key: bytes, range_end: bytes = b"", *, watch_id: int = 0, fragment: bool = False, **more: object
    ) -> None:
        request = WatchRequest(key, range_end, **more)  # type: ignore[arg-type]  # the struct checks nothing either
        self.say(WatchCreate(request, watch_id, fragment))

    async def next(self) -> WatchMessage:
        async with asyncio.timeout(10):
            return codec.decode_watch_response(await anext(self.stream))

    async def created(self) -> WatchMessage:
        message = await self.next()
        assert message.created
        return message

    async def quiet(self) -> bool:
        """Whether nothing comes; a watch that is asked for now is the next to be answered."""
        self.create(b"\xff-quiet", watch_id=9_999)
        message = await self.next()
        self.say(WatchCancel(9_999))
        ended = await self.next()
        return message.created and message.watch_id == 9_999 and ended.response.canceled


async def call(served: Served, path: str, message: bytes = b"", token: str = "") -> bytes:
    metadata = (("token", token),) if token else ()
    return await served.channel.unary(path, message, metadata=metadata, timeout=20)


async def refused(served: Served, path: str, message: bytes = b"", token: str = "") -> tuple[GrpcCode, str]:
    with pytest.raises(GrpcError) as caught:
        await call(served, path, message, token)
    return caught.value.code, caught.value.message


async def put(served: Served, key: bytes, value: bytes = b"v") -> int:
    return codec.decode_put_response(await call(served, KV + "Put", codec.encode_put(PutRequest(key, value)))).revision


def keys(message: WatchMessage) -> list[bytes]:
    return [event.kv.key for event in message.response.events]


# Keys


async def test_headers_name_the_member(served: Served) -> None:
    answer = pb.PutResponse.FromString(await call(served, KV + "Put", codec.encode_put(PutRequest(b"a", b"1"))))
    assert (answer.header.cluster_id, answer.header.member_id) == (served.store.cluster_id, served.store.member_id)
    assert answer.header.revision == 2
    assert answer.header.raft_term == 1


async def test_writes_need_no_task(served: Served) -> None:
    loop = asyncio.get_running_loop()
    tasks: list[object] = []

    def counting(loop: asyncio.AbstractEventLoop, coro: object, **settings: object) -> asyncio.Task[object]:
        tasks.append(coro)
        return asyncio.Task(coro, loop=loop, **settings)  # type: ignore[arg-type]

    txn = codec.encode_txn(TxnRequest(success=(PutRequest(b"t", b"1"),)))
    requests = [("Put", codec.encode_put(PutRequest(b"k%d" % i, b"v"))) for i in range(20)]
    requests += [("Range", codec.encode_range(RangeRequest(b"k", b"l"))), ("Txn", txn)]
    requests += [("DeleteRange", codec.encode_delete_range(DeleteRangeRequest(b"k1")))]
    answers = [served.channel.unary_future(KV + name, message) for name, message in requests]
    loop.set_task_factory(counting)  # type: ignore[arg-type]
    try:
        for answer in answers:
            await answer
    finally:
        loop.set_task_factory(None)
    assert tasks == []


async def test_a_large_range_is_answered_whole(served: Served) -> None:
    for start in range(0, 12_000, 100):
        ops = tuple(PutRequest(b"%05d" % number, b"v") for number in range(start, start + 100))
        await served.store.txn(TxnRequest(success=ops))
    found = codec.decode_range_response(await call(served, KV + "Range", codec.encode_range(RangeRequest(b"0", b"\0"))))
    assert [kv.key for kv in found.kvs] == [b"%05d" % number for number in range(12_000)]
    assert (found.count, found.more) == (12_000, False)
    limited = RangeRequest(b"0", b"\0", limit=3)
    found = codec.decode_range_response(await call(served, KV + "Range", codec.encode_range(limited)))
    assert ([kv.key for kv in found.kvs], found.count, found.more) == ([b"00000", b"00001", b"00002"], 12_000, True)


async def test_refusals_have_etcds_codes_and_texts(served: Served) -> None:
    await put(served, b"a")
    assert await refused(served, KV + "Put", codec.encode_put(PutRequest(b""))) == (
        GrpcCode.INVALID_ARGUMENT,
        "etcdserver: key is not provided",
    )
    code, text = await refused(served, KV + "Put", codec.encode_put(PutRequest(b"a", bytes(1_600_000))))
    assert (code, text.startswith("etcdserver: request is too large")) == (GrpcCode.INVALID_ARGUMENT, True)
    assert (await refused(served, KV + "Put", bytes(3_000_000)))[0] == GrpcCode.RESOURCE_EXHAUSTED
    assert await refused(served, KV + "Range", codec.encode_range(RangeRequest(b"a", revision=99))) == (
        GrpcCode.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
    )
    assert await refused(served, KV + "Put", codec.encode_put(PutRequest(b"a", lease=77))) == (
        GrpcCode.NOT_FOUND,
        "etcdserver: requested lease not found",
    )
    code, text = await refused(served, KV + "Put", b"\xff\xff\xff")
    assert (code, "PutRequest" in text) == (GrpcCode.INVALID_ARGUMENT, True)
    assert (await refused(served, KV + "Nothing"))[0] == GrpcCode.UNIMPLEMENTED


async def test_the_reference_grpc_library_is_served(served: Served) -> None:
    def work() -> tuple[int, bytes, grpc.StatusCode]:
        with grpc.insecure_channel(f"{served.host}:{served.port}") as channel:
            send = channel.unary_unary(KV + "Put", pb.PutRequest.SerializeToString, pb.PutResponse.FromString)
            read = channel.unary_unary(KV + "Range", pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString)
            revision = send(pb.PutRequest(key=b"a", value=b"1"), timeout=10).header.revision
            value = read(pb.RangeRequest(key=b"a"), timeout=10).kvs[0].value
            try:
                send(pb.PutRequest(), timeout=10)
            except grpc.RpcError as error:
                return revision, value, error.code()
        raise AssertionError("an empty key was taken")

    assert await asyncio.to_thread(work) == (2, b"1", grpc.StatusCode.INVALID_ARGUMENT)


# Watches


async def test_a_stream_has_many_watches(served: Served) -> None:
    watching = Watching(served)
    watching.create(b"a", b"b")
    assert (await watching.created()).watch_id == 0
    watching.create(b"b")
    assert (await watching.created()).watch_id == 1
    watching.create(b"c", watch_id=7)
    message = await watching.created()
    assert (message.watch_id, message.response.revision) == (7, 1)
    for key in (b"a1", b"b", b"c", b"d"):
        await put(served, key)
    got = {
        message.watch_id: (keys(message), message.response.revision)
        for message in [await watching.next() for _ in range(3)]
    }
    assert got == {0: ([b"a1"], 2), 1: ([b"b"], 3), 7: ([b"c"], 4)}
    watching.say(WatchCancel(1))
    message = await watching.next()
    assert (message.watch_id, message.response.canceled, message.response.cancel_reason) == (1, True, "")
    watching.say(WatchCancel(1))
    await put(served, b"b")
    assert await watching.quiet()
    # An id that was given up is not given out again while others are free.
    watching.create(b"z")
    assert (await watching.created()).watch_id == 2


@pytest.mark.parametrize(
    ("request_", "watch_id", "reason"),
    [
        (WatchRequest(b"x"), 7, "mvcc: duplicate watch ID provided on the WatchStream"),
        (WatchRequest(b"b", b"a"), 0, "mvcc: watcher range is empty"),
        (WatchRequest(b"b", start_revision=-1), 0, "etcdserver: mvcc: required revision has been compacted"),
    ],
)
async def test_a_refused_watch_is_created_and_canceled(
    served: Served, request_: WatchRequest, watch_id: int, reason: str
) -> None:
    watching = Watching(served)
    watching.create(b"a", watch_id=7)
    await watching.created()
    watching.say(WatchCreate(request_, watch_id))
    message = await watching.created()
    assert (message.watch_id, message.response.canceled, message.response.cancel_reason) == (-1, True, reason)
    await put(served, b"a")
    assert keys(await watching.next()) == [b"a"]


async def test_a_watch_of_the_past_and_of_the_future(served: Served) -> None:
    for number in range(5):
        await put(served, b"a", b"%d" % number)
    await served.store.compact(3)
    watching = Watching(served)
    watching.create(b"a", start_revision=2)
    assert (await watching.created()).watch_id == 0
    message = await watching.next()
    assert (message.watch_id, message.response.canceled, message.response.compact_revision) == (0, True, 3)
    watching.create(b"a", start_revision=4, prev_kv=True)
    first = (await watching.created()).watch_id
    message = await watching.next()
    assert message.watch_id == first
    assert [(event.kv.value, event.prev_kv and event.prev_kv.value) for event in message.response.events] == [
        (b"2", b"1"),
        (b"3", b"2"),
        (b"4", b"3"),
    ]
    watching.say(WatchCancel(first))
    await watching.next()
    watching.create(b"a", start_revision=8)
    await watching.created()
    await put(served, b"a", b"seven")
    await put(served, b"a", b"eight")
    message = await watching.next()
    assert [event.kv.value for event in message.response.events] == [b"eight"]


async def test_filters_and_previous_values(served: Served) -> None:
    await put(served, b"a", b"old")
    watching = Watching(served)
    watching.create(b"a", filters=(WatchFilter.NOPUT,), prev_kv=True)
    watching.create(b"a", filters=(WatchFilter.NODELETE,))
    await watching.created()
    await watching.created()
    await put(served, b"a", b"new")
    await served.store.delete_range(DeleteRangeRequest(b"a"))
    by_id = {message.watch_id: message.response.events for message in [await watching.next(), await watching.next()]}
    (deleted,) = by_id[0]
    (written,) = by_id[1]
    assert deleted.is_delete
    assert deleted.prev_kv is not None
    assert deleted.prev_kv.value == b"new"
    assert (written.kv.value, written.prev_kv) == (b"new", None)


async def test_progress_speaks_for_the_whole_stream(served: Served) -> None:
    watching = Watching(served)
    watching.say(WatchProgress())
    message = await watching.next()
    assert (message.watch_id, message.response.revision, message.response.events) == (-1, 1, [])
    for number in range(3_000):
        served.store.submit(PutRequest(b"a%d" % (number % 7)))
    await put(served, b"b")
    watching.create(b"a", b"b", start_revision=2)
    watching.create(b"c")
    watching.say(WatchProgress())
    seen = 0
    reports: list[int] = []
    while not reports:
        message = await watching.next()
        if message.watch_id == -1:
            reports.append(message.response.revision)
        seen += len(message.response.events)
    assert (seen, reports) == (3_000, [3_002])


async def test_progress_waits_for_a_watch_of_the_future_and_one_made_meanwhile(served: Served) -> None:
    watching = Watching(served)
    watching.create(b"a", start_revision=4)
    await watching.created()
    watching.say(WatchProgress())
    watching.say(WatchProgress())
    assert await watching.quiet()
    watching.create(b"b", start_revision=2)
    await watching.created()
    await put(served, b"b")
    message = await watching.next()
    assert (message.watch_id, keys(message)) == (1, [b"b"])
    assert await watching.quiet()
    await put(served, b"b")
    await put(served, b"a")
    got = [await watching.next() for _ in range(4)]
    assert sorted(keys(message) for message in got) == [[], [], [b"a"], [b"b"]]
    # A report never runs ahead of what was sent.
    sent = 2
    for message in got:
        assert message.watch_id != -1 or message.response.revision <= max(sent, 3)
        sent = max(sent, message.response.revision)
    assert [message.watch_id for message in got].count(-1) == 2


async def test_a_large_revision_comes_in_fragments_for_those_who_ask(served: Served) -> None:
    ops = tuple(PutRequest(b"k%03d" % number, bytes(15_000)) for number in range(100))
    await served.store.txn(TxnRequest(success=ops))
    watching = Watching(served)
    watching.create(b"k", b"l", fragment=True, prev_kv=True)
    watching.create(b"k", b"l", prev_kv=True)
    await watching.created()
    await watching.created()
    # With what was there before, one revision is about 3 MB.
    await served.store.txn(TxnRequest(success=ops))
    got = [await watching.next() for _ in range(3)]
    fragments = [message for message in got if message.watch_id == 0]
    (whole,) = [message for message in got if message.watch_id == 1]
    assert [message.fragment for message in fragments] == [True, False]
    assert {message.response.revision for message in got} == {3}
    assert [key for message in fragments for key in keys(message)] == [op.key for op in ops]
    assert (keys(whole), whole.fragment) == ([op.key for op in ops], False)


async def test_many_small_revisions_are_split_between_revisions(served: Served) -> None:
    for number in range(40):
        await put(served, b"k", b"%02d" % number + bytes(100_000))
    watching = Watching(served)
    watching.create(b"k", start_revision=2)
    await watching.created()
    values: list[bytes] = []
    while len(values) < 40:
        data = await anext(watching.stream)
        assert len(data) < 2_000_000
        message = codec.decode_watch_response(data)
        events = message.response.events
        assert message.response.revision >= events[-1].kv.mod_revision
        assert not message.fragment
        values += [event.kv.value[:2] for event in events]
    assert values == [b"%02d" % number for number in range(40)]


async def test_a_client_that_does_not_read_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, watch_buffer_events=10) as served:
        watching = Watching(served)
        watching.create(b"k")
        await watching.created()
        for number in range(300):
            await served.store.put(PutRequest(b"k", b"%03d" % number + bytes(20_000)))
        await put(served, b"other")
        assert served.store.hub.slow_cancelled > 0
        values: list[bytes] = []
        while len(values) < 300:
            message = await watching.next()
            assert not message.response.canceled
            values += [event.kv.value[:3] for event in message.response.events]
        assert values == [b"%03d" % number for number in range(300)]
        await put(served, b"k", b"after")
        assert [event.kv.value for event in (await watching.next()).response.events] == [b"after"]


async def test_one_encoding_serves_all_watches(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    encodings: list[bytes] = []
    original = wire.event_field

    def counting(event: Event, prev_kv: bool) -> bytes:
        encodings.append(event.kv.key)
        return original(event, prev_kv)

    streams = [Watching(served) for _ in range(20)]
    for watching in streams:
        for _ in range(3):
            watching.create(b"a", b"b")
            await watching.created()
    monkeypatch.setattr(watch_session, "event_field", counting)
    await put(served, b"a")
    for watching in streams:
        got = [await watching.next() for _ in range(3)]
        assert [(message.watch_id, keys(message)) for message in got] == [(0, [b"a"]), (1, [b"a"]), (2, [b"a"])]
    assert encodings == [b"a"]


async def test_a_stream_that_cannot_be_served_does_not_silence_the_others(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = wire.event_field

    def failing(event: Event, prev_kv: bool) -> bytes:
        if prev_kv:
            raise OverflowError("for the test")
        return original(event, prev_kv)

    broken, whole = Watching(served), Watching(served)
    broken.create(b"a", prev_kv=True)
    whole.create(b"a")
    await broken.created()
    await whole.created()
    monkeypatch.setattr(watch_session, "event_field", failing)
    await put(served, b"a")
    assert keys(await whole.next()) == [b"a"]
    with pytest.raises(GrpcError, match="OverflowError") as caught:
        await broken.next()
    assert caught.value.code == GrpcCode.INTERNAL


async def test_a_client_that_stopped_asking_is_still_told(served: Served) -> None:
    watching = Watching(served)
    watching.create(b"a")
    await watching.created()
    watching.stream.half_close()
    await put(served, b"a")
    assert keys(await watching.next()) == [b"a"]


async def test_leaving_ends_the_watches(served: Served) -> None:
    watching = Watching(served)
    watching.create(b"a")
    await watching.created()
    assert served.store.hub.watchers == 1
    watching.stream.cancel()
    await put(served, b"b")
    for _ in range(100):
        if served.store.hub.watchers == 0:
            break
        await put(served, b"b")
    assert served.store.hub.watchers == 0


async def test_a_stopping_server_ends_streams_so_that_clients_go_on_elsewhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        watching = Watching(served)
        watching.create(b"a")
        await watching.created()
        renewing = served.channel.stream(LEASE + "LeaseKeepAlive")
        renewing.send(codec.encode_lease_keep_alive(5))
        await anext(renewing)
        closing = asyncio.create_task(served.service.close(5))
        for stream in (watching.stream, renewing):
            with pytest.raises(GrpcError) as caught:
                await anext(stream)
            assert caught.value.code == GrpcCode.UNAVAILABLE
        await closing


# Leases


async def test_a_lease_is_kept_alive_until_it_is_revoked(served: Served) -> None:
    granted = codec.decode_lease_grant_response(
        await call(served, LEASE + "LeaseGrant", codec.encode_lease_grant(60, 42))
    )
    assert (granted.id, granted.ttl) == (42, 60)
    await call(served, KV + "Put", codec.encode_put(PutRequest(b"a", b"1", lease=42)))
    renewing = served.channel.stream(LEASE + "LeaseKeepAlive")
    renewing.send(codec.encode_lease_keep_alive(42))
    assert codec.decode_lease_keep_alive_response(await anext(renewing)) == (42, 60)
    left = codec.decode_lease_time_to_live_response(
        await call(served, LEASE + "LeaseTimeToLive", codec.encode_lease_time_to_live(42, keys=True))
    )
    assert (left.keys, left.granted_ttl, 0 < left.ttl <= 60) == ([b"a"], 60, True)
    assert codec.decode_lease_leases_response(await call(served, LEASE + "LeaseLeases")) == [42]
    await call(served, LEASE + "LeaseRevoke", codec.encode_lease_revoke(42))
    renewing.send(codec.encode_lease_keep_alive(42))
    assert codec.decode_lease_keep_alive_response(await anext(renewing)) == (42, 0)
    renewing.half_close()
    with pytest.raises(StopAsyncIteration):
        await anext(renewing)
    assert await refused(served, LEASE + "LeaseRevoke", codec.encode_lease_revoke(42)) == (
        GrpcCode.NOT_FOUND,
        "etcdserver: requested lease not found",
    )


# Maintenance and membership


async def test_status_has_the_level_of_the_api_and_our_own_words(served: Served) -> None:
    await put(served, b"a")
    status = codec.decode_status_response(await call(served, MAINTENANCE + "Status"))
    assert (status.version, status.leader, status.revision) == (API_VERSION, served.store.member_id, 2)
    own = await call(served, "/pilothouse.store.v1.Store/Status")
    assert b"commit queue" in own
    assert await call(served, "/grpc.health.v1.Health/Check") == b"\x08\x01"


async def test_hashes_agree(served: Served) -> None:
    await put(served, b"a")
    found = codec.decode_hash_kv_response(await call(served, MAINTENANCE + "HashKV", codec.encode_hash_kv()))
    assert found == await served.store.hash_kv()
    assert pb.HashResponse.FromString(await call(served, MAINTENANCE + "Hash")).hash == found.hash


async def test_a_snapshot_ends_in_its_checksum_and_can_be_restored(served: Served, tmp_path: Path) -> None:
    for number in range(500):
        served.store.submit(PutRequest(b"k%03d" % number, bytes(1_000)))
    await put(served, b"last")
    stream = served.channel.stream(MAINTENANCE + "Snapshot")
    stream.send(b"")
    stream.half_close()
    blob = b"".join([codec.decode_snapshot_response(part).blob async for part in stream])
    assert len(blob) % 512 == 32
    assert hashlib.sha256(blob[:-32]).digest() == blob[-32:]
    saved = tmp_path / "saved.db"
    saved.write_bytes(blob)
    report = offline.restore_snapshot(str(saved), str(tmp_path / "new"), size=snapshot_size(str(saved)))
    assert (report.keys, report.revision) == (501, 502)
    assert sorted(os.listdir(tmp_path)) == ["data", "new", "saved.db"]


async def test_what_one_member_cannot_do_is_refused(served: Served) -> None:
    members = codec.decode_member_list_response(await call(served, "/etcdserverpb.Cluster/MemberList"))
    assert [member.id for member in members] == [served.store.member_id]
    for name in ("MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"):
        code, text = await refused(served, "/etcdserverpb.Cluster/" + name)
        assert (code, text.startswith(name)) == (GrpcCode.UNIMPLEMENTED, True)
    assert (await refused(served, MAINTENANCE + "MoveLeader"))[0] == GrpcCode.FAILED_PRECONDITION
    assert (await refused(served, MAINTENANCE + "Downgrade"))[0] == GrpcCode.UNIMPLEMENTED


async def test_metrics_and_health_over_http(served: Served) -> None:
    async def get(path: str, method: str = "GET") -> str:
        reader, writer = await asyncio.open_connection(*endpoint.address)
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return answer

    await put(served, b"a")
    async with MetricsEndpoint(served.store, "127.0.0.1", 0, Metrics()) as endpoint:
        assert "pilothouse_store_revision_current 2.0" in await get("/metrics")
        assert '{"health":"true"' in await get("/health")
        assert (await get("/else")).startswith("HTTP/1.1 404")
        assert (await get("/metrics", "POST")).startswith("HTTP/1.1 405")


# Users


async def test_users_roles_and_tokens(served: Served) -> None:
    for path, message in (
        ("UserAdd", pb.AuthUserAddRequest(name="root", password="r")),
        ("UserAdd", pb.AuthUserAddRequest(name="ann", password="a")),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
        ("RoleAdd", pb.AuthRoleAddRequest(name="dev")),
        (
            "RoleGrantPermission",
            pb.AuthRoleGrantPermissionRequest(
                name="dev", perm=pb.Permission(permType=pb.Permission.READWRITE, key=b"a", range_end=b"b")
            ),
        ),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="ann", role="dev")),
        ("AuthEnable", pb.AuthEnableRequest()),
    ):
        await call(served, AUTH + path, message.SerializeToString())
    empty = (GrpcCode.INVALID_ARGUMENT, "etcdserver: user name is empty")
    denied = (GrpcCode.PERMISSION_DENIED, "etcdserver: permission denied")
    a, z = codec.encode_put(PutRequest(b"a1")), codec.encode_put(PutRequest(b"z"))
    assert await refused(served, KV + "Put", a) == empty
    for path, request in (
        ("LeaseGrant", codec.encode_lease_grant(60)),
        ("LeaseRevoke", codec.encode_lease_revoke(7)),
        ("LeaseTimeToLive", codec.encode_lease_time_to_live(7, keys=True)),
        ("LeaseLeases", b""),
    ):
        assert await refused(served, LEASE + path, request) == empty
    renewing = served.channel.stream(LEASE + "LeaseKeepAlive")
    renewing.send(codec.encode_lease_keep_alive(7))
    with pytest.raises(GrpcError, match="user name is empty"):
        await anext(renewing)
    assert await refused(served, KV + "Put", a, "nonsense") == (
        GrpcCode.UNAUTHENTICATED,
        "etcdserver: invalid auth token",
    )
    wrong = pb.AuthenticateRequest(name="ann", password="b").SerializeToString()
    assert await refused(served, AUTH + "Authenticate", wrong) == (
        GrpcCode.INVALID_ARGUMENT,
        "etcdserver: authentication failed, invalid user ID or password",
    )
    ann, root = await login(served, "ann", "a"), await login(served, "root", "r")
    await call(served, KV + "Put", a, ann)
    assert await refused(served, KV + "Put", z, ann) == denied
    await call(served, KV + "Put", z, root)
    for path in ("Defragment", "HashKV", "MoveLeader"):
        assert await refused(served, MAINTENANCE + path, token=ann) == denied
    with pytest.raises(GrpcError, match="permission denied"):
        await anext(served.channel.stream(MAINTENANCE + "Snapshot", metadata=(("token", ann),)))
    assert await refused(served, AUTH + "UserList", token=ann) == denied
    roles = pb.AuthUserGetResponse.FromString(
        await call(served, AUTH + "UserGet", pb.AuthUserGetRequest(name="ann").SerializeToString(), ann)
    ).roles
    assert list(roles) == ["dev"]
    await leases_as(served, ann, root)
    await watch_as(served, ann)
    await call(served, AUTH + "AuthDisable", token=root)
    await call(served, KV + "Put", z)


async def leases_as(served: Served, ann: str, root: str) -> None:
    await call(served, LEASE + "LeaseGrant", codec.encode_lease_grant(60, 42), root)
    await call(served, KV + "Put", codec.encode_put(PutRequest(b"a1", lease=42)), root)
    assert codec.decode_lease_leases_response(await call(served, LEASE + "LeaseLeases", token=ann)) == [42]
    await call(served, KV + "Put", codec.encode_put(PutRequest(b"z", lease=42)), root)
    denied = (GrpcCode.PERMISSION_DENIED, "etcdserver: permission denied")
    assert await refused(served, LEASE + "LeaseLeases", token=ann) == denied
    assert await refused(served, LEASE + "LeaseRevoke", codec.encode_lease_revoke(42), ann) == denied
    assert codec.decode_lease_leases_response(await call(served, LEASE + "LeaseLeases", token=root)) == [42]


async def watch_as(served: Served, token: str) -> None:
    watching = Watching(served, (("token", token),))
    watching.create(b"a", b"b")
    assert not (await watching.created()).response.canceled
    watching.create(b"z")
    message = await watching.created()
    assert (message.watch_id, message.response.cancel_reason) == (-1, "etcdserver: permission denied")
    watching.stream.cancel()


async def login(served: Served, name: str, password: str) -> str:
    request = pb.AuthenticateRequest(name=name, password=password).SerializeToString()
    return pb.AuthenticateResponse.FromString(await call(served, AUTH + "Authenticate", request)).token


async def test_a_client_certificate_stands_for_the_user_of_its_name(tmp_path: Path) -> None:
    files = make_tls(tmp_path / "tls")
    store = await EmbeddedStore.open(StoreOptions(data_dir=str(tmp_path / "data")))
    service = EtcdService(store, certificate_users=True)
    server = tls.server_context(
        str(files.server_certificate), str(files.server_key), client_ca=str(files.ca), alpn=("h2",)
    )
    host, port = await service.listen_tcp("127.0.0.1", 0, tls=server)
    client = tls.client_context(
        ca=str(files.ca), certificate=str(files.client_certificate), key=str(files.client_key), alpn=("h2",)
    )
    # The certificate's common name is root.
    channel = GrpcChannel(host, port, tls=client)
    await channel.connect()
    try:
        for command in (
            UserAdd("root", no_password=True),
            UserGrantRole("root", "root"),
            UserAdd("ann", hash_password("a", cost=2)),
            AuthEnable(),
        ):
            await store.propose(command)
        await channel.unary(KV + "Put", codec.encode_put(PutRequest(b"a")), timeout=10)
        request = pb.AuthenticateRequest(name="ann", password="a").SerializeToString()
        answer = await channel.unary(AUTH + "Authenticate", request, timeout=10)
        token = pb.AuthenticateResponse.FromString(answer).token
        put = codec.encode_put(PutRequest(b"a"))
        with pytest.raises(GrpcError, match="permission denied"):
            await channel.unary(KV + "Put", put, metadata=(("token", token),), timeout=10)
    finally:
        await channel.close()
        await service.close(0.1)
        await store.close()


async def test_many_logins_at_once_are_bounded(served: Served) -> None:
    for command in (UserAdd("root", hash_password("r", cost=2)), UserGrantRole("root", "root"), AuthEnable()):
        await served.store.propose(command)
    request = pb.AuthenticateRequest(name="root", password="r").SerializeToString()
    answers = [served.channel.unary_future(AUTH + "Authenticate", request) for _ in range(80)]
    results = await asyncio.gather(*answers, return_exceptions=True)
    refusals = [error for error in results if isinstance(error, GrpcError)]
    assert len(refusals) == 80 - 64
    assert {error.code for error in refusals} == {GrpcCode.RESOURCE_EXHAUSTED}
