"""The same object in another version of its kind: what Kubernetes' own kinds and custom resources need of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from pilothouse.apiserver.ports import Object
from pilothouse.kinds.apply import UnknownVersionError, Versions
from pilothouse.kinds.registry import Registry, Resource
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.table import schema_for

__all__ = ["Conversions"]

_CPU = "targetCPUUtilizationPercentage"
_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"

_EVENTS = ("", "events.k8s.io")
_COHABITING = {(group, "events"): _EVENTS for group in _EVENTS}


class CustomConvert(Protocol):
    """Gives custom resources in the version of a resource, in their order. Raises ApiStatus.

    kept: the bytes that the objects were decoded from, to know them again by; none for what came from elsewhere.
    """

    async def __call__(
        self, objects: Sequence[Object], resource: Resource, kept: Sequence[bytes] = ()
    ) -> list[Object]: ...


class Conversions:
    """Converts between the versions of a kind. `custom` does it for custom resources, perhaps by a webhook."""

    def __init__(self, registry: Callable[[], Registry]) -> None:
        self._registry = registry
        self._known: Registry | None = None
        self._single: dict[tuple[str, str, str], bool] = {}
        self.custom: CustomConvert | None = None
        self.by_webhook: Callable[[Resource], bool] = lambda resource: False
        self.custom_schema: Callable[[str, str, str], Schema | None] = lambda group, version, kind: None

    async def convert(self, obj: Object, resource: Resource) -> Object:
        """Return an object in the version of a resource; a shallow copy where only the name of it changes."""
        if obj.get("apiVersion") == resource.api_version:
            return obj
        if resource.custom and self.custom is not None:
            return (await self.custom([obj], resource))[0]
        return convert_builtin(obj, resource.api_version)

    async def convert_many(self, objects: Sequence[Object], resource: Resource, kept: Sequence[bytes]) -> list[Object]:
        """As `convert`, for objects decoded from the bytes `kept`: what a webhook made of those is remembered."""
        if resource.custom and self.custom is not None:
            return await self.custom(objects, resource, kept)
        return [self.now(obj, resource) for obj in objects]

    def renames(self, resource: Resource, kept: str) -> bool:
        """Whether an object kept in the API version `kept` differs from the resource's in the name of it only."""
        return kept == resource.api_version or (resource.custom and not self.by_webhook(resource))

    def now(self, obj: Object, resource: Resource) -> Object:
        """As `convert`, for conversions that need no webhook."""
        if obj.get("apiVersion") == resource.api_version:
            return obj
        if resource.custom:
            return {**obj, "apiVersion": resource.api_version}
        return convert_builtin(obj, resource.api_version)

    def versions_of(self, resource: Resource) -> Versions | None:
        """Return the versions of a kind for apply; None where there is only one."""
        return None if self.is_single(resource) else _Versions(self, resource)

    def others(self, resource: Resource) -> list[Resource]:
        """Return the same resource in all its versions and groups, itself included, the preferred first."""
        registry = self._registry()
        found = [
            one
            for group in _COHABITING.get((resource.group, resource.resource), (resource.group,))
            for version in registry.versions(group)
            if (one := registry.get(group, version, resource.resource)) is not None
        ]
        return found or [resource]

    def is_single(self, resource: Resource) -> bool:
        """Whether a resource has one version only."""
        registry = self._registry()
        if registry is not self._known:
            self._known, self._single = registry, {}
        found = self._single.get(resource.key)
        if found is None:
            found = self._single[resource.key] = len(self.others(resource)) == 1
        return found

    def equivalents(self, resource: Resource) -> list[tuple[tuple[str, str, str], tuple[str, str, str]]]:
        """Return the resource and kind of all versions, as admission matches them."""
        return [(one.key, one.gvk) for one in self.others(resource)]

    def converter(self, resource: Resource) -> Callable[[Object, str], Awaitable[Object]]:
        """Return what gives an object in another API version."""
        by_version = {one.api_version: one for one in self.others(resource)}

        async def convert(obj: Object, api_version: str) -> Object:
            return await self.convert(obj, by_version[api_version])

        return convert

    def schema(self, group: str, version: str, kind: str) -> Schema | None:
        """Return the schema of a version of a kind."""
        return schema_for(group, version, kind) or self.custom_schema(group, version, kind)


