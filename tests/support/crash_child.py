"""Load a store until killed, reporting every call and every answer on standard output as it happens.

Run as `python -m support.crash_child DIRECTORY RUN SEED WRITERS`. Each line is one `Record` as JSON, written with one
system call, so that what has been reported is out when the process dies. Without writers it reports what the
directory holds, all of its history too, and ends.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.errors import Compacted, StoreError
from pilothouse.store.model import (
    Compare,
    CompareTarget,
    DeleteRangeRequest,
    KeyValue,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
)

__all__ = ["PAIRS", "Called", "Invocation", "Load", "Opened", "Record", "Returned", "Seen", "decode", "opened", "watch"]

SINGLES = tuple(b"k%d" % n for n in range(8))
PAIRS = tuple((b"p%da" % n, b"p%db" % n) for n in range(3))
_EVERYTHING = (b"\0", b"\0")
_HISTORY = 40


class Invocation(msgspec.Struct, frozen=True):
    """What is asked: `kind` is get, put, delete, cas, pair (two puts in one transaction), grant, revoke or compact."""

    kind: str
    keys: tuple[bytes, ...] = ()
    value: bytes | None = None
    expected: bytes | None = None
    number: int = 0


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The store is open; what it holds. Times are the system's monotonic clock in seconds."""

    began: float
    at: float
    revision: int
    compact_revision: int
    kvs: list[KeyValue]
    leases: list[int]


class Called(msgspec.Struct, frozen=True, tag=True):
    """An operation is about to be done."""

    at: float
    id: int
    invocation: Invocation


class Returned(msgspec.Struct, frozen=True, tag=True):
    """An operation was answered: what it read or whether it matched, and the revision that it made, else 0."""

    at: float
    id: int
    result: bytes | bool | None = None
    revision: int = 0
    error: str = ""


class Seen(msgspec.Struct, frozen=True, tag=True):
    """A watcher of everything, from the oldest revision that is kept on, got a response."""

    revision: int
    events: list[KeyValue]
    caught_up: bool = False


Record: TypeAlias = Opened | Called | Returned | Seen

_encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Record).decode


def report(record: Record) -> None:
    """Write one line with one call."""
    os.write(1, _encode(record) + b"\n")


