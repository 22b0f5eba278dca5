"""Validation of built-in kinds: what kube-apiserver 1.36 refuses, in its words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pilothouse.kinds.fielderrors import ErrorList
from pilothouse.kinds.validation import (
    access,
    addresses,
    admission,
    allocation,
    certificates,
    claims,
    configuration,
    definitions,
    discovery,
    events,
    flowcontrol,
    jobs,
    jobstatus,
    limits,
    networking,
    nodes,
    other,
    podparts,
    pods,
    policies,
    services,
    small,
    statuses,
    storage,
    workloads,
)
from pilothouse.kinds.validation.metadata import known_finalizers, metadata_create, metadata_update, name_rule

__all__ = ["validate_create", "validate_status_update", "validate_subresource_update", "validate_update"]

_Create = Callable[[ErrorList, dict[str, Any]], None]
_Update = Callable[[ErrorList, dict[str, Any], dict[str, Any]], None]

_ADMISSION = "admissionregistration.k8s.io"
_APPS, _CERTIFICATES, _RESOURCE = "apps", "certificates.k8s.io", "resource.k8s.io"
_FLOW, _NETWORKING, _STORAGE = "flowcontrol.apiserver.k8s.io", "networking.k8s.io", "storage.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_CREATE: dict[tuple[str, str], _Create] = {
    ("", "Binding"): small.binding,
    ("", "Endpoints"): addresses.endpoints,
    ("", "Event"): events.core_event,
    ("", "Node"): nodes.node,
    ("", "PersistentVolume"): storage.volume,
    ("apiregistration.k8s.io", "APIService"): small.api_service,
    ("apps", "ControllerRevision"): small.revision,
    ("authentication.k8s.io", "TokenRequest"): small.token_request,
    ("autoscaling", "Scale"): small.scale,
    ("events.k8s.io", "Event"): events.event,
    (_FLOW, "FlowSchema"): flowcontrol.flow_schema,
    (_FLOW, "PriorityLevelConfiguration"): flowcontrol.priority_level,
    (_NETWORKING, "IPAddress"): addresses.ip_address,
    (_NETWORKING, "IngressClass"): addresses.ingress_class,
    (_NETWORKING, "ServiceCIDR"): addresses.service_network,
    ("node.k8s.io", "RuntimeClass"): nodes.runtime_class,
    (_RESOURCE, "DeviceClass"): allocation.device_class,
    (_RESOURCE, "ResourceClaim"): allocation.claim,
    (_RESOURCE, "ResourceClaimTemplate"): allocation.claim_template,
    (_RESOURCE, "ResourceSlice"): allocation.resource_slice,
    (_STORAGE, "CSIDriver"): storage.csi_driver,
    (_STORAGE, "CSINode"): storage.csi_node,
    (_STORAGE, "CSIStorageCapacity"): storage.capacity,
    (_STORAGE, "VolumeAttachment"): storage.attachment,
    (_STORAGE, "VolumeAttributesClass"): storage.volume_attributes,
    ("", "ConfigMap"): configuration.config_map,
    ("", "LimitRange"): limits.limit_range,
    ("", "Namespace"): configuration.namespace,
    ("", "PersistentVolumeClaim"): claims.claim,
    ("", "Pod"): pods.pod_create,
    ("", "PodTemplate"): workloads.pod_template_object,
    ("", "ReplicationController"): workloads.replication_controller,
    ("", "ResourceQuota"): configuration.resource_quota,
    ("", "Secret"): configuration.secret,
    ("", "Service"): services.service_create,
    (_ADMISSION, "MutatingWebhookConfiguration"): admission.mutating_webhooks,
    (_ADMISSION, "MutatingAdmissionPolicy"): policies.mutating_policy,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): policies.mutating_binding,
    (_ADMISSION, "ValidatingAdmissionPolicy"): policies.validating_policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): policies.validating_binding,
    (_ADMISSION, "ValidatingWebhookConfiguration"): admission.validating_webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definitions.definition,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.replica_set,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): other.autoscaler,
    ("batch", "CronJob"): jobs.cron_job,
    ("batch", "Job"): jobs.job,
    (_CERTIFICATES, "CertificateSigningRequest"): certificates.signing_request,
    (_CERTIFICATES, "ClusterTrustBundle"): small.trust_bundle,
    ("coordination.k8s.io", "Lease"): other.lease,
    ("discovery.k8s.io", "EndpointSlice"): discovery.endpoint_slice,
    ("networking.k8s.io", "Ingress"): networking.ingress,
    ("networking.k8s.io", "NetworkPolicy"): networking.network_policy,
    ("policy", "PodDisruptionBudget"): other.disruption_budget,
    (_RBAC, "ClusterRole"): access.cluster_role,
    (_RBAC, "ClusterRoleBinding"): access.cluster_role_binding,
    (_RBAC, "Role"): access.role,
    (_RBAC, "RoleBinding"): access.role_binding,
    ("scheduling.k8s.io", "PriorityClass"): other.priority_class,
    ("storage.k8s.io", "StorageClass"): other.storage_class,
}
_UPDATE: dict[tuple[str, str], _Update] = {
    ("", "Event"): events.core_event_update,
    ("", "Namespace"): lambda _errors, _new, _old: None,
    ("", "Node"): nodes.node_update,
    ("", "PersistentVolume"): storage.volume_update,
    ("apps", "ControllerRevision"): small.revision_update,
    (_CERTIFICATES, "CertificateSigningRequest"): certificates.signing_request_update,
    (_CERTIFICATES, "ClusterTrustBundle"): small.trust_bundle_update,
    ("events.k8s.io", "Event"): events.event_update,
    (_NETWORKING, "IPAddress"): addresses.ip_address_update,
    (_NETWORKING, "IngressClass"): addresses.ingress_class_update,
    (_NETWORKING, "ServiceCIDR"): addresses.service_network_update,
    ("node.k8s.io", "RuntimeClass"): nodes.runtime_class_update,
    (_RESOURCE, "ResourceClaim"): allocation.claim_update,
    (_RESOURCE, "ResourceClaimTemplate"): allocation.claim_template_update,
    (_RESOURCE, "ResourceSlice"): allocation.resource_slice_update,
    (_STORAGE, "CSIDriver"): storage.csi_driver_update,
    (_STORAGE, "CSINode"): storage.csi_node_update,
    (_STORAGE, "CSIStorageCapacity"): storage.capacity_update,
    (_STORAGE, "VolumeAttachment"): storage.attachment_update,
    (_STORAGE, "VolumeAttributesClass"): storage.volume_attributes_update,
    ("", "ConfigMap"): configuration.config_map_update,
    ("", "PersistentVolumeClaim"): claims.claim_update,
    ("", "Pod"): pods.pod_update,
    ("", "ResourceQuota"): configuration.resource_quota_update,
    ("", "Secret"): configuration.secret_update,
    ("", "Service"): services.service_update,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definitions.definition_update,
    ("apps", "DaemonSet"): workloads.daemon_set_update,
    ("apps", "Deployment"): workloads.deployment_update,
    ("apps", "ReplicaSet"): workloads.replica_set_update,
    ("apps", "StatefulSet"): workloads.stateful_set_update,
    ("autoscaling", "HorizontalPodAutoscaler"): other.autoscaler_update,
    ("batch", "CronJob"): jobs.cron_job_update,
    ("batch", "Job"): jobs.job_update,
    ("discovery.k8s.io", "EndpointSlice"): discovery.endpoint_slice_update,
    ("networking.k8s.io", "Ingress"): networking.ingress_update,
    (_RBAC, "ClusterRoleBinding"): access.cluster_role_binding_update,
    (_RBAC, "RoleBinding"): access.role_binding_update,
    ("scheduling.k8s.io", "PriorityClass"): other.priority_class_update,
    ("storage.k8s.io", "StorageClass"): other.storage_class_update,
}


_LOOPBACK: dict[tuple[str, str], _Create] = {
    ("", "Endpoints"): partial(addresses.endpoints, loopback=True),
    ("discovery.k8s.io", "EndpointSlice"): partial(discovery.endpoint_slice, loopback=True),
}
_LOOPBACK_UPDATE: dict[tuple[str, str], _Update] = {
    ("", "Endpoints"): lambda errors, new, _old: addresses.endpoints(errors, new, loopback=True),
    ("discovery.k8s.io", "EndpointSlice"): partial(discovery.endpoint_slice_update, loopback=True),
}
"""Rules that take the place of those above where pods may have addresses of 127.0.0.0/8."""

_STATUS: dict[tuple[str, str], _Update] = {
    ("", "Namespace"): statuses.namespace,
    ("", "Node"): nodes.node_update,
    ("", "PersistentVolumeClaim"): statuses.claim,
    ("", "Pod"): podparts.pod_status,
    ("", "ReplicationController"): statuses.replica_set,
    ("", "ResourceQuota"): statuses.resource_quota,
    ("", "Service"): statuses.service,
    (_ADMISSION, "ValidatingAdmissionPolicy"): policies.validating_policy_status,
    ("apiregistration.k8s.io", "APIService"): statuses.api_service,
    (_APPS, "DaemonSet"): statuses.daemon_set,
    (_APPS, "Deployment"): statuses.deployment,
    (_APPS, "ReplicaSet"): statuses.replica_set,
    (_APPS, "StatefulSet"): statuses.stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): statuses.autoscaler,
    ("batch", "Job"): jobstatus.job_status,
    (_CERTIFICATES, "CertificateSigningRequest"): certificates.signing_request_status,
    (_FLOW, "FlowSchema"): flowcontrol.flow_schema_status,
    (_FLOW, "PriorityLevelConfiguration"): flowcontrol.flow_schema_status,
    (_NETWORKING, "Ingress"): statuses.ingress,
    ("policy", "PodDisruptionBudget"): statuses.disruption_budget,
    (_RESOURCE, "ResourceClaim"): allocation.claim_status,
}
_SUBRESOURCE: dict[tuple[str, str, str], _Update] = {
    ("", "Namespace", "finalize"): small.finalize,
    ("", "Pod", "ephemeralcontainers"): podparts.pod_debug_containers,
    ("", "Pod", "resize"): podparts.pod_resize,
    (_CERTIFICATES, "CertificateSigningRequest", "approval"): certificates.signing_request_approval,
}
_NAMELESS = frozenset({("", "Binding"), ("policy", "Eviction")})
"""Kinds that are sent to an object, whose name the path has; their own metadata is not looked at."""

_REVIEWS = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
"""Groups whose objects are questions: answered, never stored, and without names."""
_GENERIC = frozenset({_ADMISSION, "apiextensions.k8s.io", "apiregistration.k8s.io"})
"""Groups with metadata as that of custom resources: finalizers need not have a domain."""
_METADATA_LAST = frozenset({("policy", "PodDisruptionBudget")})
"""Kinds without rules for metadata, which is checked only if the rest is good."""
_METADATA_AGAIN = frozenset(
    {
        ("", "ConfigMap"),
        ("", "Endpoints"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("", "Pod"),
        ("", "Secret"),
        ("", "ServiceAccount"),
        ("networking.k8s.io", "IngressClass"),
        ("networking.k8s.io", "Ingress"),
        (_RBAC, "ClusterRole"),
        (_RBAC, "ClusterRoleBinding"),
        (_RBAC, "Role"),
        (_RBAC, "RoleBinding"),
    }
)
"""Kinds whose rules for updates are those for new objects with their metadata, and more."""


def validate_create(obj: dict[str, Any], gvk: tuple[str, str, str], *, loopback: bool = False) -> ErrorList:
    """Check a new object of a kind (group, version, kind); the list is empty if it is good.

    The object must have the shape of its kind, defaults filled in, its name generated, quantities readable. Whether
    a namespace must be given is decided by the path of the request and not looked at. For kinds without rules here
    the metadata alone is checked. loopback: whether endpoints may be at 127.0.0.0/8, which Kubernetes refuses.
    Facts: `pkg/apis/*/validation` of Kubernetes 1.36.
    """
    group, _, kind = gvk
    errors = ErrorList()
    check = (_LOOPBACK.get((group, kind)) if loopback else None) or _CREATE.get((group, kind))
    last = (group, kind) in _METADATA_LAST
    if last and check is not None:
        check(errors, obj)
        if errors:
            return errors
    if group not in _REVIEWS and (group, kind) not in _NAMELESS:
        metadata_create(errors, obj, name_rule(group, kind), generic=last or group in _GENERIC)
    if check is not None and not last:
        check(errors, obj)
    return errors


def validate_update(
    old: dict[str, Any], new: dict[str, Any], gvk: tuple[str, str, str], *, loopback: bool = False
) -> ErrorList:
    """Check an object that replaces another of the same kind; as `validate_create`, and what may not change.

    The new object must carry what the server keeps on its own: uid, times, generation, and the resource version.
    """
    group, _, kind = gvk
    errors = ErrorList()
    metadata_update(errors, new, old)
    # Kubernetes checks metadata before and within the rules of the kind, and lists what is wrong each time.
    errors.extend(list(errors))
    if group not in _GENERIC and (group, kind) not in _METADATA_LAST:
        known_finalizers(errors, new)
    if (group, kind) in _METADATA_AGAIN:
        metadata_create(errors, new, name_rule(group, kind))
    update = (_LOOPBACK_UPDATE.get((group, kind)) if loopback else None) or _UPDATE.get((group, kind))
    if update is not None:
        update(errors, new, old)
    elif (check := _CREATE.get((group, kind))) is not None:
        check(errors, new)
    return errors


def validate_status_update(old: dict[str, Any], new: dict[str, Any], gvk: tuple[str, str, str]) -> ErrorList:
    """Check an object that replaces another through its `status` subresource; only metadata and status may differ.

    For kinds without rules for their status the metadata alone is checked.
    """
    return _validate_part(old, new, _STATUS.get((gvk[0], gvk[2])))


def validate_subresource_update(
    old: dict[str, Any], new: dict[str, Any], gvk: tuple[str, str, str], subresource: str
) -> ErrorList:
    """Check an object that replaces another through a subresource: `status`, `finalize`, `approval`, `resize`, ...

    What is sent to a subresource as an object of its own kind (a Scale, Binding, Eviction or TokenRequest) is for
    `validate_create` with that kind.
    """
    if subresource == "status":
        return validate_status_update(old, new, gvk)
    return _validate_part(old, new, _SUBRESOURCE.get((gvk[0], gvk[2], subresource)))


def _validate_part(old: dict[str, Any], new: dict[str, Any], check: _Update | None) -> ErrorList:
    errors = ErrorList()
    metadata_update(errors, new, old)
    errors.extend(list(errors))
    if check is not None:
        check(errors, new, old)
    return errors
