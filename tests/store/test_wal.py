from __future__ import annotations

import os
import struct
from pathlib import Path
from random import Random

import pytest
from google_crc32c import extend
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.foundation.files import OsFileSystem
from pilothouse.store.errors import DamagedData, NewerFormat
from pilothouse.store.wal import LogFailed
from pilothouse.store.wal_format import (
    PADDING,
    RECORD_HEADER_SIZE,
    SECTOR,
    SEGMENT_HEADER_SIZE,
    SegmentHeader,
    frame,
    parse_segment_name,
    segment_name,
)
from pilothouse.store.wal_recovery import create_log, open_log
from support.faultfs import FaultFileSystem
from support.logs import (
    CLUSTER,
    DIRECTORY,
    SALT,
    SEGMENT,
    Journal,
    open_writer,
    random_batches,
    replay,
    write_log,
)


def _segments(fs: FaultFileSystem) -> list[str]:
    return [f"{DIRECTORY}/{name}" for name in fs.listdir(DIRECTORY) if parse_segment_name(name)]


def _offsets(payloads: list[bytes]) -> list[int]:
    """Return where the records of a log's first segment begin, and where the last one ends."""
    offsets = [SEGMENT_HEADER_SIZE]
    for payload in payloads:
        offsets.append(offsets[-1] + RECORD_HEADER_SIZE + len(payload) + len(PADDING[len(payload) & 7]))
    return offsets


def test_a_new_log_replays_nothing_and_starts_at_one() -> None:
    fs = FaultFileSystem()
    recovery = open_log(fs, DIRECTORY, CLUSTER)
    assert recovery.is_new
    assert list(recovery) == []
    assert fs.points == 0, "looking at a log changes nothing"
    writer = recovery.writer()
    assert writer.last_index == 0
    assert [segment.first_index for segment in writer.segments] == [1]


def test_records_come_back_in_order_across_segments_and_restarts() -> None:
    fs, journal, rng = FaultFileSystem(), Journal(), Random(1)
    for _ in range(4):
        write_log(fs, random_batches(rng, 10), journal)
    assert len(_segments(fs)) > 5
    assert replay(fs) == journal.attempted
    assert len(journal.attempted) == journal.acknowledged
    assert fs.open_descriptors == 0


def test_only_what_a_snapshot_does_not_cover_is_replayed() -> None:
    fs = FaultFileSystem()
    journal = write_log(fs, random_batches(Random(2), 30))
    for after in range(journal.acknowledged + 1):
        assert replay(fs, after) == journal.attempted[after:]


def test_records_of_any_size_come_back_from_large_segments() -> None:
    fs, rng = FaultFileSystem(), Random(4)
    payloads = [rng.randbytes(size) for size in (900_000, 3_400_000, 5_000_000, 10, 4_194_304, 1, 9_000_000, 333)]
    writer = open_log(fs, DIRECTORY, CLUSTER, segment_bytes=32 * 1024 * 1024, salt=SALT).writer()
    journal = Journal()
    for payload in payloads:
        journal.append(writer, [payload])
    assert len(writer.segments) == 1
    assert replay(fs) == payloads
    (path,) = _segments(fs)
    fs.damage(path, 20_000_000, bytes((fs.read(path)[20_000_000] ^ 1,)))
    with pytest.raises(DamagedData, match="record 7 is complete"):
        replay(fs)


def test_the_writer_replays_what_was_not_looked_at() -> None:
    fs = FaultFileSystem()
    journal = write_log(fs, random_batches(Random(6), 20))
    recovery = open_log(fs, DIRECTORY, CLUSTER, segment_bytes=SEGMENT)
    assert next(iter(recovery)) == (1, journal.attempted[0])
    writer = recovery.writer()
    assert writer.last_index == journal.acknowledged
    journal.append(writer, [b"more"])
    assert replay(fs) == journal.attempted


def test_a_record_of_another_index_is_damage() -> None:
    fs = FaultFileSystem()
    write_log(fs, [[b"one"]])
    (path,) = _segments(fs)
    end = _offsets([b"one"])[-1]
    (chain,) = struct.unpack_from("<I", fs.read(path), SEGMENT_HEADER_SIZE + 24)
    fs.damage(path, end, frame(b"three", 3, chain, 0, SALT)[0])
    with pytest.raises(DamagedData, match="record 3 stands where record 2 is expected"):
        replay(fs)


