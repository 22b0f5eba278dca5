"""The controller of experiments: reads what a decision needs, decides, and does what was decided."""

from __future__ import annotations

from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.analyses import (
    AnalysisRun,
    AnalysisTemplate,
    AnalysisTemplateRef,
    ClusterAnalysisTemplate,
)
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import Conflict
from pilothouse.kinds.structs import ReplicaSet, Service, replace
from pilothouse.operator import Context, Controller, Manager, Reconciler, Result, controller

from . import actions as writes
from .doing import create_once
from .experiments import ExperimentView, decide_experiment
from .gathering import templates_of

__all__ = ["ExperimentReconciler", "add_experiments"]

_log = get_logger(__name__)
_CONFLICT_SECONDS: Final = 0.02


class ExperimentReconciler(Reconciler[Experiment]):
    """Brings experiments a step further."""

    async def reconcile(self, obj: Experiment, context: Context) -> Result | None:
        """Decide and do. A conflict is no failure: somebody else wrote, so it is looked at again."""
        refs = [
            AnalysisTemplateRef(template_name=one.template_name, cluster_scope=one.cluster_scope)
            for one in obj.spec.analyses
        ]
        view = ExperimentView(
            experiment=obj,
            sets=context.owned(ReplicaSet, obj),
            services=context.owned(Service, obj),
            runs=context.owned(AnalysisRun, obj),
            templates=templates_of(context, refs),
        )
        try:
            plan = decide_experiment(view, context.clock.now())
        except DeliveryError as error:
            context.recorder.warning(obj, "ExperimentError", str(error))
            raise
        try:
            for action in plan.actions:
                await self._do(action, obj, context)
        except Conflict:
            return Result(requeue_after=_CONFLICT_SECONDS)
        return Result(requeue_after=plan.again)

    async def _do(self, action: writes.Action, obj: Experiment, context: Context) -> None:
        match action:
            case writes.WriteExperimentStatus(status):
                # Argo's definition has no status subresource, and so ours has none.
                await context.update(replace(obj, status=status))
            case writes.CreateSet(wanted) | writes.StartRun(wanted) | writes.CreateService(wanted):
                if not await create_once(context, wanted, obj):
                    _log.warning("a name is taken", kind=wanted.kind, name=wanted.metadata.name)
            case writes.UpdateSet(wanted, told):
                await context.update(wanted)
                if told:
                    context.recorder.normal(obj, "ScalingReplicaSet", told)
            case writes.DeleteService(found):
                await context.delete(found)
            case writes.StopRun(name):
                patch = {"spec": {"terminate": True}}
                await ignore_not_found(context.client.patch(AnalysisRun, name, patch, obj.metadata.namespace))
            case writes.Tell(reason, message, warning):
                tell = context.recorder.warning if warning else context.recorder.normal
                tell(obj, reason, message)
            case _:
                raise TypeError(f"{type(action).__name__} is nothing that experiments do")


def add_experiments(manager: Manager) -> Controller[Experiment]:
    """Add the controller of experiments to a manager. The kinds have to be installed: `install_kinds`."""
    manager.scheme.register(Experiment, AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate)
    manager.informer(AnalysisTemplate)
    manager.informer(ClusterAnalysisTemplate)
    return (
        controller(manager, "experiments")
        .for_(Experiment)
        .owns(ReplicaSet)
        .owns(Service)
        .owns(AnalysisRun)
        .build(ExperimentReconciler())
    )
