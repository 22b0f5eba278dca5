"""Informers and work queues alone, in one process and without a server: events from bytes in memory to a worker.

Goals: 20,000 events/s through cache and queue to a worker that does nothing; a p99 of 10 ms at 1,000 changes/s; 300,000
queue operations/s (add, get and done of one key are one). A pod has 2 KB as sent. `operator_events` and
`operator_latency` measure the same with a manager, over connections and beside others.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from _apiserver import pod
from _kit import Spread, arguments, fraction, note, report, run


class _Bytes:
    """A transport that answers watches from memory: what it takes to read events, without a server's own work."""

    def __init__(self, pods: list[bytes], events: int, at_once: int = 50, pause: float = 0.0) -> None:
        self._pods = pods
        self._events = events
        self._at_once = at_once
        self._pause = pause
        self.sent: dict[int, float] = {}
        """When the last event of each pod was handed over."""

    async def request(self, method: str, target: str, *_: Any, **__: Any) -> Any:
        from pilothouse.client.transport import Answer

        if "sendInitialEvents" not in target:
            await asyncio.Event().wait()
        return Answer(200, (("content-type", "application/json"),), stream=_Pieces(self._pieces()))

    async def aclose(self) -> None:
        """Hold nothing."""

    async def _pieces(self) -> AsyncIterator[bytes]:
        for line in self._pods:
            yield b'{"type":"ADDED","object":' + line + b"}\n"
        yield (
            b'{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"1","annotations":'
            b'{"k8s.io/initial-events-end":"true"}}}}\n'
        )
        lines = [b'{"type":"MODIFIED","object":' + line + b"}\n" for line in self._pods]
        sent = 0
        while sent < self._events:
            start = sent % len(lines)
            piece = lines[start : start + self._at_once]
            now = time.perf_counter()
            self.sent.update((number, now) for number in range(start, start + len(piece)))
            yield b"".join(piece)
            sent += len(piece)
            await asyncio.sleep(self._pause)
        await asyncio.Event().wait()


class _Pieces:
    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def __anext__(self) -> bytes:
        return await self._pieces.__anext__()

    async def aclose(self) -> None:
        """Hold nothing."""


def stored(number: int) -> bytes:
    """Return a pod as a server keeps it, with a version of its own."""
    made = pod(f"pod-{number}")
    made |= {"apiVersion": "v1", "kind": "Pod"}
    made["metadata"] |= {"namespace": "default", "uid": f"uid-{number}", "resourceVersion": str(number + 1)}
    return json.dumps(made).encode()


async def events(count: int) -> float:
    """Return events per second from bytes through cache and queue to a reconciler that does nothing."""
    from pilothouse.client import Client
    from pilothouse.client.informer import Informer
    from pilothouse.client.objects import key_of
    from pilothouse.client.workqueue import WorkQueue
    from pilothouse.kinds.structs import Pod

    queue: WorkQueue[str] = WorkQueue("bench")
    seen = reconciled = 0
    finished = asyncio.Event()

    def enqueue(_: Pod, new: Pod) -> None:
        nonlocal seen
        seen += 1
        queue.add(key_of(new))

    async def work() -> None:
        nonlocal reconciled
        while True:
            key = await queue.get()
            informer.indexer.get(key)
            reconciled += 1
            queue.done(key)
            if seen >= count and not len(queue):
                finished.set()

    client = Client.for_transport(_Bytes([stored(number) for number in range(1_000)], count))
    informer = Informer(client.list_watch(Pod, "default"))
    informer.add_handler(on_update=enqueue)
    worker = asyncio.create_task(work())
    async with informer:
        await informer.wait_synced()
        begun = time.perf_counter()
        await finished.wait()
        took = time.perf_counter() - begun
    worker.cancel()
    note(f"{seen:,} events, {reconciled:,} reconciled")
    return seen / took


async def latencies(seconds: float) -> list[float]:
    """Return the seconds from bytes to reconciler, sorted, of 1,000 changes a second."""
    from pilothouse.client import Client
    from pilothouse.client.informer import Informer
    from pilothouse.client.objects import key_of
    from pilothouse.client.workqueue import WorkQueue
    from pilothouse.kinds.structs import Pod

    queue: WorkQueue[str] = WorkQueue("bench-latency")
    found: list[float] = []
    transport = _Bytes([stored(number) for number in range(1_000)], int(seconds * 1_000), at_once=5, pause=0.005)

    async def work() -> None:
        while True:
            key = await queue.get()
            found.append(time.perf_counter() - transport.sent[int(key.rpartition("-")[2])])
            queue.done(key)

    informer = Informer(Client.for_transport(transport).list_watch(Pod, "default"))
    informer.add_handler(on_update=lambda _, new: queue.add(key_of(new)))
    worker = asyncio.create_task(work())
    async with informer:
        await informer.wait_synced()
        await asyncio.sleep(seconds)
    worker.cancel()
    return sorted(found)


async def queue_operations(rounds: int) -> float:
    """Return adds, gets and dones of a measured queue per second, counted as one each."""
    from pilothouse.client.workqueue import WorkQueue

    queue: WorkQueue[str] = WorkQueue("bench-operations")
    keys = [f"default/pod-{number}" for number in range(1_000)]
    begun = time.perf_counter()
    for _ in range(rounds):
        for key in keys:
            queue.add(key)
        for _ in keys:
            queue.done(await queue.get())
    return rounds * len(keys) / (time.perf_counter() - begun)


def main() -> None:
    """Measure."""
    quick = arguments(__doc__).quick
    rounds = 1 if quick else 3
    operations = [run(queue_operations(30 if quick else 300)) for _ in range(rounds)]
    report("client work queue, add, get and done with metrics", Spread.of(operations), "1/s", digits=0, goal=300_000)
    rates = [run(events(2_000 if quick else 50_000)) for _ in range(rounds)]
    name = "client events, bytes to a reconciler that does nothing, typed pods of 2 KB"
    report(name, Spread.of(rates), "1/s", digits=0, goal=20_000)
    waits = [fraction(run(latencies(1 if quick else 5)), 0.99) * 1e3 for _ in range(rounds)]
    report("client reconcile latency p99, 1,000 changes/s", Spread.of(waits), "ms", digits=2, goal=10)


if __name__ == "__main__":
    main()
