"""`pilothouse demo`: the project's main job at work in half a minute, on real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pilothouse.foundation.clock import SystemClock
from pilothouse.foundation.retry import Backoff, retry
from pilothouse.foundation.terminal import CommandError, emit, examples
from pilothouse.foundation.tls import client_context
from pilothouse.store.offline import check

if TYPE_CHECKING:
    import aiohttp

__all__ = ["demo"]

_WRITERS = 16
_NAMESPACE = "/api/v1/namespaces/harbour"
_BOATS = "/apis/demo.pilothouse.dev/v1/namespaces/harbour/boats"
_APPLY = "application/apply-patch+yaml"

_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.demo.pilothouse.dev"},
    "spec": {
        "group": "demo.pilothouse.dev",
        "scope": "Namespaced",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["crew"],
                                "properties": {
                                    "crew": {"type": "integer", "minimum": 1},
                                    "flag": {"type": "string", "default": "none"},
                                },
                                "x-kubernetes-validations": [
                                    {"rule": "self.crew < 100", "message": "that is a ship"},
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


@dataclass
class _Load:
    """What the writers did: the names acknowledged and how long each write took, in seconds."""

    acknowledged: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0


@click.command(epilog=examples("pilothouse demo", "pilothouse demo --seconds 10"))
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=3.0, show_default=True, help="How long to write under load."
)
def demo(seconds: float) -> None:
    """Start a cluster, define a kind, apply, watch, kill it with SIGKILL under load, and show that nothing is lost."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-demo-") as directory:
        try:
            asyncio.run(_demo(Path(directory) / "cluster", seconds))
        except asyncio.CancelledError:
            raise click.Abort from None


class _Cluster:
    """A running API server and a client of its administrator."""

    def __init__(self, process: asyncio.subprocess.Process, session: aiohttp.ClientSession, url: str) -> None:
        self.process = process
        self.session = session
        self.url = url

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> dict[str, Any]:
        """Send one request; refusals come as what the server says of them."""
        data = None if body is None else msgspec.json.encode(body)
        async with self.session.request(
            method, self.url + path, data=data, headers={"Content-Type": kind} if data else {}
        ) as answer:
            made: dict[str, Any] = msgspec.json.decode(await answer.read())
            return made


async def _demo(directory: Path, seconds: float) -> None:
    # Without this SIGTERM would end only this process and leave the cluster's behind.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    _say("1. a cluster starts: the Kubernetes API over its own store, TLS and RBAC on")
    started = time.perf_counter()
    async with _running(directory) as cluster:
        version = await cluster.call("GET", "/version")
        _say(f"   ready in {time.perf_counter() - started:.2f} s, version {version['gitVersion']}")
        await _define(cluster)
        await _apply_and_watch(cluster)
        _say(f"4. {_WRITERS} writers, every answer durable; then SIGKILL in the middle")
        load = await _write_until_killed(cluster, seconds)
    _say("5. it starts again: the newest checkpoint, then the log")
    started = time.perf_counter()
    async with _running(directory) as cluster:
        ready = time.perf_counter() - started
        lost = await _missing(cluster, load.acknowledged)
    _show(load, ready, lost, str(directory / "store"))
    if lost:
        raise CommandError(f"{len(lost)} acknowledged objects are missing, the first is {lost[0]!r}")


async def _define(cluster: _Cluster) -> None:
    _say("2. a kind of its own: schema, defaults and a rule, served at once")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "harbour"}}
    await cluster.call("POST", "/api/v1/namespaces", namespace)
    await cluster.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _DEFINITION)
    await retry(lambda: _served(cluster), Backoff(base=0.01, cap=0.1, attempts=100), SystemClock(), LookupError)
    refused = await cluster.call("POST", _BOATS, _boat("ferry", 400))
    _say(f"   refused: {refused['message']}")


async def _served(cluster: _Cluster) -> None:
    async with cluster.session.get(cluster.url + _BOATS) as answer:
        if answer.status != 200:
            raise LookupError(_BOATS)


