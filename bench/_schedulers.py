"""Schedulers in processes of their own against any API server, and what they did there, seen as a watcher sees it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from _apiserver import PODS, SCHEDULER_TOKEN, TOKEN, Server, unverified
from _kit import note
from _kube import scheduler
from _peers import free_port, running

__all__ = ["Bound", "Scheduling", "follow", "kube_scheduler", "pilothouse"]

Scheduling = Callable[[Server, Path], AbstractContextManager[int]]
"""Starts a scheduler for a server, with its files in a directory; gives its process."""

_SECONDS = 300.0
_QUIET = 4
_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "bench"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-scheduler"}],
}
"""What the controllers need, who share their user with the scheduler."""


class Bound(NamedTuple):
    """What it took to bind pods.

    rate: pods a second, from the first to the last that a watcher saw. scheduler, server: seconds of a core that each
    took meanwhile. written: events that were there by then. late: seconds until the last event was.
    """

    rate: float
    scheduler: float
    server: float
    written: int
    late: float
    events: int


@contextlib.contextmanager
def pilothouse(server: Server, directory: Path) -> Iterator[int]:
    """Run the process of controllers and scheduler as `pilothouse up` does."""
    server.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", _BINDING)
    command = [sys.executable, "-m", "pilothouse.platform.work", "--kubeconfig", str(_kubeconfig(server, directory))]
    command += ["--part=controllers", "--part=scheduler", "--log-level=warning"]
    with running(command, directory / "work.log") as process:
        yield process.pid


def kube_scheduler(*, build: bool) -> Scheduling | None:
    """Return what starts a kube-scheduler whose client is not held back; None, the reason said, without one."""
    program = scheduler(build=build)
    if program is None:
        return None

    @contextlib.contextmanager
    def start(server: Server, directory: Path) -> Iterator[int]:
        config = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": str(_kubeconfig(server, directory)), "qps": 10_000, "burst": 10_000},
            "leaderElection": {"leaderElect": False},
        }
        file = directory / "scheduler.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        command = [str(program), f"--config={file}", f"--secure-port={free_port()}", "--bind-address=127.0.0.1"]
        with running(command, directory / "kube-scheduler.log") as process:
            yield process.pid

    return start


def _kubeconfig(server: Server, directory: Path) -> Path:
    file = directory / "scheduler.kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bench", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "bench", "user": {"token": SCHEDULER_TOKEN}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "current-context": "bench",
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    file.chmod(0o600)
    return file


def follow(server: Server, start: Scheduling, directory: Path, pods: int) -> Bound:
    """Start a scheduler and watch until so many pods have a node, and their events are written.

    The bytes of the watch are counted, not read, so that the watcher takes next to nothing of the machine.
    """
    watch = _Watch(server)
    with contextlib.closing(watch), start(server, directory) as pid:
        first = watch.read()
        begun, own, theirs = time.perf_counter(), _spent([pid]), _spent(server.pids)
        while (seen := watch.read()) < pods:
            if time.perf_counter() > begun + _SECONDS:
                raise SystemExit(f"only {seen} of {pods} pods were bound in {_SECONDS:g} s")
        took = time.perf_counter() - begun
        own, theirs = _spent([pid]) - own, _spent(server.pids) - theirs
        ended = time.perf_counter()
        written, last, events = _events(server)
    note(f"{pods} pods in {took:.2f} s; scheduler {own:.2f} s and server {theirs:.2f} s of a core")
    return Bound((pods - first) / took, own, theirs, written, max(last - ended, 0.0), events)


def _events(server: Server) -> tuple[int, float, int]:
    """Wait until no event comes any more; return how many there were at first, when the last came, and how many now."""
    first = found = _count(server)
    last, quiet = time.perf_counter(), 0
    while quiet < _QUIET:
        time.sleep(0.25)
        now = _count(server)
        if now != found:
            last = time.perf_counter()
        quiet = quiet + 1 if now == found else 0
        found = now
    return first, last, found


def _count(server: Server) -> int:
    code, body = server.call("GET", "/api/v1/namespaces/default/events?limit=1")
    if code != 200:
        raise SystemExit(f"events: {code} {body[:200]!r}")
    page: dict[str, Any] = json.loads(body)
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount") or 0)


class _Watch:
    """Counts bound pods: what happens to pods that are there already is that they are bound, once each.

    A server may end a watch that is slow for it; the next one then begins with all pods that have a node.
    """

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        self._connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, context=unverified(), timeout=_SECONDS
        )
        code, body = server.call("GET", f"{PODS}?limit=1")
        if code != 200:
            raise SystemExit(f"pods: {code} {body[:200]!r}")
        self._answer = self._begin(f"resourceVersion={json.loads(body)['metadata']['resourceVersion']}")
        self._seen = 0

    def _begin(self, which: str) -> http.client.HTTPResponse:
        path = f"{PODS}?watch=true&{which}"
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"watch: {answer.status} {answer.read(200)!r}")
        return answer

    def read(self) -> int:
        """Wait for something to come; return how many pods were seen so far."""
        came = self._answer.read1(1 << 20)
        if not came:
            note(f"the watch was ended after {self._seen} pods; a new one begins")
            self._connection.close()
            self._answer, self._seen = self._begin("fieldSelector=spec.nodeName%21%3D"), 0
        self._seen += came.count(b"\n")
        return self._seen

    def close(self) -> None:
        """Give the connection up."""
        self._connection.close()


def _spent(pids: Sequence[int]) -> float:
    """Give the seconds of a core that processes took so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
