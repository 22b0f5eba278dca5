"""Rollouts: how a new version comes to its users, by canary or blue-green. Argo's fields, statuses and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pilothouse.kinds.structs import IntOrString, LabelSelector, PodTemplateSpec, Resource, Struct, field
from pilothouse.operator.crd_markers import Timestamp
from pilothouse.operator.crds import PrinterColumn, Scale, custom_resource

from .analyses import (
    GROUP,
    AnalysisRunArgument,
    AnalysisRunMetadata,
    AnalysisTemplateRef,
    DryRun,
    MeasurementRetention,
)
from .experiments import TemplateService

__all__ = [
    "AntiAffinity",
    "BackgroundAnalysis",
    "BlueGreenStatus",
    "BlueGreenStrategy",
    "CanaryStatus",
    "CanaryStep",
    "CanaryStrategy",
    "ExperimentStep",
    "ExperimentStepAnalysis",
    "ExperimentStepTemplate",
    "HeaderMatch",
    "ManagedRoute",
    "MirrorMatch",
    "Pause",
    "PauseCondition",
    "PingPong",
    "PluginStep",
    "PodMetadata",
    "PreferredAntiAffinity",
    "ReplicaProgressThreshold",
    "RollbackWindow",
    "Rollout",
    "RolloutAnalysis",
    "RolloutCondition",
    "RolloutDuration",
    "RolloutSpec",
    "RolloutStatus",
    "RolloutStrategy",
    "RunHistory",
    "RunStatus",
    "SetCanaryScale",
    "SetHeaderRoute",
    "SetMirrorRoute",
    "StepPluginStatus",
    "StringMatch",
    "TrafficRouting",
    "TrafficWeights",
    "WeightDestination",
    "WorkloadRef",
]

_Open = Mapping[str, Any]
"""What is kept as it is."""

# Analysis


class RolloutAnalysis(Struct):
    """`analysis`: templates, and what they are given."""

    templates: Sequence[AnalysisTemplateRef] = ()
    args: Sequence[AnalysisRunArgument] = ()
    dry_run: Sequence[DryRun] = ()
    measurement_retention: Sequence[MeasurementRetention] = ()
    analysis_run_metadata: AnalysisRunMetadata | None = None


class BackgroundAnalysis(RolloutAnalysis):
    """`canary.analysis`: goes on beside the steps. starting_step: the index of the step that it begins with."""

    starting_step: int | None = None


# Steps


class Pause(Struct):
    """`pause`: so long (`30`, `"30"`, `10m`), or until somebody promotes."""

    duration: IntOrString | None = None


class SetCanaryScale(Struct):
    """`setCanaryScale`: pods of the canary, whatever its weight; one of them."""

    replicas: int | None = None
    weight: int | None = None
    match_traffic_weight: bool | None = None


class StringMatch(Struct):
    """`exact`, `prefix` or `regex`."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class HeaderMatch(Struct):
    """`match[]` of setHeaderRoute."""

    header_name: str
    header_value: StringMatch


class SetHeaderRoute(Struct):
    """`setHeaderRoute`: requests with these headers go to the canary; without `match` no more."""

    name: str | None = None
    match: Sequence[HeaderMatch] = ()


class MirrorMatch(Struct):
    """`match[]` of setMirrorRoute."""

    method: StringMatch | None = None
    path: StringMatch | None = None
    headers: Mapping[str, StringMatch] = {}


class SetMirrorRoute(Struct):
    """`setMirrorRoute`: the canary gets copies of such requests; without `match` no more."""

    name: str
    percentage: int | None = None
    match: Sequence[MirrorMatch] = ()


class PluginStep(Struct):
    """`plugin`: a step that a plugin makes."""

    name: str
    config: _Open | None = None


class ExperimentStepTemplate(Struct):
    """`templates[]` of an experiment step. spec_ref: stable or canary."""

    name: str
    spec_ref: str
    replicas: int | None = None
    metadata: AnalysisRunMetadata | None = None
    selector: LabelSelector | None = None
    weight: int | None = None
    service: TemplateService | None = None


class ExperimentStepAnalysis(Struct):
    """`analyses[]` of an experiment step."""

    name: str
    template_name: str
    cluster_scope: bool | None = None
    args: Sequence[AnalysisRunArgument] = ()
    required_for_completion: bool | None = None


class ExperimentStep(Struct):
    """`experiment`."""

    templates: Sequence[ExperimentStepTemplate]
    duration: str | None = None
    analyses: Sequence[ExperimentStepAnalysis] = ()
    scale_down_delay_seconds: int | None = None
    dry_run: Sequence[DryRun] = ()
    analysis_run_metadata: AnalysisRunMetadata | None = None