class _Versions:
    """The versions of one kind, for the owners of fields that were written in another."""

    def __init__(self, conversions: Conversions, resource: Resource) -> None:
        self._conversions = conversions
        self._resource = resource

    def schema(self, api_version: str) -> Schema:
        group, _, version = api_version.rpartition("/")
        found = None
        if group == self._resource.group:
            found = self._conversions.schema(group, version, self._resource.kind)
        if found is None:
            raise UnknownVersionError(api_version)
        return found

    def convert(self, obj: Object, api_version: str) -> Object:
        if self._resource.custom:
            # Owners of fields are told by names, which a webhook's conversion may change; the names of today count.
            return {**obj, "apiVersion": api_version}
        return convert_builtin(obj, api_version)


def convert_builtin(obj: Object, api_version: str) -> Object:
    """Return an object of Kubernetes' own in another version. The input is not changed."""
    kind, before = obj.get("kind"), obj.get("apiVersion")
    if kind == "HorizontalPodAutoscaler" and before != api_version:
        return _autoscaler_to_v1(obj) if api_version == "autoscaling/v1" else _autoscaler_to_v2(obj)
    if kind == "Event":
        return _event_to_events(obj) if api_version == "events.k8s.io/v1" else _event_to_core(obj)
    return {**obj, "apiVersion": api_version}


_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_BACK = {new: old for old, new in _EVENT_FIELDS.items()}


def _event_to_events(obj: Object) -> Object:
    made = {_EVENT_FIELDS.get(name, name): value for name, value in obj.items()}
    return {**made, "apiVersion": "events.k8s.io/v1"}


def _event_to_core(obj: Object) -> Object:
    made = {_EVENT_BACK.get(name, name): value for name, value in obj.items()}
    made.setdefault("involvedObject", {})
    return {**made, "apiVersion": "v1"}


def _autoscaler_to_v1(obj: Object) -> Object:
    made = copy.deepcopy(obj)
    made["apiVersion"] = "autoscaling/v1"
    spec, status = made.get("spec") or {}, made.get("status") or {}
    annotations = dict(made["metadata"].get("annotations") or {})
    others = []
    for metric in spec.pop("metrics", None) or ():
        target = (metric.get("resource") or {}).get("target") or {}
        is_cpu = metric.get("type") == "Resource" and metric["resource"].get("name") == "cpu"
        if is_cpu and "averageUtilization" in target and _CPU not in spec:
            spec[_CPU] = target["averageUtilization"]
        else:
            others.append(metric)
    current = []
    for metric in status.pop("currentMetrics", None) or ():
        now = (metric.get("resource") or {}).get("current") or {}
        if metric.get("type") == "Resource" and metric["resource"].get("name") == "cpu" and "averageUtilization" in now:
            status["currentCPUUtilizationPercentage"] = now["averageUtilization"]
        current.append(metric)
    kept = {
        _METRICS: others,
        _CURRENT: current,
        _CONDITIONS: status.pop("conditions", None),
        _BEHAVIOR: spec.pop("behavior", None),
    }
    annotations.update({name: json.dumps(value, separators=(",", ":")) for name, value in kept.items() if value})
    if annotations:
        made["metadata"]["annotations"] = annotations
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)
    made["status"] = status
    return made


def _autoscaler_to_v2(obj: Object) -> Object:
    made = copy.deepcopy(obj)
    made["apiVersion"] = "autoscaling/v2"
    spec, status = made.get("spec") or {}, made.get("status") or {}
    annotations = dict(made["metadata"].get("annotations") or {})
    metrics = _annotated(annotations, _METRICS) or []
    if (cpu := spec.pop(_CPU, None)) is not None:
        target = {"type": "Utilization", "averageUtilization": cpu}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}, *metrics]
    if metrics:
        spec["metrics"] = metrics
    if behavior := _annotated(annotations, _BEHAVIOR):
        spec["behavior"] = behavior
    status.pop("currentCPUUtilizationPercentage", None)
    if "status" in made:
        status["currentMetrics"] = _annotated(annotations, _CURRENT)
        if conditions := _annotated(annotations, _CONDITIONS):
            status["conditions"] = conditions
    made["metadata"].pop("annotations", None)
    if annotations:
        made["metadata"]["annotations"] = annotations
    return made


def _annotated(annotations: dict[str, str], name: str) -> Any:
    text = annotations.pop(name, "")
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None