def test_the_real_file_system_holds_the_same_bytes(tmp_path: Path) -> None:
    fs, memory = OsFileSystem(), FaultFileSystem(root=str(tmp_path))
    directory = str(tmp_path / "wal")
    for each in (fs, memory):
        writer = open_log(each, directory, CLUSTER, segment_bytes=SEGMENT, salt=SALT).writer()
        journal = Journal()
        for batch in random_batches(Random(3), 20):
            journal.append(writer, batch)
        writer.close()
        assert [payload for _, payload in open_log(each, directory, CLUSTER)] == journal.attempted
    assert sorted(os.listdir(directory)) == memory.listdir(directory)
    for name in os.listdir(directory):
        assert (tmp_path / "wal" / name).read_bytes() == memory.read(f"{directory}/{name}")


def test_a_batch_costs_one_write_and_one_sync() -> None:
    fs, journal = FaultFileSystem(), Journal()
    writer = open_writer(fs)
    for size in (1, 16, 17, 40):
        before = fs.points
        journal.append(writer, [b"x" * 10] * size)
        assert [point.call for point in fs.trace[before:]] == ["pwrite", "fdatasync"]


def test_a_prepared_segment_spares_the_rotation_its_making() -> None:
    fs, journal = FaultFileSystem(), Journal()
    writer = open_writer(fs)
    writer.prepare_next()
    writer.prepare_next()
    assert writer.bytes_on_disk == 2 * SEGMENT
    before = fs.points
    journal.append(writer, [b"x" * 3000])
    journal.append(writer, [b"y" * 3000])
    calls = [point.call for point in fs.trace[before:]]
    assert calls == ["pwrite", "fdatasync", "pwrite", "fdatasync", "rename", "sync_directory", "truncate"]
    assert len(writer.segments) == 2


def test_a_batch_greater_than_a_segment_gets_one_of_its_own() -> None:
    fs, journal = FaultFileSystem(), Journal()
    writer = open_writer(fs)
    for size in (3 * SEGMENT, 10, 5 * SEGMENT, SEGMENT):
        writer.prepare_next()
        journal.append(writer, [b"z" * size])
    assert replay(fs) == journal.attempted
    assert all(segment.size == len(fs.read(f"{DIRECTORY}/{segment.name}")) for segment in writer.segments)


def test_release_removes_whole_segments_and_never_the_active_one() -> None:
    fs = FaultFileSystem()
    journal = write_log(fs, random_batches(Random(5), 40))
    writer = open_writer(fs)
    firsts = [segment.first_index for segment in writer.segments]
    assert writer.release(firsts[1] - 2) == 0
    assert writer.release(firsts[2] - 1) == 2
    assert [segment.first_index for segment in writer.segments] == firsts[2:]
    assert replay(fs, firsts[2] - 1) == journal.attempted[firsts[2] - 1 :]
    assert writer.release(journal.acknowledged) == len(firsts) - 3
    assert len(_segments(fs)) == 1
    assert writer.bytes_on_disk == len(fs.read(_segments(fs)[0]))


def test_records_that_do_not_follow_are_refused() -> None:
    writer = open_writer(FaultFileSystem())
    framed, chain = writer.frame(b"x", 1, writer.chain, 0)
    with pytest.raises(ValueError, match="do not follow"):
        writer.append([framed], 2, 2, writer.chain, chain)
    with pytest.raises(ValueError, match="do not follow"):
        writer.append([framed], 1, 1, writer.chain ^ 1, chain)
    writer.append([framed], 1, 1, writer.chain, chain)
    writer.close()
    with pytest.raises(LogFailed, match="closed"):
        writer.append([framed], 2, 2, chain, chain)


@given(payload=st.binary(max_size=700), index=st.integers(1, 2**63), chain=st.integers(0, 2**32 - 1))
def test_a_frame_is_aligned_and_describes_itself(payload: bytes, index: int, chain: int) -> None:
    framed, after = frame(payload, index, chain, index - 1, SALT)
    assert len(framed) % 8 == 0
    _, size, found, durable, crc, head_crc = struct.unpack_from("<IIQQII", framed)
    assert (size, found, durable, crc) == (len(payload), index, index - 1, after)
    assert head_crc == extend(SALT, framed[: RECORD_HEADER_SIZE - 4])
    assert after == extend(chain, framed[RECORD_HEADER_SIZE:])


@given(
    parts=st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 900)), max_size=5),
    offset=st.integers(0, 63).map(lambda word: 8 * word),
)
def test_no_sector_of_a_record_is_one_byte_from_zero(parts: list[tuple[bytes, int]], offset: int) -> None:
    payload = b"".join(data + bytes(zeros) for data, zeros in parts)
    framed, _ = frame(payload, 1, 0, 0, SALT)
    image = bytes(offset) + framed
    for start in range(0, len(image), SECTOR):
        assert sum(map(bool, image[max(start, offset) : start + SECTOR])) >= 2