class CanaryStep(Struct):
    """`steps[]`: one of them."""

    set_weight: int | None = None
    pause: Pause | None = None
    experiment: ExperimentStep | None = None
    analysis: RolloutAnalysis | None = None
    set_canary_scale: SetCanaryScale | None = None
    set_header_route: SetHeaderRoute | None = None
    set_mirror_route: SetMirrorRoute | None = None
    plugin: PluginStep | None = None


# Strategies


class ManagedRoute(Struct):
    """`managedRoutes[]`: routes that steps may make, the first the strongest."""

    name: str


class TrafficRouting(Struct):
    """`trafficRouting`: what splits the traffic. `plugins` has Gateway API routes; others are kept, not acted on."""

    plugins: _Open | None = None
    managed_routes: Sequence[ManagedRoute] = ()
    max_traffic_weight: int | None = None
    alb: _Open | None = None
    ambassador: _Open | None = None
    apisix: _Open | None = None
    app_mesh: _Open | None = None
    istio: _Open | None = None
    nginx: _Open | None = None
    smi: _Open | None = None
    traefik: _Open | None = None


class PodMetadata(Struct):
    """Labels and annotations that pods have while they are of one kind."""

    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class PreferredAntiAffinity(Struct):
    """`preferredDuringSchedulingIgnoredDuringExecution`."""

    weight: int


class AntiAffinity(Struct):
    """`antiAffinity`: new pods keep away from stable ones; one of them."""

    preferred_during_scheduling_ignored_during_execution: PreferredAntiAffinity | None = None
    required_during_scheduling_ignored_during_execution: _Open | None = None


class PingPong(Struct):
    """`pingPong`: two services that take turns in being stable."""

    ping_service: str
    pong_service: str


class ReplicaProgressThreshold(Struct):
    """`replicaProgressThreshold`: how much of the canary has to be available. type: Percent or Pods."""

    type: str
    value: int


class CanaryStrategy(Struct):
    """`canary`."""

    canary_service: str | None = None
    stable_service: str | None = None
    steps: Sequence[CanaryStep] = ()
    traffic_routing: TrafficRouting | None = None
    max_unavailable: IntOrString | None = None
    max_surge: IntOrString | None = None
    analysis: BackgroundAnalysis | None = None
    anti_affinity: AntiAffinity | None = None
    canary_metadata: PodMetadata | None = None
    stable_metadata: PodMetadata | None = None
    scale_down_delay_seconds: int | None = None
    scale_down_delay_revision_limit: int | None = None
    abort_scale_down_delay_seconds: int | None = None
    dynamic_stable_scale: bool | None = None
    ping_pong: PingPong | None = None
    min_pods_per_replica_set: int | None = None
    replica_progress_threshold: ReplicaProgressThreshold | None = None


class BlueGreenStrategy(Struct):
    """`blueGreen`."""

    active_service: str
    preview_service: str | None = None
    preview_replica_count: int | None = None
    auto_promotion_enabled: bool | None = None
    auto_promotion_seconds: int | None = None
    max_unavailable: IntOrString | None = None
    scale_down_delay_seconds: int | None = None
    scale_down_delay_revision_limit: int | None = None
    abort_scale_down_delay_seconds: int | None = None
    pre_promotion_analysis: RolloutAnalysis | None = None
    post_promotion_analysis: RolloutAnalysis | None = None
    anti_affinity: AntiAffinity | None = None
    active_metadata: PodMetadata | None = None
    preview_metadata: PodMetadata | None = None


class RolloutStrategy(Struct):
    """`strategy`: one of them."""

    canary: CanaryStrategy | None = None
    blue_green: BlueGreenStrategy | None = None


# The rollout


class WorkloadRef(Struct):
    """`workloadRef`: an object whose pod template is rolled out. scale_down: never, onsuccess or progressively."""

    api_version: str | None = None
    kind: str | None = None
    name: str | None = None
    scale_down: str | None = None


class RollbackWindow(Struct):
    """`rollbackWindow`: how many revisions back steps are skipped."""

    revisions: int | None = None


class RunHistory(Struct):
    """`analysis` of the rollout: how many runs are kept."""

    successful_run_history_limit: int | None = None
    unsuccessful_run_history_limit: int | None = None


