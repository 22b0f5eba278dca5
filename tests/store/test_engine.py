"""The embedded engine as a whole: what it bounds, what it does by the clock, and what it keeps through a restart."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.files import OsFileSystem
from pilothouse.foundation.metrics import Metrics
from pilothouse.store import checkpointer
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.errors import (
    Compacted,
    CorruptAlarm,
    DirectoryInUse,
    InvalidRequest,
    NoSpace,
    RequestTooLarge,
    Unavailable,
)
from pilothouse.store.model import (
    AlarmAction,
    AlarmType,
    DeleteRangeRequest,
    KeyValue,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
    prefix_end,
)
from pilothouse.store.offline import check, restore_snapshot

ALL = RangeRequest(b"\0", b"\0")

Opener = Callable[..., Awaitable[EmbeddedStore]]


@pytest.fixture
async def opener(tmp_path: Path) -> AsyncIterator[Opener]:
    opened: list[EmbeddedStore] = []

    async def open_store(**settings: object) -> EmbeddedStore:
        store = await EmbeddedStore.open(StoreOptions(data_dir=str(tmp_path / "data"), **settings))  # type: ignore[arg-type]
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        await store.close()


async def fill(store: EmbeddedStore, count: int, size: int = 100, start: int = 0) -> None:
    await asyncio.gather(
        *[store.put(PutRequest(b"/k/%06d" % number, bytes(size))) for number in range(start, start + count)]
    )


async def test_a_restart_brings_everything_back(opener: Opener) -> None:
    store = await opener(segment_bytes=65_536)
    await fill(store, 300)
    await store.checkpointer.write()
    lease = await store.lease_grant(600)
    await store.put(PutRequest(b"leased", b"1", lease.id))
    await store.delete_range(DeleteRangeRequest(b"/k/0000", prefix_end(b"/k/0000")))
    await store.compact(200)
    await store.checkpointer.write()
    await store.put(PutRequest(b"after", b"2"))
    before, hashed = await store.range(ALL), await store.hash_kv()
    await store.close()
    store = await opener()
    assert await store.range(ALL) == before
    assert await store.hash_kv() == hashed
    assert (await store.lease_time_to_live(lease.id, keys=True)).keys == [b"leased"]
    with pytest.raises(Compacted):
        await store.range(RangeRequest(b"leased", revision=199))


async def test_the_log_is_released_behind_a_checkpoint(opener: Opener, tmp_path: Path) -> None:
    store = await opener(snapshot_entries=100, segment_bytes=16_384)
    for start in range(0, 1000, 50):
        await fill(store, 50, start=start)
    await store.defragment()
    segments = [name for name in os.listdir(tmp_path / "data" / "wal") if name.endswith(".wal")]
    assert len(segments) == 1
    assert [name for name in os.listdir(tmp_path / "data" / "snap") if "delta" in name] == []


async def test_a_directory_is_held_by_one(opener: Opener) -> None:
    await opener()
    with pytest.raises(DirectoryInUse, match=str(os.getpid())):
        await opener()


async def test_the_quota_refuses_writes_until_the_alarm_is_cleared(opener: Opener) -> None:
    store = await opener(quota_bytes=20_000)
    puts = [store.put(PutRequest(b"/k/%06d" % number, bytes(100))) for number in range(300)]
    results = await asyncio.gather(*puts, return_exceptions=True)
    held = len((await store.range(ALL)).kvs)
    assert 0 < held < 300
    assert [type(result) for result in results[held:]] == [NoSpace] * (300 - held)
    assert store.keys.bytes_in_use < 30_000  # as in etcd, what is on its way counts by its size in the log
    with pytest.raises(NoSpace):
        await store.put(PutRequest(b"small"))
    assert [one.alarm for one in await store.alarm(AlarmAction.GET)] == [AlarmType.NOSPACE]
    await store.delete_range(DeleteRangeRequest(b"/k/", prefix_end(b"/k/")))
    await store.compact(store.keys.revision, physical=True)
    with pytest.raises(NoSpace):
        await store.put(PutRequest(b"small"))
    await store.alarm(AlarmAction.DEACTIVATE, AlarmType.NOSPACE)
    await store.put(PutRequest(b"small"))
    assert "NOSPACE" not in (await store.status()).errors


async def test_those_who_are_refused_together_raise_one_alarm(opener: Opener) -> None:
    store = await opener(quota_bytes=2000, proposals=100)
    puts = [store.put(PutRequest(b"/k/%06d" % number, bytes(100))) for number in range(500)]
    results = await asyncio.gather(*puts, return_exceptions=True)
    written = sum(not isinstance(result, BaseException) for result in results)
    assert [type(result) for result in results[written:]] == [NoSpace] * (500 - written)
    await store.delete_range(DeleteRangeRequest(b"missing"))
    assert (await store.status()).raft_applied_index == written + 2


async def test_nothing_is_read_under_a_corrupt_alarm(opener: Opener) -> None:
    store = await opener()
    await store.alarm(AlarmAction.ACTIVATE, AlarmType.CORRUPT)
    for read in (store.range(ALL), store.txn(TxnRequest(success=(ALL,)))):
        with pytest.raises(CorruptAlarm):
            await read
    await store.alarm(AlarmAction.DEACTIVATE, AlarmType.CORRUPT)
    assert (await store.txn(TxnRequest(success=(ALL,)))).succeeded


async def test_a_large_request_is_refused_before_the_log(opener: Opener) -> None:
    store = await opener(max_request_bytes=1000)
    halves = (PutRequest(b"a", bytes(600)), PutRequest(b"b", bytes(600)))
    for request in (PutRequest(b"k", bytes(2000)), TxnRequest(success=halves)):
        with pytest.raises(RequestTooLarge, match="1000 are allowed"):
            await store.submit(request)
    assert (await store.status()).raft_applied_index == 0


async def test_leases_end_by_the_clock_and_live_on_through_a_restart(opener: Opener) -> None:
    clock = FakeClock()
    store = await opener(clock=clock)
    lease = await store.lease_grant(10)
    await store.put(PutRequest(b"leased", b"", lease.id))
    clock.advance(9)
    assert await store.lease_keep_alive(lease.id) == 10
    clock.advance(9)
    assert (await store.range(RangeRequest(b"leased"))).count == 1
    await store.close()
    store = await opener(clock=clock)
    clock.advance(9)
    assert (await store.range(RangeRequest(b"leased"))).count == 1
    async with store.watch(WatchRequest(b"leased")) as watch:
        clock.advance(2)
        response = await anext(watch)
    assert [event.is_delete for event in response.events] == [True]
    assert await store.lease_keep_alive(lease.id) == 0


async def test_upkeep_that_is_refused_says_so_once(opener: Opener, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    store = await opener(clock=clock)
    for _ in range(20):
        await store.lease_grant(5)
    await store.alarm(AlarmAction.ACTIVATE, AlarmType.CORRUPT)
    clock.advance(6)
    with pytest.raises(CorruptAlarm):
        await store.put(PutRequest(b"a"))
    assert caplog.text.count("upkeep waits: etcdserver: corrupt cluster") == 1


async def test_history_is_compacted_by_age(opener: Opener) -> None:
    clock = FakeClock()
    store = await opener(clock=clock, auto_compaction_seconds=100.0)
    await fill(store, 5)
    kept_from = store.keys.revision
    for _ in range(10):
        clock.advance(10)
    await fill(store, 5, start=5)
    clock.advance(10)
    await store.put(PutRequest(b"x"))
    assert store.keys.compact_revision == kept_from


async def test_history_is_compacted_by_count(opener: Opener) -> None:
    clock = FakeClock()
    store = await opener(clock=clock, auto_compaction_revisions=3)
    await fill(store, 10)
    clock.advance(5)
    await store.put(PutRequest(b"x"))
    assert store.keys.compact_revision == 11 - 3


async def test_physical_compaction_frees_history(opener: Opener) -> None:
    store = await opener()
    for _ in range(20):
        await fill(store, 20)
    held = store.keys.bytes_in_use
    await store.compact(store.keys.revision, physical=True)
    assert store.keys.bytes_in_use < held / 10


async def test_a_reader_of_the_past_delays_a_compaction_no_longer_than_it_reads(opener: Opener) -> None:
    store = await opener()
    for _ in range(10):
        await fill(store, 20)
    held = store.keys.bytes_in_use
    store.keys.pin()
    await store.compact(store.keys.revision, physical=True)
    assert store.keys.bytes_in_use == held
    store.keys.unpin()
    await store.checkpointer.freed()
    assert store.keys.bytes_in_use < held / 5


async def test_history_given_up_before_a_restart_does_not_come_back(opener: Opener) -> None:
    store = await opener()
    for _ in range(20):
        await fill(store, 20)
    await store.delete_range(DeleteRangeRequest(b"/k/00000", prefix_end(b"/k/00000")))
    await store.put(PutRequest(b"last"))
    # The checkpoint that this needs is made before anything is swept.
    await store.compact(store.keys.revision - 1, physical=True)
    before = await store.hash_kv()
    held = store.keys.bytes_in_use
    changes = store.keys.changes_since(2, 1000)
    await store.close()
    store = await opener()
    assert store.keys.bytes_in_use == held
    assert store.keys.changes_since(2, 1000) == changes
    assert await store.hash_kv() == before


async def test_a_large_range_is_one_revision_and_lets_writes_through(opener: Opener) -> None:
    store = await opener()
    await fill(store, 25_000, size=1)
    revision = store.keys.revision
    reading = asyncio.create_task(store.range(RangeRequest(b"/k/", prefix_end(b"/k/"))))
    await asyncio.sleep(0)
    written = await store.put(PutRequest(b"/k/000000", b"later"))
    found = await reading
    assert (found.count, len(found.kvs), found.revision) == (25_000, 25_000, revision)
    assert written.revision == revision + 1
    assert found.kvs[0].mod_revision <= revision


async def test_a_large_past_range_lets_others_through_whatever_has_become_of_its_keys(opener: Opener) -> None:
    store = await opener()
    await fill(store, 12_000, size=1)
    past = store.keys.revision
    await store.delete_range(DeleteRangeRequest(b"/k/", prefix_end(b"/k/")))
    await fill(store, 12_000, size=1, start=20_000)
    turns = 0
    done = False

    async def others() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    everything = await store.range(RangeRequest(b"/k/", prefix_end(b"/k/"), revision=past))
    page = await store.range(RangeRequest(b"/k/", prefix_end(b"/k/"), revision=past, limit=10))
    counted = await store.range(RangeRequest(b"/k/", prefix_end(b"/k/"), revision=past, count_only=True))
    done = True
    await running
    assert turns > 9
    assert [kv.key for kv in everything.kvs] == [b"/k/%06d" % number for number in range(12_000)]
    assert (everything.count, everything.more) == (12_000, False)
    assert (page.kvs, page.count, page.more) == (everything.kvs[:10], 12_000, True)
    assert (counted.kvs, counted.count) == ([], 12_000)


async def test_a_snapshot_is_one_revision_while_writes_go_on(opener: Opener, tmp_path: Path) -> None:
    store = await opener()
    await fill(store, 6000, size=1)
    hashed = await store.hash_kv()
    copy = tmp_path / "copy"
    stream = store.snapshot()
    first = await anext(stream)
    await fill(store, 6000, size=2)
    await store.delete_range(DeleteRangeRequest(b"/k/", prefix_end(b"/k/")))
    copy.write_bytes(first + b"".join([chunk async for chunk in stream]))
    report = restore_snapshot(str(copy), str(tmp_path / "restored"))
    assert report.revision >= hashed.hash_revision
    restored = await EmbeddedStore.open(StoreOptions(data_dir=str(tmp_path / "restored")))
    try:
        assert restored.keys.revision == report.revision
        assert (await restored.hash_kv(hashed.hash_revision)).hash == hashed.hash
        assert (await restored.put(PutRequest(b"goes on"))).revision == report.revision + 1
    finally:
        await restored.close()
    assert not [name for name in os.listdir(tmp_path / "data" / "snap") if name.startswith("spool")]


async def test_a_snapshot_under_load_is_consistent(opener: Opener, tmp_path: Path) -> None:
    store = await opener(snapshot_entries=10**9)
    await fill(store, 9000, size=1)
    stop = False

    async def churn(number: int) -> None:
        count = 0
        while not stop:
            count += 1
            # Both or neither, in every copy.
            ops = (PutRequest(b"/a/%d" % number, b"%d" % count), PutRequest(b"/z/%d" % number, b"%d" % count))
            await store.txn(TxnRequest(success=ops))
            await store.delete_range(DeleteRangeRequest(b"/k/%06d" % (number * 500 + count % 500)))

    writers = [asyncio.create_task(churn(number)) for number in range(8)]
    await asyncio.sleep(0.05)
    copy = tmp_path / "copy"
    copy.write_bytes(b"".join([chunk async for chunk in store.snapshot()]))
    stop = True
    await asyncio.gather(*writers)
    report = restore_snapshot(str(copy), str(tmp_path / "restored"))
    hashed = await store.hash_kv(report.revision)
    restored = await EmbeddedStore.open(StoreOptions(data_dir=str(tmp_path / "restored")))
    try:
        assert (await restored.hash_kv()).hash == hashed.hash
        pairs = await restored.range(RangeRequest(b"/a/", prefix_end(b"/a/")))
        assert len(pairs.kvs) == 8
        for kv in pairs.kvs:
            other = await restored.range(RangeRequest(b"/z/" + kv.key[3:]))
            assert other.kvs[0].value == kv.value
    finally:
        await restored.close()
    assert check(str(tmp_path / "restored")).ok


async def test_close_ends_watches_and_refuses_writes(opener: Opener) -> None:
    store = await opener()
    watch = store.watch(WatchRequest(b"a"))
    await store.close()
    last = await anext(watch)
    assert last.canceled
    assert "stopped" in last.cancel_reason
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    with pytest.raises(Unavailable):
        await store.put(PutRequest(b"a"))


async def test_close_is_done_when_it_says_so_whoever_asks(opener: Opener) -> None:
    store = await opener()
    await fill(store, 10)
    first = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    first.cancel()
    await store.close()
    again = await opener()
    assert (await again.range(ALL)).count == 10


async def test_a_slow_watcher_is_told_where_to_resume(opener: Opener) -> None:
    store = await opener(watch_buffer_events=10)
    async with store.watch(WatchRequest(b"\0", b"\0")) as slow, store.watch(WatchRequest(b"/k/000000")) as quick:
        await fill(store, 50)
        last = await anext(slow)
        assert last.canceled
        assert f"resume from revision {last.resume_revision}" in last.cancel_reason
        assert [event.kv.key for event in (await anext(quick)).events] == [b"/k/000000"]
        async with store.watch(WatchRequest(b"\0", b"\0", start_revision=last.resume_revision)) as resumed:
            seen = 0
            async for response in resumed:
                seen += len(response.events)
                if seen == 50:
                    break


@pytest.mark.parametrize(("queue", "verdict"), [(1024, "are 20, which is enough"), (8, "are 20, so raise it to 20")])
async def test_status_advises_a_commit_queue(opener: Opener, queue: int, verdict: str) -> None:
    clock = FakeClock()
    store = await opener(clock=clock, commit_queue=queue)
    assert "no whole second" in (await store.status()).advice[0]
    await fill(store, 400)
    clock.advance(1)
    await fill(store, 1)
    (sentence,) = (await store.status()).advice
    assert "400 a second" in sentence
    assert sentence.endswith(verdict)


async def test_the_write_path_is_measured(opener: Opener) -> None:
    metrics = Metrics()
    store = await opener(metrics=metrics)
    await fill(store, 30)
    await store.checkpointer.write()
    lines = metrics.exposition().decode().splitlines()
    assert "pilothouse_store_commands_total 30.0" in lines
    assert 'pilothouse_store_checkpoint_seconds_count{kind="base"} 1.0' in lines
    assert "pilothouse_store_batch_commands_sum 30.0" in lines


@pytest.mark.parametrize("name", ["snapshot_entries", "commit_queue", "segment_bytes", "quota_bytes", "proposals"])
def test_settings_that_cannot_work_are_named(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"store option {name}: 0 is too small"):
        StoreOptions(data_dir="x", **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="data_dir"):
        StoreOptions(data_dir="")


@pytest.mark.parametrize("base", [True, False])
async def test_a_checkpoint_holds_large_values_and_large_transactions(opener: Opener, base: bool) -> None:
    store = await opener()
    if not base:
        await store.checkpointer.write()
    value = b"large" * 200_000
    await asyncio.gather(*[store.put(PutRequest(b"/large/%02d" % number, value)) for number in range(70)])
    await fill(store, 2000, size=1)
    await store.delete_range(DeleteRangeRequest(b"/k/", prefix_end(b"/k/")))
    await store.put(PutRequest(b"last"))
    before = await store.hash_kv()
    await store.checkpointer.write(base=base)
    await store.put(PutRequest(b"after"))
    changes = store.keys.changes_since(2, 10_000)
    await store.close()
    store = await opener()
    assert store.keys.changes_since(2, 10_000) == changes
    assert (await store.hash_kv(before.hash_revision)).hash == before.hash


async def test_a_closed_store_writes_no_checkpoint(opener: Opener, tmp_path: Path) -> None:
    store = await opener()
    await fill(store, 10)
    running = asyncio.ensure_future(store.checkpointer.write())
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(store.defragment())
    await asyncio.sleep(0)
    await store.close()
    names = sorted(os.listdir(tmp_path / "data" / "snap"))
    await running
    for late in (waiting, asyncio.ensure_future(store.defragment())):
        with pytest.raises(Unavailable):
            await late
    assert store.checkpointer.written == 1
    assert sorted(os.listdir(tmp_path / "data" / "snap")) == names


class SlowOpening(OsFileSystem):
    """Files whose opening, where the path has `name` in it, waits until `go`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.entered = threading.Event()
        self.go = threading.Event()

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if self.name in path:
            self.entered.set()
            assert self.go.wait(10)
        return super().open(path, flags, mode)


