"""The engine over a file system that fails, fills up, tears and forgets, at every call of a short workload."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import threading
import time
from typing import Any

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.errors import DamagedData, DataDirError, NoSpace, Unavailable
from pilothouse.store.model import PutRequest, RangeRequest
from support.crash import Ledger
from support.crash_child import Load, Record, opened, watch
from support.faultfs import Fault, FaultFileSystem, SimulatedCrash

OPERATIONS = 60


def options(fs: FaultFileSystem) -> StoreOptions:
    return StoreOptions(
        data_dir="/data/store", snapshot_entries=6, segment_bytes=2048, filesystem=fs, clock=FakeClock()
    )


@pytest.fixture(autouse=True)
def _crashes_end_threads_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread on which the machine is gone has nobody to report to; every other error stays an error."""
    report = threading.excepthook

    def hook(args: Any) -> None:
        if args.exc_type is not SimulatedCrash:
            report(args)

    monkeypatch.setattr(threading, "excepthook", hook)


async def workload(fs: FaultFileSystem, records: list[Record], run: int = 1, seed: int = 3) -> None:
    """Open a store, do a fixed number of operations three at a time, close; stop where the machine is gone."""
    began = time.monotonic()
    store = await EmbeddedStore.open(options(fs))
    try:
        records.append(await opened(store, began))
        load = Load(store, run, random.Random(seed), records.append)
        for _ in range(OPERATIONS // 2):
            both = asyncio.gather(load.write_once(0), load.write_once(1))
            while not both.done() and not fs.crashed:
                await asyncio.wait({both}, timeout=0.002)
            if fs.crashed:
                both.cancel()
                with contextlib.suppress(asyncio.CancelledError, SimulatedCrash):
                    await both
                return
    finally:
        with contextlib.suppress(SimulatedCrash, OSError):
            await store.close()


async def look(fs: FaultFileSystem, ledger: Ledger, run: int) -> None:
    """Open what is there, take it into the ledger, and see that it can be written."""
    records: list[Record] = []
    began = time.monotonic()
    async with await EmbeddedStore.open(options(fs)) as store:
        records.append(await opened(store, began))
        await watch(store, until_caught_up=True, report=records.append)
        load = Load(store, run, random.Random(run), records.append)
        await load.write_once(0)
    ledger.add(run, records)


async def suffer(plan: dict[int, Fault], seed: int) -> tuple[FaultFileSystem, list[Record]]:
    """Run the workload with a fault; return the file system and what was answered."""
    fs = FaultFileSystem(plan=plan, seed=seed)
    records: list[Record] = []
    with contextlib.suppress(SimulatedCrash, OSError, DataDirError):
        await workload(fs, records)
    return fs, records


async def faults_after(point: int, fault: Fault) -> list[str]:
    """Return what is wrong after a fault at a point, for a killed process and for a machine that lost power."""
    fs, records = await suffer({point: fault}, seed=point)
    found: list[str] = []
    rng = random.Random(point)
    for image in (fs.killed(), fs.crash_image(rng)):
        ledger = Ledger(refusals=True)
        ledger.add(1, records)
        try:
            await look(image, ledger, 2)
            await look(image, ledger, 3)
        except DamagedData as error:
            if fault is not Fault.FLIP or not error.path:
                found.append(f"{fault} at point {point}, {fs.trace[point]}: {error!r}")
        found += [f"{fault} at point {point}, {fs.trace[point : point + 1]}: {problem}" for problem in ledger.check()]
    return found


async def points() -> int:
    """Return how many calls the workload makes without a fault; checkpoints and rotations are among them."""
    fs, records = await suffer({}, seed=0)
    assert {"create", "pwrite", "fdatasync", "fsync", "rename", "unlink", "sync_directory"} <= {
        p.call for p in fs.trace
    }
    assert sum(point.path.endswith("MANIFEST") for point in fs.trace) > 2
    assert sum(point.path.endswith(".wal") and point.call == "rename" for point in fs.trace) > 1
    assert len(records) == 1 + 2 * (OPERATIONS // 2) * 2
    assert not [record for record in records if getattr(record, "error", "")]
    return fs.points


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(Fault))
async def test_every_call_may_fail(fault: Fault) -> None:
    count = await points()
    assert count > 100
    for point in range(count):
        assert await faults_after(point, fault) == []


async def test_a_full_disk_refuses_writes_until_there_is_space_again() -> None:
    fs = FaultFileSystem()
    async with await EmbeddedStore.open(options(fs)) as store:
        await store.put(PutRequest(b"before", b"1"))
        fs.capacity = 0
        answers = [await _put_or_refusal(store, b"x" * 400) for _ in range(50)]
        written = sum(answer is None for answer in answers)
        assert written < 20
        assert all("space" in str(answer) for answer in answers[written:])
        before = await store.range(RangeRequest(b"before"))
        assert [kv.value for kv in before.kvs] == [b"1"]
        assert before.revision == 2 + written
        fs.capacity = None
        assert (await store.put(PutRequest(b"after", b"2"))).revision == 3 + written
    async with await EmbeddedStore.open(options(fs.killed())) as store:
        assert [kv.value for kv in (await store.range(RangeRequest(b"after"))).kvs] == [b"2"]
        assert (await store.range(RangeRequest(b"after"))).revision == 3 + written


class ForgetfulDisk(FaultFileSystem):
    """A disk that answers a sync without doing it."""

    def fdatasync(self, fd: int) -> None:
        pass


async def test_a_disk_that_lies_about_syncs_is_noticed() -> None:
    fs = ForgetfulDisk()
    records: list[Record] = []
    await workload(fs, records)
    for seed in range(10):
        ledger = Ledger()
        ledger.add(1, records)
        with contextlib.suppress(DamagedData):
            await look(fs.crash_image(random.Random(seed)), ledger, 2)
            assert ledger.check() != []


async def test_the_harness_notices_a_disk_from_yesterday() -> None:
    fs = FaultFileSystem()
    ledger = Ledger()
    for run in (1, 2):
        yesterday = fs.killed()
        records: list[Record] = []
        await workload(fs, records, run)
        ledger.add(run, records)
    await look(yesterday, ledger, 3)
    faults = "\n".join(ledger.check())
    assert "had been reported" in faults
    assert "operations can be ordered" in faults
    assert "are gone" in faults


@pytest.mark.parametrize("writes", range(1, 25))
async def test_nothing_is_written_once_closed(writes: int) -> None:
    fs = FaultFileSystem()
    store = await EmbeddedStore.open(options(fs))
    for number in range(writes):
        await store.put(PutRequest(b"k%d" % (number % 3), b"x" * 50))
    compacting = asyncio.ensure_future(store.compact(store.keys.revision))
    await asyncio.sleep(0)
    for _ in range(writes % 7):
        await store.put(PutRequest(b"z", b"1"))
    await compacting
    await store.close()
    # Another process may hold the directory from here on.
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert fs.open_descriptors == 0
    calls = fs.points
    async with await EmbeddedStore.open(options(fs.killed())):
        pass
    assert fs.points == calls


async def _put_or_refusal(store: EmbeddedStore, value: bytes) -> NoSpace | None:
    try:
        await store.put(PutRequest(b"filling", value))
    except NoSpace as error:
        return error
    return None


class BrokenSync(FaultFileSystem):
    """A disk whose syncs fail from a moment on."""

    broken = False
    attempts = 0

    def fdatasync(self, fd: int) -> None:
        if self.broken:
            self.attempts += 1
            raise OSError(errno.EIO, "the disk is gone")
        super().fdatasync(fd)


async def test_a_failed_sync_ends_writing_at_once_and_is_never_tried_again() -> None:
    fs = BrokenSync()
    async with await EmbeddedStore.open(options(fs)) as store:
        await store.put(PutRequest(b"before", b"1"))
        fs.broken = True
        with pytest.raises(Unavailable, match="no writes are accepted until the store is started again"):
            await store.put(PutRequest(b"lost", b"2"))
        fs.broken = False
        attempts = fs.attempts
        for _ in range(3):
            with pytest.raises(Unavailable, match="the disk is gone"):
                await store.put(PutRequest(b"refused", b"3"))
        assert fs.attempts == attempts
        found = await store.range(RangeRequest(b"\0", b"\0"))
        assert [kv.key for kv in found.kvs] == [b"before"]
        assert any("the disk is gone" in error for error in (await store.status()).errors)
    async with await EmbeddedStore.open(options(fs.crash_image(random.Random(1)))) as store:
        found = await store.range(RangeRequest(b"\0", b"\0"))
        assert [kv.key for kv in found.kvs if kv.key != b"lost"] == [b"before"]
        assert found.revision <= 3