async def _apply_and_watch(cluster: _Cluster) -> None:
    _say("3. two appliers share an object, and a watch sees each change")
    path = f"{_BOATS}/tug"
    version = (await cluster.call("GET", _BOATS))["metadata"]["resourceVersion"]
    await cluster.call("PATCH", f"{path}?fieldManager=captain", _boat("tug", 3), _APPLY)
    flag = {**_boat("tug", 3), "spec": {"crew": 3, "flag": "yellow"}}
    await cluster.call("PATCH", f"{path}?fieldManager=owner", flag, _APPLY)
    conflict = await cluster.call("PATCH", f"{path}?fieldManager=owner", _boat("tug", 5), _APPLY)
    _say(f"   conflict: {conflict['message']}")
    async with cluster.session.get(
        cluster.url + _BOATS, params={"watch": "1", "resourceVersion": version, "timeoutSeconds": "1"}
    ) as answer:
        async for line in answer.content:
            event = msgspec.json.decode(line)
            spec = event["object"]["spec"]
            _say(f"   {event['type']}: {event['object']['metadata']['name']} {spec}")


def _boat(name: str, crew: int) -> dict[str, Any]:
    return {
        "apiVersion": "demo.pilothouse.dev/v1",
        "kind": "Boat",
        "metadata": {"name": name},
        "spec": {"crew": crew},
    }


async def _write_until_killed(cluster: _Cluster, seconds: float) -> _Load:
    load = _Load()
    started = time.perf_counter()
    writers = [asyncio.create_task(_writer(cluster, number, load)) for number in range(_WRITERS)]
    await asyncio.sleep(seconds)
    load.seconds = time.perf_counter() - started
    cluster.process.kill()
    await cluster.process.wait()
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    return load


async def _writer(cluster: _Cluster, number: int, load: _Load) -> None:
    import aiohttp

    count = 0
    while True:
        name = f"load-{number:02d}-{count:06d}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"cargo": "v" * 256}}
        started = time.perf_counter()
        try:
            async with cluster.session.post(f"{cluster.url}{_NAMESPACE}/configmaps", json=body) as answer:
                await answer.read()
                if answer.status != 201:
                    return
        except (aiohttp.ClientError, OSError):
            return  # the server is gone; whether this write was kept is not known, and nobody was told that it was
        load.latencies.append(time.perf_counter() - started)
        load.acknowledged.append(name)
        count += 1


async def _missing(cluster: _Cluster, names: list[str]) -> list[str]:
    found = await cluster.call("GET", f"{_NAMESPACE}/configmaps")
    there = {item["metadata"]["name"] for item in found["items"]}
    return [name for name in names if name not in there]


def _show(load: _Load, ready: float, lost: list[str], directory: str) -> None:
    if not load.latencies:
        raise CommandError(f"no write was acknowledged in {load.seconds:.1f} s", hint="try a longer --seconds")
    report = check(directory)
    ordered = sorted(load.latencies)
    emit(
        [
            {"what": "acknowledged objects", "figure": f"{len(load.acknowledged):,}"},
            {"what": "durable creates a second", "figure": f"{len(ordered) / load.seconds:,.0f}"},
            {"what": "latency, median", "figure": f"{ordered[len(ordered) // 2] * 1000:.1f} ms"},
            {"what": "latency, p99", "figure": f"{ordered[int(len(ordered) * 0.99)] * 1000:.1f} ms"},
            {"what": "start after the kill", "figure": f"{ready:.2f} s"},
            {"what": "acknowledged objects lost", "figure": f"{len(lost)}"},
            {"what": "offline check", "figure": f"{'sound' if report.ok else 'DAMAGED'}, revision {report.revision}"},
        ]
    )


@contextlib.asynccontextmanager
async def _running(directory: Path) -> AsyncIterator[_Cluster]:
    """Run the API server on a free port, with a client; both are ended on the way out."""
    import aiohttp

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pilothouse", "apiserver", "--lifecycle", "--data-dir", str(directory),
        "--listen", "127.0.0.1:0", "--log-level", "error",
        stdout=asyncio.subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101  # piped above
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        address = next((word for word in line.split() if word.startswith("https://")), "")
        if not address:
            raise CommandError(f"the cluster did not start: it said {line.strip()!r}")
        connector = aiohttp.TCPConnector(ssl=_administrator(directory / "pki"), limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield _Cluster(process, session, address.rstrip(","))
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _administrator(keys: Path) -> ssl.SSLContext:
    return client_context(ca=str(keys / "ca.crt"), certificate=str(keys / "admin.crt"), key=str(keys / "admin.key"))


def _say(line: str) -> None:
    click.echo(line)
