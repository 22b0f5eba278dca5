from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.store.errors import DamagedData
from pilothouse.store.wal import LogFailed, LogFull
from pilothouse.store.wal_recovery import open_log
from support.faultfs import Fault, FaultFileSystem, SimulatedCrash, count_points
from support.logs import (
    CLUSTER,
    DIRECTORY,
    SEGMENT,
    Batch,
    Journal,
    open_writer,
    random_batches,
    replay,
    write_log,
)

_SMALL: list[Batch] = [
    [b"a" * 40, b"b" * 700],
    [bytes(1300), b"c" * 20],
    [b"d" * 1500, b"", b"e" * 9],
    [b"f" * 900, bytes(600)],
    [b"g" * 5000],
    [b"h"],
]


def _work(fs: FaultFileSystem, journal: Journal) -> None:
    """Write in two runs with a release between them, so that every kind of call is passed."""
    write_log(fs, _SMALL[:4], journal)
    writer = open_writer(fs)
    for batch in _SMALL[4:]:
        journal.append(writer, batch)
    writer.close()


def _points() -> int:
    return len(count_points(lambda fs: _work(fs, Journal())))


def _check(found: list[bytes], journal: Journal) -> None:
    assert found == journal.attempted[: len(found)], "a record came back changed or half"
    assert len(found) >= journal.acknowledged, f"{journal.acknowledged} acknowledged, {len(found)} there"


def test_the_workload_passes_every_kind_of_call() -> None:
    calls = {point.call for point in count_points(lambda fs: _work(fs, Journal()))}
    assert calls >= {
        "mkdir",
        "create",
        "allocate",
        "pwrite",
        "fdatasync",
        "fsync",
        "rename",
        "sync_directory",
        "truncate",
    }


def test_a_crash_at_any_point_keeps_everything_acknowledged() -> None:
    cut = 0
    for point in range(_points()):
        fs, journal = FaultFileSystem(plan={point: Fault.CRASH}), Journal()
        with pytest.raises(SimulatedCrash):
            _work(fs, journal)
        for seed in range(25):
            image = fs.crash_image(Random(seed))
            recovery = open_log(image, DIRECTORY, CLUSTER, segment_bytes=SEGMENT)
            found = [payload for _, payload in recovery]
            cut += recovery.cut is not None
            _check(found, journal)
            writer = recovery.writer()
            again = Journal()
            again.attempted, again.acknowledged = list(found), len(found)
            for batch in ([b"after"], [b"y" * 3000]):
                again.append(writer, batch)
            writer.close()
            assert replay(image) == again.attempted
    assert cut > 0, "some crashes tear the end"


def test_a_crash_while_recovering_from_a_crash_loses_nothing() -> None:
    for point in range(_points()):
        fs, journal = FaultFileSystem(plan={point: Fault.CRASH}), Journal()
        with pytest.raises(SimulatedCrash):
            _work(fs, journal)
        first = fs.crash_image(Random(point))
        for second in range(20):
            image = first.crash_image(Random(0))
            image.plan = {second: Fault.CRASH}
            try:
                open_writer(image).close()
            except SimulatedCrash:
                _check(replay(image.crash_image(Random(second))), journal)
            else:
                break
        else:
            pytest.fail("recovery passes more points than were tried")


def test_what_was_replayed_after_a_kill_survives_a_loss_of_power() -> None:
    for point in range(_points()):
        fs, journal = FaultFileSystem(plan={point: Fault.CRASH}), Journal()
        with pytest.raises(SimulatedCrash):
            _work(fs, journal)
        survivor = fs.killed()
        served = replay(survivor)
        _check(served, journal)
        open_writer(survivor)
        assert replay(survivor.crash_image(Random(point)))[: len(served)] == served


def _continue_after(fs: FaultFileSystem, journal: Journal) -> bool:
    """Work to the end, appending what was refused for want of space again; return whether the log failed for good."""
    writer = None
    for batch in _SMALL:
        for _ in range(3):
            try:
                writer = writer or open_writer(fs)
                journal.append(writer, batch)
            except LogFull:
                continue
            except LogFailed:
                assert writer is not None
                with pytest.raises(LogFailed):
                    writer.append([b""], writer.last_index + 1, writer.last_index + 1, writer.chain, 0)
                return True
            except OSError:
                assert writer is None, "only opening the log fails with a plain error"
                continue
            break
        else:
            pytest.fail("one fault refused the same batch three times")
    return False


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC, Fault.SHORT])
def test_a_fault_at_any_call_is_survived_or_final(fault: Fault) -> None:
    trace = count_points(lambda fs: _continue_after(fs, Journal()))
    assert len(trace) > 15
    outcomes = set()
    for point, where in enumerate(trace):
        fs, journal = FaultFileSystem(plan={point: fault}), Journal()
        failed = _continue_after(fs, journal)
        outcomes.add(failed)
        in_sync = where.call in {"fdatasync", "sync_directory"} and where.path.startswith(DIRECTORY)
        if fault is Fault.SHORT:
            assert not failed, where
        elif fault is Fault.ENOSPC and where.call == "fdatasync":
            pass  # a durable write is one call; where it finds no room, its batch is cut off, and no other was unsynced
        elif in_sync and point > trace.index(next(each for each in trace if each.call == "pwrite")) + 3:
            assert failed, f"a failed {where.call} is final"
        elif fault is Fault.ENOSPC:
            assert not failed or in_sync, where
        if not failed:
            assert journal.acknowledged == sum(map(len, _SMALL))
        for seed in range(5):
            _check(replay(fs.crash_image(Random(seed))), journal)
    assert outcomes == ({False} if fault is Fault.SHORT else {False, True})


