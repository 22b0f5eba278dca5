"""Experiments: which sets, services and analysis runs there are to be, and what the status says. Pure.

As with rollouts the status comes first, and everything else follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pilothouse.delivery.errors import AnalysisInvalid
from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisTemplateSpec, Argument
from pilothouse.delivery.resources.experiments import (
    Experiment,
    ExperimentAnalysis,
    ExperimentAnalysisRun,
    ExperimentStatus,
    ExperimentTemplate,
    TemplateStatus,
)
from pilothouse.kinds import durations, times
from pilothouse.kinds.structs import ReplicaSet, Service, replace

from .actions import (
    Action,
    CreateSet,
    DeleteService,
    Plan,
    StartRun,
    StopRun,
    Tell,
    UpdateSet,
    WriteExperimentStatus,
)
from .experimentobjects import experiment_run, experiment_service, experiment_set
from .names import DEADLINE, EXPERIMENT_TEMPLATE
from .runs import DONE
from .situation import available, deadline_of, hash_label, size
from .view import TemplateKey

__all__ = ["ExperimentView", "decide_experiment", "is_terminating"]

_DEADLINE_SECONDS: Final = 600
_DELAY_SECONDS: Final = 30
_ENDED: Final = frozenset({"Successful", "Failed", "Error"})
_ORDER: Final = ("Successful", "Running", "Progressing", "Error", "Failed")
_RUN_ORDER: Final = ("Successful", "Running", "Pending", "", "Inconclusive", "Error", "Failed")
_PHASES: Final = {"Progressing": "Pending"}
_PLACEHOLDER: Final = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """The objects of one experiment. sets, services, runs: those that it controls. templates: those it names."""

    experiment: Experiment
    sets: Sequence[ReplicaSet] = ()
    services: Sequence[Service] = ()
    runs: Sequence[AnalysisRun] = ()
    templates: Mapping[TemplateKey, AnalysisTemplateSpec] = field(default_factory=dict)


def is_terminating(experiment: Experiment, status: ExperimentStatus) -> bool:
    """Whether its pods are to go: it is told to, it has ended, or one of its parts has decided it."""
    return (
        bool(experiment.spec.terminate)
        or status.phase in DONE
        or any(one.status in {"Failed", "Error"} for one in status.template_statuses)
        or any(one.phase in {"Failed", "Error", "Inconclusive"} for one in status.analysis_runs)
        or _required_are_done(experiment, status)
    )


def decide_experiment(view: ExperimentView, now: datetime) -> Plan:
    """Return what to do next about an experiment; nothing where it is as it is to be."""
    if view.experiment.metadata.deletion_timestamp is not None:
        return Plan()
    work = _Work(view, now)
    status, plan = work.status(), Plan()
    if status != view.experiment.status:
        plan.actions.append(WriteExperimentStatus(status))
        plan.actions += work.told(status)
    plan.actions += work.actions(status, plan)
    return plan


def _required_are_done(experiment: Experiment, status: ExperimentStatus) -> bool:
    required = [one.name for one in experiment.spec.analyses if one.required_for_completion]
    phases = {one.name: one.phase for one in status.analysis_runs}
    return bool(required) and all(phases.get(name) == "Successful" for name in required)


class _Work:
    """One decision in the making."""

    def __init__(self, view: ExperimentView, now: datetime) -> None:
        self.view = view
        self.now = now
        self.experiment = view.experiment
        self.spec = view.experiment.spec
        self.before = view.experiment.status
        self.is_ending = is_terminating(self.experiment, self.before)
        self.sets = {found.metadata.annotations.get(EXPERIMENT_TEMPLATE, ""): found for found in view.sets}
        self.services = {one.metadata.annotations.get(EXPERIMENT_TEMPLATE, ""): one for one in view.services}

    # The status

    def status(self) -> ExperimentStatus:
        """Return what the status becomes."""
        status = replace(
            self.before,
            template_statuses=tuple(map(self._template, self.spec.templates)),
            analysis_runs=tuple(run for run in map(self._run, self.spec.analyses) if run is not None),
        )
        if self.before.phase in DONE:
            return status
        if not self.before.phase:
            return replace(status, phase="Pending")
        templates, why = _worst([(one.status or "", one.message) for one in status.template_statuses], _ORDER)
        templates = _PHASES.get(templates, templates)
        if templates == "Running" and status.available_at is None:
            status = replace(status, available_at=self._stamp())
        phase, message = self._phase(status, templates, why)
        return replace(status, phase=phase, message=message or None)

    def _phase(self, status: ExperimentStatus, templates: str, why: str) -> tuple[str, str]:
        runs, said = _worst([(one.phase, one.message) for one in status.analysis_runs], _RUN_ORDER)
        if _required_are_done(self.experiment, status) and runs in {"Running", "Pending", ""}:
            runs, said = "Successful", "Required Analysis Runs Completed"
        runs = "Running" if runs in {"Pending", ""} else runs
        is_required = any(one.required_for_completion for one in self.spec.analyses)
        if templates in DONE:
            waits = not (runs in DONE or is_required)
            return (templates, why) if templates != "Successful" or waits else (runs, said)
        if runs in DONE and runs != "Successful":
            return runs, said
        return (runs, said) if _required_are_done(self.experiment, status) else (templates, why)

    def _template(self, wanted: ExperimentTemplate) -> TemplateStatus:
        found = self.sets.get(wanted.name)
        there = next((one for one in self.before.template_statuses if one.name == wanted.name), None)
        before = there or TemplateStatus(name=wanted.name)
        service = self.services.get(wanted.name)
        counts = {
            "replicas": 0 if found is None else found.status.replicas,
            "updated_replicas": 0 if found is None else found.status.replicas,
            "ready_replicas": 0 if found is None else found.status.ready_replicas,
            "available_replicas": available(found),
        }
        moved = there is None or any(getattr(before, name) != value for name, value in counts.items())
        made = replace(
            before,
            **counts,
            last_transition_time=self._stamp() if moved else before.last_transition_time,
            service_name=None if service is None else service.metadata.name,
            pod_template_hash=None if service is None else hash_label(found) or None,
        )
        return made if made.status in _ENDED else self._judged(made, wanted, found)

    def _judged(self, made: TemplateStatus, wanted: ExperimentTemplate, found: ReplicaSet | None) -> TemplateStatus:
        desired = 0 if self.is_ending else _replicas(wanted)
        if self.is_ending or self._is_over():
            return replace(made, status="Successful")
        if found is not None and desired == available(found):
            return replace(made, status="Running")
        limit = self.spec.progress_deadline_seconds
        limit = _DEADLINE_SECONDS if limit is None else limit
        if self._since(made.last_transition_time) > limit:
            message = f"Template '{wanted.name}' exceeded its progressDeadlineSeconds ({limit})"
            return replace(made, status="Failed", message=message)
        return replace(made, status="Progressing")

    def _is_over(self) -> bool:
        left = self._left()
        return left is not None and left <= 0

    def _left(self) -> float | None:
        """Return the seconds until the experiment's time is over; None where it has no end or has not begun."""
        if not self.spec.duration or self.before.available_at is None:
            return None
        text = self.spec.duration
        seconds = float(text) if text.isdecimal() else durations.parse(text) / 1e9
        return seconds - self._since(self.before.available_at)

    def _run(self, wanted: ExperimentAnalysis) -> ExperimentAnalysisRun | None:
        there = next((one for one in self.before.analysis_runs if one.name == wanted.name), None)
        if there is None:
            return self._begun(wanted)
        run = next((one for one in self.view.runs if one.metadata.name == there.analysis_run), None)
        if there.phase in DONE or run is None:
            return there
        return replace(there, phase=run.status.phase or there.phase, message=run.status.message or None)

    def _begun(self, wanted: ExperimentAnalysis) -> ExperimentAnalysisRun | None:
        """Name the run of an analysis, once all pods are there; that it is named makes it be made."""
        key = TemplateKey(bool(wanted.cluster_scope), wanted.template_name)
        if key not in self.view.templates:
            message = f"{'ClusterAnalysisTemplate' if key.cluster else 'AnalysisTemplate'} '{key.name}' is not there"
            return ExperimentAnalysisRun(name=wanted.name, analysis_run="", phase="Error", message=message)
        if self.before.available_at is None or self.is_ending:
            return None
        name = f"{self.experiment.metadata.name}-{wanted.name}"
        return ExperimentAnalysisRun(name=wanted.name, analysis_run=name, phase="Pending")

    def told(self, status: ExperimentStatus) -> list[Action]:
        """Return what users are told of a change."""
        before = {one.name: one.status for one in self.before.template_statuses}
        made: list[Action] = []
        for one in status.template_statuses:
            if one.status != before.get(one.name):
                message = f"Template '{one.name}' transitioned from {before.get(one.name) or '-'} -> {one.status}"
                message += f": {one.message}" if one.message else ""
                made.append(Tell(f"Template{one.status}", message, one.status in {"Failed", "Error"}))
        if status.phase in DONE and self.before.phase != status.phase:
            message = f"Experiment is {status.phase}" + (f": {status.message}" if status.message else "")
            made.append(Tell(f"Experiment{status.phase}", message, status.phase != "Successful"))
        return made

    # What follows from it

    def actions(self, status: ExperimentStatus, plan: Plan) -> list[Action]:
        """Return what makes sets, services and runs those that a status asks for."""
        ends = is_terminating(self.experiment, status)
        made: list[Action] = []
        ended = {one.name for one in status.template_statuses if one.status in _ENDED}
        for wanted in self.spec.templates:
            count = 0 if ends or wanted.name in ended else _replicas(wanted)
            made += self._of_template(wanted, count, plan)
        made += self._of_runs(status, ends=ends)
        self._wait(status, plan, ends=ends)
        return made

    def _of_template(self, wanted: ExperimentTemplate, count: int, plan: Plan) -> list[Action]:
        found = self.sets.get(wanted.name)
        service = self.services.get(wanted.name)
        if found is None and count:
            return [CreateSet(experiment_set(self.experiment, wanted, count))]
        if found is None:
            return [] if service is None else [DeleteService(service)]
        made: list[Action] = []
        if count and wanted.service is not None and service is None:
            made += experiment_service(self.experiment, wanted, found)
        if not count and service is not None and not available(found):
            made.append(DeleteService(service))
        changed = self._delayed(found, plan) if not count else _sized(found, count)
        if changed != found:
            told = ""
            if size(changed) != size(found):
                told = f"Scaled ReplicaSet {found.metadata.name} from {size(found)} to {size(changed)}"
            made.append(UpdateSet(changed, told))
        return made

    def _delayed(self, found: ReplicaSet, plan: Plan) -> ReplicaSet:
        """Return a set that loses its pods after a while, which whoever sends traffic there needs."""
        if not size(found):
            return found
        given = self.spec.scale_down_delay_seconds
        delay = _DELAY_SECONDS if given is None else given
        deadline = deadline_of(found)
        if delay and deadline is None:
            plan.wait(delay)
            stamp = times.format_seconds(self.now + timedelta(seconds=delay))
            return replace(found, metadata__annotations={**found.metadata.annotations, DEADLINE: stamp})
        left = 0.0 if deadline is None else (deadline - self.now).total_seconds()
        if left > 0:
            plan.wait(left)
            return found
        return _sized(found, 0)

    def _of_runs(self, status: ExperimentStatus, *, ends: bool) -> list[Action]:
        runs = {run.metadata.name: run for run in self.view.runs}
        analyses = {one.name: one for one in self.spec.analyses}
        made: list[Action] = []
        for one in status.analysis_runs:
            run = runs.get(one.analysis_run)
            if one.phase in DONE or one.name not in analyses:
                continue
            if run is None and not ends:
                made.append(StartRun(self._analysis_run(analyses[one.name], one.analysis_run)))
            elif run is not None and ends and run.status.phase not in DONE and not run.spec.terminate:
                made.append(StopRun(run.metadata.name))
        return made

    def _wait(self, status: ExperimentStatus, plan: Plan, *, ends: bool) -> None:
        if ends:
            return
        left = self._left()
        if left is not None:
            plan.wait(left)
        limit = self.spec.progress_deadline_seconds
        for one in status.template_statuses:
            if one.status == "Progressing":
                since = self._since(one.last_transition_time)
                plan.wait((_DEADLINE_SECONDS if limit is None else limit) - since + 1)

    def _analysis_run(self, wanted: ExperimentAnalysis, name: str) -> AnalysisRun:
        given = [
            one if one.value is None else Argument(name=one.name, value=self._filled(one.value)) for one in wanted.args
        ]
        return experiment_run(self.experiment, wanted, name, given, self.view.templates)

    def _filled(self, value: str) -> str:
        """Fill in what an argument says of the experiment: `{{templates.canary.podTemplateHash}}`."""
        known: dict[str, str] = {"experiment.availableAt": self.before.available_at or ""}
        for name, found in self.sets.items():
            known[f"templates.{name}.podTemplateHash"] = hash_label(found)
            known[f"templates.{name}.replicaset.name"] = found.metadata.name
        left = self._left()
        if left is not None:
            known["experiment.finishedAt"] = times.format_seconds(self.now + timedelta(seconds=left))

        def fill(match: re.Match[str]) -> str:
            if match[1] not in known:
                raise AnalysisInvalid(f"experiment {self.experiment.metadata.name}: {match[0]}: want one of {known}")
            return known[match[1]]

        return _PLACEHOLDER.sub(fill, value)

    def _stamp(self) -> str:
        return times.format_seconds(self.now)

    def _since(self, moment: str | None) -> float:
        return 0.0 if not moment else (self.now - times.parse(moment)).total_seconds()


def _replicas(wanted: ExperimentTemplate) -> int:
    return 1 if wanted.replicas is None else wanted.replicas


def _sized(found: ReplicaSet, count: int) -> ReplicaSet:
    return found if size(found) == count else replace(found, spec__replicas=count)


def _worst(found: Sequence[tuple[str, str | None]], order: Sequence[str]) -> tuple[str, str]:
    """Return the worst of several phases, the last in an order, and what was said with it."""
    worst, said = order[0], ""
    for phase, message in found:
        if phase in order and order.index(phase) > order.index(worst):
            worst, said = phase, message or ""
    return worst, said
