"""Writing and reading a write-ahead log in tests: what was attempted, what was acknowledged, what is there."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from pilothouse.foundation.files import FileSystem
from pilothouse.store.wal import LogFull, LogWriter
from pilothouse.store.wal_recovery import open_log

DIRECTORY = "/data/wal"
CLUSTER = 0xC1
SALT = 0x5EED1234
SEGMENT = 4096

Batch = Sequence[bytes]


class Journal:
    """The records that were handed to the log in order, and how many of them it acknowledged."""

    def __init__(self) -> None:
        self.attempted: list[bytes] = []
        self.acknowledged = 0

    def append(self, writer: LogWriter, batch: Batch) -> None:
        first, chain, frames = writer.last_index + 1, writer.chain, []
        for index, payload in enumerate(batch, first):
            framed, chain = writer.frame(payload, index, chain, first - 1)
            frames.append(framed)
        del self.attempted[self.acknowledged :]
        self.attempted.extend(batch)
        try:
            writer.append(frames, first, first + len(batch) - 1, writer.chain, chain)
        except LogFull:
            del self.attempted[self.acknowledged :]
            raise
        self.acknowledged += len(batch)


def open_writer(fs: FileSystem) -> LogWriter:
    return open_log(fs, DIRECTORY, CLUSTER, segment_bytes=SEGMENT, salt=SALT).writer()


def replay(fs: FileSystem, after_index: int = 0) -> list[bytes]:
    """Return the payloads after `after_index`, having checked that their indexes are contiguous."""
    found = list(open_log(fs, DIRECTORY, CLUSTER, after_index, segment_bytes=SEGMENT))
    assert [index for index, _ in found] == list(range(after_index + 1, after_index + 1 + len(found)))
    return [payload for _, payload in found]


def write_log(fs: FileSystem, batches: Sequence[Batch], journal: Journal | None = None) -> Journal:
    """Append the batches to a new log, preparing segments ahead now and then, and close it."""
    journal = journal or Journal()
    writer = open_writer(fs)
    for number, batch in enumerate(batches):
        journal.append(writer, batch)
        if number % 3 == 2:
            writer.prepare_next()
    writer.close()
    return journal


def random_payload(rng: Random) -> bytes:
    """Return a payload of a size and content that matter to sectors: short, long, with runs of zeros."""
    size = rng.choice((0, 1, 7, 8, 40, 300, 511, 512, 513, 1400))
    kind = rng.randrange(3)
    if kind == 0:
        return rng.randbytes(size)
    if kind == 1:
        return bytes(size)
    zeros = rng.randint(0, size)
    return rng.randbytes((size - zeros) // 2) + bytes(zeros) + rng.randbytes(size - zeros - (size - zeros) // 2)


def random_batches(rng: Random, batches: int, records: int = 5) -> list[list[bytes]]:
    return [[random_payload(rng) for _ in range(rng.randint(1, records))] for _ in range(batches)]
