"""Where an autoscaler's metrics come from: the port, and the metrics APIs of a cluster behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote, urlencode

import msgspec

from pilothouse.client import Client
from pilothouse.client.errors import BadAnswer, UnknownKind
from pilothouse.kinds import durations, quantity, times
from pilothouse.kinds.labels import Selector
from pilothouse.kinds.status import ApiStatus, NotFound
from pilothouse.kinds.structs.autoscaling import CrossVersionObjectReference

__all__ = ["ApiMetrics", "MetricsError", "MetricsSource", "Sample"]

_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WINDOW_SECONDS: Final = 60.0
_NO_RESOURCE: Final = "the server could not find the requested resource"


class MetricsError(Exception):
    """A metric cannot be had; its text is the reason, in the words of Kubernetes where it has some."""


class Sample(NamedTuple):
    """A pod's value in thousandths, when it was taken, and over how many seconds."""

    value: int
    at: datetime = _EVER
    window: float = _WINDOW_SECONDS


class MetricsSource(Protocol):
    """What an autoscaler asks. All raise MetricsError; values are in thousandths."""

    async def resource(
        self, namespace: str, resource: str, selector: Selector, pods: Collection[str], container: str = ""
    ) -> dict[str, Sample]:
        """Return by name what pods use of a resource, or one of their containers. pods: those that are selected."""

    async def of_pods(
        self, namespace: str, metric: str, selector: Selector, pods: Collection[str], labels: Selector
    ) -> dict[str, Sample]:
        """Return by name a metric of pods. labels: of the metric."""

    async def of_object(
        self, namespace: str, metric: str, described: CrossVersionObjectReference, labels: Selector
    ) -> int:
        """Return a metric of one object."""

    async def external(self, namespace: str, metric: str, labels: Selector) -> Sequence[int]:
        """Return all values of a metric that is about no object."""


class ApiMetrics:
    """Asks the APIs metrics.k8s.io, custom.metrics.k8s.io and external.metrics.k8s.io."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def resource(
        self, namespace: str, resource: str, selector: Selector, pods: Collection[str], container: str = ""
    ) -> dict[str, Sample]:
        """Return what pods use; those are left out of which a container is not known."""
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"
        try:
            items = await self._items(path, {"labelSelector": str(selector)}, "get pods.metrics.k8s.io")
        except MetricsError as error:
            raise MetricsError(f"unable to fetch metrics from resource metrics API: {error}") from error
        if not items:
            raise MetricsError("no metrics returned from resource metrics API")
        found = {}
        for item in items:
            value = _used(item.get("containers") or (), resource, container)
            if value is not None:
                window = durations.parse(item.get("window") or "0s") / durations.SECOND
                found[str(item["metadata"]["name"])] = Sample(value, _moment(item), window)
        return found

    async def of_pods(
        self, namespace: str, metric: str, selector: Selector, pods: Collection[str], labels: Selector
    ) -> dict[str, Sample]:
        """Return a metric of pods."""
        query = {"labelSelector": str(selector), **_metric_labels(labels)}
        items = await self._custom(f"namespaces/{namespace}/pods/*/{quote(metric, safe='')}", query, metric, "pods")
        return {
            str(item["describedObject"]["name"]): Sample(
                _value(item), _moment(item), float(item.get("windowSeconds") or _WINDOW_SECONDS)
            )
            for item in items
        }

    async def of_object(
        self, namespace: str, metric: str, described: CrossVersionObjectReference, labels: Selector
    ) -> int:
        """Return a metric of one object."""
        name = quote(metric, safe="")
        if described.kind == "Namespace" and "/" not in described.api_version:
            place, what = f"namespaces/{namespace}/metrics/{name}", "namespaces"
        else:
            try:
                found = await self._client.discovery.find(described.api_version, described.kind)
            except UnknownKind as error:
                raise MetricsError(f"unable to fetch metrics from custom metrics API: {error}") from error
            place = f"namespaces/{namespace}/{found.name}/{quote(described.name, safe='')}/{name}"
            what = found.name
        items = await self._custom(place, _metric_labels(labels), metric, what)
        return _value(items[0])

    async def external(self, namespace: str, metric: str, labels: Selector) -> Sequence[int]:
        """Return all values of a metric."""
        path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{quote(metric, safe='')}"
        try:
            items = await self._items(path, _labels(labels), f"get {metric}.external.metrics.k8s.io")
        except MetricsError as error:
            raise MetricsError(f"unable to fetch metrics from external metrics API: {error}") from error
        if not items:
            raise MetricsError("no metrics returned from external metrics API")
        return [_value(item) for item in items]

    async def _custom(self, place: str, query: Mapping[str, str], metric: str, what: str) -> list[dict[str, Any]]:
        try:
            version = await self._custom_version()
            items = await self._items(f"/apis/{version}/{place}", query, f"get {what}.custom.metrics.k8s.io {metric}")
        except MetricsError as error:
            raise MetricsError(f"unable to fetch metrics from custom metrics API: {error}") from error
        if not items:
            raise MetricsError("no metrics returned from custom metrics API")
        return items

    async def _custom_version(self) -> str:
        try:
            found = await self._get("/apis/custom.metrics.k8s.io")
        except NotFound:
            raise MetricsError("no custom metrics API (custom.metrics.k8s.io) registered") from None
        except ApiStatus as error:
            raise MetricsError(error.message) from error
        return str(found["preferredVersion"]["groupVersion"])

    async def _items(self, path: str, query: Mapping[str, str], asked: str) -> list[dict[str, Any]]:
        try:
            found = await self._get(f"{path}?{urlencode(query)}" if query else path)
        except NotFound as error:
            raise MetricsError(_words(error, asked)) from error
        except (ApiStatus, OSError) as error:
            raise MetricsError(str(getattr(error, "message", error))) from error
        items: list[dict[str, Any]] = found.get("items") or []
        return items

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self._client.request("GET", path)
        try:
            return msgspec.json.decode(answer, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise BadAnswer(f"GET {path}: {error}") from error


def _words(error: ApiStatus, asked: str) -> str:
    """Say what was not found as Kubernetes' clients do where the server has no such path at all."""
    return error.message if error.details is not None and error.details.name else f"{_NO_RESOURCE} ({asked})"


def _used(containers: Sequence[Mapping[str, Any]], resource: str, container: str) -> int | None:
    chosen = [one for one in containers if container in ("", one["name"])]
    values = [(one.get("usage") or {}).get(resource) for one in chosen]
    if not values or any(value is None for value in values):
        return None
    return sum(quantity.parse_json(value).milli_value() for value in values)


def _value(item: Mapping[str, Any]) -> int:
    return quantity.parse_json(item.get("value", "0")).milli_value()


def _moment(item: Mapping[str, Any]) -> datetime:
    return times.parse(item["timestamp"]) if item.get("timestamp") else _EVER


def _labels(labels: Selector) -> dict[str, str]:
    return {"labelSelector": str(labels)} if labels.requirements else {}


def _metric_labels(labels: Selector) -> dict[str, str]:
    return {"metricLabelSelector": str(labels)} if labels.requirements else {}
