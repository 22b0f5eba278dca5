"""Analysis: templates of what is measured, and runs that measure it. Argo's fields and statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pilothouse.kinds.structs import IntOrString, Resource, Struct, field
from pilothouse.operator.crd_markers import Timestamp
from pilothouse.operator.crds import PrinterColumn, custom_resource

__all__ = [
    "GROUP",
    "AnalysisRun",
    "AnalysisRunArgument",
    "AnalysisRunMetadata",
    "AnalysisRunSpec",
    "AnalysisRunStatus",
    "AnalysisTemplate",
    "AnalysisTemplateRef",
    "AnalysisTemplateSpec",
    "Argument",
    "ArgumentSource",
    "ArgumentValueFrom",
    "Authentication",
    "BasicAuth",
    "ClusterAnalysisTemplate",
    "DryRun",
    "FieldRef",
    "Header",
    "Measurement",
    "MeasurementRetention",
    "Metric",
    "MetricProvider",
    "MetricResult",
    "OAuth2",
    "PrometheusMetric",
    "RangeQuery",
    "RunSummary",
    "SecretKeyRef",
    "TtlStrategy",
    "WebMetric",
]

GROUP: Final = "argoproj.io"
_AGE: Final = PrinterColumn("Age", ".metadata.creationTimestamp", "date")
_Open = Mapping[str, Any]
"""What is kept as it is."""

# Arguments


class FieldRef(Struct):
    """`fieldRef`: a field of the rollout."""

    field_path: str


class SecretKeyRef(Struct):
    """`secretKeyRef`: a value that only the measurement sees."""

    name: str
    key: str


class ArgumentValueFrom(Struct):
    """`valueFrom` of an argument of a template or a run."""

    field_ref: FieldRef | None = None
    secret_key_ref: SecretKeyRef | None = None


class Argument(Struct):
    """`args[]` of templates and runs."""

    name: str
    value: str | None = None
    value_from: ArgumentValueFrom | None = None


class ArgumentSource(Struct):
    """`valueFrom` of an argument that a rollout gives. pod_template_hash_value: Stable or Latest."""

    pod_template_hash_value: str | None = None
    field_ref: FieldRef | None = None
    secret_key_ref: SecretKeyRef | None = None


class AnalysisRunArgument(Struct):
    """`args[]` that a rollout gives."""

    name: str
    value: str | None = None
    value_from: ArgumentSource | None = None


# What is measured


class Header(Struct):
    """`headers[]` of a request."""

    key: str
    value: str


class BasicAuth(Struct):
    """`basicAuth`."""

    username: str | None = None
    password: str | None = None


class OAuth2(Struct):
    """`oauth2`: client credentials."""

    token_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    scopes: Sequence[str] = ()


class Authentication(Struct):
    """`authentication` of a provider."""

    basic_auth: BasicAuth | None = None
    oauth2: OAuth2 | None = None
    sigv4: _Open | None = None


class RangeQuery(Struct):
    """`rangeQuery`: expressions for begin, end and step."""

    start: str | None = None
    end: str | None = None
    step: str | None = None


class PrometheusMetric(Struct):
    """`prometheus`."""

    address: str | None = None
    query: str | None = None
    authentication: Authentication | None = None
    timeout: int | None = None
    insecure: bool | None = None
    headers: Sequence[Header] = ()
    range_query: RangeQuery | None = None


class WebMetric(Struct):
    """`web`."""

    url: str
    method: str | None = None
    headers: Sequence[Header] = ()
    body: str | None = None
    json_body: _Open | None = None
    json_path: str | None = None
    timeout_seconds: int | None = None
    insecure: bool | None = None
    authentication: Authentication | None = None


class MetricProvider(Struct):
    """`provider`: one of them. Those that are measured elsewhere are kept as they are."""

    prometheus: PrometheusMetric | None = None
    web: WebMetric | None = None
    job: _Open | None = None
    plugin: _Open | None = None
    cloud_watch: _Open | None = None
    datadog: _Open | None = None
    graphite: _Open | None = None
    influxdb: _Open | None = None
    kayenta: _Open | None = None
    new_relic: _Open | None = None
    skywalking: _Open | None = None
    wavefront: _Open | None = None


class Metric(Struct):
    """`metrics[]`."""

    name: str
    provider: MetricProvider
    interval: str | None = None
    initial_delay: str | None = None
    count: IntOrString | None = None
    success_condition: str | None = None
    failure_condition: str | None = None
    failure_limit: IntOrString | None = None
    inconclusive_limit: IntOrString | None = None
    consecutive_error_limit: IntOrString | None = None
    consecutive_success_limit: IntOrString | None = None


class DryRun(Struct):
    """`dryRun[]`: metrics, by a regular expression, that judge nothing."""

    metric_name: str


class MeasurementRetention(Struct):
    """`measurementRetention[]`: how many measurements of metrics, by a regular expression, are kept."""

    metric_name: str
    limit: int


class AnalysisTemplateRef(Struct):
    """`templates[]`: which template is meant."""

    template_name: str | None = None
    cluster_scope: bool | None = None


class AnalysisTemplateSpec(Struct):
    """`spec` of AnalysisTemplate and ClusterAnalysisTemplate."""

    metrics: Sequence[Metric] = ()
    args: Sequence[Argument] = ()
    dry_run: Sequence[DryRun] = ()
    measurement_retention: Sequence[MeasurementRetention] = ()
    templates: Sequence[AnalysisTemplateRef] = ()


@custom_resource(short_names=["at"], columns=[_AGE])
class AnalysisTemplate(Resource, group=GROUP, version="v1alpha1", plural="analysistemplates"):
    """What is measured of a new version."""

    spec: AnalysisTemplateSpec


@custom_resource(short_names=["cat"], columns=[_AGE])
class ClusterAnalysisTemplate(
    Resource, group=GROUP, version="v1alpha1", plural="clusteranalysistemplates", namespaced=False
):
    """What is measured of a new version, for all namespaces."""

    spec: AnalysisTemplateSpec


# Runs


class AnalysisRunMetadata(Struct):
    """`analysisRunMetadata`: what runs carry."""

    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class TtlStrategy(Struct):
    """`ttlStrategy`: after how many seconds a run is deleted."""

    seconds_after_completion: int | None = None
    seconds_after_failure: int | None = None
    seconds_after_success: int | None = None


class AnalysisRunSpec(Struct):
    """`spec` of AnalysisRun."""

    metrics: Sequence[Metric]
    args: Sequence[Argument] = ()
    terminate: bool | None = None
    dry_run: Sequence[DryRun] = ()
    measurement_retention: Sequence[MeasurementRetention] = ()
    ttl_strategy: TtlStrategy | None = None


class RunSummary(Struct):
    """`runSummary` and `dryRunSummary`: metrics by their outcome."""

    count: int | None = None
    successful: int | None = None
    failed: int | None = None
    inconclusive: int | None = None
    error: int | None = None


class Measurement(Struct):
    """`measurements[]`."""

    phase: str
    message: str | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    resume_at: Timestamp | None = None
    value: str | None = None
    metadata: Mapping[str, str] = {}


class MetricResult(Struct):
    """`metricResults[]`."""

    name: str
    phase: str
    measurements: Sequence[Measurement] = ()
    message: str | None = None
    count: int | None = None
    successful: int | None = None
    failed: int | None = None
    inconclusive: int | None = None
    error: int | None = None
    consecutive_error: int | None = None
    consecutive_success: int | None = None
    dry_run: bool | None = None
    metadata: Mapping[str, str] = {}


class AnalysisRunStatus(Struct):
    """`status` of AnalysisRun. phase: Pending, Running, Successful, Failed, Error or Inconclusive."""

    phase: str = ""
    message: str | None = None
    metric_results: Sequence[MetricResult] = ()
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    run_summary: RunSummary | None = None
    dry_run_summary: RunSummary | None = field(default=None, name="dryRunSummary")


@custom_resource(
    short_names=["ar"],
    status=False,
    columns=[PrinterColumn("Status", ".status.phase", "string", description="AnalysisRun status"), _AGE],
)
class AnalysisRun(Resource, group=GROUP, version="v1alpha1", plural="analysisruns"):
    """Measurements of a new version, and the verdict."""

    spec: AnalysisRunSpec
    status: AnalysisRunStatus = AnalysisRunStatus()
