"""What each metric of an autoscaler asks for: the source is asked, and the answer put into words and a status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pilothouse.kinds import labels, quantity
from pilothouse.kinds.labels import Selector
from pilothouse.kinds.quantity import Quantity
from pilothouse.kinds.structs import HorizontalPodAutoscaler, LabelSelector, Pod, to_dict
from pilothouse.kinds.structs.autoscaling import (
    ContainerResourceMetricStatus,
    ExternalMetricStatus,
    MetricIdentifier,
    MetricSpec,
    MetricStatus,
    MetricTarget,
    MetricValueStatus,
    ObjectMetricStatus,
    PodsMetricStatus,
    ResourceMetricStatus,
)

from .autoscaling_metrics import MetricsError, MetricsSource
from .autoscaling_replicas import Proposal, Timing, Tolerance, by_average, by_ratio, by_utilization, per_pod

__all__ = ["Asked", "Refused", "Target", "ask", "tolerance_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is scaled: the replicas that it shall have and has, and its pods."""

    wanted: int
    present: int
    selector: Selector
    pods: Sequence[Pod]


class Asked(NamedTuple):
    """What a metric asks for. name: as it is told. status: of `currentMetrics`."""

    replicas: int
    name: str
    status: MetricStatus


class Refused(MetricsError):
    """A metric cannot be used. reason: of the condition and the event. told: of the event."""

    def __init__(self, reason: str, told: str, summary: str) -> None:
        super().__init__(summary)
        self.reason = reason
        self.told = told


def tolerance_of(autoscaler: HorizontalPodAutoscaler) -> Tolerance:
    """Return how far metrics may be off."""
    behavior, found = autoscaler.spec.behavior, Tolerance()
    if behavior is None:
        return found
    if behavior.scale_down is not None and behavior.scale_down.tolerance is not None:
        found = found._replace(down=float(quantity.parse_json(behavior.scale_down.tolerance).exact()))
    if behavior.scale_up is not None and behavior.scale_up.tolerance is not None:
        found = found._replace(up=float(quantity.parse_json(behavior.scale_up.tolerance).exact()))
    return found


async def ask(
    autoscaler: HorizontalPodAutoscaler, spec: MetricSpec, target: Target, source: MetricsSource, timing: Timing
) -> Asked:
    """Return what a metric asks for. Raises Refused."""
    asking = _Asking(autoscaler, target, source, timing)
    match spec.type:
        case "Resource":
            reason, before = "FailedGetResourceMetric", f"{spec.resource.name if spec.resource else ''} resource metric"
            work = asking.resource(spec)
        case "ContainerResource":
            name = spec.container_resource.container if spec.container_resource else ""
            reason, before = "FailedGetContainerResourceMetric", f"{name} container metric"
            work = asking.container(spec)
        case "Pods":
            reason, before, work = "FailedGetPodsMetric", "pods metric", asking.of_pods(spec)
        case "Object":
            reason, before, work = "FailedGetObjectMetric", "object metric", asking.of_object(spec)
        case "External":
            name = spec.external.metric.name if spec.external else ""
            reason, before, work = "FailedGetExternalMetric", f"{name} external metric", asking.external(spec)
        case _:
            what = f'unknown metric source type "{spec.type}"'
            raise Refused("InvalidMetricSourceType", what, what)
    try:
        return await work
    except _Rewrapped as error:
        raise Refused(reason, error.told, f"failed to get {before} value: {error}") from error
    except MetricsError as error:
        raise Refused(reason, str(error), f"failed to get {before} value: {error}") from error


class _Rewrapped(MetricsError):
    """An error that is told shorter by the event than by the summary of all metrics."""

    def __init__(self, told: str, summary: str) -> None:
        super().__init__(summary)
        self.told = told


