"""The controller of deployments: replica sets that come and go as the plan says."""

from __future__ import annotations

from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.labels import Selector, SelectorError, from_label_selector
from pilothouse.kinds.status import AlreadyExists, ApiStatus
from pilothouse.kinds.structs import Deployment, Pod, ReplicaSet, replace, to_dict
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.owners import controller_of, is_controlled_by
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.deployment_sets import same_template
from pilothouse.workloads.deployments import Create, Delete, Event, Plan, Update, collided, plan, refused
from pilothouse.workloads.podcontrol import claimed, is_namespace_ending
from pilothouse.workloads.pods import is_finished
from pilothouse.workloads.sources import controller_or_adopters

__all__ = ["DeploymentReconciler", "add_deployments"]

_CONCURRENCY: Final = 5
_log = get_logger("pilothouse.workloads.deployment")


class DeploymentReconciler(Reconciler[Deployment]):
    """Rolls deployments out, one step a reconcile."""

    async def reconcile(self, obj: Deployment, context: Context) -> Result | None:
        """Bring the replica sets a step further, then the status up to date."""
        try:
            selector = _selector_of(obj)
        except SelectorError as error:
            _log.error("a selector cannot be read", kind="Deployment", request=str(context.request), error=str(error))
            return None
        if selector.empty:
            await self._refuse_all(obj, context)
            return None
        found = [*context.owned(ReplicaSet, obj), *context.orphans(ReplicaSet)]
        sets = await claimed(context, obj, selector, found)

        def has_old_pods(new: ReplicaSet | None) -> bool:
            pods = [pod for each in sets if new is None or each is not new for pod in context.owned(Pod, each)]
            return any(not is_finished(pod) for pod in pods)

        made = plan(obj, sets, has_old_pods, context.clock.now())
        for write in made.writes:
            await self._write(obj, made, write, context)
        await self._conclude(obj, made, context)
        return Result(requeue_after=made.again)

    async def _refuse_all(self, obj: Deployment, context: Context) -> None:
        what = "This deployment is selecting all pods. A non-empty selector is required."
        context.recorder.warning(obj, "SelectingAll", what)
        if obj.status.observed_generation < obj.metadata.generation:
            await context.update_status(replace(obj, status__observed_generation=obj.metadata.generation))

    async def _write(
        self, obj: Deployment, made: Plan, write: Create | Update | Delete | Event, context: Context
    ) -> None:
        match write:
            case Create(wanted):
                await self._create(obj, made, wanted, context)
            case Update(wanted, scaled):
                await context.update(wanted)
                if scaled:
                    context.recorder.normal(obj, "ScalingReplicaSet", scaled)
            case Delete(found):
                await context.delete(found)
            case Event(reason, message, warning):
                tell = context.recorder.warning if warning else context.recorder.normal
                tell(obj, reason, message)

    async def _create(self, obj: Deployment, made: Plan, wanted: ReplicaSet, context: Context) -> None:
        try:
            await context.create(wanted)
        except AlreadyExists:
            there = await ignore_not_found(context.client.get(ReplicaSet, wanted.metadata.name, obj.metadata.namespace))
            if there is not None and is_controlled_by(there, obj) and same_template(obj, there):
                return
            await context.update_status(collided(obj))
            raise
        except ApiStatus as error:
            if not is_namespace_ending(error):
                what = f'Failed to create new replica set "{wanted.metadata.name}": {error.message}'
                context.recorder.warning(obj, "ReplicaSetCreateError", what)
                if (told := refused(made.deployment, what, context.clock.now())) is not made.deployment:
                    await context.update_status(replace(told, metadata__annotations=obj.metadata.annotations))
            raise

    async def _conclude(self, obj: Deployment, made: Plan, context: Context) -> None:
        if made.rolled_back:
            await context.update(made.deployment)
        elif (made.deployment.status, made.deployment.metadata.annotations) != (obj.status, obj.metadata.annotations):
            await context.update_status(made.deployment)


def _selector_of(obj: Deployment) -> Selector:
    return from_label_selector(to_dict(obj.spec.selector))


class _Ended(Predicate[Pod]):
    """Pods that run no more."""

    def create(self, obj: Pod) -> bool:
        return False

    def update(self, old: Pod, new: Pod) -> bool:
        return is_finished(new) and not is_finished(old)


def add_deployments(manager: Manager) -> None:
    """Add the controller of deployments."""

    def of_pod(pod: Pod) -> list[Request]:
        """Wake the deployment whose last pod of a set is gone: Recreate waits for it."""
        owner = controller_of(pod)
        if owner is None or owner.kind != "ReplicaSet":
            return []
        found = manager.informer(ReplicaSet).indexer.get(f"{pod.metadata.namespace}/{owner.name}")
        above = None if found is None else controller_of(found)
        return [] if above is None or above.kind != "Deployment" else [Request(pod.metadata.namespace, above.name)]

    (
        controller(manager, "deployment-controller")
        .for_(Deployment)
        .watches(ReplicaSet, controller_or_adopters(manager, Deployment, _selector_of))
        .watches(Pod, of_pod, _Ended())
        .with_options(concurrency=_CONCURRENCY)
        .build(DeploymentReconciler())
    )
