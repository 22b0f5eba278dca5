"""The controller of rollouts: reads what a decision needs, decides, and does what was decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pilothouse.client import ignore_not_found
from pilothouse.client.metrics import register
from pilothouse.client.packed import of_head
from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.analyses import (
    AnalysisRun,
    AnalysisTemplate,
    ClusterAnalysisTemplate,
)
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.labels import SelectorError, from_label_selector
from pilothouse.kinds.status import Conflict
from pilothouse.kinds.structs import Pod, ReplicaSet, Resource, Service, to_dict
from pilothouse.operator import Context, Controller, Manager, Reconciler, Request, Result, controller, needs
from pilothouse.operator.loop import LoopOptions
from pilothouse.operator.owners import controller_of
from pilothouse.operator.predicates import Predicate

from .analysisruns import template_keys
from .deciding import decide
from .doing import Doer
from .former import former_services
from .gatewayroutes import GatewayRoutes, Objects, Traffic
from .gathering import templates_of
from .metrics import RolloutFigures
from .names import HASH, MANAGED_BY, REGIONS_PLUGIN
from .routing import regions_name, route_keys
from .situation import Situation
from .validation import analysis_refs, service_names
from .view import RouteKey, View

__all__ = ["RolloutReconciler", "add_rollouts"]

_CONCURRENCY: Final = 10
_ROUNDS: Final = 1_000
"""Reconciles in a row that are nothing strange: pods of a large rollout get ready one by one."""
_CONFLICT_SECONDS: Final = 0.02
_SERVICES: Final = "services"
_ROUTES: Final = "routes"
_TEMPLATES: Final = "templates"
_WORKLOAD: Final = "workload"


@needs(Pod, "get", "list", "patch")
@needs("pods/eviction", "create")
@needs(Service, "patch")
@needs("deployments.apps", "get", "list", "watch")
@needs("deployments.apps/scale", "patch")
@needs("httproutes.gateway.networking.k8s.io", "get", "list", "watch", "update")
@needs("grpcroutes.gateway.networking.k8s.io", "get", "list", "watch", "update")
@needs("tcproutes.gateway.networking.k8s.io", "get", "list", "watch", "update")
@needs("tlsroutes.gateway.networking.k8s.io", "get", "list", "watch", "update")
@needs("regionweights.pilothouse.dev", "get", "list", "watch", "create", "patch", "delete")
class RolloutReconciler(Reconciler[Rollout]):
    """Brings rollouts a step further, one transition a reconcile."""

    def __init__(self, manager: Manager, traffic: Traffic | None = None) -> None:
        self._manager = manager
        self._figures = RolloutFigures(manager)
        register(self._figures, manager.metrics)
        self._verdicts = manager.recorder("rollouts-verdicts")
        self.controller: Controller[Rollout] | None = None
        self._objects = Objects(manager.client, self._controller)
        self._traffic = traffic or GatewayRoutes(manager.client, self._objects, self._of_route)

    def _controller(self) -> Controller[Rollout]:
        if self.controller is None:
            raise RuntimeError("the reconciler of rollouts has no controller; add it by add_rollouts")
        return self.controller

    async def reconcile(self, obj: Rollout, context: Context) -> Result | None:
        """Decide and do. A conflict is no failure: somebody else wrote, so it is looked at again."""
        view = await self._view(obj, context)
        try:
            plan = decide(view, context.clock.now())
        except DeliveryError as error:
            context.recorder.warning(obj, "RolloutError", str(error))
            raise
        doer = Doer(obj, context, self._traffic, dict(view.services), self._verdicts)
        try:
            for action in plan.actions:
                await doer.do(action)
        except Conflict:
            return Result(requeue_after=_CONFLICT_SECONDS)
        return Result(requeue_after=plan.again)

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Let the services of a rollout that is gone select all its labels again, and not pods that go with it."""
        for service in self._manager.informer(Service).lister().namespaced(request.namespace).list():
            if service.metadata.annotations.get(MANAGED_BY) == request.name:
                patch = {"metadata": {"annotations": {MANAGED_BY: None}}, "spec": {"selector": {HASH: None}}}
                await ignore_not_found(context.patch(service, patch))
        return None

    # What a decision needs

    async def _view(self, obj: Rollout, context: Context) -> View:
        namespace = obj.metadata.namespace
        named = ((name, context.get(Service, name)) for name in service_names(obj))
        keys = route_keys(obj)
        view = View(
            rollout=obj,
            sets=context.owned(ReplicaSet, obj),
            orphans=context.orphans(ReplicaSet),
            services={name: found for name, found in named if found is not None},
            routes=await self._routes(obj, keys),
            regions=await self._regions(obj, keys),
            runs=context.owned(AnalysisRun, obj),
            experiments=context.owned(Experiment, obj),
            templates=templates_of(context, [ref for refs in analysis_refs(obj) for ref in refs]),
            workload=await self._workload(obj, namespace),
        )
        return replace(view, pods=await _pods(view, context))

    async def _routes(self, obj: Rollout, keys: list[RouteKey]) -> Mapping[RouteKey, Mapping[str, Any]]:
        if (services := former_services(obj)) is not None:
            return await self._traffic.naming(obj.metadata.namespace, services)
        return await self._traffic.routes(keys) if keys else {}

    async def _regions(self, obj: Rollout, keys: list[RouteKey]) -> Any:
        if former_services(obj) is not None:
            return await self._traffic.regions(obj.metadata.namespace, regions_name(obj))
        canary = obj.spec.strategy.canary
        plugins = [step.plugin.name for step in (canary.steps if canary else ()) if step.plugin is not None]
        if not keys or REGIONS_PLUGIN not in plugins:
            return None
        return await self._traffic.regions(keys[0].namespace, regions_name(obj))

    async def _workload(self, obj: Rollout, namespace: str) -> Any:
        ref = obj.spec.workload_ref
        if ref is None or not (ref.kind and ref.name):
            return None
        key = (namespace, ref.name)
        return await self._objects.get(ref.api_version or "apps/v1", ref.kind, key, self._of_workload(ref.kind))

    # Whose turn it is

    def _by(self, index: str, value: str) -> list[Request]:
        return [Request.of(found) for found in self._manager.informer(Rollout).indexer.by_index(index, value)]

    def _of_route(self, kind: str) -> Callable[[dict[str, Any]], Iterable[Request]]:
        def mapped(route: dict[str, Any]) -> Iterable[Request]:
            metadata = route["metadata"]
            if owner := next((one for one in metadata.get("ownerReferences") or () if one["kind"] == "Rollout"), None):
                return [Request(metadata["namespace"], owner["name"])]
            return self._by(_ROUTES, "/".join(RouteKey(kind, metadata["namespace"], metadata["name"])))

        return mapped

    def _of_workload(self, kind: str) -> Callable[[dict[str, Any]], Iterable[Request]]:
        def mapped(workload: dict[str, Any]) -> Iterable[Request]:
            metadata = workload["metadata"]
            return self._by(_WORKLOAD, f"{metadata['namespace']}/{kind}/{metadata['name']}")

        return mapped

    @of_head
    def of_orphan(self, found: Resource) -> Iterable[Request]:
        """Map a set that nobody controls to the rollouts whose selectors take it."""
        if controller_of(found) is not None or found.metadata.deletion_timestamp is not None:
            return ()
        listed = self._manager.informer(Rollout).lister().namespaced(found.metadata.namespace).list()
        return [Request.of(each) for each in listed if _takes(each, found)]

    def of_service(self, service: Service) -> Iterable[Request]:
        """Map a service to the rollouts that name it."""
        return self._by(_SERVICES, f"{service.metadata.namespace}/{service.metadata.name}")

    def of_template(self, template: AnalysisTemplate | ClusterAnalysisTemplate) -> Iterable[Request]:
        """Map a template to the rollouts that name it themselves."""
        return self._by(_TEMPLATES, f"{template.metadata.namespace}/{template.metadata.name}")