class RolloutSpec(Struct):
    """`spec` of Rollout."""

    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplateSpec | None = None
    workload_ref: WorkloadRef | None = None
    strategy: RolloutStrategy = RolloutStrategy()
    min_ready_seconds: int | None = None
    revision_history_limit: int | None = None
    paused: bool | None = None
    progress_deadline_seconds: int | None = None
    progress_deadline_abort: bool | None = None
    restart_at: Timestamp | None = None
    rollback_window: RollbackWindow | None = None
    analysis: RunHistory | None = None


class RunStatus(Struct):
    """The analysis run that counts now, and how it is."""

    name: str
    status: str
    message: str | None = None


class WeightDestination(Struct):
    """A share of the traffic."""

    weight: int
    service_name: str | None = None
    pod_template_hash: str | None = None


class TrafficWeights(Struct):
    """`weights`: how traffic is split."""

    canary: WeightDestination
    stable: WeightDestination
    additional: Sequence[WeightDestination] = ()
    verified: bool | None = None


class StepPluginStatus(Struct):
    """`stepPluginStatuses[]`."""

    index: int
    name: str
    operation: str
    phase: str | None = None
    message: str | None = None
    started_at: Timestamp | None = None
    updated_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    backoff: str | None = None
    executions: int | None = None
    disabled: bool | None = None
    status: _Open | None = None


class CanaryStatus(Struct):
    """`canary` of the status."""

    weights: TrafficWeights | None = None
    current_step_analysis_run_status: RunStatus | None = None
    current_background_analysis_run_status: RunStatus | None = None
    current_experiment: str | None = None
    stable_ping_pong: str | None = None
    step_plugin_statuses: Sequence[StepPluginStatus] = ()


class BlueGreenStatus(Struct):
    """`blueGreen` of the status."""

    active_selector: str | None = None
    preview_selector: str | None = None
    scale_up_preview_check_point: bool | None = None
    pre_promotion_analysis_run_status: RunStatus | None = None
    post_promotion_analysis_run_status: RunStatus | None = None


class PauseCondition(Struct):
    """`pauseConditions[]`."""

    reason: str
    start_time: Timestamp


class RolloutCondition(Struct):
    """`conditions[]` of RolloutStatus."""

    type: str
    status: str
    last_update_time: Timestamp
    last_transition_time: Timestamp
    reason: str
    message: str


class RolloutDuration(Struct):
    """`duration`: when an update began and ended."""

    rollout_started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    completion_status: str | None = None
    manual_pause_started_at: Timestamp | None = None
    total_manual_pause_duration_seconds: int | None = None


class RolloutStatus(Struct):
    """`status` of Rollout. phase: Healthy, Progressing, Paused or Degraded."""

    phase: str | None = None
    message: str | None = None
    observed_generation: str | None = None
    workload_observed_generation: str | None = None
    current_pod_hash: str | None = None
    current_step_hash: str | None = None
    current_step_index: int | None = None
    stable_rs: str | None = field(default=None, name="stableRS")
    replicas: int | None = None
    updated_replicas: int | None = None
    ready_replicas: int | None = None
    available_replicas: int | None = None
    hpa_replicas: int | None = field(default=None, name="HPAReplicas")
    selector: str | None = None
    collision_count: int | None = None
    abort: bool | None = None
    aborted_at: Timestamp | None = None
    pause_conditions: Sequence[PauseCondition] = ()
    controller_pause: bool | None = None
    promote_full: bool | None = None
    restarted_at: Timestamp | None = None
    conditions: Sequence[RolloutCondition] = ()
    canary: CanaryStatus = CanaryStatus()
    blue_green: BlueGreenStatus = BlueGreenStatus()
    duration: RolloutDuration | None = None
    alb: _Open | None = None
    albs: Sequence[_Open] = ()


def _count(name: str, path: str, description: str) -> PrinterColumn:
    return PrinterColumn(name, path, "integer", description=description)


_COLUMNS: Final = (
    _count("Desired", ".spec.replicas", "Number of desired pods"),
    _count("Current", ".status.replicas", "Pods of this rollout that have not ended"),
    _count("Up-to-date", ".status.updatedReplicas", "Pods of the present template"),
    _count("Available", ".status.availableReplicas", "Pods that have been ready for minReadySeconds"),
    PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
)


@custom_resource(
    short_names=["ro"],
    scale=Scale(status_replicas=".status.HPAReplicas", selector=".status.selector"),
    columns=_COLUMNS,
)
class Rollout(Resource, group=GROUP, version="v1alpha1", plural="rollouts"):
    """A workload of which new versions come step by step."""

    spec: RolloutSpec
    status: RolloutStatus = RolloutStatus()