def test_every_changed_byte_of_acknowledged_data_is_refused() -> None:
    fs = FaultFileSystem()
    batches = [[b"first", b"", bytes(300)], [b"s" * 600], [b"x" * 700 + bytes(600)], [b"l" * 2500], [bytes(9)]]
    journal = write_log(fs, batches)
    assert len(_segments(fs)) == 2
    silent = 0
    for path in _segments(fs):
        image = fs.read(path)
        used = len(image.rstrip(b"\0"))
        for offset in range(len(image)):
            for changed in {image[offset] ^ 0x01, 0, 0xFF} - {image[offset]}:
                fs.damage(path, offset, bytes((changed,)))
                try:
                    assert replay(fs) == journal.attempted, f"{path} byte {offset} → {changed}: records lost in silence"
                    silent += 1
                    assert offset >= used
                except DamagedData:
                    pass
            fs.damage(path, offset, image[offset : offset + 1])
    assert silent > 0, "bytes behind the end do not matter"
    assert replay(fs) == journal.attempted


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_a_changed_byte_never_loses_records_in_silence(seed: int, data: st.DataObject) -> None:
    fs = FaultFileSystem()
    journal = write_log(fs, random_batches(Random(seed), 6))
    path = data.draw(st.sampled_from(_segments(fs)))
    image = fs.read(path)
    offset = data.draw(st.integers(0, len(image.rstrip(b"\0")) - 1))
    fs.damage(path, offset, bytes((data.draw(st.integers(0, 255).filter(lambda byte: byte != image[offset])),)))
    if path == _segments(fs)[0] and len(image.rstrip(b"\0")) == SEGMENT_HEADER_SIZE:
        # The first batch was greater than the first segment, which holds nothing and is not looked at.
        assert replay(fs) == journal.attempted
        return
    with pytest.raises(DamagedData):
        replay(fs)


def test_a_record_past_the_end_of_the_file_is_cut_and_the_end_reads_as_zeros() -> None:
    payloads = [b"a" * 100, b"b" * 900]
    start, end = _offsets(payloads)[1:]
    for length in range(start + 1, end):
        fs = FaultFileSystem()
        write_log(fs, [[payload] for payload in payloads])
        (path,) = _segments(fs)
        fd = fs.open(path, os.O_RDWR)
        fs.truncate(fd, length)
        fs.close(fd)
        recovery = open_log(fs, DIRECTORY, CLUSTER, segment_bytes=SEGMENT)
        assert [payload for _, payload in recovery] == payloads[:1]
        assert recovery.cut == (path, start, 2)
        recovery.writer().close()
        assert fs.read(path)[start:] == bytes(SEGMENT - start)


def test_a_hole_that_a_later_record_proves_acknowledged_is_damage() -> None:
    payloads = [b"a" * 600, b"b" * 1200, b"c" * 600]
    fs = FaultFileSystem()
    write_log(fs, [[payload] for payload in payloads])
    (path,) = _segments(fs)
    hole = 2 * SECTOR
    assert _offsets(payloads)[1] < hole < _offsets(payloads)[2] - SECTOR
    fs.damage(path, hole, bytes(SECTOR))
    with pytest.raises(
        DamagedData, match=r"record 2 is not intact, though record 3 .* intact up to record 1"
    ) as caught:
        replay(fs)
    assert (caught.value.path, caught.value.offset) == (path, _offsets(payloads)[1])
    assert "pilothouse store check" in caught.value.message


def test_a_write_that_stopped_at_any_byte_is_cut() -> None:
    payloads = [b"a" * 100, b"b" * 900]
    start, end = _offsets(payloads)[1:]
    for length in range(start, end - 1):
        fs = FaultFileSystem()
        write_log(fs, [[payload] for payload in payloads])
        (path,) = _segments(fs)
        fs.damage(path, length, bytes(end - length))
        assert replay(fs) == payloads[:1]


def test_a_hole_in_a_batch_that_was_never_acknowledged_is_cut_with_all_after_it() -> None:
    payloads = [b"a" * 600, b"b" * 600, b"c" * 600]
    fs = FaultFileSystem()
    write_log(fs, [payloads[:1], payloads[1:]])
    (path,) = _segments(fs)
    fs.damage(path, 2 * SECTOR, bytes(SECTOR))
    recovery = open_log(fs, DIRECTORY, CLUSTER, segment_bytes=SEGMENT)
    assert [payload for _, payload in recovery] == payloads[:1]
    recovery.writer().close()
    assert not fs.read(path)[_offsets(payloads)[1] :].strip(b"\0")
    assert replay(fs) == payloads[:1]


