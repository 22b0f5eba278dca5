from __future__ import annotations

from random import Random

import pytest

from pilothouse.store.checkpoints import Checkpoints, Kind
from pilothouse.store.errors import DamagedData, NewerFormat, NoSpace
from pilothouse.store.sealed import write_sealed
from support.faultfs import Fault, FaultFileSystem, SimulatedCrash, count_points

_SNAP = "/data/snap"
_STEPS: list[tuple[Kind, int]] = [("base", 10), ("delta", 20), ("delta", 25), ("base", 40), ("delta", 41)]

Blocks = list[tuple[int, bytes]]


def _open(fs: FaultFileSystem, *, read_only: bool = False) -> Checkpoints:
    return Checkpoints.open(fs, _SNAP, 0xC1, 0xA1, read_only=read_only)


def _content(kind: Kind, index: int) -> Blocks:
    return [(1, b"%s %d" % (kind.encode(), index)), (2, bytes([index]) * 700)]


def _write(checkpoints: Checkpoints, kind: Kind, index: int) -> None:
    table = checkpoints.begin(kind)
    for block in _content(kind, index):
        table.write(*block)
    table.commit(index, index * 2)


def _states() -> list[tuple[int, Blocks]]:
    """Return (index covered, blocks) before the first step and after each."""
    states: list[tuple[int, Blocks]] = [(0, [])]
    for kind, index in _STEPS:
        before = [] if kind == "base" else states[-1][1]
        states.append((index, before + _content(kind, index)))
    return states


def _work(fs: FaultFileSystem, done: list[int]) -> None:
    checkpoints = _open(fs)
    for kind, index in _STEPS:
        _write(checkpoints, kind, index)
        done.append(index)


def test_a_new_directory_has_an_empty_checkpoint() -> None:
    fs = FaultFileSystem()
    checkpoints = _open(fs)
    assert (checkpoints.index, checkpoints.revision, checkpoints.tables) == (0, 0, ())
    assert list(checkpoints.blocks()) == []
    assert fs.listdir(_SNAP) == ["MANIFEST"]


def test_a_base_replaces_what_was_there_and_deltas_add_to_it() -> None:
    fs = FaultFileSystem()
    for (kind, index), (covered, blocks) in zip(_STEPS, _states()[1:], strict=True):
        _write(_open(fs), kind, index)
        again = _open(fs)
        assert (again.index, again.revision, list(again.blocks())) == (covered, covered * 2, blocks)
        assert len(fs.listdir(_SNAP)) == 1 + len(again.tables), "what is not listed is gone"
        assert again.bytes_on_disk == sum(len(fs.read(f"{_SNAP}/{table.name}")) for table in again.tables)
    assert fs.open_descriptors == 0


def test_a_base_of_the_same_index_does_not_overwrite_the_one_in_force() -> None:
    fs = FaultFileSystem()
    checkpoints = _open(fs)
    names = set()
    for _ in range(4):
        before = checkpoints.tables
        _write(checkpoints, "base", 10)
        assert not set(before) & set(checkpoints.tables)
        names.add(checkpoints.tables[0].name)
    assert list(_open(fs).blocks()) == _content("base", 10)
    assert len(names) > 1


def test_a_crash_at_any_point_leaves_the_checkpoint_before_or_after() -> None:
    states = _states()
    trace = count_points(lambda fs: _work(fs, []))
    assert {point.call for point in trace} >= {"create", "pwrite", "fsync", "rename", "sync_directory", "unlink"}
    for point in range(len(trace)):
        done: list[int] = []
        fs = FaultFileSystem(plan={point: Fault.CRASH})
        with pytest.raises(SimulatedCrash):
            _work(fs, done)
        allowed = states[len(done) : len(done) + 2]
        for image in (fs.killed(), *(fs.crash_image(Random(seed)) for seed in range(25))):
            checkpoints = _open(image)
            assert (checkpoints.index, list(checkpoints.blocks())) in allowed
            assert len(image.listdir(_SNAP)) == 1 + len(checkpoints.tables)
            _write(checkpoints, "base", 50)
            assert list(_open(image.crash_image(Random(0))).blocks()) == _content("base", 50)


