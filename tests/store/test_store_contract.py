"""What every store does, whichever engine is behind it: etcd v3's operations, answers and errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pilothouse.store import errors
from pilothouse.store.engine import EmbeddedStore
from pilothouse.store.etcd.backend import EtcdStore
from pilothouse.store.etcd.service import EtcdService
from pilothouse.store.etcd.settings import EtcdOptions
from pilothouse.store.model import (
    MAX_OPS_PER_TXN,
    MAX_REQUEST_BYTES,
    Alarm,
    AlarmAction,
    AlarmType,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResponse,
    WatchFilter,
    WatchRequest,
    WatchResponse,
    prefix_end,
)
from pilothouse.store.options import StoreOptions
from pilothouse.store.protocol import Store, Watch
from support.etcd import EtcdCluster, wants_etcd

ALL = b"\0"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One etcd member for all tests of this module."""
    wants_etcd()
    one = EtcdCluster(tmp_path_factory.mktemp("etcd"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@contextlib.asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[EmbeddedStore]:
    store = await EmbeddedStore.open(StoreOptions(data_dir=str(directory)))
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[EtcdStore]:
    """The embedded engine behind our own service, reached by our own client."""
    async with embedded(directory) as engine:
        service = EtcdService(engine)
        host, port = await service.listen_tcp("127.0.0.1", 0)
        store = await EtcdStore.open(EtcdOptions(endpoints=(f"http://{host}:{port}",)))
        try:
            yield store
        finally:
            await store.close()
            await service.close()


@contextlib.asynccontextmanager
async def on_etcd(cluster: EtcdCluster) -> AsyncIterator[EtcdStore]:
    store = await EtcdStore.open(EtcdOptions(endpoints=cluster.endpoints))
    try:
        await store.delete_range(DeleteRangeRequest(ALL, ALL))
        for lease in await store.lease_leases():
            await store.lease_revoke(lease)
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["embedded", "served", pytest.param("etcd", marks=pytest.mark.etcd)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each kind; its revision may be any."""
    opened: contextlib.AbstractAsyncContextManager[Store]
    if request.param == "embedded":
        opened = embedded(tmp_path / "data")
    elif request.param == "served":
        opened = served(tmp_path / "data")
    else:
        opened = on_etcd(request.getfixturevalue("cluster"))
    async with opened as one:
        yield one


async def put(store: Store, key: bytes, value: bytes = b"v") -> int:
    """Write a key and return its revision."""
    return (await store.put(PutRequest(key, value))).revision


async def get(store: Store, key: bytes) -> KeyValue | None:
    """Return a key or None."""
    found = await store.range(RangeRequest(key))
    return found.kvs[0] if found.kvs else None


def keys(response: RangeResponse) -> list[bytes]:
    return [kv.key for kv in response.kvs]


async def gather_events(watch: Watch, count: int) -> list[WatchResponse]:
    """Return responses until they hold `count` events."""
    responses: list[WatchResponse] = []
    async with asyncio.timeout(20):
        while sum(len(one.events) for one in responses) < count:
            response = await anext(watch)
            assert not response.canceled, response
            responses.append(response)
    return responses


async def changes(watch: Watch, count: int) -> list[tuple[str, bytes, bytes]]:
    """Return the next `count` events as kind, key and value."""
    return [
        ("delete" if event.is_delete else "put", event.kv.key, event.kv.value)
        for response in await gather_events(watch, count)
        for event in response.events
    ]


# Range


async def test_a_key_carries_its_revisions_and_version(store: Store) -> None:
    first = await put(store, b"a", b"1")
    second = await put(store, b"a", b"2")
    assert second == first + 1
    assert await get(store, b"a") == KeyValue(b"a", b"2", first, second, 2)


async def test_a_missing_key_is_an_empty_answer(store: Store) -> None:
    revision = await put(store, b"other")
    response = await store.range(RangeRequest(b"a"))
    assert response == RangeResponse(revision, [], 0, False)


async def test_limit_cuts_and_count_does_not_care(store: Store) -> None:
    for name in (b"a/1", b"a/2", b"a/3", b"b/1"):
        await put(store, name)
    response = await store.range(RangeRequest(b"a/", prefix_end(b"a/"), limit=2))
    assert (keys(response), response.count, response.more) == ([b"a/1", b"a/2"], 3, True)
    response = await store.range(RangeRequest(b"a/", prefix_end(b"a/"), limit=3))
    assert (len(response.kvs), response.count, response.more) == (3, 3, False)


async def test_a_zero_byte_as_end_means_all_that_follow(store: Store) -> None:
    for name in (b"a", b"b", b"c\xff"):
        await put(store, name)
    assert keys(await store.range(RangeRequest(b"b", ALL))) == [b"b", b"c\xff"]
    assert keys(await store.range(RangeRequest(ALL, ALL))) == [b"a", b"b", b"c\xff"]


async def test_an_end_before_the_start_finds_nothing(store: Store) -> None:
    await put(store, b"b")
    response = await store.range(RangeRequest(b"c", b"a"))
    assert (response.kvs, response.count) == ([], 0)


async def test_count_only_and_keys_only(store: Store) -> None:
    for name in (b"a", b"b"):
        await put(store, name, b"value")
    counted = await store.range(RangeRequest(b"a", b"c", count_only=True))
    assert (counted.kvs, counted.count) == ([], 2)
    named = await store.range(RangeRequest(b"a", b"c", keys_only=True))
    assert [(kv.key, kv.value, kv.version) for kv in named.kvs] == [(b"a", b"", 1), (b"b", b"", 1)]


@pytest.mark.parametrize(
    ("target", "ascending"),
    [
        (SortTarget.KEY, [b"a", b"b", b"c"]),
        (SortTarget.VERSION, [b"a", b"c", b"b"]),
        (SortTarget.CREATE, [b"b", b"c", b"a"]),
        (SortTarget.MOD, [b"c", b"a", b"b"]),
        (SortTarget.VALUE, [b"c", b"b", b"a"]),
    ],
)
async def test_sorting_comes_before_the_limit(store: Store, target: SortTarget, ascending: list[bytes]) -> None:
    for name, value in ((b"b", b"0"), (b"b", b"0"), (b"c", b"1"), (b"c", b"1"), (b"a", b"9"), (b"b", b"5")):
        await put(store, name, value)
    await store.delete_range(DeleteRangeRequest(b"never"))
    expected = ascending
    for order in (SortOrder.ASCEND, SortOrder.DESCEND):
        found = await store.range(RangeRequest(b"a", b"z", sort_order=order, sort_target=target))
        assert keys(found) == expected
        cut = await store.range(RangeRequest(b"a", b"z", sort_order=order, sort_target=target, limit=2))
        assert (keys(cut), cut.count, cut.more) == (expected[:2], 3, True)
        expected = expected[::-1]


async def test_revision_filters(store: Store) -> None:
    revisions = [await put(store, name) for name in (b"a", b"b", b"c")]
    await put(store, b"a")
    request = RangeRequest(b"a", b"z", min_create_revision=revisions[1], max_create_revision=revisions[1])
    assert keys(await store.range(request)) == [b"b"]
    assert keys(await store.range(RangeRequest(b"a", b"z", min_mod_revision=revisions[2]))) == [b"a", b"c"]
    assert keys(await store.range(RangeRequest(b"a", b"z", max_mod_revision=revisions[1]))) == [b"b"]


async def test_the_past_can_be_read(store: Store) -> None:
    first = await put(store, b"a", b"1")
    await put(store, b"b")
    await put(store, b"a", b"2")
    deleted = await store.delete_range(DeleteRangeRequest(b"a"))
    past = await store.range(RangeRequest(b"a", b"z", revision=first))
    assert past.kvs == [KeyValue(b"a", b"1", first, first, 1)]
    assert past.count == 1
    assert past.revision == deleted.revision
    assert (await store.range(RangeRequest(b"a", revision=deleted.revision - 1))).kvs[0].value == b"2"
    assert (await store.range(RangeRequest(b"a", revision=deleted.revision))).kvs == []


async def test_a_serializable_read_of_one_member_is_the_same(store: Store) -> None:
    await put(store, b"a", b"1")
    found = await store.range(RangeRequest(b"a", serializable=True))
    assert [kv.value for kv in found.kvs] == [b"1"]


async def test_a_future_revision_is_refused(store: Store) -> None:
    revision = await put(store, b"a")
    with pytest.raises(errors.FutureRevision):
        await store.range(RangeRequest(b"a", revision=revision + 1))


async def test_no_key_is_refused(store: Store) -> None:
    for call in (
        store.range(RangeRequest(b"")),
        store.put(PutRequest(b"")),
        store.delete_range(DeleteRangeRequest(b"")),
        store.txn(TxnRequest(success=(PutRequest(b""),))),
        store.txn(TxnRequest(compare=(Compare(b""),))),
    ):
        with pytest.raises(errors.EmptyKey):
            await call


# Put


async def test_put_returns_what_it_replaced_when_asked(store: Store) -> None:
    assert (await store.put(PutRequest(b"a", b"1", prev_kv=True))).prev_kv is None
    before = await get(store, b"a")
    assert (await store.put(PutRequest(b"a", b"2", prev_kv=True))).prev_kv == before
    assert (await store.put(PutRequest(b"a", b"3"))).prev_kv is None


async def test_ignore_value_and_ignore_lease_keep_what_is_there(store: Store) -> None:
    lease = (await store.lease_grant(600)).id
    await store.put(PutRequest(b"a", b"1", lease=lease))
    await store.put(PutRequest(b"a", ignore_value=True))
    kept = await get(store, b"a")
    assert kept is not None
    assert (kept.value, kept.lease) == (b"1", 0)
    await store.put(PutRequest(b"a", b"1", lease=lease))
    await store.put(PutRequest(b"a", b"2", ignore_lease=True))
    kept = await get(store, b"a")
    assert kept is not None
    assert (kept.value, kept.lease) == (b"2", lease)


async def test_ignore_options_are_checked(store: Store) -> None:
    with pytest.raises(errors.ValueProvided):
        await store.put(PutRequest(b"a", b"1", ignore_value=True))
    with pytest.raises(errors.LeaseProvided):
        await store.put(PutRequest(b"a", b"1", lease=3, ignore_lease=True))
    with pytest.raises(errors.KeyNotFound):
        await store.put(PutRequest(b"missing", ignore_value=True))
    with pytest.raises(errors.KeyNotFound):
        await store.put(PutRequest(b"missing", b"1", ignore_lease=True))


async def test_a_put_with_an_unknown_lease_is_refused(store: Store) -> None:
    with pytest.raises(errors.LeaseNotFound):
        await store.put(PutRequest(b"a", b"1", lease=0x1234))
    assert await get(store, b"a") is None


async def test_a_request_that_is_too_large_is_refused(store: Store) -> None:
    with pytest.raises(errors.RequestTooLarge):
        await store.put(PutRequest(b"a", bytes(MAX_REQUEST_BYTES + 1)))
    assert await get(store, b"a") is None


async def test_a_new_generation_starts_after_a_deletion(store: Store) -> None:
    await put(store, b"a", b"1")
    await store.delete_range(DeleteRangeRequest(b"a"))
    revision = await put(store, b"a", b"2")
    assert await get(store, b"a") == KeyValue(b"a", b"2", revision, revision, 1)


# Delete range


async def test_delete_range_says_how_many_and_which(store: Store) -> None:
    before = [await put(store, name, name) for name in (b"a", b"b", b"c")][-1]
    response = await store.delete_range(DeleteRangeRequest(b"a", b"c", prev_kv=True))
    assert (response.deleted, [kv.key for kv in response.prev_kvs]) == (2, [b"a", b"b"])
    assert response.revision == before + 1
    assert keys(await store.range(RangeRequest(ALL, ALL))) == [b"c"]


async def test_a_deletion_of_nothing_does_not_advance_the_revision(store: Store) -> None:
    revision = await put(store, b"a")
    assert await store.delete_range(DeleteRangeRequest(b"b", b"c")) == DeleteRangeResponse(revision, 0)
    assert await put(store, b"a") == revision + 1


# Transactions


async def test_a_transaction_is_one_revision(store: Store) -> None:
    start = await put(store, b"z")
    response = await store.txn(
        TxnRequest(success=(PutRequest(b"a", b"1"), PutRequest(b"b", b"2"), DeleteRangeRequest(b"z")))
    )
    assert (response.revision, response.succeeded) == (start + 1, True)
    found = await store.range(RangeRequest(ALL, ALL))
    assert [(kv.key, kv.mod_revision) for kv in found.kvs] == [(b"a", start + 1), (b"b", start + 1)]


async def test_the_guard_chooses_the_branch(store: Store) -> None:
    revision = await put(store, b"a", b"1")
    guard = Compare(b"a", CompareTarget.MOD, CompareResult.EQUAL, revision)
    request = TxnRequest((guard,), (PutRequest(b"a", b"2"),), (RangeRequest(b"a"),))
    first = await store.txn(request)
    assert first.succeeded
    assert isinstance(first.responses[0], PutResponse)
    second = await store.txn(request)
    assert not second.succeeded
    answer = second.responses[0]
    assert isinstance(answer, RangeResponse)
    assert answer.kvs[0].value == b"2"
    assert second.revision == first.revision


@pytest.mark.parametrize(
    ("guard", "holds"),
    [
        (Compare(b"a", CompareTarget.VERSION, CompareResult.EQUAL, 2), True),
        (Compare(b"a", CompareTarget.VERSION, CompareResult.GREATER, 2), False),
        (Compare(b"a", CompareTarget.VERSION, CompareResult.LESS, 3), True),
        (Compare(b"a", CompareTarget.VERSION, CompareResult.NOT_EQUAL, 2), False),
        (Compare(b"a", CompareTarget.VALUE, CompareResult.EQUAL, b"m"), True),
        (Compare(b"a", CompareTarget.VALUE, CompareResult.GREATER, b"l"), True),
        (Compare(b"a", CompareTarget.VALUE, CompareResult.LESS, b"l"), False),
        (Compare(b"a", CompareTarget.CREATE, CompareResult.GREATER, 0), True),
        (Compare(b"a", CompareTarget.MOD, CompareResult.EQUAL, 0), False),
        (Compare(b"a", CompareTarget.LEASE, CompareResult.EQUAL, 0), True),
        (Compare(b"none", CompareTarget.VERSION, CompareResult.EQUAL, 0), True),
        (Compare(b"none", CompareTarget.CREATE, CompareResult.EQUAL, 0), True),
        (Compare(b"none", CompareTarget.VALUE, CompareResult.EQUAL, b""), False),
        (Compare(b"none", CompareTarget.VALUE, CompareResult.NOT_EQUAL, b"x"), False),
        (Compare(b"a", CompareTarget.VERSION, CompareResult.GREATER, 0, b"c"), True),
        (Compare(b"a", CompareTarget.VERSION, CompareResult.EQUAL, 2, b"c"), False),
        (Compare(b"x", CompareTarget.VERSION, CompareResult.EQUAL, 0, b"z"), True),
        (Compare(b"x", CompareTarget.VERSION, CompareResult.GREATER, 0, b"z"), False),
    ],
)
async def test_guards(store: Store, guard: Compare, holds: bool) -> None:
    await put(store, b"a", b"k")
    await put(store, b"a", b"m")
    await put(store, b"b", b"n")
    assert (await store.txn(TxnRequest((guard,)))).succeeded is holds


async def test_every_guard_must_hold(store: Store) -> None:
    await put(store, b"a")
    good = Compare(b"a", CompareTarget.VERSION, CompareResult.EQUAL, 1)
    bad = Compare(b"a", CompareTarget.VERSION, CompareResult.EQUAL, 9)
    assert (await store.txn(TxnRequest((good, good)))).succeeded
    assert not (await store.txn(TxnRequest((good, bad)))).succeeded
    assert (await store.txn(TxnRequest())).succeeded


async def test_nested_transactions_share_the_revision(store: Store) -> None:
    start = await put(store, b"a")
    inner = TxnRequest(
        (Compare(b"a", CompareTarget.VERSION, CompareResult.EQUAL, 1),), (PutRequest(b"b"),), (PutRequest(b"c"),)
    )
    response = await store.txn(TxnRequest(success=(inner, RangeRequest(b"b"))))
    nested, found = response.responses
    assert isinstance(nested, TxnResponse)
    assert nested.succeeded
    assert isinstance(found, RangeResponse)
    assert [kv.mod_revision for kv in found.kvs] == [start + 1]


async def test_later_operations_see_earlier_ones(store: Store) -> None:
    response = await store.txn(
        TxnRequest(success=(PutRequest(b"a", b"1"), RangeRequest(b"a"), DeleteRangeRequest(b"b")))
    )
    found = response.responses[1]
    assert isinstance(found, RangeResponse)
    assert found.kvs[0].value == b"1"


async def test_a_transaction_that_changes_nothing_keeps_the_revision(store: Store) -> None:
    revision = await put(store, b"a")
    response = await store.txn(TxnRequest(success=(RangeRequest(b"a"), DeleteRangeRequest(b"b"))))
    assert response.revision == revision


@pytest.mark.parametrize(
    "success",
    [
        (PutRequest(b"a"), PutRequest(b"a")),
        (PutRequest(b"a"), DeleteRangeRequest(b"a")),
        (PutRequest(b"b"), DeleteRangeRequest(b"a", b"c")),
        (PutRequest(b"a"), TxnRequest(success=(PutRequest(b"a"),))),
    ],
)
async def test_writing_a_key_twice_is_refused(store: Store, success: tuple[PutRequest, ...]) -> None:
    with pytest.raises(errors.DuplicateKey):
        await store.txn(TxnRequest(success=success))
    assert (await store.range(RangeRequest(ALL, ALL))).count == 0


async def test_the_branches_may_write_the_same_key(store: Store) -> None:
    response = await store.txn(TxnRequest(success=(PutRequest(b"a"),), failure=(PutRequest(b"a"),)))
    assert response.succeeded


async def test_too_many_operations_are_refused(store: Store) -> None:
    many = tuple(PutRequest(b"%d" % number) for number in range(MAX_OPS_PER_TXN + 1))
    assert (await store.txn(TxnRequest(success=many[:-1]))).succeeded
    with pytest.raises(errors.TooManyOps):
        await store.txn(TxnRequest(success=many))
    with pytest.raises(errors.TooManyOps):
        await store.txn(TxnRequest(failure=many))
    with pytest.raises(errors.TooManyOps):
        await store.txn(TxnRequest(compare=tuple(Compare(op.key) for op in many)))


async def test_a_failing_operation_undoes_all(store: Store) -> None:
    revision = await put(store, b"z")
    with pytest.raises(errors.LeaseNotFound):
        await store.txn(TxnRequest(success=(PutRequest(b"a"), PutRequest(b"b", lease=0x4321))))
    found = await store.range(RangeRequest(ALL, ALL))
    assert (keys(found), found.revision) == ([b"z"], revision)


async def test_unknown_compare_targets_are_refused(store: Store) -> None:
    with pytest.raises(errors.UnknownCompare):
        await store.txn(TxnRequest((Compare(b"a", 17),)))
    with pytest.raises(errors.UnknownCompare):
        await store.txn(TxnRequest((Compare(b"a", result=17),)))


# Watches


async def test_a_watch_sees_what_follows_in_order(store: Store) -> None:
    await put(store, b"a", b"before")
    async with store.watch(WatchRequest(b"a")) as watch:
        await put(store, b"a", b"1")
        await put(store, b"b", b"other")
        await store.delete_range(DeleteRangeRequest(b"a"))
        assert await changes(watch, 2) == [("put", b"a", b"1"), ("delete", b"a", b"")]


async def test_a_watch_by_prefix_from_the_past(store: Store) -> None:
    start = await put(store, b"a/1", b"1")
    await put(store, b"b/1", b"2")
    await put(store, b"a/2", b"3")
    async with store.watch(WatchRequest(b"a/", prefix_end(b"a/"), start)) as watch:
        await put(store, b"a/1", b"4")
        assert await changes(watch, 3) == [("put", b"a/1", b"1"), ("put", b"a/2", b"3"), ("put", b"a/1", b"4")]


async def test_a_watch_of_a_future_revision_waits_for_it(store: Store) -> None:
    revision = await put(store, b"a", b"0")
    async with store.watch(WatchRequest(b"a", start_revision=revision + 2)) as watch:
        await put(store, b"a", b"1")
        await put(store, b"a", b"2")
        assert await changes(watch, 1) == [("put", b"a", b"2")]


async def test_events_carry_what_was_before_when_asked(store: Store) -> None:
    await put(store, b"a", b"0")
    before = await get(store, b"a")
    async with (
        store.watch(WatchRequest(b"a", prev_kv=True)) as asked,
        store.watch(WatchRequest(b"a")) as plain,
    ):
        await put(store, b"a", b"1")
        await store.delete_range(DeleteRangeRequest(b"a"))
        events = [event for one in await gather_events(asked, 2) for event in one.events]
        assert [event.prev_kv.value if event.prev_kv else None for event in events] == [b"0", b"1"]
        assert events[0].prev_kv == before
        assert len([event for one in await gather_events(plain, 2) for event in one.events]) == 2


async def test_the_events_of_a_transaction_come_together(store: Store) -> None:
    async with store.watch(WatchRequest(ALL, ALL)) as watch:
        names = tuple(b"k%03d" % number for number in range(100))
        done = await store.txn(TxnRequest(success=tuple(PutRequest(name) for name in names)))
        (response,) = await gather_events(watch, 100)
        assert [event.kv.key for event in response.events] == list(names)
        assert {event.kv.mod_revision for event in response.events} == {done.revision}
        assert response.revision >= done.revision


@pytest.mark.parametrize(
    ("unwanted", "seen"),
    [
        (WatchFilter.NOPUT, [("delete", b"a", b""), ("delete", b"b", b"")]),
        (WatchFilter.NODELETE, [("put", b"a", b"1"), ("put", b"b", b"2")]),
    ],
)
async def test_filters(store: Store, unwanted: WatchFilter, seen: list[tuple[str, bytes, bytes]]) -> None:
    async with store.watch(WatchRequest(ALL, ALL, filters=(unwanted,))) as watch:
        await put(store, b"a", b"1")
        await store.delete_range(DeleteRangeRequest(b"a"))
        await put(store, b"b", b"2")
        await store.delete_range(DeleteRangeRequest(b"b"))
        assert await changes(watch, 2) == seen


async def test_a_compacted_start_cancels_with_the_revision(store: Store) -> None:
    start = await put(store, b"a", b"1")
    last = [await put(store, b"a", b"2") for _ in range(3)][-1]
    await store.compact(last)
    async with asyncio.timeout(20), store.watch(WatchRequest(b"a", start_revision=start)) as watch:
        response = await anext(watch)
        assert response.canceled
        assert response.compact_revision == last
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_progress_is_reported_on_request_after_the_events(store: Store) -> None:
    async with store.watch(WatchRequest(b"a")) as watch:
        revision = await put(store, b"a")
        (first,) = await gather_events(watch, 1)
        watch.request_progress()
        async with asyncio.timeout(20):
            report = await anext(watch)
        assert (report.events, report.canceled) == ([], False)
        assert report.revision >= first.revision >= revision


async def test_many_watches_each_see_their_own(store: Store) -> None:
    async with contextlib.AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(store.watch(WatchRequest(b"k%d" % n))) for n in range(20)]
        for number in range(20):
            await put(store, b"k%d" % number, b"%d" % number)
        for number, watch in enumerate(watches):
            assert await changes(watch, 1) == [("put", b"k%d" % number, b"%d" % number)]


async def test_a_cancelled_watch_ends(store: Store) -> None:
    watch = store.watch(WatchRequest(b"a"))
    async with watch:
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await watch.cancel()
        with pytest.raises(StopAsyncIteration):
            await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    await watch.cancel()


async def test_closing_the_store_ends_its_watches(store: Store) -> None:
    async with store.watch(WatchRequest(b"a")) as watch:
        await store.close()
        async with asyncio.timeout(20):
            responses = [response async for response in watch]
        assert [response.canceled for response in responses] == [True]


async def test_a_watch_of_an_empty_range_is_refused(store: Store) -> None:
    async with asyncio.timeout(20), store.watch(WatchRequest(b"b", b"a")) as watch:
        response = await anext(watch)
        assert response.canceled
        assert response.cancel_reason


# Leases


async def test_a_lease_is_granted_kept_and_revoked(store: Store) -> None:
    granted = await store.lease_grant(600, 77)
    assert (granted.id, granted.ttl) == (77, 600)
    await store.put(PutRequest(b"a", lease=77))
    await store.put(PutRequest(b"b", lease=77))
    left = await store.lease_time_to_live(77, keys=True)
    assert (left.id, left.granted_ttl, sorted(left.keys)) == (77, 600, [b"a", b"b"])
    assert 500 < left.ttl <= 600
    assert await store.lease_leases() == [77]
    assert await store.lease_keep_alive(77) == 600
    before = (await store.range(RangeRequest(ALL, ALL))).revision
    assert await store.lease_revoke(77) == before + 1
    assert (await store.range(RangeRequest(ALL, ALL))).count == 0
    assert await store.lease_leases() == []


async def test_the_store_chooses_a_lease_id(store: Store) -> None:
    first, second = await store.lease_grant(600), await store.lease_grant(600)
    assert first.id > 0
    assert first.id != second.id


async def test_many_keep_alives_at_once(store: Store) -> None:
    leases = [(await store.lease_grant(100 + number)).id for number in range(10)]
    times = await asyncio.gather(*(store.lease_keep_alive(lease) for lease in leases * 3))
    assert times == [100 + number for number in range(10)] * 3


async def test_a_lease_that_is_gone(store: Store) -> None:
    assert await store.lease_keep_alive(0x999) == 0
    left = await store.lease_time_to_live(0x999)
    assert (left.id, left.ttl) == (0x999, -1)
    with pytest.raises(errors.LeaseNotFound):
        await store.lease_revoke(0x999)


async def test_lease_ids_and_times_are_checked(store: Store) -> None:
    await store.lease_grant(600, 5)
    with pytest.raises(errors.LeaseExists):
        await store.lease_grant(600, 5)
    with pytest.raises(errors.LeaseTtlTooLarge):
        await store.lease_grant(9_000_000_001)


async def test_a_key_follows_the_lease_of_its_last_put(store: Store) -> None:
    first, second = (await store.lease_grant(600)).id, (await store.lease_grant(600)).id
    await store.put(PutRequest(b"a", lease=first))
    await store.put(PutRequest(b"a", lease=second))
    await store.lease_revoke(first)
    kept = await get(store, b"a")
    assert kept is not None
    assert kept.lease == second
    await store.lease_revoke(second)
    assert await get(store, b"a") is None


@pytest.mark.slow
async def test_keys_go_when_their_lease_expires(store: Store) -> None:
    granted = await store.lease_grant(1)
    await store.put(PutRequest(b"a", lease=granted.id))
    async with store.watch(WatchRequest(b"a")) as watch:
        assert await changes(watch, 1) == [("delete", b"a", b"")]
    assert await store.lease_keep_alive(granted.id) == 0


# Maintenance


async def test_compaction_forgets_what_is_older(store: Store) -> None:
    first = await put(store, b"a", b"1")
    await put(store, b"a", b"2")
    third = await put(store, b"b", b"3")
    assert await store.compact(third, physical=True) == third
    with pytest.raises(errors.Compacted):
        await store.range(RangeRequest(b"a", revision=first))
    assert (await store.range(RangeRequest(b"a", revision=third))).kvs[0].value == b"2"
    with pytest.raises(errors.Compacted):
        await store.compact(first)
    with pytest.raises(errors.FutureRevision):
        await store.compact(third + 10)


async def test_hashes_agree_with_themselves(store: Store) -> None:
    await put(store, b"a")
    revision = await put(store, b"b")
    first = await store.hash_kv(revision)
    assert first.hash_revision == revision
    await put(store, b"c")
    assert (await store.hash_kv(revision)).hash == first.hash
    assert (await store.hash_kv()).hash != first.hash
    with pytest.raises(errors.FutureRevision):
        await store.hash_kv(revision + 100)


async def test_alarms_are_raised_listed_and_cleared(store: Store) -> None:
    assert await store.alarm(AlarmAction.GET) == []
    member = (await store.status()).member_id
    raised = [Alarm(member, AlarmType.NOSPACE)]
    try:
        assert await store.alarm(AlarmAction.ACTIVATE, AlarmType.NOSPACE, member) == raised
        assert await store.alarm(AlarmAction.GET) == raised
        with pytest.raises(errors.NoSpace):
            await put(store, b"a")
        assert await get(store, b"a") is None
    finally:
        await store.alarm(AlarmAction.DEACTIVATE, AlarmType.NOSPACE, member)
    assert await store.alarm(AlarmAction.GET) == []
    await put(store, b"a")


async def test_status_members_and_defragmentation(store: Store) -> None:
    revision = await put(store, b"a")
    status = await store.status()
    assert status.revision == revision
    assert status.leader == status.member_id
    assert status.version
    assert status.db_size > 0
    (member,) = await store.members()
    assert member.id == status.member_id
    await store.defragment()
    assert await get(store, b"a") is not None


async def test_a_snapshot_is_streamed(store: Store) -> None:
    await put(store, b"a", bytes(100_000))
    pieces = [piece async for piece in store.snapshot()]
    assert sum(len(piece) for piece in pieces) > 20_000
    assert all(pieces)


async def test_many_writers_get_a_revision_each(store: Store) -> None:
    start = await put(store, b"start")
    answers = await asyncio.gather(*(put(store, b"k%d" % number) for number in range(100)))
    assert sorted(answers) == list(range(start + 1, start + 101))
