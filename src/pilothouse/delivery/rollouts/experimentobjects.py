"""What an experiment is made of: sets, services and analysis runs that nobody else takes for theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisTemplateRef, AnalysisTemplateSpec, Argument
from pilothouse.delivery.resources.experiments import Experiment, ExperimentAnalysis, ExperimentTemplate
from pilothouse.kinds.structs import (
    ObjectMeta,
    PodTemplateSpec,
    ReplicaSet,
    Service,
    ServicePort,
    ServiceSpec,
    from_dict,
    to_dict,
)
from pilothouse.kinds.structs.apps import ReplicaSetSpec
from pilothouse.operator.owners import owner_reference

from .actions import Action, CreateService
from .analysisruns import metadata_of, run_spec
from .names import EXPERIMENT_NAME, EXPERIMENT_TEMPLATE, HASH, INSTANCE
from .templates import hash_of, hash_text
from .view import TemplateKey

__all__ = ["experiment_run", "experiment_service", "experiment_set"]


def experiment_set(experiment: Experiment, wanted: ExperimentTemplate, count: int) -> ReplicaSet:
    """Return the set of a template."""
    tree: dict[str, Any] = to_dict(wanted.template)
    metadata = tree.setdefault("metadata", {})
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HASH}
    name = f"{experiment.metadata.name}-{wanted.name}"
    plain = from_dict({**tree, "metadata": {**metadata, "labels": labels}}, PodTemplateSpec)
    # Another hash than that of the set with the same template: no selector of both may take the other's pods.
    named = hash_text(f"{name}/{hash_of(plain)}".encode())
    metadata["labels"] = {**labels, HASH: named}
    selector: dict[str, Any] = to_dict(wanted.selector)
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH: named}
    spec = {
        "replicas": count,
        "minReadySeconds": wanted.min_ready_seconds or 0,
        "selector": selector,
        "template": tree,
    }
    made = from_dict(spec, ReplicaSetSpec)
    return ReplicaSet(metadata=_metadata(experiment, name, wanted.name, metadata["labels"]), spec=made)


def experiment_service(experiment: Experiment, wanted: ExperimentTemplate, found: ReplicaSet) -> list[Action]:
    """Return what makes the service of a template's set; nothing where its containers have no ports."""
    ports = [
        ServicePort(name=port.name, port=port.container_port, target_port=port.container_port, protocol="TCP")
        for one in found.spec.template.spec.containers
        for port in one.ports
    ]
    if not ports:
        return []
    name = (wanted.service.name if wanted.service is not None else None) or found.metadata.name
    spec = ServiceSpec(selector=dict(found.spec.selector.match_labels), ports=ports)
    return [CreateService(Service(metadata=_metadata(experiment, name, wanted.name, {}), spec=spec))]


def experiment_run(
    experiment: Experiment,
    wanted: ExperimentAnalysis,
    name: str,
    given: Sequence[Argument],
    templates: Mapping[TemplateKey, AnalysisTemplateSpec],
) -> AnalysisRun:
    """Return the run of an analysis. Raises AnalysisInvalid."""
    spec = experiment.spec
    extra = metadata_of(spec.analysis_run_metadata)
    labels = dict(extra.labels)
    if instance := experiment.metadata.labels.get(INSTANCE):
        labels[INSTANCE] = instance
    refs = [AnalysisTemplateRef(template_name=wanted.template_name, cluster_scope=wanted.cluster_scope)]
    return AnalysisRun(
        metadata=ObjectMeta(
            name=name,
            namespace=experiment.metadata.namespace,
            labels=labels,
            annotations=dict(extra.annotations),
            owner_references=(owner_reference(experiment),),
        ),
        spec=run_spec(refs, templates, given, spec.dry_run, spec.measurement_retention),
    )


def _metadata(experiment: Experiment, name: str, template: str, labels: Mapping[str, str]) -> ObjectMeta:
    return ObjectMeta(
        name=name,
        namespace=experiment.metadata.namespace,
        labels=labels,
        annotations={EXPERIMENT_NAME: experiment.metadata.name, EXPERIMENT_TEMPLATE: template},
        owner_references=(owner_reference(experiment),),
    )