class _Asking:
    def __init__(
        self, autoscaler: HorizontalPodAutoscaler, target: Target, source: MetricsSource, timing: Timing
    ) -> None:
        self._namespace = autoscaler.metadata.namespace
        self._tolerance = tolerance_of(autoscaler)
        self._target = target
        self._source = source
        self._timing = timing

    async def resource(self, spec: MetricSpec) -> Asked:
        wanted = spec.resource
        if wanted is None:
            raise MetricsError("resource: it is missing")
        found = await self._used(wanted.name, wanted.target, "")
        what = "resource" if found.utilization is None else "resource utilization (percentage of request)"
        current = _of_resource(wanted.name, found)
        status = MetricStatus(type="Resource", resource=ResourceMetricStatus(name=wanted.name, current=current))
        return Asked(found.replicas, f"{wanted.name} {what}", status)

    async def container(self, spec: MetricSpec) -> Asked:
        wanted = spec.container_resource
        if wanted is None:
            raise MetricsError("containerResource: it is missing")
        found = await self._used(wanted.name, wanted.target, wanted.container)
        what = "resource" if found.utilization is None else "container resource utilization (percentage of request)"
        current = _of_resource(wanted.name, found)
        inner = ContainerResourceMetricStatus(name=wanted.name, container=wanted.container, current=current)
        status = MetricStatus(type="ContainerResource", container_resource=inner)
        return Asked(found.replicas, f"{wanted.name} {what}", status)

    async def _used(self, resource: str, wanted: MetricTarget, container: str) -> Proposal:
        target = self._target
        if wanted.average_value is None and wanted.average_utilization is None:
            raise MetricsError(
                "invalid resource metric source: neither an average utilization target nor an average value (usage) "
                "target was set"
            )
        what = "usage" if wanted.average_value is not None else "utilization"
        names = [pod.metadata.name for pod in target.pods]
        try:
            try:
                samples = await self._source.resource(self._namespace, resource, target.selector, names, container)
            except MetricsError as error:
                raise MetricsError(f"unable to get metrics for resource {resource}: {error}") from error
            if wanted.average_value is not None:
                aim = quantity.parse_json(wanted.average_value).milli_value()
                return by_average(target.wanted, aim, samples, target.pods, self._tolerance, self._timing, resource)
            percentage = wanted.average_utilization or 0
            return by_utilization(
                target.wanted, percentage, resource, container, samples, target.pods, self._tolerance, self._timing
            )
        except MetricsError as error:
            raise MetricsError(f"failed to get {resource} {what}: {error}") from error

    async def of_pods(self, spec: MetricSpec) -> Asked:
        wanted, target = spec.pods, self._target
        if wanted is None or wanted.target.average_value is None:
            raise MetricsError("pods: target.averageValue is missing")
        names = [pod.metadata.name for pod in target.pods]
        try:
            samples = await self._source.of_pods(
                self._namespace, wanted.metric.name, target.selector, names, _selector(wanted.metric)
            )
        except MetricsError as error:
            raise MetricsError(f"unable to get metric {wanted.metric.name}: {error}") from error
        aim = quantity.parse_json(wanted.target.average_value).milli_value()
        found = by_average(target.wanted, aim, samples, target.pods, self._tolerance, self._timing)
        inner = PodsMetricStatus(metric=wanted.metric, current=MetricValueStatus(average_value=_text(found.value)))
        return Asked(found.replicas, f"pods metric {wanted.metric.name}", MetricStatus(type="Pods", pods=inner))

    async def of_object(self, spec: MetricSpec) -> Asked:
        wanted = spec.object
        if wanted is None:
            raise MetricsError("object: it is missing")
        aim = _aim(wanted.target, "object")
        described, name = wanted.described_object, wanted.metric.name
        try:
            value = await self._source.of_object(self._namespace, name, described, _selector(wanted.metric))
        except MetricsError as error:
            # The words are in this order in Kubernetes too.
            told = f"unable to get metric {name}: {described.kind} on {self._namespace} {described.name}/{error}"
            averaged = wanted.target.type == "AverageValue"
            raise _Rewrapped(told, f"failed to get {name} object metric: {told}" if averaged else told) from error
        found, current = self._shared(aim, value, averaged=wanted.target.type == "AverageValue")
        inner = ObjectMetricStatus(metric=wanted.metric, current=current, described_object=described)
        told = f"{described.kind} metric {name}"
        if wanted.target.type == "AverageValue":
            told = f"external metric {name}({_go_text(wanted.metric.selector)})"
        return Asked(found, told, MetricStatus(type="Object", object=inner))

    async def external(self, spec: MetricSpec) -> Asked:
        wanted = spec.external
        if wanted is None:
            raise MetricsError("external: it is missing")
        averaged, name = wanted.target.average_value is not None, wanted.metric.name
        aim = _aim(wanted.target, "external")
        shown = _go_text(wanted.metric.selector)
        try:
            values = await self._source.external(self._namespace, name, _selector(wanted.metric))
        except MetricsError as error:
            told = f"unable to get external metric {self._namespace}/{name}/{shown}: {error}"
            before = f"failed to get {name} external metric" if averaged else f"failed to get external metric {name}"
            raise _Rewrapped(told, f"{before}: {told}") from error
        found, current = self._shared(aim, min(sum(values), 2**63 - 1), averaged=averaged)
        inner = ExternalMetricStatus(metric=wanted.metric, current=current)
        return Asked(found, f"external metric {name}({shown})", MetricStatus(type="External", external=inner))

    def _shared(self, aim: int, value: int, *, averaged: bool) -> tuple[int, MetricValueStatus]:
        """Return what a value asks for that belongs to all pods together."""
        target = self._target
        if averaged:
            found = per_pod(target.present, value, aim, self._tolerance)
            return found.replicas, MetricValueStatus(average_value=_text(found.value))
        replicas = by_ratio(target.wanted, value / aim, target.pods, self._tolerance)
        return replicas, MetricValueStatus(value=_text(value))


def _aim(target: MetricTarget, kind: str) -> int:
    found = target.average_value if target.average_value is not None else target.value
    aim = 0 if found is None else quantity.parse_json(found).milli_value()
    if not aim:
        raise MetricsError(f"invalid {kind} metric source: neither a value target nor an average value target was set")
    return aim


def _selector(metric: MetricIdentifier) -> Selector:
    return labels.from_label_selector({} if metric.selector is None else to_dict(metric.selector))


def _of_resource(resource: str, found: Proposal) -> MetricValueStatus:
    amount = str(Quantity(found.value, -3, "BinarySI" if resource == "memory" else "DecimalSI"))
    return MetricValueStatus(average_value=amount, average_utilization=found.utilization)


def _text(value: int) -> str:
    return str(Quantity(value, -3))


def _go_text(selector: LabelSelector | None) -> str:
    """Write a selector as Go prints it, which Kubernetes tells users."""
    if selector is None:
        return "nil"
    equal = "".join(f"{name}: {selector.match_labels[name]}," for name in sorted(selector.match_labels))
    more = "".join(
        f"LabelSelectorRequirement{{Key:{one.key},Operator:{one.operator},Values:[{' '.join(one.values)}],}},"
        for one in selector.match_expressions
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{equal}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{more}}},}}"
    )
