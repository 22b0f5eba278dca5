"""The controller of horizontal pod autoscalers: sets the scale of what they name by what metrics say."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from pilothouse.client.errors import ClientError, UnknownKind
from pilothouse.client.indexer import NAMESPACE_INDEX
from pilothouse.client.resources import Mapping
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import labels, times
from pilothouse.kinds.labels import Selector, SelectorError
from pilothouse.kinds.status import ApiStatus, Conflict, NotFound
from pilothouse.kinds.structs import (
    HorizontalPodAutoscaler,
    Pod,
    Scale,
    decode,
    encode,
    replace,
)
from pilothouse.kinds.structs.autoscaling import (
    HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerStatus,
    MetricStatus,
)
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.autoscaling import Asked, Refused, Target, ask
from pilothouse.workloads.autoscaling_limits import History, limited
from pilothouse.workloads.autoscaling_metrics import ApiMetrics, MetricsError, MetricsSource
from pilothouse.workloads.autoscaling_replicas import Timing

__all__ = ["AutoscalerReconciler", "add_autoscalers"]

_CONCURRENCY: Final = 5
_PERIOD_SECONDS: Final = 15.0
_MAX_REMEMBERED: Final = 20_000
_TRIES: Final = 5
_log = get_logger("pilothouse.workloads.autoscaler")


class AutoscalerReconciler(Reconciler[HorizontalPodAutoscaler]):
    """Looks at each autoscaler every 15 seconds, the first time 15 after it is made. source: of metrics."""

    def __init__(self, manager: Manager, source: MetricsSource, *, period_seconds: float = _PERIOD_SECONDS) -> None:
        self._manager = manager
        self._source = source
        self._period = period_seconds
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._selectors: dict[Request, Selector] = {}
        self._due: dict[Request, tuple[str, float]] = {}

    async def reconcile(self, obj: HorizontalPodAutoscaler, context: Context) -> Result | None:
        """Ask for the metrics, set the scale, and tell, when it is time: what changes meanwhile waits until then."""
        left = self._left(obj, context)
        if left > 0:
            return Result(requeue_after=left)
        history = self._histories.setdefault(obj.metadata.uid, History())
        self._histories.move_to_end(obj.metadata.uid)
        if len(self._histories) > _MAX_REMEMBERED:
            self._histories.popitem(last=False)
        namespace = obj.metadata.namespace

        def pods(selector: Selector) -> Sequence[Pod]:
            return self._manager.informer(Pod).indexer.by_index(NAMESPACE_INDEX, namespace, selector)

        turn = _Turn(obj, history, self._source, self._selectors, pods, context)
        try:
            await turn.run()
        except (ApiStatus, ClientError, MetricsError, OSError) as error:
            _log.info("an autoscaler cannot do its work", request=str(context.request), error=str(error))
        if turn.status != obj.status:
            await self._write(obj, turn.status, context)
        self._due[context.request] = obj.metadata.uid, context.clock.monotonic() + self._period
        return Result(requeue_after=self._period)

    def _left(self, obj: HorizontalPodAutoscaler, context: Context) -> float:
        """Return the seconds until it is time for an autoscaler."""
        now = context.clock.monotonic()
        uid, due = self._due.get(context.request, ("", 0.0))
        if uid != obj.metadata.uid:
            due = now + self._period
            self._due[context.request] = obj.metadata.uid, due
        return due - now

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Forget which pods an autoscaler had, and when it is time for it."""
        self._selectors.pop(request, None)
        self._due.pop(request, None)
        return None

    async def _write(
        self, obj: HorizontalPodAutoscaler, status: HorizontalPodAutoscalerStatus, context: Context
    ) -> None:
        try:
            await context.update_status(replace(obj, status=status))
        except Conflict:
            raise
        except ApiStatus as error:
            context.recorder.warning(obj, "FailedUpdateStatus", error.message)
            raise