async def test_an_opening_that_is_given_up_leaves_the_directory_to_others(opener: Opener) -> None:
    files = SlowOpening("VERSION")
    opening = asyncio.ensure_future(opener(filesystem=files))
    assert await asyncio.to_thread(files.entered.wait, 10)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    files.go.set()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    await (await opener()).put(PutRequest(b"a"))


async def test_deltas_are_bounded_in_number(opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointer, "_MOST_DELTAS", 3)
    store = await opener()
    kinds = []
    for number in range(9):
        await store.put(PutRequest(b"%d" % number))
        await store.checkpointer.write()
        kinds.append(len(list((tmp_path / "data" / "snap").glob("*.table"))))
    assert kinds == [1, 2, 3, 4, 1, 2, 3, 4, 1]


async def test_a_compaction_while_a_copy_begins_is_in_it_or_after_it(opener: Opener, tmp_path: Path) -> None:
    files = SlowOpening("spool")
    store = await opener(filesystem=files)
    for _ in range(5):
        await fill(store, 20)
    await store.checkpointer.write()
    stream = store.snapshot()
    first = asyncio.ensure_future(anext(stream))
    assert await asyncio.to_thread(files.entered.wait, 10)
    await store.compact(50, physical=True)
    files.go.set()
    copy = tmp_path / "copy"
    copy.write_bytes(await first + b"".join([chunk async for chunk in stream]))
    restore_snapshot(str(copy), str(tmp_path / "restored"))
    async with await EmbeddedStore.open(StoreOptions(data_dir=str(tmp_path / "restored"))) as restored:
        held = restored.keys.changes_since(max(restored.keys.compact_revision, 2), 1000)
        assert [change.mod_revision for change in held if isinstance(change, KeyValue)] == list(range(50, 102))