async def _pods(view: View, context: Context) -> list[Pod]:
    """Return the pods, asked for only where they are looked at one by one."""
    obj = view.rollout
    strategy: Any = obj.spec.strategy.canary or obj.spec.strategy.blue_green
    words = ("canary_metadata", "stable_metadata", "active_metadata", "preview_metadata")
    marked = any(getattr(strategy, word, None) is not None for word in words)
    restarting = obj.spec.restart_at and obj.spec.restart_at != obj.status.restarted_at
    if not (marked or restarting):
        return []
    selector = from_label_selector(to_dict(Situation(view, context.clock.now()).selector))
    if selector.empty:
        return []
    return [pod async for pod in context.client.list(Pod, obj.metadata.namespace, labels=str(selector))]


def _takes(rollout: Rollout, found: Resource) -> bool:
    if rollout.spec.selector is None:
        return False
    try:
        selector = from_label_selector(to_dict(rollout.spec.selector))
    except SelectorError:
        return False
    return not selector.empty and selector.matches(found.metadata.labels)


class _Verdict(Predicate[AnalysisRun]):
    """Runs that say something else; what they measure meanwhile is written often and changes nothing here."""

    def update(self, old: AnalysisRun, new: AnalysisRun) -> bool:
        return (old.status.phase, old.status.message, old.metadata.deletion_timestamp) != (
            new.status.phase,
            new.status.message,
            new.metadata.deletion_timestamp,
        )