def test_nothing_of_a_batch_refused_for_space_is_ever_replayed() -> None:
    points = [
        point for point, where in enumerate(count_points(lambda fs: _work(fs, Journal()))) if where.call == "pwrite"
    ]
    refused = 0
    for point in points:
        fs, journal = FaultFileSystem(plan={point: Fault.ENOSPC}), Journal()
        try:
            _work(fs, journal)
        except LogFull:
            refused += 1
            for seed in range(20):
                assert replay(fs.crash_image(Random(seed))) == journal.attempted[: journal.acknowledged]
        except OSError:
            assert journal.acknowledged == 0
    assert refused > 3


def test_a_second_fault_while_restoring_the_end_is_final() -> None:
    fs, journal = FaultFileSystem(), Journal()
    writer = open_writer(fs)
    journal.append(writer, [b"kept"])
    fs.plan = {fs.points: Fault.ENOSPC, fs.points + 1: Fault.EIO}
    with pytest.raises(LogFailed, match="restore the end"):
        journal.append(writer, [b"x" * 900])
    fs.plan = {}
    with pytest.raises(LogFailed):
        writer.append([b""], 2, 2, writer.chain, 0)
    _check(replay(fs.crash_image(Random(0))), journal)


def test_a_full_disk_refuses_and_goes_on_when_there_is_room_again() -> None:
    fs, journal = FaultFileSystem(capacity=2 * SEGMENT + 100), Journal()
    writer = open_writer(fs)
    for number in range(8):
        journal.append(writer, [b"%d" % number * 900])
    for number in range(4):
        with pytest.raises(LogFull, match="free disk space"):
            journal.append(writer, [b"%d" % number * 900])
    fs.capacity = 20 * SEGMENT
    journal.append(writer, [b"room again"])
    assert replay(fs.crash_image(Random(1))) == journal.attempted
    assert fs.open_descriptors == 1


def test_a_directory_on_a_full_disk_can_be_opened() -> None:
    fs, journal = FaultFileSystem(), Journal()
    write_log(fs, [[b"kept"], [b"torn" * 400]], journal)
    (name,) = fs.listdir(DIRECTORY)
    fs.damage(f"{DIRECTORY}/{name}", 512, bytes(512))
    fs.capacity = 200
    writer = open_writer(fs)
    assert replay(fs) == [b"kept"]
    journal.attempted, journal.acknowledged = [b"kept"], 1
    with pytest.raises(LogFull):
        journal.append(writer, [b"x" * 300])
    fs.capacity = None
    journal.append(writer, [b"x" * 300])
    assert replay(fs.crash_image(Random(1))) == journal.attempted


def test_a_byte_flipped_on_its_way_to_disk_is_refused() -> None:
    writes = [
        point for point, where in enumerate(count_points(lambda fs: write_log(fs, _SMALL))) if where.call == "pwrite"
    ]
    for point in writes:
        for seed in range(40):
            fs = FaultFileSystem(plan={point: Fault.FLIP}, seed=seed)
            write_log(fs, _SMALL)
            with pytest.raises(DamagedData):
                replay(fs)


def test_preparing_ahead_may_fail_without_harm() -> None:
    for fault in (Fault.EIO, Fault.ENOSPC):
        for later in range(3):
            fs, journal = FaultFileSystem(), Journal()
            writer = open_writer(fs)
            fs.plan = {fs.points + later: fault}
            with pytest.raises(OSError, match=r"Errno"):
                writer.prepare_next()
            for batch in _SMALL:
                journal.append(writer, batch)
            assert replay(fs) == journal.attempted
            assert not [name for name in fs.listdir(DIRECTORY) if name.endswith(".tmp")]


def test_a_crash_during_release_leaves_a_log_that_opens() -> None:
    for point in range(40):
        fs = FaultFileSystem()
        journal = write_log(fs, random_batches(Random(7), 30))
        writer = open_writer(fs)
        covered = writer.segments[-2].first_index
        fs.plan = {fs.points + point: Fault.CRASH}
        try:
            writer.release(covered - 1)
        except SimulatedCrash:
            for seed in range(10):
                image = fs.crash_image(Random(seed))
                assert replay(image, covered - 1) == journal.attempted[covered - 1 :]
        else:
            assert point > 3
            break
    else:
        pytest.fail("release passes more points than were tried")


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_any_crash_of_any_workload_keeps_a_prefix_with_everything_acknowledged(seed: int, data: st.DataObject) -> None:
    batches = random_batches(Random(seed), 8)
    total = len(count_points(lambda fs: write_log(fs, batches)))
    fs, journal = FaultFileSystem(plan={data.draw(st.integers(0, total - 1)): Fault.CRASH}), Journal()
    with pytest.raises(SimulatedCrash):
        write_log(fs, batches, journal)
    for _ in range(5):
        image = fs.crash_image(Random(data.draw(st.integers(0, 2**32))))
        _check(replay(image), journal)
