"""Checking a data directory that nobody holds, and making one from a saved snapshot."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from random import Random

import pytest

from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.errors import DamagedData, DataDirError, DirectoryInUse, NoSpace
from pilothouse.store.model import PutRequest
from pilothouse.store.offline import check, restore_snapshot
from support.faultfs import Fault, FaultFileSystem, SimulatedCrash, count_points


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    async with await EmbeddedStore.open(StoreOptions(data_dir=str(path))) as store:
        for number in range(40):
            await store.put(PutRequest(b"key%d" % number, bytes(200)))
        await store.checkpointer.write()
        for number in range(5):
            await store.put(PutRequest(b"more%d" % number, b"value"))
        (tmp_path / "saved").write_bytes(b"".join([chunk async for chunk in store.snapshot()]))
    return path


def only(path: Path, pattern: str) -> Path:
    (found,) = path.glob(pattern)
    return found


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def snapshot_of(path: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file() and one.name != "LOCK"}


def test_a_sound_directory(directory: Path) -> None:
    before = snapshot_of(directory)
    report = check(str(directory))
    assert (report.ok, report.revision, report.keys, report.index, report.tables) == (True, 46, 45, 45, 1)
    assert snapshot_of(directory) == before


def test_damage_in_the_log_names_file_offset_and_last_good_revision(directory: Path) -> None:
    segment = only(directory, "wal/*.wal")
    place = segment.read_bytes().index(b"more3")
    flip(segment, place)
    before = snapshot_of(directory)
    report = check(str(directory))
    (problem,) = report.problems
    assert not report.ok
    assert problem.path == str(segment)
    assert 0 < problem.offset <= place
    assert problem.last_good_revision == 41 + 3
    assert "checksum" in problem.message
    assert snapshot_of(directory) == before


def test_damage_in_a_table(directory: Path) -> None:
    table = only(directory, "snap/*.table")
    flip(table, table.stat().st_size // 2)
    report = check(str(directory))
    assert not report.ok
    assert report.problems[0].path == str(table)


async def test_a_damaged_directory_is_not_opened(directory: Path) -> None:
    flip(only(directory, "wal/*.wal"), only(directory, "wal/*.wal").read_bytes().index(b"more1"))
    with pytest.raises(DamagedData, match="store check"):
        await EmbeddedStore.open(StoreOptions(data_dir=str(directory)))
    assert not check(str(directory)).ok


def test_what_is_not_a_data_directory(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match="is not there"):
        check(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir(mode=0o700)
    assert not check(str(tmp_path / "empty")).ok
    assert list((tmp_path / "empty").iterdir()) == []


async def test_a_directory_in_use_is_not_checked(directory: Path) -> None:
    async with await EmbeddedStore.open(StoreOptions(data_dir=str(directory))):
        with pytest.raises(DirectoryInUse):
            check(str(directory))


def test_restore_makes_a_new_directory_with_all_keys(directory: Path, tmp_path: Path) -> None:
    report = restore_snapshot(str(tmp_path / "saved"), str(tmp_path / "new"))
    assert (report.revision, report.keys) == (46, 45)
    checked = check(str(tmp_path / "new"))
    assert (checked.ok, checked.revision, checked.keys) == (True, 46, 45)
    assert checked.cluster_id != check(str(directory)).cluster_id


def test_restore_refuses_a_directory_that_is_not_empty(directory: Path, tmp_path: Path) -> None:
    before = snapshot_of(directory)
    with pytest.raises(DataDirError, match="not empty"):
        restore_snapshot(str(tmp_path / "saved"), str(directory))
    assert snapshot_of(directory) == before


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("keep", [0, 10, 500, -1])
def test_a_truncated_snapshot_leaves_nothing(tmp_path: Path, keep: int) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes((tmp_path / "saved").read_bytes()[:keep])
    with pytest.raises(DamagedData):
        restore_snapshot(str(cut), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def _restore(fs: FaultFileSystem, source: bytes) -> None:
    fs.makedirs("/data")
    fd = fs.open("/data/saved", os.O_WRONLY | os.O_CREAT)
    fs.pwrite(fd, (source,), 0)
    fs.close(fd)
    restore_snapshot("/data/saved", "/data/new", StoreOptions(data_dir="/data/new", filesystem=fs))


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.EIO, Fault.ENOSPC])
async def test_a_restore_that_fails_leaves_nothing_that_opens_without_its_keys(tmp_path: Path, fault: Fault) -> None:
    source = (tmp_path / "saved").read_bytes()
    points = count_points(lambda fs: _restore(fs, source))
    refused = 0
    for point, where in enumerate(points):
        fs = FaultFileSystem(plan={point: fault})
        with contextlib.suppress(SimulatedCrash, OSError, NoSpace):
            _restore(fs, source)
        for image in (fs.killed(), fs.crash_image(Random(point))):
            options = StoreOptions(data_dir="/data/new", filesystem=image)
            if not image.exists("/data/new/snap"):
                continue
            found: EmbeddedStore | DamagedData
            try:
                found = await EmbeddedStore.open(options)
            except DamagedData as error:
                found = error
            if isinstance(found, DamagedData):
                assert "restore a snapshot" in found.message, where
                refused += 1
            else:
                assert found.keys.revision == 46, where
                await found.close()
    assert refused > 5


@pytest.mark.usefixtures("directory")
def test_something_else_is_not_a_snapshot(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a snapshot\n" * 100)
    with pytest.raises(DamagedData):
        restore_snapshot(str(tmp_path / "text"), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_log_that_begins_with_the_first_record_needs_no_checkpoint(directory: Path) -> None:
    shutil.rmtree(directory / "snap")
    report = check(str(directory))
    assert (report.ok, report.revision, report.tables) == (True, 46, 0)
