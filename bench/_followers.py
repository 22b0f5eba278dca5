"""Programs that follow a server's pods or ConfigMaps, one for each client and each in a process of its own.

What a client does is what its users write: ours a shared informer, or a manager with a reconciler; kopf an index, or a
handler of events; the others list into a dictionary and then watch, since they have no cache of their own. In Go it is
controller-runtime (`_follower.go`), which is no Python client but what all of them are compared with. Objects carry
their number in an annotation, so that a parent knows when each change has been seen.

usage: _followers.py JSON  (by `follow`; prints `ready`, then one JSON object)
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from _kit import note, run

__all__ = ["LEAN", "MARK", "OURS", "PEERS", "Followed", "follow", "installed", "say"]

MARK = "bench"
"""The annotation that has an object's number."""
OURS, LEAN = "pilothouse", "pilothouse, no managed fields"
RUNTIME = "controller-runtime"
"""What is in Go; a program of its own."""

_GRACE_SECONDS = 30.0
_KOPF_IDLE_SECONDS = 6.0
"""After which kopf's tasks of single objects have ended, one second more than its setting says."""


class Followed(NamedTuple):
    """What one program saw; seconds are wall and processor time from its first call on, memory is in bytes.

    complete: whether it saw all before its time was up. objects: of the first state, that it had in the end.
    calls: of the handler after the first state. seen: numbers of changes with the time of the call, on the system's
    monotonic clock. ended: when it was over, on the same clock.
    """

    complete: bool
    objects: int
    seconds: float
    cpu: float
    before: int
    resident: int
    unique: int
    peak: int
    calls: int
    events_cpu: float
    seen: list[tuple[int, float]]
    ended: float
    read_seconds: float = 0.0
    """Processor time to look at each object of a cache that reads them only then; 0 where the others have them read."""


class _Task(NamedTuple):
    client: str
    config: str
    objects: int
    base: int
    """The number of the first change; objects with a lower one, or none, are of the first state."""
    changes: int
    """How many come after the first state; 0: none, the figures are those of the start."""
    limit: float
    """Seconds until it ends, done or not, first for the start and then for the changes."""
    plural: str = "pods"
    """What is followed, in the namespace default: pods or configmaps."""
    handles: bool = False
    """Whether each object of the first state goes to a reconciler or handler even where no changes come."""


def installed(*, build: bool) -> list[str]:
    """Return the names of the peers that are there; what is left out is said.

    build: also controller-runtime's program, where it has not been built yet.
    """
    found = [name for name in PEERS if importlib.util.find_spec(name) is not None]
    for name in PEERS:
        if name not in found:
            note(f"{name} is not installed: left out")
    return [*found, RUNTIME] if _runtime(build=build) else found


def _runtime(*, build: bool) -> str:
    from _peers import follower  # not in the programs that are measured

    return str(follower(build=build) or "")


def follow(  # noqa: PLR0913  each is of one kind of figure
    client: str,
    config: str,
    objects: int,
    *,
    changes: int = 0,
    base: int = 0,
    limit: float = 60.0,
    plural: str = "pods",
    handles: bool = False,
    when_ready: Callable[[], None] | None = None,
) -> Followed | None:
    """Run one client's program until it has seen all, or its time is up; None, the reason said, where it failed.

    when_ready: called once the first state is there, so that changes may begin.
    """
    task = _Task(client, config, objects, base, changes, limit, plural, handles or changes > 0)
    # Compiled modules are kept, as after any installation.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile("w+") as errors:
        program = [_runtime(build=False)] if client == RUNTIME else [sys.executable, __file__]
        command = [*program, json.dumps(task)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment | {"KUBECONFIG": config}
        )
        end = threading.Timer(2 * limit + _GRACE_SECONDS, process.kill)
        end.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if line == "ready\n":
                if when_ready is not None:
                    when_ready()
                line = process.stdout.readline()
        finally:
            end.cancel()
            process.kill()
            process.wait()
        errors.seek(0)
        if not line.startswith("{"):
            note(f"{client}: left out, it failed: {errors.read().strip()[-600:]}")
            return None
    return Followed(**json.loads(line))


def say(line: str) -> None:
    """Print a line, all of it however long: `print` loses what a pipe does not take at once if output is unbuffered."""
    rest = memoryview(f"{line}\n".encode())
    while rest:
        rest = rest[os.write(1, rest) :]


