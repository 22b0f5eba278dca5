"""Python's Kubernetes clients, each doing the same jobs: connect, list typed pods, list ReplicaSets, get one pod."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml

from _apiserver import TOKEN, Server
from _kit import note

__all__ = ["Job", "Jobs", "jobs", "write_config"]

Job = Callable[[], Awaitable[Any]]


def write_config(server: Server) -> str:
    """Write a kubeconfig that all clients understand."""
    path = Path(server.directory) / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "bench", "user": {"token": TOKEN}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench", "namespace": "default"}}],
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


class Jobs:
    """What one client does; `threads` where it blocks, so that others' calls go on in threads."""

    def __init__(
        self, name: str, list_pods: Job, list_sets: Job, get_pod: Job, close: Job, *, threads: bool = False
    ) -> None:
        self.name, self.list_pods, self.list_sets, self.get_pod, self.close = name, list_pods, list_sets, get_pod, close
        self.threads = threads


async def _ours(config: str, *, lean: bool = False) -> Jobs:
    from pilothouse.client import Client
    from pilothouse.kinds.structs import Pod, ReplicaSet

    client = Client.from_kubeconfig(config, managed_fields=not lean)
    return Jobs(
        "pilothouse, no managed fields" if lean else "pilothouse",
        lambda: client.list_all(Pod, limit=0),
        lambda: client.list_all(ReplicaSet, limit=0),
        lambda: client.get(Pod, "fill-0"),
        client.aclose,
    )


def _blocking(call: Callable[[], Any]) -> Job:
    return lambda: asyncio.to_thread(call)


async def _official(config: str) -> Jobs:
    import urllib3
    from kubernetes import client
    from kubernetes import config as loading

    urllib3.disable_warnings()
    api = loading.new_client_from_config(config)
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    return Jobs(
        "kubernetes",
        _blocking(lambda: core.list_namespaced_pod("default").items),
        _blocking(lambda: apps.list_namespaced_replica_set("default").items),
        _blocking(lambda: core.read_namespaced_pod("fill-0", "default")),
        _blocking(api.close),
        threads=True,
    )


async def _official_asyncio(config: str) -> Jobs:
    from kubernetes_asyncio import client
    from kubernetes_asyncio import config as loading

    api = await loading.new_client_from_config(config)
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)

    async def items(call: Awaitable[Any]) -> Any:
        return (await call).items

    return Jobs(
        "kubernetes_asyncio",
        lambda: items(core.list_namespaced_pod("default")),
        lambda: items(apps.list_namespaced_replica_set("default")),
        lambda: core.read_namespaced_pod("fill-0", "default"),
        api.close,
    )


async def _lightkube(config: str) -> Jobs:
    from lightkube import AsyncClient, KubeConfig
    from lightkube.resources.apps_v1 import ReplicaSet
    from lightkube.resources.core_v1 import Pod

    client = AsyncClient(KubeConfig.from_file(config))

    async def every(kind: Any) -> Any:
        return [one async for one in client.list(kind, namespace="default", chunk_size=100_000)]

    return Jobs(
        "lightkube",
        lambda: every(Pod),
        lambda: every(ReplicaSet),
        lambda: client.get(Pod, "fill-0", namespace="default"),
        client.close,
    )


async def _kr8s(config: str) -> Jobs:
    import warnings

    import kr8s.asyncio
    from kr8s.asyncio.objects import Pod

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not know this version of Kubernetes yet
        api = await kr8s.asyncio.api(kubeconfig=config)

    async def every(kind: str) -> Any:
        return [one async for one in api.get(kind, namespace="default")]

    async def nothing() -> None:
        return

    return Jobs(
        "kr8s (dictionaries)",
        lambda: every("pods"),
        lambda: every("replicasets.apps"),
        lambda: Pod.get("fill-0", namespace="default", api=api),
        nothing,
    )


_MAKERS = {
    "kubernetes": _official,
    "kubernetes_asyncio": _official_asyncio,
    "lightkube": _lightkube,
    "kr8s": _kr8s,
}


async def jobs(config: str, *, lean: bool = False) -> list[Jobs]:
    """Connect every client that is installed, ours first; lean: also once without managed fields."""
    made = [await _ours(config)]
    if lean:
        made.append(await _ours(config, lean=True))
    for package, maker in _MAKERS.items():
        if importlib.util.find_spec(package) is None:
            note(f"{package} is not installed: left out")
            continue
        made.append(await maker(config))
    return made