def test_a_payload_that_imitates_a_record_proves_nothing() -> None:
    forged, _ = frame(b"", 9, 0, 8, salt=SALT ^ 1)
    payloads = [b"a" * 600, b"b" * 1000 + forged * 20]
    fs = FaultFileSystem()
    write_log(fs, [[payload] for payload in payloads])
    (path,) = _segments(fs)
    fs.damage(path, 2 * SECTOR, bytes(SECTOR))
    assert replay(fs) == payloads[:1]


def _three_segments() -> tuple[FaultFileSystem, Journal, list[str]]:
    fs = FaultFileSystem()
    journal = write_log(fs, [[b"%d" % number * 1900] for number in range(6)])
    segments = _segments(fs)
    assert len(segments) >= 3
    return fs, journal, segments


def test_a_missing_segment_is_damage() -> None:
    for at, match in ((0, "begins with record"), (1, "one is missing")):
        fs, _, segments = _three_segments()
        fs.unlink(segments[at])
        with pytest.raises(DamagedData, match=match):
            replay(fs)


def test_a_missing_last_segment_or_log_is_damage_where_a_snapshot_knows_better() -> None:
    fs, journal, segments = _three_segments()
    fs.unlink(segments[-1])
    with pytest.raises(DamagedData, match="the snapshot was made of records up to"):
        replay(fs, journal.acknowledged)
    for path in segments[:-1]:
        fs.unlink(path)
    with pytest.raises(DamagedData, match="the log is missing"):
        replay(fs, journal.acknowledged)


def test_a_hole_before_the_last_segment_is_damage() -> None:
    fs, _, segments = _three_segments()
    fs.damage(segments[0], SECTOR, bytes(SECTOR))
    with pytest.raises(DamagedData, match="though the next segment begins with record"):
        replay(fs)


def test_a_segment_of_other_content_is_damage() -> None:
    fs, _, segments = _three_segments()
    sequence, first = parse_segment_name(os.path.basename(segments[1])) or (0, 0)
    for header, match in (
        (SegmentHeader(CLUSTER ^ 1, SALT, sequence, first, 0), "belongs to cluster"),
        (SegmentHeader(CLUSTER, SALT ^ 1, sequence, first, 0), "another log"),
        (SegmentHeader(CLUSTER, SALT, sequence + 1, first, 0), "the name does not"),
        (SegmentHeader(CLUSTER, SALT, sequence, first, 0), "chain does not continue"),
    ):
        fs.damage(segments[1], 0, header.encode())
        with pytest.raises(DamagedData, match=match):
            replay(fs)


def test_a_newer_format_is_refused_with_nothing_touched() -> None:
    fs, _, segments = _three_segments()
    header = bytearray(fs.read(segments[-1])[:SEGMENT_HEADER_SIZE])
    struct.pack_into("<I", header, 8, 2)
    struct.pack_into("<I", header, SEGMENT_HEADER_SIZE - 4, extend(0, bytes(header[:-4])))
    fs.damage(segments[-1], 0, bytes(header))
    before = fs.points
    with pytest.raises(NewerFormat, match="newer program"):
        open_log(fs, DIRECTORY, CLUSTER)
    assert fs.points == before


def test_a_log_can_begin_after_a_restored_snapshot() -> None:
    fs = FaultFileSystem()
    writer = create_log(fs, DIRECTORY, CLUSTER, 501, segment_bytes=SEGMENT, salt=SALT)
    journal = Journal()
    journal.append(writer, [b"x"])
    assert replay(fs, 500) == [b"x"]
    with pytest.raises(DamagedData, match="begins with record 501; 1 is missing"):
        replay(fs)
    with pytest.raises(FileExistsError):
        create_log(fs, DIRECTORY, CLUSTER, 501)


def test_segment_names_round_trip_and_other_names_are_left_alone() -> None:
    assert parse_segment_name(segment_name(3, 77)) == (3, 77)
    for name in ("lost+found", "x.wal", "0-1.wal", f"{'g' * 16}-{'0' * 16}.wal", segment_name(1, 1) + ".bak"):
        assert parse_segment_name(name) is None
    fs = FaultFileSystem()
    journal = write_log(fs, [[b"x"]])
    fs.close(fs.open(f"{DIRECTORY}/note", os.O_CREAT))
    open_writer(fs).close()
    assert replay(fs) == journal.attempted
    assert "note" in fs.listdir(DIRECTORY)