class _Turn:
    """One look at an autoscaler, whose status gathers what was found."""

    def __init__(
        self,
        autoscaler: HorizontalPodAutoscaler,
        history: History,
        source: MetricsSource,
        selectors: dict[Request, Selector],
        pods: Callable[[Selector], Sequence[Pod]],
        context: Context,
    ) -> None:
        self.status = autoscaler.status
        self._of = autoscaler
        self._history = history
        self._source = source
        self._selectors = selectors
        self._pods = pods
        self._context = context
        self._now = context.clock.now()
        self._seconds = context.clock.monotonic()

    async def run(self) -> None:
        """Do it. Raises what is to be logged; the status says so already."""
        try:
            mapping, scale = await self._target()
        except (ApiStatus, ClientError) as error:
            self._warn("FailedGetScale", _told(error))
            why = f"the HPA controller was unable to get the target's current scale: {_told(error)}"
            self._set("AbleToScale", False, "FailedGetScale", why)
            raise
        why = "the HPA controller was able to get the target's current scale"
        self._set("AbleToScale", True, "SucceededGetScale", why)
        self._history.begin(scale.spec.replicas, self._seconds)
        await self._decide(mapping, scale)

    async def _decide(self, mapping: Mapping, scale: Scale) -> None:
        spec, current = self._of.spec, scale.spec.replicas
        minimum = 1 if spec.min_replicas is None else spec.min_replicas
        if current == 0:
            why = "scaling is disabled since the replica count of the target is zero"
            self._set("ScalingActive", False, "ScalingDisabled", why)
            self._report(0, 0, ())
        elif current > spec.max_replicas:
            why = "Current number of replicas above Spec.MaxReplicas"
            await self._rescale(mapping, scale, spec.max_replicas, why, ())
        elif current < minimum:
            await self._rescale(mapping, scale, minimum, "Current number of replicas below Spec.MinReplicas", ())
        else:
            await self._by_metrics(mapping, scale, minimum)

    async def _by_metrics(self, mapping: Mapping, scale: Scale, minimum: int) -> None:
        current = scale.spec.replicas
        statuses = [MetricStatus() for _ in self._of.spec.metrics]
        try:
            wanted, name, refused = await self._ask(scale, statuses)
        except MetricsError as error:
            self._report(current, self.status.desired_replicas, statuses)
            self._warn("FailedComputeMetricsReplicas", str(error))
            raise
        found = limited(self._of.spec, self._history, current, wanted, minimum, self._seconds)
        self._set("AbleToScale", True, *found.able)
        self._set("ScalingLimited", found.is_limited, *found.why)
        if found.replicas == current:
            self._report(current, current, statuses)
        else:
            why = "All metrics below target" if wanted < current else f"{name} above target" if wanted > current else ""
            await self._rescale(mapping, scale, found.replicas, why, statuses)
        if refused is not None:
            raise refused

    async def _ask(self, scale: Scale, statuses: list[MetricStatus]) -> tuple[int, str, MetricsError | None]:
        """Return the largest number that a metric asks for, which metric, and that some could not be used.

        Raises MetricsError where none can, or where fewer replicas would follow and some cannot.
        """
        target = self._selected(scale)
        timing = Timing(self._now)
        specs = self._of.spec.metrics
        asked: list[Asked] = []
        refusals: list[Refused] = []
        for place, spec in enumerate(specs):
            try:
                found = await ask(self._of, spec, target, self._source, timing)
            except Refused as error:
                self._warn(error.reason, error.told)
                refusals.append(error)
            else:
                statuses[place] = found.status
                asked.append(found)
        most = max(asked, key=lambda one: one.replicas, default=None)
        refused = None
        if refusals:
            count = f"{len(refusals)} invalid out of {len(specs)}"
            refused = MetricsError(f"invalid metrics ({count}), first error is: {refusals[0]}")
        if most is None or (refused is not None and most.replicas < scale.spec.replicas):
            if refusals:
                why = f"the HPA was unable to compute the replica count: {refusals[0].told}"
                self._set("ScalingActive", False, refusals[0].reason, why)
            raise refused or MetricsError("there are no metrics")
        why = f"the HPA was able to successfully calculate a replica count from {most.name}"
        self._set("ScalingActive", True, "ValidMetricFound", why)
        return most.replicas, most.name, refused

    def _selected(self, scale: Scale) -> Target:
        """Return the target with its pods. Raises MetricsError where its selector is none, or is another's too."""
        text = scale.status.selector
        if not text:
            self._warn("SelectorRequired", "selector is required")
            why = "the HPA target's scale is missing a selector"
            self._set("ScalingActive", False, "InvalidSelector", why)
            raise MetricsError("selector is required")
        try:
            selector = labels.parse(text)
        except SelectorError as error:
            what = f"couldn't convert selector into a corresponding internal selector object: {error}"
            self._invalid("InvalidSelector", what)
        self._selectors[self._context.request] = selector
        pods = self._pods(selector)
        rivals = self._rivals(pods)
        if len(rivals) > 1:
            shown = " ".join(f"{one.namespace}/{one.name}" for one in rivals)
            self._invalid("AmbiguousSelector", f"pods by selector {text} are controlled by multiple HPAs: [{shown}]")
        return Target(scale.spec.replicas, scale.status.replicas, selector, pods)

    def _invalid(self, reason: str, what: str) -> Any:
        self._warn(reason, what)
        self._set("ScalingActive", False, reason, what)
        raise MetricsError(what)

    def _rivals(self, pods: Sequence[Pod]) -> list[Request]:
        """Return the autoscalers of the namespace that have some of these pods."""
        namespace = self._of.metadata.namespace
        return sorted(
            request
            for request, selector in self._selectors.items()
            if request.namespace == namespace and any(selector.matches(pod.metadata.labels) for pod in pods)
        )

    async def _target(self) -> tuple[Mapping, Scale]:
        """Return where the target is, and its scale. Raises UnknownKind and ApiStatus."""
        reference, client = self._of.spec.scale_target_ref, self._context.client
        mapping = await _find(self._context, reference.api_version, reference.kind)
        path = mapping.item(reference.name, self._of.metadata.namespace, "scale")
        return mapping, decode(await client.request("GET", path), Scale)

    async def _rescale(
        self, mapping: Mapping, scale: Scale, replicas: int, why: str, statuses: Sequence[MetricStatus]
    ) -> None:
        current = scale.spec.replicas
        told = f"New size: {replicas}; reason: {why}"
        try:
            await self._write_scale(mapping, scale, replicas)
        except ApiStatus as error:
            self._warn("FailedRescale", f"{told}; error: {error.message}")
            what = f"the HPA controller was unable to update the target scale: {error.message}"
            self._set("AbleToScale", False, "FailedUpdateScale", what)
            self._report(current, self.status.desired_replicas, statuses)
            raise
        what = f"the HPA controller was able to update the target scale to {replicas}"
        self._set("AbleToScale", True, "SucceededRescale", what)
        self._context.recorder.normal(self._of, "SuccessfulRescale", told)
        self._history.scaled(self._of.spec, current, replicas, self._seconds)
        self._report(current, replicas, statuses, scaled=True)

    async def _write_scale(self, mapping: Mapping, scale: Scale, replicas: int) -> None:
        """Set the replicas, also where somebody changed the target meanwhile."""
        client = self._context.client
        path = mapping.item(scale.metadata.name, self._of.metadata.namespace, "scale")
        for tries in range(_TRIES):
            try:
                await client.request("PUT", path, encode(replace(scale, spec__replicas=replicas)))
            except Conflict:
                if tries + 1 == _TRIES:
                    raise
                scale = decode(await client.request("GET", path), Scale)
            else:
                return

    def _report(self, current: int, wanted: int, statuses: Sequence[MetricStatus], *, scaled: bool = False) -> None:
        self.status = HorizontalPodAutoscalerStatus(
            last_scale_time=times.format_seconds(self._now) if scaled else self.status.last_scale_time,
            current_replicas=current,
            desired_replicas=wanted,
            current_metrics=statuses,
            conditions=[found for found in self.status.conditions if found.type != "ScaledToZero"],
        )

    def _set(self, kind: str, status: bool, reason: str, message: str) -> None:
        """Set a condition; its time is that of the last change of its status."""
        text = "True" if status else "False"
        made = HorizontalPodAutoscalerCondition(
            type=kind,
            status=text,
            reason=reason,
            message=message,
            last_transition_time=times.format_seconds(self._now),
        )
        conditions = [*self.status.conditions]
        place = next((at for at, found in enumerate(conditions) if found.type == kind), None)
        if place is None:
            conditions.append(made)
        else:
            present = conditions[place]
            same = present.status == text
            conditions[place] = replace(made, last_transition_time=present.last_transition_time) if same else made
        self.status = replace(self.status, conditions=conditions)

    def _warn(self, reason: str, message: str) -> None:
        self._context.recorder.warning(self._of, reason, message)


