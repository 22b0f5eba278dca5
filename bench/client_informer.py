"""Informers and work queues: start on 20,000 pods, events to a reconciler, queue operations, memory of a cached pod.

Goals: start within 1.0 s and 150 MB; 20,000 events/s through cache and queue to a reconciler that does nothing;
300,000 queue operations/s (add, get and done of one key are one). A pod has 2 KB as sent.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from _apiserver import PODS, TOKEN, Server, pod, prepare, serving, unverified
from _kit import Spread, arguments, fraction, note, report, resident_bytes, run, scratch

COUNT = 20_000


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


async def following(server: str, count: int, lean: bool) -> dict[str, float]:
    """Start an informer over HTTPS in this process; return seconds and bytes, before and after."""
    from pilothouse.client import Client, ClientConfig
    from pilothouse.client.factory import SharedInformerFactory
    from pilothouse.kinds.structs import Pod

    async with Client.from_config(ClientConfig(server=server, token=TOKEN, insecure=True)) as client:
        await client.version()
        before, begun = resident_bytes(), time.perf_counter()
        factory = SharedInformerFactory(client, namespace="default")
        informer = factory.informer(Pod, managed_fields=not lean)
        async with factory:
            await informer.wait_synced()
            took = time.perf_counter() - begun
            if len(informer.indexer) != count:
                raise SystemExit(f"the cache has {len(informer.indexer)} pods instead of {count}")
            gc.collect()
            return {"seconds": took, "before": before, "resident": resident_bytes()}


async def in_process(directory: Path, count: int, rounds: int) -> dict[bool, list[float]]:
    """Return the seconds that an informer takes to start on so many pods of a server in the same process.

    They are by whether managed fields were left out.
    """
    from pilothouse.client import Client
    from pilothouse.client.factory import SharedInformerFactory
    from pilothouse.kinds.structs import Pod
    from pilothouse.testing import ControlPlane

    times: dict[bool, list[float]] = {False: [], True: []}
    async with ControlPlane(data_dir=directory, lifecycle=False) as plane:
        await plane.call("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        for start in range(0, count, 64):
            numbers = range(start, min(start + 64, count))
            await asyncio.gather(*(plane.call("POST", PODS, pod(f"pod-{number}")) for number in numbers))
        async with Client.for_transport(plane.transport, plane.user) as client:
            for lean in [False, True] * rounds:
                gc.unfreeze()
                gc.collect()
                begun = time.perf_counter()
                factory = SharedInformerFactory(client, namespace="default")
                informer = factory.informer(Pod, managed_fields=not lean)
                async with factory:
                    await informer.wait_synced()
                    times[lean].append(time.perf_counter() - begun)
                    if len(informer.indexer) != count:
                        raise SystemExit(f"the cache has {len(informer.indexer)} pods instead of {count}")
    return times


def fill(server: Server, count: int) -> None:
    """Create so many pods by one connection."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=unverified())
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    note(f"creating {count:,} pods")
    for number in range(count):
        connection.request("POST", PODS, json.dumps(pod(f"fill-{number}")), headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 201:
            raise SystemExit(f"a pod was refused: {answer.status}")
    connection.close()


def child(server: Server, count: int, lean: bool) -> dict[str, float]:
    """Run `following` in a process of its own."""
    import subprocess

    command = [sys.executable, __file__, "--follow", server.url, str(count), "lean" if lean else "full"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, or be the process that follows."""
    if sys.argv[1:2] == ["--follow"]:
        print(json.dumps(run(following(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "lean"))))
        return
    quick = arguments(__doc__).quick
    count, rounds = (500, 1) if quick else (COUNT, 3)
    operations = [run(queue_operations(30 if quick else 300)) for _ in range(rounds)]
    report("client work queue, add, get and done with metrics", Spread.of(operations), "1/s", digits=0, goal=300_000)
    rates = [run(events(2_000 if quick else 50_000)) for _ in range(rounds)]
    name = "client events, bytes to a reconciler that does nothing, typed pods of 2 KB"
    report(name, Spread.of(rates), "1/s", digits=0, goal=20_000)
    waits = [fraction(run(latencies(1 if quick else 5)), 0.99) * 1e3 for _ in range(rounds)]
    report("client reconcile latency p99, 1,000 changes/s", Spread.of(waits), "ms", digits=2, goal=10)
    kinds = {False: "typed pods", True: "typed pods without managed fields"}
    with scratch() as directory:
        for lean, times in run(in_process(directory, count, rounds)).items():
            name = f"client informer start, {count:,} {kinds[lean]}, in process"
            report(name, Spread.of(times), "s", digits=3, goal=1.0)
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        fill(server, count)
        for lean, kind in kinds.items():
            found = [child(server, count, lean) for _ in range(rounds)]
            times = [each["seconds"] for each in found]
            report(f"client informer start, {count:,} {kind}, HTTPS", Spread.of(times), "s", digits=3, goal=1.0)
            resident = Spread.of([each["resident"] / 1e6 for each in found])
            report(f"client memory, {count:,} {kind} cached", resident, "MB", digits=0, goal=150)
            each_one = Spread.of([(each["resident"] - each["before"]) / count for each in found])
            report(f"client memory of one of {count:,} {kind}", each_one, "B", digits=0)


if __name__ == "__main__":
    main()
