"""A world for the state machine of experiments: one experiment, its objects in memory, and writes with conflicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisTemplateSpec
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.rollouts import actions as writes
from pilothouse.delivery.rollouts.actions import Plan
from pilothouse.delivery.rollouts.experiments import ExperimentView, decide_experiment
from pilothouse.delivery.rollouts.names import HASH
from pilothouse.delivery.rollouts.view import TemplateKey
from pilothouse.kinds.structs import ReplicaSet, Service, from_dict, replace
from support.rolloutworld import START, Conflict

__all__ = ["COMPARE", "Lab", "template"]

COMPARE: Mapping[str, Any] = {
    "name": "compare",
    "templateName": "compare",
    "args": [{"name": "hash", "value": "x"}],
}


def template(name: str, image: str, **more: Any) -> dict[str, Any]:
    """Return a template of an experiment."""
    labels = {"app": "shop", "version": name, HASH: "old"}
    container = {"name": "shop", "image": image, "ports": [{"containerPort": 8080}]}
    return {
        "name": name,
        "selector": {"matchLabels": {"app": "shop", "version": name, HASH: "old"}},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        **more,
    }


class Lab:
    """One experiment and its objects. broken: sets whose pods never get ready."""

    def __init__(self, **spec: Any) -> None:
        tree = {
            "metadata": {"name": "try", "namespace": "default", "uid": "1"},
            "spec": {"templates": [template("base", "shop:1", service={}), template("new", "shop:2")], **spec},
        }
        self.experiment = from_dict(tree, Experiment)
        self.sets: dict[str, ReplicaSet] = {}
        self.services: dict[str, Service] = {}
        self.runs: dict[str, AnalysisRun] = {}
        metrics = {"metrics": [{"name": "m", "provider": {"web": {"url": "x"}}}], "args": [{"name": "hash"}]}
        self.templates: Mapping[TemplateKey, AnalysisTemplateSpec] = {
            TemplateKey(False, "compare"): from_dict(metrics, AnalysisTemplateSpec)
        }
        self.now = START
        self.broken: set[str] = set()
        self.version = 0
        self.after_write: Callable[[writes.Action], None] = lambda _: None

    def view(self) -> ExperimentView:
        """Return the objects as they are."""
        return ExperimentView(
            self.experiment, [*self.sets.values()], [*self.services.values()], [*self.runs.values()], self.templates
        )

    def step(self, view: ExperimentView | None = None, limit: int | None = None) -> Plan:
        """Decide once, and do it, or only the first writes of it. Raises Conflict for a view that is too old."""
        view = view or self.view()
        plan = decide_experiment(view, self.now)
        for action in plan.actions[:limit]:
            self.do(action, view)
            self.after_write(action)
        return plan

    def changed(self, obj: Any, **changes: Any) -> Any:
        """Return an object with changes, as another version of it."""
        self.version += 1
        return replace(obj, **changes, metadata__resource_version=str(self.version))

    def do(self, action: writes.Action, view: ExperimentView) -> None:  # noqa: C901  one row an action
        """Do what an action says, as a server would."""
        match action:
            case writes.WriteExperimentStatus(status):
                if view.experiment.metadata.resource_version != self.experiment.metadata.resource_version:
                    raise Conflict("the experiment is another by now")
                self.experiment = self.changed(self.experiment, status=status)
            case writes.CreateSet(wanted):
                self.sets.setdefault(wanted.metadata.name, self.changed(wanted))
            case writes.UpdateSet(wanted):
                there = self.sets.get(wanted.metadata.name)
                if there is None or there.metadata.resource_version != wanted.metadata.resource_version:
                    raise Conflict("the set is another by now")
                self.sets[wanted.metadata.name] = self.changed(wanted)
            case writes.CreateService(wanted):
                self.services.setdefault(wanted.metadata.name, wanted)
            case writes.DeleteService(found):
                self.services.pop(found.metadata.name, None)
            case writes.StartRun(wanted):
                self.runs.setdefault(wanted.metadata.name, wanted)
            case writes.StopRun(name):
                if name in self.runs:
                    self.runs[name] = replace(self.runs[name], spec__terminate=True, status__phase="Successful")

    def settle(self) -> Plan:
        """Decide and do until nothing is left to do at this moment; pods get ready meanwhile."""
        for _ in range(30):
            plan = self.step()
            self.play_pods()
            if not plan.actions:
                return plan
        raise AssertionError(f"no end of it: {plan.actions}")

    def play_pods(self) -> None:
        """Let pods be as many as wanted, and get ready."""
        for name, found in self.sets.items():
            ready = 0 if name in self.broken else found.spec.replicas or 0
            counts = {"replicas": found.spec.replicas or 0, "available_replicas": ready, "ready_replicas": ready}
            made = replace(found, **{f"status__{key}": value for key, value in counts.items()})
            if made != found:
                self.sets[name] = self.changed(made)

    def wait(self, seconds: float) -> Plan:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)
        return self.settle()

    def judge(self, phase: str, message: str = "") -> None:
        """Let all runs end."""
        for name, run in self.runs.items():
            self.runs[name] = replace(run, status__phase=phase, status__message=message or None)
        self.settle()

    @property
    def phase(self) -> str:
        """How it is."""
        return self.experiment.status.phase

    def sizes(self) -> dict[str, int]:
        """Return how many pods each set is to have."""
        return {name: found.spec.replicas or 0 for name, found in self.sets.items()}
