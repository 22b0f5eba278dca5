from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from pilothouse.foundation.files import Buffer, FileSystem, OsFileSystem, write_all, write_whole
from pilothouse.foundation.memoryfiles import MemoryFileSystem
from support.faultfs import FaultFileSystem


@pytest.fixture(params=["os", "faults", "memory"])
def fs(request: pytest.FixtureRequest, tmp_path: Path) -> FileSystem:
    if request.param == "os":
        return OsFileSystem()
    return (FaultFileSystem if request.param == "faults" else MemoryFileSystem)(str(tmp_path))


def test_what_is_written_is_read(fs: FileSystem, tmp_path: Path) -> None:
    fd = fs.open(str(tmp_path / "a"), os.O_RDWR | os.O_CREAT)
    assert fs.pwrite(fd, (b"one", bytearray(b"two"), memoryview(b"three")), 5) == 11
    assert fs.size(fd) == 16
    assert fs.pread(fd, 100, 0) == bytes(5) + b"onetwothree"
    assert fs.pread(fd, 3, 8) == b"two"
    assert fs.pread(fd, 3, 50) == b""
    fs.truncate(fd, 7)
    fs.truncate(fd, 9)
    assert fs.pread(fd, 100, 5) == b"on\0\0"
    fs.fdatasync(fd)
    fs.fsync(fd)
    fs.close(fd)
    with pytest.raises(OSError, match="descriptor"):
        fs.pread(fd, 1, 0)


def test_a_durable_write_is_a_write(fs: FileSystem, tmp_path: Path) -> None:
    fd = fs.open(str(tmp_path / "a"), os.O_RDWR | os.O_CREAT)
    assert fs.pwrite_durable(fd, (b"one", memoryview(b"two")), 2) == 6
    assert fs.pread(fd, 100, 0) == b"\0\0onetwo"
    fs.close(fd)