# Indexes


def _service_index(obj: Rollout) -> Iterator[str]:
    yield from (f"{obj.metadata.namespace}/{name}" for name in service_names(obj))


def _route_index(obj: Rollout) -> Iterator[str]:
    yield from ("/".join(key) for key in route_keys(obj))


def _template_index(obj: Rollout) -> Iterator[str]:
    for refs in analysis_refs(obj):
        for key in template_keys(refs):
            yield f"{'' if key.cluster else obj.metadata.namespace}/{key.name}"


def _workload_index(obj: Rollout) -> Iterator[str]:
    ref = obj.spec.workload_ref
    if ref is not None:
        yield f"{obj.metadata.namespace}/{ref.kind}/{ref.name}"


def add_rollouts(
    manager: Manager, *, traffic: Traffic | None = None, concurrency: int = _CONCURRENCY
) -> Controller[Rollout]:
    """Add the controller of rollouts to a manager. The kinds have to be installed: `install_kinds`.

    traffic: where routes are read and written, Gateway API objects by default. concurrency: rollouts at a time. What
    runs AnalysisRuns is another controller; that of Experiments is added by `add_experiments`.
    """
    kinds: tuple[type[Resource], ...] = (Rollout, AnalysisTemplate, ClusterAnalysisTemplate, AnalysisRun, Experiment)
    manager.scheme.register(*kinds)
    for name, function in (
        (_SERVICES, _service_index),
        (_ROUTES, _route_index),
        (_TEMPLATES, _template_index),
        (_WORKLOAD, _workload_index),
    ):
        manager.index(Rollout, name, function)
    reconciler = RolloutReconciler(manager, traffic)
    reconciler.controller = (
        controller(manager, "rollouts")
        .for_(Rollout)
        .owns(ReplicaSet)
        .owns(AnalysisRun, _Verdict())
        .owns(Experiment)
        .watches(ReplicaSet, reconciler.of_orphan)
        .watches(Service, reconciler.of_service)
        .watches(AnalysisTemplate, reconciler.of_template)
        .watches(ClusterAnalysisTemplate, reconciler.of_template)
        .with_options(concurrency=concurrency, loop=LoopOptions(rounds=_ROUNDS))
        .build(reconciler)
    )
    return reconciler.controller
