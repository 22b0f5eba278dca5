"""Experiments: versions that run beside each other for a while and are compared. Argo's fields and statuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pilothouse.kinds.structs import LabelSelector, PodTemplateSpec, Resource, Struct
from pilothouse.operator.crd_markers import Timestamp
from pilothouse.operator.crds import PrinterColumn, custom_resource

from .analyses import GROUP, AnalysisRunMetadata, Argument, DryRun, MeasurementRetention

__all__ = [
    "Experiment",
    "ExperimentAnalysis",
    "ExperimentAnalysisRun",
    "ExperimentCondition",
    "ExperimentSpec",
    "ExperimentStatus",
    "ExperimentTemplate",
    "TemplateService",
    "TemplateStatus",
]

_STATUS: Final = PrinterColumn("Status", ".status.phase", "string", description="Experiment status")


class TemplateService(Struct):
    """`service` of a template: its own name, or that of its replica set."""

    name: str | None = None


class ExperimentTemplate(Struct):
    """`templates[]`: a version that runs."""

    name: str
    selector: LabelSelector
    template: PodTemplateSpec
    replicas: int | None = None
    min_ready_seconds: int | None = None
    service: TemplateService | None = None


class ExperimentAnalysis(Struct):
    """`analyses[]`: a template of what is measured."""

    name: str
    template_name: str
    cluster_scope: bool | None = None
    args: Sequence[Argument] = ()
    required_for_completion: bool | None = None


class ExperimentSpec(Struct):
    """`spec` of Experiment."""

    templates: Sequence[ExperimentTemplate]
    duration: str | None = None
    progress_deadline_seconds: int | None = None
    terminate: bool | None = None
    analyses: Sequence[ExperimentAnalysis] = ()
    scale_down_delay_seconds: int | None = None
    dry_run: Sequence[DryRun] = ()
    measurement_retention: Sequence[MeasurementRetention] = ()
    analysis_run_metadata: AnalysisRunMetadata | None = None


class TemplateStatus(Struct):
    """`templateStatuses[]`. status: Progressing, Running, Successful, Failed or Error."""

    name: str
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    collision_count: int | None = None
    last_transition_time: Timestamp | None = None
    message: str | None = None
    pod_template_hash: str | None = None
    service_name: str | None = None
    status: str | None = None


class ExperimentAnalysisRun(Struct):
    """`analysisRuns[]` of the status."""

    name: str
    analysis_run: str
    phase: str
    message: str | None = None


class ExperimentCondition(Struct):
    """`conditions[]` of ExperimentStatus."""

    type: str
    status: str
    last_update_time: Timestamp
    last_transition_time: Timestamp
    reason: str
    message: str


class ExperimentStatus(Struct):
    """`status` of Experiment. phase: Pending, Running, Successful, Failed, Error or Inconclusive."""

    phase: str = ""
    message: str | None = None
    available_at: Timestamp | None = None
    template_statuses: Sequence[TemplateStatus] = ()
    analysis_runs: Sequence[ExperimentAnalysisRun] = ()
    conditions: Sequence[ExperimentCondition] = ()


@custom_resource(
    short_names=["exp"],
    status=False,
    columns=[_STATUS, PrinterColumn("Age", ".metadata.creationTimestamp", "date")],
)
class Experiment(Resource, group=GROUP, version="v1alpha1", plural="experiments"):
    """Versions that run beside each other for a while."""

    spec: ExperimentSpec
    status: ExperimentStatus = ExperimentStatus()