def test_a_durable_write_syncs_where_the_kernel_has_no_call_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    written = os.pwritev

    def without_flags(fd: int, buffers: Sequence[Buffer], offset: int, flags: int = 0) -> int:
        calls.append("durable" if flags else "write")
        if flags:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return written(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", without_flags)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: calls.append("sync"))
    fs = OsFileSystem()
    fd = fs.open(str(tmp_path / "a"), os.O_RDWR | os.O_CREAT)
    assert fs.pwrite_durable(fd, (b"one",), 0) == 3
    assert fs.pwrite_durable(fd, (b"two",), 3) == 3
    assert fs.pread(fd, 100, 0) == b"onetwo"
    assert calls == ["durable", "write", "sync", "write", "sync"]
    fs.close(fd)


def test_allocated_space_reads_as_zeros_and_keeps_what_is_there(fs: FileSystem, tmp_path: Path) -> None:
    fd = fs.open(str(tmp_path / "a"), os.O_RDWR | os.O_CREAT)
    fs.pwrite(fd, (b"kept",), 0)
    fs.allocate(fd, 0, 10_000)
    assert fs.pread(fd, 20_000, 0) == b"kept".ljust(10_000, b"\0")
    fs.allocate(fd, 0, 5000)
    assert fs.size(fd) == 10_000
    fs.close(fd)


def test_next_data_never_skips_a_byte(fs: FileSystem, tmp_path: Path) -> None:
    rng = Random(1)
    for number in range(20):
        fd = fs.open(str(tmp_path / f"f{number}"), os.O_RDWR | os.O_CREAT)
        fs.allocate(fd, 0, 200_000)
        place = rng.randrange(200_000)
        fs.pwrite(fd, (b"\x01",), place)
        for offset in (0, place - place % 512, place):
            found = fs.next_data(fd, offset)
            assert offset <= found <= place
            assert not fs.pread(fd, found - offset, offset).strip(b"\0")
        assert place < fs.next_data(fd, place + 1) <= 200_000
        assert fs.next_data(fd, 200_000) == 200_000
        fs.close(fd)


def test_names_come_go_and_replace_each_other(fs: FileSystem, tmp_path: Path) -> None:
    directory = str(tmp_path / "d" / "e")
    assert not fs.exists(directory)
    fs.makedirs(directory)
    fs.makedirs(directory)
    first, second = f"{directory}/1", f"{directory}/2"
    for path in (first, second):
        fd = fs.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        fs.pwrite(fd, (path[-1].encode(),), 0)
        fs.close(fd)
    assert sorted(fs.listdir(directory)) == ["1", "2"]
    fs.rename(first, second)
    fs.sync_directory(directory)
    assert fs.listdir(directory) == ["2"]
    fd = fs.open(second, os.O_RDONLY)
    assert fs.pread(fd, 9, 0) == b"1"
    fs.unlink(second)
    assert fs.pread(fd, 9, 0) == b"1", "an open file outlives its name"
    fs.close(fd)
    assert fs.listdir(directory) == []
    assert fs.exists(directory)
    assert fs.listdir(str(tmp_path / "d")) == ["e"]


def test_errors_are_those_of_the_system(fs: FileSystem, tmp_path: Path) -> None:
    missing, there = str(tmp_path / "x" / "y"), str(tmp_path / "there")
    fs.close(fs.open(there, os.O_CREAT))
    calls: list[Callable[[], object]] = [
        lambda: fs.open(missing, os.O_RDONLY),
        lambda: fs.open(missing, os.O_CREAT),
        lambda: fs.unlink(missing),
        lambda: fs.rename(missing, missing + "2"),
        lambda: fs.listdir(missing),
        lambda: fs.mode(missing),
        lambda: fs.sync_directory(missing),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError):
            call()
    with pytest.raises(FileExistsError):
        fs.open(there, os.O_CREAT | os.O_EXCL)
    with pytest.raises(FileExistsError):
        fs.makedirs(there)
    with pytest.raises(IsADirectoryError):
        fs.open(str(tmp_path), os.O_RDWR)


def test_mode_tells_directories_from_files(fs: FileSystem, tmp_path: Path) -> None:
    fs.makedirs(str(tmp_path / "d"))
    fs.close(fs.open(str(tmp_path / "f"), os.O_CREAT))
    assert fs.mode(str(tmp_path / "d")) == stat.S_IFDIR | 0o700
    assert fs.mode(str(tmp_path / "f")) == stat.S_IFREG | 0o600


def test_a_lock_is_held_by_one_descriptor(fs: FileSystem, tmp_path: Path) -> None:
    path = str(tmp_path / "LOCK")
    first, second = fs.open(path, os.O_RDWR | os.O_CREAT), fs.open(path, os.O_RDWR)
    assert fs.lock(first)
    assert fs.lock(first)
    assert not fs.lock(second)
    fs.close(first)
    assert fs.lock(second)
    fs.close(second)


def test_next_data_passes_on_other_errors(tmp_path: Path) -> None:
    fs = OsFileSystem()
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ESPIPE)):
            fs.next_data(read, 0)
    finally:
        os.close(read)
        os.close(write)


def test_a_write_that_takes_nothing_is_an_error_and_one_that_takes_little_goes_on() -> None:
    taken: list[bytes] = []

    def write(_fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        assert offset == len(taken)
        taken.append(bytes(buffers[0][:1]))
        return 1

    assert write_all(write, 3, b"abc", 0) == 3
    assert taken == [b"a", b"b", b"c"]
    with pytest.raises(OSError, match="took no bytes"):
        write_all(lambda *_: 0, 3, b"abc", 0)


def test_a_file_is_replaced_whole_or_not_at_all(fs: FileSystem, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    write_whole(fs, path, b"first", 0o600)
    write_whole(fs, path, b"second", 0o640)
    fd = fs.open(path, os.O_RDONLY)
    assert fs.pread(fd, 100, 0) == b"second"
    fs.close(fd)
    assert fs.listdir(str(tmp_path)) == ["a"]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_whole(OsFileSystem(), str(tmp_path / "gone" / "a"), b"x", 0o600)


def test_the_mode_of_a_replaced_file_is_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"open")
    os.chmod(path, 0o666)
    write_whole(OsFileSystem(), str(path), b"secret", 0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
