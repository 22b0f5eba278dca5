"""The API metrics.k8s.io out of what nodes tell of themselves, so that `kubectl top` and autoscalers need nothing else.

An APIService of that version, as metrics-server brings one, goes before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pilothouse.apiserver.discovery import AggregatedVersion
from pilothouse.apiserver.model import Answer, Request, RequestInfo, Response, refusal
from pilothouse.apiserver.nodeclient import NodeClient
from pilothouse.apiserver.ports import Object, View
from pilothouse.apiserver.proxying.resolve import node_address
from pilothouse.apiserver.proxying.reverse import ReverseProxy
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.tls import TlsError
from pilothouse.kinds.labels import SelectorError
from pilothouse.kinds.labels import parse as parse_labels
from pilothouse.kinds.status import ApiStatus, BadRequest, generic, not_found

if TYPE_CHECKING:
    from aiohttp import StreamReader

__all__ = ["NodeMetrics"]

_log = get_logger(__name__)
GROUP: Final = "metrics.k8s.io"
VERSION: Final = "v1beta1"
_PATH: Final = f"/apis/{GROUP}/{VERSION}"
_FRESH_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 5.0
_AT_ONCE: Final = 32
_MOST: Final = 10_000
"""Nodes whose answers are kept."""
_LOOK_SECONDS: Final = 0.5
"""Between looks at the nodes, which change all the time where there are thousands."""
_LARGEST: Final = 32 << 20
_VERBS: Final = ("get", "list")
_KINDS: Final = {"nodes": ("NodeMetrics", "Cluster"), "pods": ("PodMetrics", "Namespaced")}


def _resources() -> tuple[Object, ...]:
    return tuple(
        {
            "resource": name,
            "responseKind": {"group": GROUP, "version": VERSION, "kind": kind},
            "scope": scope,
            "singularResource": "",
            "verbs": [*_VERBS],
        }
        for name, (kind, scope) in _KINDS.items()
    )


class NodeMetrics:
    """Asks nodes for their `/stats/summary` when somebody asks for metrics; answers are kept for some seconds."""

    def __init__(self, view: View, proxy: ReverseProxy, client: Callable[[], NodeClient | None], clock: Clock) -> None:
        self._view = view
        self._proxy = proxy
        self._client = client
        self._clock = clock
        self._kept: dict[str, tuple[float, Object | None]] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._version = AggregatedVersion(GROUP, VERSION, 100, 100, resources=_resources())
        self._seen = (-1, False)
        self._look_again = 0.0

    def versions(self) -> tuple[AggregatedVersion, ...]:
        """Return what discovery tells of it: nothing while there are no nodes that could be asked."""
        return (self._version,) if self._is_there() else ()

    def _is_there(self) -> bool:
        if self._client() is None:
            return False
        version, now = self._view.version("nodes"), self._clock.monotonic()
        if version != self._seen[0] and now >= self._look_again:
            self._seen = (version, any(map(_has_port, self._view.list("nodes"))))
            self._look_again = now + _LOOK_SECONDS
        return self._seen[1]

    def serves(self, path: str) -> bool:
        """Whether a path is one of this API."""
        return (path == _PATH or path.startswith(f"{_PATH}/")) and self._is_there()

    async def answer(self, request: Request, info: RequestInfo) -> Answer:
        """Answer a request, which has been authorized."""
        try:
            if request.method not in {"GET", "HEAD"} or info.verb == "watch":
                raise generic(405)
            found = await self._found(request, info)
        except ApiStatus as error:
            return refusal(error)
        return Response(200, msgspec.json.encode(found))

    async def _found(self, request: Request, info: RequestInfo) -> Object:
        if request.path.rstrip("/") == _PATH:
            return _resource_list()
        if info.resource not in _KINDS or info.subresource:
            raise generic(404)
        kind = _KINDS[info.resource][0]
        items = await (self._nodes(info) if info.resource == "nodes" else self._pods(info))
        if info.verb == "get":
            if not items:
                shown = f"{info.namespace}/{info.name}" if info.namespace else info.name
                raise not_found(GROUP, kind.lower(), shown)
            return {"kind": kind, "apiVersion": f"{GROUP}/{VERSION}", **items[0]}
        chosen = _selected(request, items)
        return {"kind": f"{kind}List", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": chosen}

    async def _nodes(self, info: RequestInfo) -> list[Object]:
        found = self._view.list("nodes")
        nodes = [one for one in found if info.name in {"", one["metadata"]["name"]} and _has_port(one)]
        made = []
        for node, told in zip(nodes, await self._summaries(nodes), strict=True):
            usage = told and _usage(told.get("node") or {})
            if usage:
                made.append({"metadata": _metadata(node), **usage[0], "usage": usage[1]})
        return made

    async def _pods(self, info: RequestInfo) -> list[Object]:
        pods = {
            one["metadata"]["uid"]: one
            for one in self._view.list("pods", info.namespace)
            if info.name in {"", one["metadata"]["name"]} and one.get("spec", {}).get("nodeName")
        }
        names = {one["spec"]["nodeName"] for one in pods.values()}
        nodes = [one for name in sorted(names) if (one := self._view.get("nodes", "", name)) and _has_port(one)]
        made = []
        for told in await self._summaries(nodes):
            for one in (told or {}).get("pods") or ():
                pod = pods.get((one.get("podRef") or {}).get("uid", ""))
                metrics = _pod_metrics(pod, one) if pod is not None else None
                if metrics is not None:
                    made.append(metrics)
        return sorted(made, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"]))

    async def _summaries(self, nodes: Iterable[Object]) -> list[Object | None]:
        return list(await asyncio.gather(*map(self._summary, nodes)))

    async def _summary(self, node: Object) -> Object | None:
        """Return what a node tells of itself, None where it does not; both are remembered for a while."""
        name = node["metadata"]["name"]
        # One question a node at a time: whoever comes meanwhile gets the same answer.
        lock = self._asking.setdefault(name, asyncio.Lock())
        async with lock, self._at_once:
            kept = self._kept.get(name)
            if kept is not None and self._clock.monotonic() - kept[0] < _FRESH_SECONDS:
                return kept[1]
            told = await self._ask(name, node)
            if len(self._kept) > _MOST:
                self._kept.clear()
                self._asking.clear()
            self._kept[name] = (self._clock.monotonic(), told)
            return told

    async def _ask(self, name: str, node: Object) -> Object | None:
        import aiohttp  # noqa: PLC0415  # heavy, and most servers are never asked for metrics

        client = self._client()
        if client is None:
            return None
        try:
            host, port = node_address(node)
            shown = f"[{host}]" if ":" in host else host
            async with self._proxy.session().get(
                f"https://{shown}:{port}/stats/summary",
                ssl=client.context(),
                timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS),
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    return await _decoded(response.content)
                why = f"it answers {response.status}"
        except (aiohttp.ClientError, OSError, TimeoutError, ApiStatus, TlsError, msgspec.DecodeError) as error:
            why = str(error) or type(error).__name__
        _log.info("a node does not tell its metrics", node=name, reason=why)
        return None


def _has_port(node: Object) -> bool:
    """Whether a node serves an API of its own; simulated ones do not."""
    endpoints = (node.get("status") or {}).get("daemonEndpoints") or {}
    return bool((endpoints.get("kubeletEndpoint") or {}).get("Port"))


async def _decoded(content: StreamReader) -> Object:
    data = b""
    while len(data) < _LARGEST and (more := await content.read(1 << 16)):
        data += more
    return msgspec.json.decode(data, type=dict[str, Any])


def _resource_list() -> Object:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{VERSION}",
        "resources": [
            {"name": name, "singularName": "", "namespaced": scope == "Namespaced", "kind": kind, "verbs": [*_VERBS]}
            for name, (kind, scope) in _KINDS.items()
        ],
    }


def _metadata(obj: Object) -> Object:
    meta = obj["metadata"]
    kept = ("name", "namespace", "creationTimestamp", "labels")
    return {name: meta[name] for name in kept if meta.get(name)}


def _usage(told: Object) -> tuple[Object, Object] | None:
    """Return time and amounts out of a summary's node or container; None before its second sample."""
    cpu, memory = told.get("cpu") or {}, told.get("memory") or {}
    if "usageNanoCores" not in cpu or "workingSetBytes" not in memory:
        return None
    amounts = {"cpu": f"{cpu['usageNanoCores']}n", "memory": f"{-(-memory['workingSetBytes'] // 1024)}Ki"}
    return {"timestamp": cpu.get("time"), "window": "10s"}, amounts


def _pod_metrics(pod: Object, told: Object) -> Object | None:
    containers, moment = [], None
    for one in told.get("containers") or ():
        usage = _usage(one)
        if usage is None:
            return None
        moment = usage[0]
        containers.append({"name": one["name"], "usage": usage[1]})
    return {"metadata": _metadata(pod), **moment, "containers": containers} if moment is not None else None


def _selected(request: Request, items: list[Object]) -> list[Object]:
    try:
        selector = parse_labels(request.param("labelSelector"))
    except SelectorError as error:
        raise BadRequest(f"unable to parse label selector: {error}") from error
    wanted = dict(
        part.replace("==", "=").split("=", 1) for part in request.param("fieldSelector").split(",") if "=" in part
    )
    return [
        item
        for item in items
        if selector.matches(item["metadata"].get("labels") or {})
        and all(_field(item, name) == value for name, value in wanted.items())
    ]


def _field(item: Object, name: str) -> Any:
    return item["metadata"].get(name.removeprefix("metadata."), "") if name.startswith("metadata.") else ""
