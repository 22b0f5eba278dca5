"""Our etcd service for tests: in this process, or as `pilothouse store serve` in a child of its own."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pilothouse.foundation.grpc import GrpcChannel
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.etcd.service import EtcdService

__all__ = ["PILOTHOUSE", "Served", "pilothouse", "serve_process", "serving"]

PILOTHOUSE = [sys.executable, "-c", "from pilothouse.cli import main; main()"]
_START_SECONDS = 30.0


class Served(NamedTuple):
    """A store, its service, and a channel to it."""

    store: EmbeddedStore
    service: EtcdService
    channel: GrpcChannel
    host: str
    port: int


@contextlib.asynccontextmanager
async def serving(directory: Path, **settings: Any) -> AsyncIterator[Served]:
    """Serve a new store in this process; `settings` are those of `StoreOptions`."""
    store = await EmbeddedStore.open(StoreOptions(data_dir=str(directory / "data"), **settings))
    service = EtcdService(store)
    host, port = await service.listen_tcp("127.0.0.1", 0)
    channel = GrpcChannel(host, port)
    await channel.connect()
    try:
        yield Served(store, service, channel, host, port)
    finally:
        await channel.close()
        await service.close(0.1)
        await store.close()


@contextlib.contextmanager
def serve_process(directory: Path, *options: str) -> Iterator[str]:
    """Run `pilothouse store serve` on a free port; yield the URL that its ready line names."""
    log = directory.with_name(directory.name + ".log")
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            [*PILOTHOUSE, "store", "serve", "--data-dir", str(directory), "--listen", "127.0.0.1:0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield _ready(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    assert process.returncode == 0, log.read_text()


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + _START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(0.5):
                line = process.stdout.readline().decode()
                found = re.search(r"https?://\S+:\d+", line)
                assert found is not None, f"{line!r}\n{log.read_text()}"
                return found[0]
    raise AssertionError(f"not ready within {_START_SECONDS} s\n{log.read_text()}")


def pilothouse(
    *arguments: str, endpoint: str = "", check: bool = True, stdin: bytes = b"", timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run `pilothouse ...` and return what it printed."""
    environment = {**os.environ, "PILOTHOUSE_STORE_ENDPOINTS": endpoint} if endpoint else dict(os.environ)
    done = subprocess.run(
        [*PILOTHOUSE, *arguments], capture_output=True, input=stdin, timeout=timeout, env=environment, check=False
    )
    result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    if check:
        assert result.returncode == 0, f"{arguments}: {result.stdout}\n{result.stderr}"
    return result
