from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.memoryfiles import MemoryFileSystem


def _new(fs: MemoryFileSystem, name: str = "/memory/a") -> int:
    return fs.open(name, os.O_RDWR | os.O_CREAT)


def test_reserved_space_reads_as_zeros_and_takes_no_memory() -> None:
    fs = MemoryFileSystem()
    fd = _new(fs)
    fs.allocate(fd, 0, 1 << 40)
    assert fs.size(fd) == 1 << 40
    fs.pwrite(fd, (b"ab",), 10)
    assert fs.size(fd) == 1 << 40
    assert fs.pread(fd, 6, 9) == b"\0ab\0\0\0"
    assert fs.pread(fd, 3, (1 << 40) - 2) == b"\0\0"
    assert fs.next_data(fd, 0) == 10
    assert fs.next_data(fd, 12) == 1 << 40


def test_outside_of_its_root_is_nothing() -> None:
    fs = MemoryFileSystem("/memory")
    with pytest.raises(OSError, match="denied"):
        fs.makedirs("/elsewhere/deep")
    with pytest.raises(FileNotFoundError):
        _new(fs, "/elsewhere")
    assert not fs.exists("/")


def test_two_do_not_share_files() -> None:
    _new(MemoryFileSystem())
    assert MemoryFileSystem().listdir("/memory") == []


def test_errors_say_which_path() -> None:
    fs = MemoryFileSystem()
    fs.makedirs("/memory/b")
    for call, number in (
        (lambda: fs.open("/memory/b", os.O_RDONLY), errno.EISDIR),
        (lambda: fs.unlink("/memory/c"), errno.ENOENT),
        (lambda: fs.listdir("/memory/c"), errno.ENOENT),
        (lambda: fs.mode("/memory/c"), errno.ENOENT),
        (lambda: fs.sync_directory("/memory/c"), errno.ENOENT),
        (lambda: fs.rename("/memory/c", "/memory/d"), errno.ENOENT),
    ):
        with pytest.raises(OSError, match=r"/memory/[bc]") as raised:
            call()
        assert raised.value.errno == number


def test_a_lock_is_held_until_its_descriptor_is_closed() -> None:
    fs = MemoryFileSystem()
    first, second = _new(fs), _new(fs)
    assert fs.lock(first)
    assert fs.lock(first)
    assert not fs.lock(second)
    fs.close(first)
    assert fs.lock(second)
    assert fs.open_descriptors == 1


def test_modes_are_those_given() -> None:
    fs = MemoryFileSystem()
    fs.open("/memory/a", os.O_CREAT, 0o640)
    fs.makedirs("/memory/b/c", 0o750)
    assert fs.mode("/memory/a") == stat.S_IFREG | 0o640
    assert fs.mode("/memory/b/c") == stat.S_IFDIR | 0o750
    assert stat.S_ISDIR(fs.mode("/memory"))


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "cut", "reserve"]), st.integers(0, 60), st.binary(max_size=20)), max_size=12
    ),
    st.integers(0, 90),
    st.integers(0, 90),
)
def test_a_file_reads_as_an_array_of_bytes_does(steps: list[tuple[str, int, bytes]], offset: int, size: int) -> None:
    fs, model = MemoryFileSystem(), bytearray()
    fd = _new(fs)
    for step, at, data in steps:
        if step == "write" and data:
            fs.pwrite_durable(fd, (data[:3], memoryview(data[3:])), at)
            model.extend(bytes(max(0, at - len(model))))
            model[at : at + len(data)] = data
        elif step == "cut":
            fs.truncate(fd, at)
            del model[at:]
            model.extend(bytes(at - len(model)))
        elif step == "reserve":
            fs.allocate(fd, at, len(data))
            model.extend(bytes(max(0, at + len(data) - len(model))))
    assert fs.size(fd) == len(model)
    assert fs.pread(fd, size, offset) == model[offset : offset + size]
    found = fs.next_data(fd, offset)
    assert not any(model[offset:found])