async def _find(context: Context, api_version: str, kind: str) -> Mapping:
    """Return where a kind is, in whichever version its group has it. Raises UnknownKind."""
    discovery = context.client.discovery
    try:
        return await discovery.find(api_version, kind)
    except (UnknownKind, NotFound):
        group, _, _ = api_version.rpartition("/")
        for version in await _versions(context, group):
            try:
                return await discovery.find(version, kind)
            except (UnknownKind, NotFound):
                continue
        raise UnknownKind(f'no matches for kind "{kind}" in group "{group}"') from None


async def _versions(context: Context, group: str) -> list[str]:
    if not group:
        return []
    try:
        found = msgspec.json.decode(await context.client.request("GET", f"/apis/{group}"), type=dict[str, Any])
    except NotFound:
        return []
    return [one["groupVersion"] for one in found.get("versions") or ()]


def _told(error: Exception) -> str:
    return error.message if isinstance(error, ApiStatus) else str(error)


class _SpecChanged(Predicate[HorizontalPodAutoscaler]):
    """Changes of what is wanted: those of the status are our own."""

    def update(self, old: HorizontalPodAutoscaler, new: HorizontalPodAutoscaler) -> bool:
        return old.spec != new.spec


def add_autoscalers(
    manager: Manager, source: MetricsSource | None = None, *, period_seconds: float = _PERIOD_SECONDS
) -> None:
    """Add the controller of autoscalers. source: of metrics, the cluster's metrics APIs by default."""
    manager.informer(Pod)
    building = controller(manager, "horizontal-pod-autoscaler").for_(HorizontalPodAutoscaler, _SpecChanged())
    building.with_options(concurrency=_CONCURRENCY).build(
        AutoscalerReconciler(manager, source or ApiMetrics(manager.client), period_seconds=period_seconds)
    )