def test_cleaning_up_after_a_kill_does_not_outrun_the_manifest() -> None:
    for point in range(len(count_points(lambda fs: _work(fs, [])))):
        fs, done = FaultFileSystem(plan={point: Fault.CRASH}), list[int]()
        with pytest.raises(SimulatedCrash):
            _work(fs, done)
        survivor = fs.killed()
        served = list(_open(survivor).blocks())
        for seed in range(5):
            assert list(_open(survivor.crash_image(Random(seed))).blocks()) == served


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC, Fault.SHORT])
def test_a_fault_at_any_call_replaces_nothing_or_all(fault: Fault) -> None:
    states = _states()
    failures = 0
    for point, where in enumerate(count_points(lambda fs: _work(fs, []))):
        done: list[int] = []
        fs = FaultFileSystem(plan={point: fault})
        try:
            _work(fs, done)
        except NoSpace:
            assert fault is Fault.ENOSPC
            assert not [name for name in fs.listdir(_SNAP) if name.endswith(".tmp")]
            failures += 1
        except OSError:
            assert fault is Fault.EIO or where.call == "sync_directory" or not done
            failures += 1
        else:
            assert fault is Fault.SHORT or where.call == "unlink"
        assert fs.open_descriptors == 0
        for seed in range(5):
            checkpoints = _open(fs.crash_image(Random(seed)))
            assert (checkpoints.index, list(checkpoints.blocks())) in states[len(done) : len(done) + 2]
    assert (failures == 0) == (fault is Fault.SHORT)


def test_a_full_disk_keeps_the_checkpoint_and_the_next_one_succeeds() -> None:
    fs = FaultFileSystem()
    checkpoints = _open(fs)
    _write(checkpoints, "base", 10)
    fs.capacity = 3000
    table = checkpoints.begin("delta")
    table.write(2, bytes(400_000))
    with pytest.raises(NoSpace, match="free disk space"):
        table.write(2, bytes(200_000))
    table.abort()
    with pytest.raises(RuntimeError, match="committed or aborted"):
        table.write(2, b"")
    assert list(checkpoints.blocks()) == _content("base", 10)
    fs.capacity = None
    _write(checkpoints, "delta", 20)
    assert list(_open(fs).blocks()) == _states()[2][1]


def test_a_failed_sync_of_the_directory_ends_the_writing_of_checkpoints() -> None:
    fs = FaultFileSystem()
    checkpoints = _open(fs)
    trace = count_points(lambda other: _work(other, []))
    first = next(at for at, point in enumerate(trace) if at > fs.points and point.call == "sync_directory")
    fs.plan = {first: Fault.EIO}
    with pytest.raises(OSError, match="no checkpoints are written any more"):
        _write(checkpoints, "base", 10)
    with pytest.raises(OSError, match="no checkpoints are written any more"):
        checkpoints.begin("base")
    assert _open(fs).index == 0


def test_one_table_at_a_time_and_in_order() -> None:
    checkpoints = _open(FaultFileSystem())
    with pytest.raises(ValueError, match="needs a base"):
        checkpoints.begin("delta")
    table = checkpoints.begin("base")
    with pytest.raises(RuntimeError, match="being written already"):
        checkpoints.begin("base")
    table.abort()
    _write(checkpoints, "base", 10)
    late = checkpoints.begin("delta")
    with pytest.raises(ValueError, match="behind the checkpoint"):
        late.commit(9, 30)
    late.abort()
    assert checkpoints.index == 10


def test_large_tables_go_to_disk_bit_by_bit() -> None:
    fs = FaultFileSystem()
    table = _open(fs).begin("base")
    before = fs.points
    payload = Random(0).randbytes(300_000)
    for _ in range(100):
        table.write(1, payload)
    calls = [point.call for point in fs.trace[before:]]
    assert calls.count("fdatasync") == calls.count("pwrite")
    assert calls.count("pwrite") == 50  # half a megabyte each, at the least
    size = table.size
    table.commit(1, 1)
    assert _open(fs).tables[0].bytes > size


