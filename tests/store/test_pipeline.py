"""The writer pipeline: group commit, the bound between log and apply, and what a failing disk does to it."""

import asyncio
import errno
import threading
from collections.abc import Sequence

import pytest

from pilothouse.foundation.metrics import Metrics
from pilothouse.store.errors import NoSpace, RequestTooLarge, TooManyRequests, Unavailable
from pilothouse.store.metrics import StoreMetrics
from pilothouse.store.model import PutRequest
from pilothouse.store.pipeline import Pipeline, Proposal
from pilothouse.store.wal import LogFailed, LogFull


class FakeLog:
    """Stands for the log writer: records what it is given, and holds or fails a write when told."""

    def __init__(self) -> None:
        self.last_index = 0
        self.chain = 7
        self.salt = 1
        self.last_sync_seconds = 0.0
        self.batches: list[int] = []
        self.fail: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def append(self, frames: Sequence[bytes], first: int, last: int, before: int, after: int) -> None:
        self.entered.set()
        assert self.gate.wait(10)
        if self.fail:
            raise self.fail.pop(0)
        assert (first, before) == (self.last_index + 1, self.chain)
        assert len(frames) == last - first + 1
        self.batches.append(len(frames))
        self.last_index, self.chain = last, after


def answer(batch: list[Proposal]) -> None:
    for proposal in batch:
        if not proposal.future.done():
            proposal.future.set_result(proposal.position)


def put(number: int) -> PutRequest:
    return PutRequest(b"%d" % number, b"value")


def make(log: FakeLog, **bounds: int) -> Pipeline:
    return Pipeline(log, answer, StoreMetrics(Metrics()), **bounds)  # type: ignore[arg-type]


async def entered(log: FakeLog) -> None:
    assert await asyncio.to_thread(log.entered.wait, 10)


async def test_everyone_who_waits_shares_one_sync() -> None:
    log = FakeLog()
    pipeline = make(log)
    log.gate.clear()
    first = pipeline.propose(put(0))
    await entered(log)
    rest = [pipeline.propose(put(number)) for number in range(1, 100)]
    log.gate.set()
    assert await asyncio.gather(first, *rest) == list(range(1, 101))
    assert log.batches == [1, 99]
    await pipeline.close()


async def test_proposals_of_one_iteration_are_one_batch() -> None:
    log = FakeLog()
    pipeline = make(log)
    await asyncio.gather(*[pipeline.propose(put(number)) for number in range(50)])
    assert log.batches == [50]
    await pipeline.close()


async def test_the_log_waits_for_apply_only_at_the_bound() -> None:
    log = FakeLog()
    applied: list[int] = []
    released = threading.Event()
    loop = asyncio.get_running_loop()
    blocked: list[int] = []

    def apply(batch: list[Proposal]) -> None:
        if not released.is_set():
            # The event loop is busy here, as with a slow apply; meanwhile the log thread may write 4 more.
            released.set()
            for _ in range(200):
                if log.last_index >= 4:
                    break
                threading.Event().wait(0.005)
            threading.Event().wait(0.05)
            blocked.append(log.last_index)
        applied.extend(proposal.position for proposal in batch)
        answer(batch)

    pipeline = Pipeline(log, apply, StoreMetrics(Metrics()), commit_queue=4)  # type: ignore[arg-type]
    futures = [pipeline.propose(put(number)) for number in range(20)]
    assert await asyncio.gather(*futures) == list(range(1, 21))
    assert applied == list(range(1, 21))
    assert blocked == [4]
    assert max(log.batches) <= 4
    assert loop.is_running()
    await pipeline.close()


async def test_a_full_disk_refuses_what_waits_and_then_goes_on() -> None:
    log = FakeLog()
    pipeline = make(log)
    log.fail.append(LogFull(errno.ENOSPC, "no room"))
    results = await asyncio.gather(*[pipeline.propose(put(number)) for number in range(3)], return_exceptions=True)
    assert [type(result) for result in results] == [NoSpace] * 3
    assert "no room" in str(results[0])
    assert await pipeline.propose(put(4)) == 1
    await pipeline.close()


