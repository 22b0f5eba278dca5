"""The experiment step: which experiment is made, what it says, and which are done with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pilothouse.delivery.errors import AnalysisInvalid
from pilothouse.delivery.resources.experiments import (
    Experiment,
    ExperimentAnalysis,
    ExperimentSpec,
    ExperimentTemplate,
    TemplateService,
)
from pilothouse.delivery.resources.rollouts import ExperimentStep, ExperimentStepTemplate
from pilothouse.kinds.structs import ObjectMeta, ReplicaSet, from_dict, to_dict
from pilothouse.operator.owners import owner_reference

from .actions import Action, DeleteExperiment, StartExperiment, StopExperiment, Tell
from .analysisruns import given_arguments, metadata_of
from .names import HASH, INSTANCE, REVISION
from .runs import DONE
from .situation import Situation, hash_label

__all__ = ["experiment_actions", "experiment_verdict", "named_experiment"]

_KEPT: Final = 5


def named_experiment(sit: Situation) -> str:
    """Return the name for the experiment of the present step; that the status names it makes it be made."""
    taken = {one.metadata.name for one in sit.view.experiments}
    base = f"{sit.name}-{sit.hash}-{sit.revision}-{sit.index}"
    return next(name for name in _numbered(base) if name not in taken)


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 0
    while True:
        number += 1
        yield f"{base}-{number}"


def _current(sit: Situation) -> Experiment | None:
    name = sit.status.canary.current_experiment
    return next((one for one in sit.view.experiments if one.metadata.name == name), None)


def experiment_verdict(sit: Situation) -> tuple[str, str]:
    """Return what follows from the present experiment: "abort", "pause" or nothing, and why."""
    found = _current(sit)
    phase = "" if found is None else found.status.phase
    if found is not None and phase in {"Failed", "Error"}:
        message = "Experiment analysis phase is error/failed"
        return "abort", message + (f": {found.status.message}" if found.status.message else "")
    return ("pause" if phase == "Inconclusive" else ""), ""


def experiment_actions(sit: Situation) -> list[Action]:
    """Return what makes experiments those that the status names. Raises AnalysisInvalid."""
    name, step = sit.status.canary.current_experiment, sit.step
    made: list[Action] = []
    if name and _current(sit) is None and step is not None and step.experiment is not None:
        made.append(StartExperiment(_experiment(sit, name, step.experiment)))
        made.append(Tell("ExperimentCreated", f"Created Experiment '{name}'"))
    left = [one for one in sit.view.experiments if one.metadata.name != name]
    left = [one for one in left if one.metadata.deletion_timestamp is None]
    running = [one for one in left if one.status.phase not in DONE and not one.spec.terminate]
    made += [StopExperiment(one.metadata.name) for one in running]
    return [*made, *(DeleteExperiment(one) for one in _superfluous(sit, left))]


def _superfluous(sit: Situation, left: list[Experiment]) -> list[Experiment]:
    limits = sit.spec.analysis
    good = None if limits is None else limits.successful_run_history_limit
    bad = None if limits is None else limits.unsuccessful_run_history_limit
    ended = [one for one in left if one.status.phase in DONE]
    ended.sort(key=lambda one: (one.metadata.creation_timestamp or "", one.metadata.name), reverse=True)
    there = {hash_label(found) for found in sit.sets}
    kept = [one for one in ended if one.metadata.labels.get(HASH, "") in there]
    well = [one for one in kept if one.status.phase == "Successful"]
    ill = [one for one in kept if one.status.phase != "Successful"]
    beyond = [*well[_KEPT if good is None else good :], *ill[_KEPT if bad is None else bad :]]
    return [*(one for one in ended if one not in kept), *beyond]


def _experiment(sit: Situation, name: str, step: ExperimentStep) -> Experiment:
    labels = {**sit.rollout.metadata.labels, HASH: sit.hash}
    if instance := sit.rollout.metadata.labels.get(INSTANCE):
        labels[INSTANCE] = instance
    hashes = {"Latest": sit.hash, "Stable": sit.status.stable_rs or ""}
    return Experiment(
        metadata=ObjectMeta(
            name=name,
            namespace=sit.namespace,
            labels=labels,
            annotations={REVISION: str(sit.revision)},
            owner_references=(owner_reference(sit.rollout),),
        ),
        spec=ExperimentSpec(
            templates=[_template(sit, one) for one in step.templates],
            duration=step.duration,
            progress_deadline_seconds=sit.spec.progress_deadline_seconds,
            scale_down_delay_seconds=step.scale_down_delay_seconds,
            dry_run=step.dry_run,
            analysis_run_metadata=step.analysis_run_metadata,
            analyses=[
                ExperimentAnalysis(
                    name=one.name,
                    template_name=one.template_name,
                    cluster_scope=one.cluster_scope,
                    args=given_arguments(one.args, sit.rollout, hashes),
                    required_for_completion=one.required_for_completion,
                )
                for one in step.analyses
            ],
        ),
    )


def _template(sit: Situation, wanted: ExperimentStepTemplate) -> ExperimentTemplate:
    source: ReplicaSet | None = {"canary": sit.new, "stable": sit.stable}.get(wanted.spec_ref)
    if source is None:
        raise AnalysisInvalid(
            f"experiment template '{wanted.name}': specRef '{wanted.spec_ref}': there is no such version"
        )
    tree: dict[str, Any] = to_dict(source.spec.template)
    selector: dict[str, Any] = to_dict(source.spec.selector if wanted.selector is None else wanted.selector)
    extra = metadata_of(wanted.metadata)
    metadata = tree.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **extra.labels}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **extra.annotations}
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **extra.labels}
    has_service = wanted.weight is not None or wanted.service is not None
    service = wanted.service or TemplateService()
    return ExperimentTemplate(
        name=wanted.name,
        replicas=wanted.replicas,
        min_ready_seconds=source.spec.min_ready_seconds or None,
        service=service if has_service else None,
        selector=from_dict(selector, type(source.spec.selector)),
        template=from_dict(tree, type(source.spec.template)),
    )
