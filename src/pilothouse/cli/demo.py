"""`pilothouse demo`: the project's main job at work in half a minute, on real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from pilothouse.foundation.terminal import CommandError, emit, examples
from pilothouse.store import EtcdStore, KeyValue, PutRequest, RangeRequest, Store, StoreError, WatchRequest, prefix_end
from pilothouse.store.etcd.settings import EtcdOptions
from pilothouse.store.offline import check

__all__ = ["demo"]

_WRITERS = 64
_VALUE = b"v" * 256
_PREFIX = b"/demo/load/"


@dataclass
class _Load:
    """What the writers did: the keys acknowledged and how long each write took, in seconds."""

    acknowledged: list[bytes] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0


@click.command(epilog=examples("pilothouse demo", "pilothouse demo --seconds 10"))
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=3.0, show_default=True, help="How long to write under load."
)
def demo(seconds: float) -> None:
    """Start a store, watch it, write to it, kill it with SIGKILL under load, and show that nothing was lost."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-demo-") as directory:
        try:
            asyncio.run(_demo(str(Path(directory) / "store"), seconds))
        except asyncio.CancelledError:
            raise click.Abort from None


async def _demo(directory: str, seconds: float) -> None:
    # Without this SIGTERM would end only this process and leave the store's behind.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    _say("1. a store starts in a process of its own and speaks etcd's v3 API")
    started = time.perf_counter()
    async with _serving(directory) as (process, store):
        _say(f"   ready in {time.perf_counter() - started:.2f} s")
        await _watch_and_write(store)
        _say(f"3. {_WRITERS} writers, 256-byte values, every answer durable; then SIGKILL in the middle")
        load = await _write_until_killed(process, store, seconds)
    _say("4. it starts again: the newest checkpoint, then the log")
    started = time.perf_counter()
    async with _serving(directory) as (_, store):
        ready = time.perf_counter() - started
        lost = await _missing(store, load.acknowledged)
    _show(load, ready, lost, directory)
    if lost:
        raise CommandError(f"{len(lost)} acknowledged writes are missing, the first is {lost[0]!r}")


async def _watch_and_write(store: Store) -> None:
    _say("2. a watcher sees each write, in order, with what it replaced")
    async with store.watch(WatchRequest(b"/demo/hello", prefix_end(b"/demo/hello"), prev_kv=True)) as watch:
        for value in (b"one", b"two"):
            await store.put(PutRequest(b"/demo/hello", value))
        seen = 0
        async for response in watch:
            for event in response.events:
                before = event.prev_kv.value.decode() if event.prev_kv else "nothing"
                _say(f"   revision {event.kv.mod_revision}: {_text(event.kv)} (before: {before})")
                seen += 1
            if seen == 2:
                return


async def _write_until_killed(process: asyncio.subprocess.Process, store: Store, seconds: float) -> _Load:
    load = _Load()
    started = time.perf_counter()
    writers = [asyncio.create_task(_writer(store, number, load)) for number in range(_WRITERS)]
    await asyncio.sleep(seconds)
    load.seconds = time.perf_counter() - started
    process.kill()
    await process.wait()
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    return load


async def _writer(store: Store, number: int, load: _Load) -> None:
    count = 0
    while True:
        key = b"%b%02d/%06d" % (_PREFIX, number, count)
        started = time.perf_counter()
        try:
            await store.put(PutRequest(key, _VALUE))
        except StoreError:
            return  # the store is gone; whether this write was kept is not known, and nobody was told that it was
        load.latencies.append(time.perf_counter() - started)
        load.acknowledged.append(key)
        count += 1


async def _missing(store: Store, keys: list[bytes]) -> list[bytes]:
    found = await store.range(RangeRequest(_PREFIX, prefix_end(_PREFIX), keys_only=True))
    there = {kv.key for kv in found.kvs}
    return [key for key in keys if key not in there]


def _show(load: _Load, ready: float, lost: list[bytes], directory: str) -> None:
    if not load.latencies:
        raise CommandError(f"no write was acknowledged in {load.seconds:.1f} s", hint="try a longer --seconds")
    report = check(directory)
    ordered = sorted(load.latencies)
    emit(
        [
            {"what": "acknowledged writes", "figure": f"{len(load.acknowledged):,}"},
            {"what": "durable writes a second", "figure": f"{len(ordered) / load.seconds:,.0f}"},
            {"what": "latency, median", "figure": f"{ordered[len(ordered) // 2] * 1000:.1f} ms"},
            {"what": "latency, p99", "figure": f"{ordered[int(len(ordered) * 0.99)] * 1000:.1f} ms"},
            {"what": "start after the kill", "figure": f"{ready:.2f} s"},
            {"what": "acknowledged writes lost", "figure": f"{len(lost)}"},
            {"what": "offline check", "figure": f"{'sound' if report.ok else 'DAMAGED'}, revision {report.revision}"},
        ]
    )


@contextlib.asynccontextmanager
async def _serving(directory: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Store]]:
    """Run `pilothouse store serve` on a free port, with a client; both are ended on the way out."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pilothouse", "store", "serve", "--data-dir", directory, "--listen", "127.0.0.1:0",
        "--log-level", "error",
        stdout=asyncio.subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101  # piped above
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        address = next((word for word in line.split() if word.startswith(("http://", "https://"))), "")
        if not address:
            raise CommandError(f"the store did not start: it said {line.strip()!r}")
        store = await EtcdStore.open(EtcdOptions(endpoints=(address.rstrip("/,;"),)))
        try:
            yield process, store
        finally:
            await store.close()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _text(kv: KeyValue) -> str:
    return f"{kv.key.decode()} = {kv.value.decode()}"


def _say(line: str) -> None:
    click.echo(line)
