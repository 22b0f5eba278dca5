"""What a decision asks for: writes in the order in which they are to be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.experiments import Experiment, ExperimentStatus
from pilothouse.delivery.resources.rollouts import RolloutStatus
from pilothouse.kinds.structs import Pod, ReplicaSet, Service

from .view import RouteKey

__all__ = [
    "Action",
    "AdoptSet",
    "Annotate",
    "CreateService",
    "CreateSet",
    "DeleteExperiment",
    "DeleteRun",
    "DeleteService",
    "DeleteSet",
    "EvictPod",
    "MarkPod",
    "Plan",
    "ReleaseSet",
    "ScaleWorkload",
    "SelectService",
    "StartExperiment",
    "StartRun",
    "StopExperiment",
    "StopRun",
    "Tell",
    "UpdateSet",
    "WriteExperimentStatus",
    "WriteRegions",
    "WriteRoute",
    "WriteStatus",
]


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace the rollout's status, if the rollout is still the one that was decided on.

    Written also where it says nothing new when users see more of a version next: whoever changed their mind meanwhile
    makes this write fail, and with it what comes after.
    """

    status: RolloutStatus


@dataclass(frozen=True, slots=True)
class Annotate:
    """Set annotations of the rollout."""

    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AdoptSet:
    """Take a replica set that nobody controls, as long as the rollout itself stays."""

    found: ReplicaSet


@dataclass(frozen=True, slots=True)
class ReleaseSet:
    """Let a replica set go that the selector does not take any more."""

    found: ReplicaSet


@dataclass(frozen=True, slots=True)
class CreateSet:
    """Make a replica set; one of this name that is there already is fine where it is of the same template."""

    wanted: ReplicaSet


@dataclass(frozen=True, slots=True)
class UpdateSet:
    """Change a replica set, if it is still as it was. told: says so to users, empty where it is no scaling."""

    wanted: ReplicaSet
    told: str = ""


@dataclass(frozen=True, slots=True)
class DeleteSet:
    """Remove a replica set that history does not keep."""

    found: ReplicaSet


@dataclass(frozen=True, slots=True)
class SelectService:
    """Have a service select the pods of one template."""

    name: str
    hash: str
    before: str = ""


@dataclass(frozen=True, slots=True)
class WriteRoute:
    """Replace a route, if it is still as it was."""

    key: RouteKey
    wanted: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WriteRegions:
    """Set the weights of regions, or remove them."""

    namespace: str
    name: str
    weights: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class StartRun:
    """Make an analysis run; one of this name that is there already is fine."""

    wanted: AnalysisRun


@dataclass(frozen=True, slots=True)
class StopRun:
    """End an analysis run that is needed no more."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Remove an analysis run that history does not keep."""

    found: AnalysisRun


@dataclass(frozen=True, slots=True)
class StartExperiment:
    """Make an experiment; one of this name that is there already is fine."""

    wanted: Experiment


@dataclass(frozen=True, slots=True)
class StopExperiment:
    """End an experiment that is needed no more."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteExperiment:
    """Remove an experiment that history does not keep."""

    found: Experiment


@dataclass(frozen=True, slots=True)
class EvictPod:
    """Evict a pod; disruption budgets may refuse it, which is no fault."""

    found: Pod


@dataclass(frozen=True, slots=True)
class MarkPod:
    """Change labels and annotations of a pod; None removes one."""

    found: Pod
    labels: Mapping[str, str | None]
    annotations: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ScaleWorkload:
    """Scale the Deployment that workloadRef names."""

    name: str
    replicas: int


@dataclass(frozen=True, slots=True)
class CreateService:
    """Make the service of an experiment's template; one of this name that is there already is fine."""

    wanted: Service


@dataclass(frozen=True, slots=True)
class DeleteService:
    """Remove the service of an experiment's template."""

    found: Service


@dataclass(frozen=True, slots=True)
class WriteExperimentStatus:
    """Replace an experiment's status, if it is still the one that was decided on."""

    status: ExperimentStatus


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell something about the object by an event."""

    reason: str
    message: str
    warning: bool = False


Action: TypeAlias = (
    WriteStatus
    | Annotate
    | AdoptSet
    | ReleaseSet
    | CreateSet
    | UpdateSet
    | DeleteSet
    | SelectService
    | WriteRoute
    | WriteRegions
    | StartRun
    | StopRun
    | DeleteRun
    | StartExperiment
    | StopExperiment
    | DeleteExperiment
    | EvictPod
    | MarkPod
    | ScaleWorkload
    | CreateService
    | DeleteService
    | WriteExperimentStatus
    | Tell
)


@dataclass(slots=True)
class Plan:
    """Actions in order; who executes them may be killed after any. again: seconds after which to decide again."""

    actions: list[Action] = field(default_factory=list)
    again: float | None = None

    def wait(self, seconds: float) -> None:
        """Come again after so long at the latest."""
        seconds = max(seconds, 0.0)
        self.again = seconds if self.again is None else min(self.again, seconds)
