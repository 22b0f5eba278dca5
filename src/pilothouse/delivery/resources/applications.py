"""Application, AppProject and ApplicationSet of `argoproj.io/v1alpha1`, with Argo CD's fields.

Fields that Argo has and these classes do not model are kept, by servers too. As in Argo, the status of an Application
is a part of the object, not a subresource. Facts: Argo CD's definitions and documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pilothouse.kinds.structs import IntOrString, Resource, Struct, field
from pilothouse.operator import PreserveUnknown, PrinterColumn, custom_resource

__all__ = [
    "AppProject",
    "AppProjectSpec",
    "Application",
    "ApplicationSet",
    "ApplicationSetSpec",
    "ApplicationSpec",
    "ApplicationStatus",
    "Automated",
    "Backoff",
    "Destination",
    "Health",
    "History",
    "IgnoreDifferences",
    "Operation",
    "OperationState",
    "OperationSync",
    "ResourceResult",
    "ResourceStatus",
    "Retry",
    "Source",
    "SourceDirectory",
    "SourceHelm",
    "SourceKustomize",
    "SyncPolicy",
    "SyncResult",
    "SyncStatus",
    "SyncWindow",
]

Free = Annotated[Mapping[str, Any], PreserveUnknown()]
"""Anything: kept, not looked at by the schema."""


class HelmParameter(Struct):
    """A value given to Helm by `--set`, or `--set-string` with force_string."""

    name: str = ""
    value: str = ""
    force_string: bool | None = None


class HelmFileParameter(Struct):
    """A value given to Helm out of a file of the repository."""

    name: str = ""
    path: str = ""


class SourceHelm(Struct):
    """How a chart is rendered."""

    value_files: Sequence[str] = ()
    parameters: Sequence[HelmParameter] = ()
    file_parameters: Sequence[HelmFileParameter] = ()
    release_name: str = ""
    values: str = ""
    values_object: Free | None = None
    ignore_missing_value_files: bool | None = None
    skip_crds: bool | None = None
    skip_schema_validation: bool | None = None
    skip_tests: bool | None = None
    pass_credentials: bool | None = None
    version: str = ""
    kube_version: str = ""
    api_versions: Sequence[str] = ()
    namespace: str = ""


class KustomizeReplica(Struct):
    """How many replicas a workload has."""

    name: str = ""
    count: IntOrString = 0


class SourceKustomize(Struct):
    """How an overlay is rendered, besides its own kustomization."""

    name_prefix: str = ""
    name_suffix: str = ""
    images: Sequence[str] = ()
    common_labels: Mapping[str, str] = {}
    common_annotations: Mapping[str, str] = {}
    common_annotations_envsubst: bool | None = None
    force_common_labels: bool | None = None
    force_common_annotations: bool | None = None
    label_without_selector: bool | None = None
    label_include_templates: bool | None = None
    namespace: str = ""
    replicas: Sequence[KustomizeReplica] = ()
    patches: Sequence[Free] = ()
    components: Sequence[str] = ()
    ignore_missing_components: bool | None = None
    version: str = ""
    kube_version: str = ""
    api_versions: Sequence[str] = ()


class SourceDirectory(Struct):
    """Which files of a directory are manifests. include, exclude: globs, several as `{a,b}`."""

    recurse: bool | None = None
    include: str = ""
    exclude: str = ""
    jsonnet: Free | None = None


class Source(Struct):
    """Where manifests are: a repository, a revision and a path, or a chart of a chart repository."""

    repo_url: str = field(default="", name="repoURL")
    path: str = ""
    target_revision: str = ""
    chart: str = ""
    ref: str = ""
    name: str = ""
    helm: Annotated[SourceHelm, PreserveUnknown()] | None = None
    kustomize: Annotated[SourceKustomize, PreserveUnknown()] | None = None
    directory: Annotated[SourceDirectory, PreserveUnknown()] | None = None
    plugin: Free | None = None


class Destination(Struct):
    """Where it goes: a cluster by URL or name, and the namespace of objects that name none."""

    server: str = ""
    name: str = ""
    namespace: str = ""


class Automated(Struct):
    """Whether it is synced by itself."""

    enabled: bool | None = None
    prune: bool | None = None
    self_heal: bool | None = None
    allow_empty: bool | None = None


class Backoff(Struct):
    """Waits between tries: durations as Go writes them, or seconds."""

    duration: str = ""
    factor: int | None = None
    max_duration: str = ""


class Retry(Struct):
    """How often a failed sync is tried again; below 0 without end."""

    limit: int | None = None
    backoff: Backoff | None = None
    refresh: bool | None = None


class SyncPolicy(Struct):
    """When and how it is synced."""

    automated: Annotated[Automated, PreserveUnknown()] | None = None
    sync_options: Sequence[str] = ()
    retry: Annotated[Retry, PreserveUnknown()] | None = None
    managed_namespace_metadata: Free | None = None


class IgnoreDifferences(Struct):
    """Fields of which differences do not count."""

    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    json_pointers: Sequence[str] = ()
    jq_path_expressions: Sequence[str] = ()
    managed_fields_managers: Sequence[str] = ()


class ApplicationSpec(Struct):
    """What an application is."""

    project: str = ""
    source: Annotated[Source, PreserveUnknown()] | None = None
    sources: Sequence[Annotated[Source, PreserveUnknown()]] = ()
    destination: Annotated[Destination, PreserveUnknown()] = Destination()
    sync_policy: Annotated[SyncPolicy, PreserveUnknown()] | None = None
    ignore_differences: Sequence[Annotated[IgnoreDifferences, PreserveUnknown()]] = ()
    info: Sequence[Free] = ()
    revision_history_limit: int | None = None
    source_hydrator: Free | None = None


class OperationSync(Struct):
    """A sync that was asked for."""

    revision: str = ""
    revisions: Sequence[str] = ()
    prune: bool | None = None
    dry_run: bool | None = None
    sync_strategy: Free | None = None
    resources: Sequence[Free] = ()
    source: Annotated[Source, PreserveUnknown()] | None = None
    sources: Sequence[Annotated[Source, PreserveUnknown()]] = ()
    sync_options: Sequence[str] = ()
    self_heal_attempts_count: int | None = None


class InitiatedBy(Struct):
    """Who asked for it."""

    username: str = ""
    automated: bool | None = None


class Operation(Struct):
    """What is to be done now: set by users and tools, taken away when it has begun."""

    sync: Annotated[OperationSync, PreserveUnknown()] | None = None
    initiated_by: InitiatedBy = InitiatedBy()
    info: Sequence[Free] = ()
    retry: Annotated[Retry, PreserveUnknown()] | None = None


class Health(Struct):
    """How an object, or all of them, is."""

    status: str = ""
    message: str = ""
    last_transition_time: str = ""


class ResourceStatus(Struct):
    """How one object of an application compares and is."""

    group: str = ""
    version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    status: str = ""
    health: Health | None = None
    hook: bool | None = None
    requires_pruning: bool | None = None
    requires_deletion_confirmation: bool | None = None
    sync_wave: int | None = None


class ResourceResult(Struct):
    """What a sync did to one object."""

    group: str = ""
    version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    status: str = ""
    message: str = ""
    hook_type: str = ""
    hook_phase: str = ""
    sync_phase: str = ""
    images: Sequence[str] = ()


class SyncResult(Struct):
    """What a sync is or was about, and what it did."""

    revision: str = ""
    revisions: Sequence[str] = ()
    source: Annotated[Source, PreserveUnknown()] | None = None
    sources: Sequence[Annotated[Source, PreserveUnknown()]] = ()
    resources: Sequence[ResourceResult] = ()
    managed_namespace_metadata: Free | None = None


class OperationState(Struct):
    """How the last operation goes or went."""

    operation: Operation = Operation()
    phase: str = ""
    message: str = ""
    sync_result: SyncResult | None = None
    started_at: str = ""
    finished_at: str = ""
    retry_count: int | None = None


class SyncStatus(Struct):
    """Whether the cluster has what git says, and which revision that is."""

    status: str = ""
    revision: str = ""
    revisions: Sequence[str] = ()
    compared_to: Free | None = None


class History(Struct):
    """A sync that went well, to which `rollback` can go."""

    id: int = 0
    revision: str = ""
    revisions: Sequence[str] = ()
    deployed_at: str = ""
    deploy_started_at: str = ""
    source: Annotated[Source, PreserveUnknown()] | None = None
    sources: Sequence[Annotated[Source, PreserveUnknown()]] = ()
    initiated_by: InitiatedBy = InitiatedBy()


class ApplicationCondition(Struct):
    """Something that is not well, or good to know."""

    type: str = ""
    message: str = ""
    last_transition_time: str = ""


class ApplicationStatus(Struct):
    """What the controller found and did last."""

    sync: SyncStatus = SyncStatus()
    health: Health = Health()
    resources: Sequence[ResourceStatus] = ()
    operation_state: Annotated[OperationState, PreserveUnknown()] | None = None
    conditions: Sequence[ApplicationCondition] = ()
    history: Sequence[History] = ()
    reconciled_at: str = ""
    observed_at: str = ""
    source_type: str = ""
    source_types: Sequence[str] = ()
    summary: Free | None = None
    controller_namespace: str = ""


@custom_resource(
    short_names=["app", "apps"],
    status=False,
    columns=[
        PrinterColumn("Sync Status", ".status.sync.status"),
        PrinterColumn("Health Status", ".status.health.status"),
        PrinterColumn("Revision", ".status.sync.revision", priority=10),
        PrinterColumn("Project", ".spec.project", priority=10),
    ],
)
class Application(Resource, group="argoproj.io", version="v1alpha1", plural="applications"):
    """Something that is kept as git says."""

    spec: Annotated[ApplicationSpec, PreserveUnknown()]
    status: Annotated[ApplicationStatus, PreserveUnknown()] = ApplicationStatus()
    operation: Annotated[Operation, PreserveUnknown()] | None = None


class GroupKind(Struct):
    """A kind; `*` stands for any. name: a glob."""

    group: str = ""
    kind: str = ""
    name: str = ""


class SyncWindow(Struct):
    """A time in which syncs are allowed or denied. schedule: cron; duration: as Go writes it."""

    kind: str = ""
    schedule: str = ""
    duration: str = ""
    applications: Sequence[str] = ()
    namespaces: Sequence[str] = ()
    clusters: Sequence[str] = ()
    manual_sync: bool | None = None
    time_zone: str = ""
    use_and_operator: bool | None = field(default=None, name="andOperator")
    sync_overrun: bool | None = None
    description: str | None = None


class SignatureKey(Struct):
    """A GPG key by its id."""

    key_id: str = field(default="", name="keyID")


class AppProjectSpec(Struct):
    """What applications of a project may do."""

    description: str = ""
    source_repos: Sequence[str] = ()
    destinations: Sequence[Destination] = ()
    cluster_resource_whitelist: Sequence[GroupKind] = ()
    cluster_resource_blacklist: Sequence[GroupKind] = ()
    namespace_resource_whitelist: Sequence[GroupKind] = ()
    namespace_resource_blacklist: Sequence[GroupKind] = ()
    source_namespaces: Sequence[str] = ()
    sync_windows: Sequence[SyncWindow] = ()
    signature_keys: Sequence[SignatureKey] = ()
    source_integrity: Free | None = None
    orphaned_resources: Free | None = None
    roles: Sequence[Free] = ()
    permit_only_project_scoped_clusters: bool | None = None
    destination_service_accounts: Sequence[Free] = ()


@custom_resource(short_names=["appproj", "appprojs"], status=False)
class AppProject(Resource, group="argoproj.io", version="v1alpha1", plural="appprojects"):
    """What a group of applications may use, and where they may go."""

    spec: Annotated[AppProjectSpec, PreserveUnknown()]
    status: Free | None = None


class ApplicationSetSpec(Struct):
    """Generators, which give parameters, and the template that is filled in with each set of them."""

    generators: Sequence[Free] = ()
    template: Free = field(default_factory=dict)
    template_patch: str = ""
    go_template: bool | None = None
    go_template_options: Sequence[str] = ()
    sync_policy: Free | None = None
    strategy: Free | None = None
    preserved_fields: Free | None = None
    ignore_application_differences: Sequence[Free] = ()
    apply_nested_selectors: bool | None = None


class ApplicationSetStatus(Struct):
    """What the controller found and did last."""

    conditions: Sequence[Free] = ()
    resources: Sequence[Free] = ()
    application_status: Sequence[Free] = ()


@custom_resource(short_names=["appset", "appsets"])
class ApplicationSet(Resource, group="argoproj.io", version="v1alpha1", plural="applicationsets"):
    """Many applications from one template."""

    spec: Annotated[ApplicationSetSpec, PreserveUnknown()]
    status: Annotated[ApplicationSetStatus, PreserveUnknown()] = ApplicationSetStatus()