class _Seen:
    """What a follower tells of: each object as its handler is called."""

    def __init__(self, task: _Task) -> None:
        self.task = task
        self._seen: list[tuple[int, float]] = []
        self._finals: set[int] = set()
        self._first_final = task.base + task.changes - min(task.objects, task.changes)
        self._lock = threading.Lock()
        self.objects = 0
        """Of the first state, so far."""
        self._before = 0
        self._memory: dict[str, int] = {}
        self._seconds = self._cpu = 0.0
        self._begun = self._used = self._events_used = 0.0
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        """Say that all is imported and the work begins."""
        gc.collect()
        self._before = _memory()["Rss"]
        self._begun, self._used = time.monotonic(), time.process_time()
        self._limit()

    def object(self, annotations: Mapping[str, str] | None) -> None:
        """Take a call of the handler; annotations are the object's."""
        number = int((annotations or {}).get(MARK) or -1)
        if number < self.task.base:
            self.objects += 1
            if self.objects == self.task.objects:
                self.cached(self.objects)
            return
        self._seen.append((number, time.monotonic()))
        if number >= self._first_final:
            self._finals.add(number)
            if len(self._finals) == min(self.task.objects, self.task.changes):
                self.end(complete=True)

    def cached(self, count: int, *, ends: bool = True) -> None:
        """Say that the first state is there. ends: nothing is done before memory is measured."""
        self.objects = count
        self._started()
        if not ends:
            return
        if self.task.changes:
            self._events_used = time.process_time()
            self._limit()
            print("ready", flush=True)
        else:
            self.end(complete=True)

    def measure(self) -> None:
        """Take the memory of now, not of the end."""
        gc.collect()
        self._memory = _memory()

    def end(self, *, complete: bool, read_seconds: float = 0.0) -> None:
        """Print what was seen and end this process."""
        with self._lock:
            ended = time.monotonic()
            if not self._seconds:
                self._started()
            seen = list(self._seen)
            events_cpu = time.process_time() - self._events_used
            if not self._memory:
                self.measure()
            memory = self._memory
            found = Followed(
                complete,
                self.objects,
                self._seconds,
                self._cpu,
                self._before,
                memory["Rss"],
                memory["Private_Clean"] + memory["Private_Dirty"],
                memory["Peak"],
                len(seen),
                events_cpu,
                seen,
                ended,
                read_seconds,
            )
            say(json.dumps(found._asdict()))
            os._exit(0)

    def _started(self) -> None:
        self._seconds, self._cpu = time.monotonic() - self._begun, time.process_time() - self._used

    def _limit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self.task.limit, lambda: self.end(complete=False))
        self._timer.daemon = True
        self._timer.start()


def _memory() -> dict[str, int]:
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    fields = [line.split() for line in rollup.splitlines()[1:]]
    found = {name.rstrip(":"): int(size) * 1024 for name, size, *_ in fields}
    found["Peak"] = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024
    return found


async def _informer(seen: _Seen, *, lean: bool) -> None:
    from pilothouse.client import Client
    from pilothouse.client.factory import SharedInformerFactory
    from pilothouse.kinds.structs import Pod

    seen.begin()
    async with Client.from_kubeconfig(seen.task.config) as client:
        factory = SharedInformerFactory(client, namespace="default")
        informer = factory.informer(Pod, managed_fields=not lean)
        async with factory:
            await informer.wait_synced()
            seen.cached(len(informer.indexer), ends=False)
            seen.measure()
            used = time.process_time()
            keys = list(informer.indexer.keys())
            for key in keys:
                found = informer.indexer.get(key)
                assert found is not None
                assert found.spec is not None
            seen.end(complete=True, read_seconds=time.process_time() - used)


async def _manager(seen: _Seen, *, lean: bool) -> None:
    from pilothouse.client import Client
    from pilothouse.kinds.structs import ConfigMap, Pod
    from pilothouse.operator import Context, Manager, controller

    async def reconcile(found: Pod | ConfigMap, context: Context) -> None:
        seen.object(found.metadata.annotations)

    seen.begin()
    async with Client.from_kubeconfig(seen.task.config, managed_fields=not lean) as client:
        manager = Manager(client, namespace="default")
        if seen.task.plural == "pods":
            controller(manager).for_(Pod).build(reconcile)
        else:
            controller(manager).for_(ConfigMap).build(reconcile)
        async with manager:
            await asyncio.Event().wait()


async def _ours(seen: _Seen, *, lean: bool = False) -> None:
    await (_manager if seen.task.handles else _informer)(seen, lean=lean)


