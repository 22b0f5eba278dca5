"""An autoscaler's metrics from a server that answers PromQL, where a cluster has no metrics APIs, or beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec

from pilothouse.client.transport import Transport
from pilothouse.kinds.labels import Requirement, Selector
from pilothouse.kinds.structs.autoscaling import CrossVersionObjectReference

from .autoscaling_metrics import MetricsError, MetricsSource, Sample

__all__ = ["DEFAULT_QUERIES", "AnyOf", "HttpQueries", "PrometheusMetrics", "Queries", "Series"]

T = TypeVar("T")

_WINDOW_SECONDS: Final = 60.0
_OK: Final = 200
_MAX_SERIES: Final = 100_000
_USAGE: Final = '{namespace="<namespace>",pod=~"<pods>",container!="",container!="POD"<container>}'
DEFAULT_QUERIES: Final[Mapping[str, str]] = {
    "resource/cpu": f"sum by (pod) (rate(container_cpu_usage_seconds_total{_USAGE}[2m]))",
    "resource/memory": f"sum by (pod) (container_memory_working_set_bytes{_USAGE})",
    "pods": 'sum by (pod) (<metric>{namespace="<namespace>",pod=~"<pods>"<labels>})',
    "object": 'sum (<metric>{namespace="<namespace>",<kind>="<name>"<labels>})',
    "external": "<metric>{<onlylabels>}",
}
"""By what is asked for, or that and the metric (`external/queue_length`), the expression; `<...>` is put in."""
_PLACE: Final = re.compile(r"<([a-z]+)>")
_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Series(msgspec.Struct, frozen=True):
    """One value of an answer: its labels, the value, and when it was (seconds since 1970)."""

    labels: Mapping[str, str]
    value: float
    at: float


class Queries(Protocol):
    """The port: evaluates an expression now. Raises MetricsError."""

    async def query(self, expression: str) -> Sequence[Series]:
        """Return the values of an instant vector."""


class HttpQueries:
    """Asks a server that has Prometheus' HTTP API. transport: carries requests to it. path: of its API."""

    def __init__(self, transport: Transport, *, path: str = "/api/v1/query") -> None:
        self._transport = transport
        self._path = path

    async def query(self, expression: str) -> Sequence[Series]:
        """Return the values of an expression. Raises MetricsError where it fails or is no vector."""
        try:
            answer = await self._transport.request("GET", f"{self._path}?{urlencode({'query': expression})}")
            body = msgspec.json.decode(answer.body, type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise MetricsError(f"query {expression}: {error}") from error
        data = body.get("data") or {}
        if answer.status != _OK or body.get("status") != "success" or data.get("resultType") != "vector":
            why = body.get("error") or f"status {answer.status}, result {data.get('resultType')}"
            raise MetricsError(f"query {expression}: {why}")
        return [
            Series(one["metric"], float(one["value"][1]), float(one["value"][0]))
            for one in data["result"][:_MAX_SERIES]
        ]


class PrometheusMetrics:
    """A source of metrics. queries: beside the default ones, or instead of some of them, see `DEFAULT_QUERIES`."""

    def __init__(self, port: Queries, queries: Mapping[str, str] | None = None) -> None:
        self._port = port
        self._queries = {**DEFAULT_QUERIES, **(queries or {})}

    async def resource(
        self, namespace: str, resource: str, selector: Selector, pods: Collection[str], container: str = ""
    ) -> dict[str, Sample]:
        """Return what pods use. Raises MetricsError for a resource without a query."""
        query = self._queries.get(f"resource/{resource}")
        if query is None:
            raise MetricsError(f"there is no query for resource/{resource}")
        chosen = f",container={_quoted(container)}" if container else ""
        return await self._by_pod(query, {"namespace": _inner(namespace), "pods": _any(pods), "container": chosen})

    async def of_pods(
        self, namespace: str, metric: str, selector: Selector, pods: Collection[str], labels: Selector
    ) -> dict[str, Sample]:
        """Return a metric of pods."""
        matchers = _matchers(labels)
        known = {"namespace": _inner(namespace), "pods": _any(pods), "labels": "".join(f",{one}" for one in matchers)}
        return await self._by_pod(self._query("pods", metric), known | _name(metric, self._queries, "pods"))

    async def of_object(
        self, namespace: str, metric: str, described: CrossVersionObjectReference, labels: Selector
    ) -> int:
        """Return a metric of one object, whose kind is the label that names it."""
        known = {
            "namespace": _inner(namespace),
            "kind": described.kind.lower(),
            "name": _inner(described.name),
            "labels": "".join(f",{one}" for one in _matchers(labels)),
        }
        found = await self._ask(self._query("object", metric), known | _name(metric, self._queries, "object"))
        return _milli(found[0].value)

    async def external(self, namespace: str, metric: str, labels: Selector) -> Sequence[int]:
        """Return all values of a metric."""
        matchers = _matchers(labels)
        known = {
            "namespace": _inner(namespace),
            "onlylabels": ",".join(matchers),
            "labels": "".join(f",{one}" for one in matchers),
        }
        found = await self._ask(self._query("external", metric), known | _name(metric, self._queries, "external"))
        return [_milli(one.value) for one in found]

    def _query(self, kind: str, metric: str) -> str:
        return self._queries.get(f"{kind}/{metric}", self._queries[kind])

    async def _by_pod(self, query: str, known: Mapping[str, str]) -> dict[str, Sample]:
        found = await self._ask(query, known)
        return {
            one.labels["pod"]: Sample(_milli(one.value), datetime.fromtimestamp(one.at, UTC), _WINDOW_SECONDS)
            for one in found
            if "pod" in one.labels
        }

    async def _ask(self, query: str, known: Mapping[str, str]) -> Sequence[Series]:
        expression = _PLACE.sub(lambda place: known.get(place[1], place[0]), query)
        found = [one for one in await self._port.query(expression) if math.isfinite(one.value)]
        if not found:
            raise MetricsError(f"query {expression}: there are no values")
        return found


class AnyOf:
    """Several sources: the first that has a metric gives it. Where none has, the first one's reason is told."""

    def __init__(self, *sources: MetricsSource) -> None:
        if not sources:
            raise ValueError("sources: give one or more")
        self._sources = sources

    async def resource(
        self, namespace: str, resource: str, selector: Selector, pods: Collection[str], container: str = ""
    ) -> dict[str, Sample]:
        """Return what pods use."""
        return await self._first(lambda one: one.resource(namespace, resource, selector, pods, container))

    async def of_pods(
        self, namespace: str, metric: str, selector: Selector, pods: Collection[str], labels: Selector
    ) -> dict[str, Sample]:
        """Return a metric of pods."""
        return await self._first(lambda one: one.of_pods(namespace, metric, selector, pods, labels))

    async def of_object(
        self, namespace: str, metric: str, described: CrossVersionObjectReference, labels: Selector
    ) -> int:
        """Return a metric of one object."""
        return await self._first(lambda one: one.of_object(namespace, metric, described, labels))

    async def external(self, namespace: str, metric: str, labels: Selector) -> Sequence[int]:
        """Return all values of a metric."""
        return await self._first(lambda one: one.external(namespace, metric, labels))

    async def _first(self, ask: Callable[[MetricsSource], Awaitable[T]]) -> T:
        first: MetricsError | None = None
        for source in self._sources:
            try:
                return await ask(source)
            except MetricsError as error:
                first = first or error
        raise first or MetricsError("there are no sources")


def _name(metric: str, queries: Mapping[str, str], kind: str) -> dict[str, str]:
    """Return the metric's name for an expression. Raises MetricsError for one that would be more than a name."""
    if f"{kind}/{metric}" not in queries and not _METRIC.fullmatch(metric):
        raise MetricsError(f"{metric} is no name of a metric; give a query for {kind}/{metric}")
    return {"metric": metric}


def _matchers(labels: Selector) -> list[str]:
    return [_matcher(one) for one in labels.requirements]


def _matcher(one: Requirement) -> str:
    match one.operator:
        case "=" | "==" | "in":
            return f'{one.key}=~"{_any(one.values)}"'
        case "!=" | "notin":
            return f'{one.key}!~"{_any(one.values)}"'
        case "exists":
            return f'{one.key}!=""'
        case "!":
            return f'{one.key}=""'
        case _:
            raise MetricsError(f"metric selector: {one}: no query can have this operator")


def _any(values: Collection[str]) -> str:
    return "|".join(_inner(re.escape(value)) for value in sorted(values))


def _inner(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_inner(text)}"'


def _milli(value: float) -> int:
    return max(-(2**63), min(math.ceil(value * 1000), 2**63 - 1))
