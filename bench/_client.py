"""Our own asyncio gRPC client as a load program in a process of its own, the same for every server.

Parents call `load`, `put`, `get`, `span` and `watch`; each runs this file with its arguments as JSON and reads one
JSON object back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from _kit import burst, run, value_of
from _peers import Server
from pilothouse.foundation.grpc import GrpcChannel
from pilothouse.store.etcd import etcd_pb2 as pb
from pilothouse.store.etcd.requests import WatchCreate, encode_put, encode_range, encode_txn, encode_watch
from pilothouse.store.etcd.responses import decode_range_response
from pilothouse.store.model import PutRequest, RangeRequest, TxnRequest, WatchRequest, prefix_end

__all__ = ["Rate", "WatchRate", "get", "key_of", "load", "put", "span", "watch"]

RANGE = "/etcdserverpb.KV/Range"
PUT = "/etcdserverpb.KV/Put"
TXN = "/etcdserverpb.KV/Txn"
WATCH = "/etcdserverpb.Watch/Watch"

_SECONDS = 600
_MESSAGE_BYTES = 64 << 20
_FIRST = 50_000


class Rate(NamedTuple):
    """Calls a second and their latencies in µs."""

    rate: float
    p50: float
    p99: float


class WatchRate(NamedTuple):
    """Events a second that all watchers got together, and the puts a second that caused them."""

    events: float
    puts: float


def key_of(number: int) -> bytes:
    """Return a key as an API server's look: 43 bytes."""
    return b"/registry/pods/namespace-%03d/pod-%012d" % (number // 10_000, number)


def load(server: Server, count: int, *, together: int = 1) -> float:
    """Write keys 0 to `count` - 1, `together` in a transaction; return the seconds it took."""
    return float(_child(server, "load", connections=8, count=count, together=together)["seconds"])


def put(server: Server, *, in_flight: int, seconds: float, connections: int) -> Rate:
    """Put new keys, `in_flight` at a time."""
    return Rate(**_child(server, "put", connections=connections, in_flight=in_flight, seconds=seconds))


def get(server: Server, *, count: int, in_flight: int, seconds: float, connections: int) -> Rate:
    """Get keys at random among the first `count`, linearizable."""
    found = _child(server, "get", connections=connections, in_flight=in_flight, seconds=seconds, count=count)
    return Rate(**found)


def span(server: Server, *, in_flight: int, seconds: float, connections: int) -> Rate:
    """Read 10,000 keys from the middle of 100,000 with one range, again and again."""
    return Rate(**_child(server, "span", connections=connections, in_flight=in_flight, seconds=seconds))


def watch(server: Server, *, watchers: int, puts: int, in_flight: int, connections: int) -> WatchRate:
    """Have `watchers` watch one prefix, one stream a connection, while `puts` are written under it."""
    found = _child(server, "watch", connections=connections, watchers=watchers, puts=puts, in_flight=in_flight)
    return WatchRate(**found)


def _child(server: Server, command: str, **arguments: float) -> dict[str, Any]:
    message = json.dumps({"command": command, "host": server.host, "port": server.port, **arguments})
    done = subprocess.run(
        [sys.executable, __file__, message], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{server.name}: the client's `{command}` failed: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# In the child


@contextlib.asynccontextmanager
async def _channels(host: str, port: int, connections: int) -> AsyncIterator[list[GrpcChannel]]:
    channels = [GrpcChannel(host, port, max_message_bytes=_MESSAGE_BYTES) for _ in range(connections)]
    try:
        for channel in channels:
            await channel.connect()
        yield channels
    finally:
        for channel in channels:
            await channel.close()


async def _load(channels: list[GrpcChannel], count: int, together: int) -> dict[str, float]:
    numbers = iter(range(0, count, together))

    async def work(channel: GrpcChannel) -> None:
        for start in numbers:
            puts = [PutRequest(key_of(n), value_of(n)) for n in range(start, min(start + together, count))]
            if together == 1:
                await channel.unary_future(PUT, encode_put(puts[0]))
            else:
                await channel.unary_future(TXN, encode_txn(TxnRequest(success=tuple(puts))))

    begun = time.perf_counter()
    await asyncio.gather(*(work(channel) for channel in channels for _ in range(max(2, 512 // together))))
    return {"seconds": time.perf_counter() - begun}


async def _calls(
    channels: list[GrpcChannel], path: str, messages: list[bytes], in_flight: int, seconds: float
) -> dict[str, float]:
    async def call(number: int) -> bytes:
        return await channels[number % len(channels)].unary_future(path, messages[number % len(messages)])

    done = await burst(in_flight, seconds, call)
    return {"rate": done.rate, "p50": done.micros(0.5), "p99": done.micros(0.99)}


async def _put(channels: list[GrpcChannel], in_flight: int, seconds: float) -> dict[str, float]:
    prefix = b"/bench/%d/" % time.time_ns()
    values = [value_of(number) for number in range(1000)]

    async def call(number: int) -> bytes:
        message = encode_put(PutRequest(b"%b%012d" % (prefix, number), values[number % 1000]))
        return await channels[number % len(channels)].unary_future(PUT, message)

    done = await burst(in_flight, seconds, call)
    return {"rate": done.rate, "p50": done.micros(0.5), "p99": done.micros(0.99)}


async def _get(channels: list[GrpcChannel], count: int, in_flight: int, seconds: float) -> dict[str, float]:
    chosen = random.Random(1).sample(range(count), min(count, 10_000))
    return await _calls(
        channels, RANGE, [encode_range(RangeRequest(key_of(number))) for number in chosen], in_flight, seconds
    )


async def _span(channels: list[GrpcChannel], in_flight: int, seconds: float) -> dict[str, float]:
    message = encode_range(RangeRequest(key_of(_FIRST), key_of(_FIRST + 10_000)))
    found = len(decode_range_response(await channels[0].unary_future(RANGE, message)).kvs)
    if found != 10_000:
        raise RuntimeError(f"the range has {found} keys where 10,000 were written")
    return await _calls(channels, RANGE, [message], in_flight, seconds)


async def _watch(channels: list[GrpcChannel], watchers: int, puts: int, in_flight: int) -> dict[str, float]:
    prefix = b"/watched/%d/" % time.time_ns()
    create = encode_watch(WatchCreate(WatchRequest(prefix, prefix_end(prefix))))
    counter = _Counter(watchers, watchers * puts)
    shares = [len(range(i, watchers, len(channels))) for i in range(len(channels))]
    async with asyncio.TaskGroup() as group:
        readers = [
            group.create_task(counter.receive(channel, create, share))
            for channel, share in zip(channels, shares, strict=True)
        ]
        await counter.all_created.wait()
        begun = time.perf_counter()
        await _write(channels[0], prefix, puts, in_flight)
        written = time.perf_counter() - begun
        await counter.all_seen.wait()
        took = time.perf_counter() - begun
        for reader in readers:
            reader.cancel()
    return {"events": counter.seen / took, "puts": puts / written}


class _Counter:
    """Counts the watches that were created and the events that they got."""

    def __init__(self, watchers: int, events: int) -> None:
        self.all_created, self.all_seen = asyncio.Event(), asyncio.Event()
        self.seen = 0
        self._created = 0
        self._watchers = watchers
        self._events = events

    async def receive(self, channel: GrpcChannel, create: bytes, number: int) -> None:
        """Open `number` watches on one stream and count for ever."""
        stream = channel.stream(WATCH)
        for _ in range(number):
            stream.send(create)
        parse = pb.WatchResponse.FromString
        async for data in stream:
            response = parse(data)
            if response.canceled:
                raise RuntimeError(f"a watch was cancelled: {response.cancel_reason}")
            if response.created:
                self._created += 1
                if self._created == self._watchers:
                    self.all_created.set()
            self.seen += len(response.events)
            if self.seen >= self._events:
                self.all_seen.set()


async def _write(channel: GrpcChannel, prefix: bytes, puts: int, in_flight: int) -> None:
    numbers = iter(range(puts))
    value = value_of(1)

    async def work() -> None:
        for number in numbers:
            await channel.unary_future(PUT, encode_put(PutRequest(b"%b%08d" % (prefix, number), value)))

    await asyncio.gather(*(work() for _ in range(in_flight)))


async def _main(command: str, host: str, port: int, connections: int, **rest: Any) -> dict[str, float]:
    commands = {"load": _load, "put": _put, "get": _get, "span": _span, "watch": _watch}
    async with _channels(host, port, connections) as channels:
        found: dict[str, float] = await commands[command](channels, **rest)  # type: ignore[operator]  # by name
        return found


if __name__ == "__main__":
    print(json.dumps(run(_main(**json.loads(sys.argv[1])))))