async def test_a_failed_sync_ends_all_writes() -> None:
    log = FakeLog()
    pipeline = make(log)
    assert await pipeline.propose(put(0)) == 1
    log.fail.append(LogFailed(errno.EIO, "cannot sync"))
    with pytest.raises(Unavailable, match="cannot sync"):
        await pipeline.propose(put(1))
    with pytest.raises(Unavailable, match="started again"):
        pipeline.propose(put(2))
    assert log.last_index == 1
    await pipeline.close()


async def test_a_defect_below_ends_all_writes_too() -> None:
    log = FakeLog()
    pipeline = make(log)
    log.fail.append(ValueError("a defect"))
    with pytest.raises(Unavailable, match="a defect"):
        await pipeline.propose(put(0))
    await pipeline.close()


async def test_a_defect_in_apply_is_told_to_all_who_wait(caplog: pytest.LogCaptureFixture) -> None:
    def apply(batch: list[Proposal]) -> None:
        raise KeyError("a defect")

    pipeline = Pipeline(FakeLog(), apply, StoreMetrics(Metrics()), commit_queue=2)  # type: ignore[arg-type]
    results = await asyncio.gather(*[pipeline.propose(put(number)) for number in range(5)], return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 5
    with pytest.raises(Unavailable, match="please report it"):
        pipeline.propose(put(9))
    assert "applying the log failed" in caplog.text
    await pipeline.close()


class HeldAtSecond(FakeLog):
    """Returns from its second write only when told."""

    def __init__(self) -> None:
        super().__init__()
        self.second = threading.Event()

    def append(self, frames: Sequence[bytes], first: int, last: int, before: int, after: int) -> None:
        super().append(frames, first, last, before, after)
        if len(self.batches) == 2:
            assert self.second.wait(10)


async def test_what_is_being_written_while_apply_fails_is_refused_whole() -> None:
    def apply(batch: list[Proposal]) -> None:
        raise KeyError("a defect")

    log = HeldAtSecond()
    log.gate.clear()
    pipeline = Pipeline(log, apply, StoreMetrics(Metrics()))  # type: ignore[arg-type]
    first = pipeline.propose(put(0))
    await entered(log)
    rest = [pipeline.propose(put(number)) for number in range(1, 601)]
    log.gate.set()
    with pytest.raises(Unavailable):
        await first
    log.second.set()
    done, waiting = await asyncio.wait(rest, timeout=10)
    assert {type(future.exception()) for future in done} == {Unavailable}
    assert not waiting
    await pipeline.close()


async def test_too_many_proposals_are_refused() -> None:
    log = FakeLog()
    pipeline = make(log, proposals=2)
    log.gate.clear()
    first = pipeline.propose(put(0))
    await entered(log)
    waiting = [pipeline.propose(put(1)), pipeline.propose(put(2))]
    with pytest.raises(TooManyRequests, match="2 with"):
        pipeline.propose(put(3))
    log.gate.set()
    assert await asyncio.gather(first, *waiting) == [1, 2, 3]
    await pipeline.close()


async def test_too_many_waiting_bytes_are_refused() -> None:
    log = FakeLog()
    pipeline = make(log, waiting_bytes=1000)
    log.gate.clear()
    first = pipeline.propose(PutRequest(b"k", bytes(2000)))
    with pytest.raises(TooManyRequests, match="bytes wait"):
        pipeline.propose(put(1))
    log.gate.set()
    assert await first == 1
    assert pipeline.bytes_waiting == 0
    assert await pipeline.propose(put(1)) == 2
    await pipeline.close()


async def test_a_request_over_the_limit_is_refused() -> None:
    pipeline = make(FakeLog(), max_request_bytes=100)
    with pytest.raises(RequestTooLarge, match="100 are allowed"):
        pipeline.propose(PutRequest(b"k", bytes(200)))
    await pipeline.close()


async def test_close_writes_and_answers_what_waits() -> None:
    log = FakeLog()
    pipeline = make(log)
    futures = [pipeline.propose(put(number)) for number in range(10)]
    await pipeline.close()
    assert [future.result() for future in futures] == list(range(1, 11))
    with pytest.raises(Unavailable):
        pipeline.propose(put(11))