def _official(seen: _Seen) -> None:
    import urllib3
    from kubernetes import client, watch
    from kubernetes import config as loading

    urllib3.disable_warnings()
    seen.begin()
    core = client.CoreV1Api(loading.new_client_from_config(seen.task.config))
    lists = core.list_namespaced_pod if seen.task.plural == "pods" else core.list_namespaced_config_map
    found = lists("default")
    cache: dict[str, Any] = {}
    for each in found.items:
        cache[each.metadata.name] = each
        seen.object(each.metadata.annotations)
    version = found.metadata.resource_version
    while True:
        for event in watch.Watch().stream(lists, "default", resource_version=version):
            _keep(cache, event["type"], event["object"].metadata.name, event["object"])
            seen.object(event["object"].metadata.annotations)


async def _official_asyncio(seen: _Seen) -> None:
    from kubernetes_asyncio import client, watch
    from kubernetes_asyncio import config as loading

    seen.begin()
    core = client.CoreV1Api(await loading.new_client_from_config(seen.task.config))
    lists = core.list_namespaced_pod if seen.task.plural == "pods" else core.list_namespaced_config_map
    found = await lists("default")
    cache: dict[str, Any] = {}
    for each in found.items:
        cache[each.metadata.name] = each
        seen.object(each.metadata.annotations)
    version = found.metadata.resource_version
    while True:
        async for event in watch.Watch().stream(lists, "default", resource_version=version):
            _keep(cache, event["type"], event["object"].metadata.name, event["object"])
            seen.object(event["object"].metadata.annotations)


async def _lightkube(seen: _Seen) -> None:
    from lightkube import AsyncClient, KubeConfig
    from lightkube.resources.core_v1 import ConfigMap, Pod

    resource = Pod if seen.task.plural == "pods" else ConfigMap
    seen.begin()
    client = AsyncClient(KubeConfig.from_file(seen.task.config))
    found = client.list(resource, namespace="default")
    cache: dict[str, Any] = {}
    async for each in found:
        cache[each.metadata.name] = each
        seen.object(each.metadata.annotations)
    while True:
        async for kind, each in client.watch(resource, namespace="default", resource_version=found.resourceVersion):
            _keep(cache, kind, each.metadata.name, each)
            seen.object(each.metadata.annotations)


async def _kr8s(seen: _Seen) -> None:
    import warnings

    import kr8s.asyncio

    seen.begin()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not know this version of Kubernetes yet
        api = await kr8s.asyncio.api(kubeconfig=seen.task.config)
    cache: dict[str, Any] = {}
    while True:
        # Its lists do not tell their version for a watch to go on from; this one begins with what is there.
        async for kind, each in api.watch(seen.task.plural, namespace="default"):
            _keep(cache, kind, each.name, each)
            seen.object(each.annotations)


def _keep(cache: dict[str, Any], kind: str, name: str, found: Any) -> None:
    if kind == "DELETED":
        cache.pop(name, None)
    else:
        cache[name] = found


async def _kopf(seen: _Seen) -> None:
    kopf: Any = importlib.import_module("kopf")

    logging.basicConfig(level=logging.WARNING)

    async def configure(settings: Any, **_: Any) -> None:
        settings.posting.enabled = False

    kopf.on.startup()(configure)

    async def login(**given: Any) -> Any:
        return kopf.login_with_kubeconfig(**given)

    kopf.on.login()(login)

    if seen.task.handles:

        async def event(annotations: Any, **_: Any) -> None:
            seen.object(annotations)

        kopf.on.event(seen.task.plural)(event)

    else:
        tasks = []

        async def idle() -> None:
            await asyncio.sleep(_KOPF_IDLE_SECONDS)
            seen.end(complete=True)

        async def index(name: Any, body: Any, **_: Any) -> Any:
            seen.objects += 1
            if seen.objects == seen.task.objects:
                seen.cached(seen.objects, ends=False)
                tasks.append(asyncio.create_task(idle()))
            return {name: body}

        kopf.index(seen.task.plural)(index)

    seen.begin()
    await kopf.operator(namespaces=["default"], standalone=True)


PEERS: Mapping[str, Callable[[_Seen], Any]] = {
    "kubernetes": _official,
    "kubernetes_asyncio": _official_asyncio,
    "lightkube": _lightkube,
    "kr8s": _kr8s,
    "kopf": _kopf,
}


def _main() -> None:
    task = _Task(*json.loads(sys.argv[1]))
    seen = _Seen(task)
    if task.client in {OURS, LEAN}:
        run(_ours(seen, lean=task.client == LEAN))
    elif asyncio.iscoroutinefunction(PEERS[task.client]):
        run(PEERS[task.client](seen))
    else:
        PEERS[task.client](seen)


if __name__ == "__main__":
    _main()
