from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from random import Random

import pytest
from google_crc32c import extend
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.store.errors import DamagedData, NewerFormat
from pilothouse.store.tables import (
    MAX_BLOCK_BYTES,
    TableDecoder,
    TableEncoder,
    TableHeader,
    read_table,
    read_table_file,
)
from support.faultfs import FaultFileSystem

_HEADER = TableHeader(cluster_id=7, member_id=2**63, purpose="save", program="0.1")
_BLOCKS = [(1, b"meta"), (2, bytes(300)), (2, b""), (254, Random(1).randbytes(5000))]


def _table(blocks: list[tuple[int, bytes]] = _BLOCKS) -> bytes:
    encoder = TableEncoder()
    parts = [encoder.encode_header(_HEADER)]
    parts.extend(encoder.encode_block(kind, payload) for kind, payload in blocks)
    parts.append(encoder.encode_footer())
    data = b"".join(parts)
    assert encoder.size == len(data)
    return data


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(0, 254), st.binary(max_size=400)), max_size=6),
    cuts=st.lists(st.integers(0, 3000), max_size=8),
)
def test_blocks_come_back_however_the_bytes_are_cut(blocks: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = _table(blocks)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    decoder = TableDecoder("t")
    chunks = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert list(read_table(chunks, "t", decoder)) == blocks
    assert decoder.header == _HEADER


def test_a_single_byte_at_a_time_is_fine() -> None:
    data = _table()
    assert list(read_table((data[at : at + 1] for at in range(len(data))), "t")) == _BLOCKS


def test_a_file_is_read_in_chunks_of_bounded_size() -> None:
    fs = FaultFileSystem()
    blocks = [(2, Random(n).randbytes(700_000)) for n in range(6)]
    fd = fs.open("/data/t", os.O_CREAT)
    fs.pwrite(fd, [_table(blocks)], 0)
    sizes: list[int] = []

    class Watching(FaultFileSystem):
        def pread(self, fd: int, size: int, offset: int) -> bytes:
            sizes.append(size)
            return fs.pread(fd, size, offset)

        def open(self, path: str, flags: int, mode: int = 0o600) -> int:
            return fs.open(path, flags, mode)

        def size(self, fd: int) -> int:
            return fs.size(fd)

        def close(self, fd: int) -> None:
            fs.close(fd)

    assert list(read_table_file(Watching(), "/data/t")) == blocks
    assert max(sizes) <= 1024 * 1024
    assert fs.open_descriptors == 1


def test_every_truncation_is_reported_with_its_place() -> None:
    data = _table()
    for length in range(len(data)):
        with pytest.raises(DamagedData, match=f"truncated at byte {length}$") as caught:
            list(read_table([data[:length]], "copy.table"))
        assert caught.value.path == "copy.table"
        assert caught.value.offset <= length


def test_every_changed_byte_is_refused_and_nothing_damaged_is_returned() -> None:
    blocks = [(1, b"meta"), (2, bytes(40)), (3, b"x" * 30)]
    data = _table(blocks)
    for offset in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[offset] ^= flip
            seen: list[tuple[int, bytes]] = []
            with pytest.raises((DamagedData, NewerFormat)):
                seen.extend(read_table([bytes(changed)], "t"))
            assert seen == blocks[: len(seen)]


def test_lost_swapped_or_repeated_blocks_are_refused() -> None:
    encoder = TableEncoder()
    head = encoder.encode_header(_HEADER)
    one, two = encoder.encode_block(1, b"one"), encoder.encode_block(1, b"two")
    end = encoder.encode_footer()
    for parts in ((head, two, one, end), (head, one, end), (head, one, one, two, end), (head, one, two, end, end)):
        with pytest.raises(DamagedData):
            list(read_table(parts, "t"))


def test_a_newer_version_is_refused_by_name() -> None:
    data = bytearray(_table())
    struct.pack_into("<I", data, 8, 2)
    with pytest.raises(NewerFormat, match="t: table format 2"):
        list(read_table([bytes(data)], "t"))


def test_an_absurd_length_is_refused_before_memory_is_taken() -> None:
    head = TableEncoder().encode_header(_HEADER)
    decoder = TableDecoder("t")
    with pytest.raises(DamagedData, match="are allowed"):
        decoder.feed(head + struct.pack("<B3xII", 1, MAX_BLOCK_BYTES + 1, 0))
    with pytest.raises(DamagedData, match="a header of"):
        TableDecoder("t").feed(struct.pack("<8sII", b"PHTABLE\n", 1, 2**31))
    with pytest.raises(DamagedData, match="not a snapshot table"):
        TableDecoder("t").feed(b"SQLite format 3\0")


def test_a_header_that_is_not_ours_is_refused() -> None:
    meta = b'{"cluster_id":"x"}'
    data = struct.pack("<8sII", b"PHTABLE\n", 1, len(meta)) + meta
    with pytest.raises(DamagedData, match="the header cannot be read"):
        TableDecoder("t").feed(data + struct.pack("<I", extend(0, data)))


def test_the_encoder_refuses_what_no_reader_would_take() -> None:
    encoder = TableEncoder()
    with pytest.raises(ValueError, match=r"not in 0\.\.254"):
        encoder.encode_block(255, b"")
    with pytest.raises(ValueError, match="are allowed"):
        encoder.encode_block(1, bytes(MAX_BLOCK_BYTES + 1))


def test_iteration_is_lazy() -> None:
    def chunks() -> Iterator[bytes]:
        yield _table()[:600]
        pytest.fail("the first blocks are complete already")

    assert next(iter(read_table(chunks(), "t"))) == _BLOCKS[0]