def _damaged(fs: FaultFileSystem, match: str) -> None:
    before = fs.listdir(_SNAP)
    with pytest.raises(DamagedData, match=match):
        list(_open(fs).blocks())
    assert fs.listdir(_SNAP) == before, "nothing is removed"


def test_missing_or_damaged_tables_are_refused_by_name() -> None:
    fs = FaultFileSystem()
    _work(fs, [])
    base, delta = _open(fs).tables
    path = f"{_SNAP}/{base.name}"
    content = fs.read(path)
    for offset in range(len(content)):
        fs.damage(path, offset, bytes((content[offset] ^ 0x10,)))
        with pytest.raises((DamagedData, NewerFormat), match=base.name):
            list(_open(fs).blocks())
        fs.damage(path, offset, content[offset : offset + 1])
    fd = fs.open(path, 0)
    fs.truncate(fd, 100)
    _damaged(fs, f"{base.name}: offset 100: the table has 100 bytes")
    fs.truncate(fd, 0)
    fs.pwrite(fd, [content], 0)
    fs.unlink(f"{_SNAP}/{delta.name}")
    _damaged(fs, f"{delta.name}: offset 0: the table is missing")


def test_a_whole_table_in_the_place_of_another_is_refused() -> None:
    fs = FaultFileSystem()
    checkpoints = _open(fs)
    _write(checkpoints, "base", 10)
    (first,) = checkpoints.tables
    content = fs.read(f"{_SNAP}/{first.name}")
    table = checkpoints.begin("base")
    table.write(1, b"base 11")
    table.write(2, bytes([11]) * 700)
    table.commit(10, 20)
    (second,) = checkpoints.tables
    assert second.bytes == len(content)
    fs.damage(f"{_SNAP}/{second.name}", 0, content)
    _damaged(fs, "not the table that the manifest lists")


def test_every_changed_byte_of_the_manifest_is_refused() -> None:
    fs = FaultFileSystem()
    _work(fs, [])
    path = f"{_SNAP}/MANIFEST"
    content = fs.read(path)
    blocks = _states()[-1][1]
    refused = 0
    for offset in range(len(content)):
        fs.damage(path, offset, bytes((content[offset] ^ 0x02,)))
        try:
            assert list(_open(fs, read_only=True).blocks()) == blocks
        except (DamagedData, NewerFormat):
            refused += 1
        fs.damage(path, offset, content[offset : offset + 1])
    assert refused >= len(content) - 2, "at most the line's end does not matter"


def test_a_missing_manifest_is_not_taken_for_a_new_directory() -> None:
    fs = FaultFileSystem()
    _work(fs, [])
    fs.unlink(f"{_SNAP}/MANIFEST")
    _damaged(fs, "the manifest is missing")


def test_a_manifest_of_another_member_is_refused() -> None:
    fs = FaultFileSystem()
    _open(fs)
    with pytest.raises(DamagedData, match="of member a1 of cluster c1"):
        Checkpoints.open(fs, _SNAP, 0xC2, 0xA1)


def test_a_newer_manifest_is_refused_with_nothing_touched() -> None:
    fs = FaultFileSystem()
    checkpoints = _open(fs)
    write_sealed(fs, f"{_SNAP}/MANIFEST", checkpoints._manifest, 2)
    before = fs.points
    with pytest.raises(NewerFormat, match="format 2"):
        _open(fs)
    assert fs.points == before


def test_a_read_only_look_changes_nothing() -> None:
    fs = FaultFileSystem()
    assert _open(fs, read_only=True).tables == ()
    assert fs.points == 0
    _work(fs, [])
    fs.close(fs.open(f"{_SNAP}/left.tmp", 0o100))
    before = fs.points
    assert _open(fs, read_only=True).index == 41
    assert fs.points == before
