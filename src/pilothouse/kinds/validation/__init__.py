"""Validation of built-in kinds: what kube-apiserver 1.36 refuses, in its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pilothouse.kinds.fielderrors import ErrorList
from pilothouse.kinds.validation import (
    access,
    admission,
    claims,
    configuration,
    definitions,
    discovery,
    jobs,
    networking,
    other,
    pods,
    services,
    workloads,
)
from pilothouse.kinds.validation.metadata import metadata_create, metadata_update, name_rule

__all__ = ["validate_create", "validate_update"]

_Create = Callable[[ErrorList, dict[str, Any]], None]
_Update = Callable[[ErrorList, dict[str, Any], dict[str, Any]], None]

_ADMISSION = "admissionregistration.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_CREATE: dict[tuple[str, str], _Create] = {
    ("", "ConfigMap"): configuration.config_map,
    ("", "LimitRange"): configuration.limit_range,
    ("", "Namespace"): configuration.namespace,
    ("", "PersistentVolumeClaim"): claims.claim,
    ("", "Pod"): pods.pod_create,
    ("", "PodTemplate"): workloads.pod_template_object,
    ("", "ReplicationController"): workloads.replication_controller,
    ("", "ResourceQuota"): configuration.resource_quota,
    ("", "Secret"): configuration.secret,
    ("", "Service"): services.service_create,
    (_ADMISSION, "MutatingWebhookConfiguration"): admission.mutating_webhooks,
    (_ADMISSION, "ValidatingAdmissionPolicy"): admission.validating_policy,
    (_ADMISSION, "ValidatingWebhookConfiguration"): admission.validating_webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definitions.definition,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.replica_set,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): other.autoscaler,
    ("batch", "CronJob"): jobs.cron_job,
    ("batch", "Job"): jobs.job,
    ("certificates.k8s.io", "CertificateSigningRequest"): other.signing_request,
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
    ("batch", "CronJob"): jobs.cron_job_update,
    ("batch", "Job"): jobs.job_update,
    ("discovery.k8s.io", "EndpointSlice"): discovery.endpoint_slice_update,
    ("networking.k8s.io", "Ingress"): networking.ingress_update,
    (_RBAC, "ClusterRoleBinding"): access.cluster_role_binding_update,
    (_RBAC, "RoleBinding"): access.role_binding_update,
    ("scheduling.k8s.io", "PriorityClass"): other.priority_class_update,
    ("storage.k8s.io", "StorageClass"): other.storage_class_update,
}


_REVIEWS = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
"""Groups whose objects are questions: answered, never stored, and without names."""
_METADATA_AGAIN = frozenset(
    {
        ("", "ConfigMap"),
        ("", "PersistentVolumeClaim"),
        ("", "Pod"),
        ("", "Secret"),
        ("networking.k8s.io", "Ingress"),
        (_RBAC, "ClusterRole"),
        (_RBAC, "ClusterRoleBinding"),
        (_RBAC, "Role"),
        (_RBAC, "RoleBinding"),
    }
)
"""Kinds whose rules for updates are those for new objects with their metadata, and more."""


def validate_create(obj: dict[str, Any], gvk: tuple[str, str, str]) -> ErrorList:
    """Check a new object of a kind (group, version, kind); the list is empty if it is good.

    The object must have the shape of its kind, defaults filled in, its name generated, quantities readable. Whether
    a namespace must be given is decided by the path of the request and not looked at. For kinds without rules here
    the metadata alone is checked. Facts: `pkg/apis/*/validation` of Kubernetes 1.36.
    """
    group, _, kind = gvk
    errors = ErrorList()
    if group not in _REVIEWS:
        metadata_create(errors, obj, name_rule(group, kind))
    check = _CREATE.get((group, kind))
    if check is not None:
        check(errors, obj)
    return errors


def validate_update(old: dict[str, Any], new: dict[str, Any], gvk: tuple[str, str, str]) -> ErrorList:
    """Check an object that replaces another of the same kind; as `validate_create`, and what may not change.

    The new object must carry what the server keeps on its own: uid, times, generation, and the resource version.
    """
    group, _, kind = gvk
    errors = ErrorList()
    metadata_update(errors, new, old)
    # Kubernetes checks metadata before and within the rules of the kind, and lists what is wrong each time.
    errors.extend(list(errors))
    if (group, kind) in _METADATA_AGAIN:
        metadata_create(errors, new, name_rule(group, kind))
    update = _UPDATE.get((group, kind))
    if update is not None:
        update(errors, new, old)
    elif (check := _CREATE.get((group, kind))) is not None:
        check(errors, new)
    return errors