class Load:
    """Writers over a few keys of one store."""

    def __init__(
        self, store: EmbeddedStore, run: int, rng: random.Random, report: Callable[[Record], None] = report
    ) -> None:
        self.store = store
        self.report = report
        self.run = run
        self.rng = rng
        self.count = 0
        self.leases: dict[int, int] = {}
        self.known: dict[bytes, bytes | None] = {}

    async def write_forever(self, writer: int) -> None:
        """Do one operation after the other."""
        while True:
            await self.write_once(writer)
            # A read answers without waiting; the other writers are to have their turn in between.
            await asyncio.sleep(0)

    async def write_once(self, writer: int) -> None:
        """Do one operation and report it."""
        invocation = self.choose(writer)
        self.count += 1
        number = self.count
        self.report(Called(time.monotonic(), number, invocation))
        try:
            result, revision = await self.do(invocation)
        except StoreError as error:
            self.report(Returned(time.monotonic(), number, error=f"{type(error).__name__}: {error}"))
        else:
            self.report(Returned(time.monotonic(), number, result, revision))

    def choose(self, writer: int) -> Invocation:
        """Choose what a writer does next."""
        kinds = ("get", "put", "delete", "cas", "pair", "lease", "compact")
        kind = self.rng.choices(kinds, (5, 6, 2, 4, 3, 1, 0.4))[0]
        key = self.rng.choice(SINGLES)
        value = b"%d.%d.%d" % (self.run, writer, self.count)
        if kind == "pair":
            return Invocation("pair", self.rng.choice(PAIRS), value)
        if kind == "lease":
            return self.choose_lease(writer, value)
        if kind == "compact":
            return Invocation("compact", number=max(1, self.store.keys.revision - self.rng.randrange(_HISTORY)))
        return Invocation(kind, (key,), value, self.known.get(key) if self.rng.random() < 0.8 else b"wrong")

    def choose_lease(self, writer: int, value: bytes) -> Invocation:
        """Let a writer's lease live through its stages: granted, bound to the writer's own key, revoked."""
        key = b"lease%d" % writer
        lease = self.leases.get(writer, 0)
        if not lease:
            self.leases[writer] = self.run * 1_000_000 + self.count + 1
            return Invocation("grant", number=self.leases[writer])
        if key not in self.known or self.rng.random() < 0.6:
            self.known[key] = value
            return Invocation("put", (key,), value, number=lease)
        self.leases[writer] = 0
        del self.known[key]  # revoking deletes the key only once this lease has been bound to it
        return Invocation("revoke", (key,), number=lease)

    async def do(self, invocation: Invocation) -> tuple[bytes | bool | None, int]:
        """Do it and return its result and the revision that it made."""
        store, keys, value = self.store, invocation.keys, invocation.value or b""
        match invocation.kind:
            case "get":
                kvs = (await store.range(RangeRequest(keys[0]))).kvs
                self.known[keys[0]] = kvs[0].value if kvs else None
                return self.known[keys[0]], 0
            case "put":
                return None, (await store.put(PutRequest(keys[0], value, invocation.number))).revision
            case "delete":
                deleted = await store.delete_range(DeleteRangeRequest(keys[0]))
                return bool(deleted.deleted), deleted.revision if deleted.deleted else 0
            case "cas":
                guard = Compare(keys[0], CompareTarget.VALUE, operand=invocation.expected or b"")
                if invocation.expected is None:
                    guard = Compare(keys[0], CompareTarget.VERSION)
                done = await store.txn(TxnRequest((guard,), (PutRequest(keys[0], value),)))
                return done.succeeded, done.revision if done.succeeded else 0
            case "pair":
                done = await store.txn(TxnRequest(success=tuple(PutRequest(key, value) for key in keys)))
                return None, done.revision
            case "revoke":
                await store.lease_revoke(invocation.number)
            case "grant":
                await store.lease_grant(1_000_000, invocation.number)
            case _:
                await self.compact(invocation.number)
        return None, 0

    async def compact(self, revision: int) -> None:
        try:
            await self.store.compact(revision)
        except Compacted:
            return  # another writer was there before


async def watch(store: EmbeddedStore, *, until_caught_up: bool, report: Callable[[Record], None] = report) -> None:
    """Report all events from the oldest revision kept on."""
    start = max(store.keys.compact_revision, 1) + 1
    async with store.watch(WatchRequest(*_EVERYTHING, start_revision=start)) as watching:
        if until_caught_up:
            watching.request_progress()
        async for response in watching:
            caught_up = until_caught_up and not response.events
            report(Seen(response.revision, [event.kv for event in response.events], caught_up))
            if caught_up or response.canceled:
                return


async def opened(store: EmbeddedStore, began: float) -> Opened:
    """Return what an open store holds."""
    kvs = (await store.range(RangeRequest(*_EVERYTHING))).kvs
    leases = await store.lease_leases()
    keys = store.keys
    return Opened(began, time.monotonic(), keys.revision, keys.compact_revision, kvs, leases)


async def main(directory: str, run: int, seed: int, writers: int) -> None:
    """Open the store, say what it holds, and load it until killed."""
    began = time.monotonic()
    # A checkpoint or a rotation every few milliseconds, so that kills hit them.
    options = StoreOptions(data_dir=directory, snapshot_entries=60, segment_bytes=32 * 1024)
    async with await EmbeddedStore.open(options) as store:
        report(await opened(store, began))
        load = Load(store, run, random.Random(seed))
        work = [watch(store, until_caught_up=not writers)]
        await asyncio.gather(*work, *(load.write_forever(writer) for writer in range(writers)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
