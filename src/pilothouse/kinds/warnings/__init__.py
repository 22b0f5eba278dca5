"""What users are told about an object that is taken: fields that do nothing, are old, or mean less than they seem to.

Facts: the `WarningsOnCreate` and `WarningsOnUpdate` of the strategies of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pilothouse.kinds.warnings import others, secrets, workloads

__all__ = ["Warns", "warns_of"]

Object = dict[str, Any]
Warns = Callable[[Object, Object | None], list[str]]
"""Gives the warnings about an object, and what it replaces, None if it is new."""

_ADMISSION = "admissionregistration.k8s.io"
_STORAGE = "storage.k8s.io"
_WARNS: dict[tuple[str, str], Warns] = {
    ("", "Endpoints"): others.endpoints,
    ("", "Node"): others.node,
    ("", "PersistentVolume"): others.volume,
    ("", "PersistentVolumeClaim"): others.claim,
    ("", "Pod"): workloads.pod,
    ("", "PodTemplate"): workloads.pod_template,
    ("", "ReplicationController"): workloads.replication_controller,
    ("", "ResourceQuota"): others.resource_quota,
    ("", "Secret"): secrets.secret,
    ("", "Service"): others.service,
    ("", "ServiceAccount"): others.service_account,
    (_ADMISSION, "MutatingAdmissionPolicy"): others.static_name,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): others.static_name,
    (_ADMISSION, "MutatingWebhookConfiguration"): others.static_name,
    (_ADMISSION, "ValidatingAdmissionPolicy"): others.static_name,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): others.static_name,
    (_ADMISSION, "ValidatingWebhookConfiguration"): others.static_name,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("apps", "Deployment"): workloads.replicated,
    ("apps", "ReplicaSet"): workloads.replicated,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("batch", "CronJob"): workloads.cron_job,
    ("batch", "Job"): workloads.job,
    ("discovery.k8s.io", "EndpointSlice"): others.endpoint_slice,
    ("networking.k8s.io", "Ingress"): others.ingress,
    ("networking.k8s.io", "NetworkPolicy"): others.network_policy,
    ("node.k8s.io", "RuntimeClass"): others.runtime_class,
    ("resource.k8s.io", "ResourceSlice"): others.resource_slice,
    (_STORAGE, "CSIDriver"): others.csi_driver,
    (_STORAGE, "CSIStorageCapacity"): others.storage_capacity,
    (_STORAGE, "StorageClass"): others.storage_class,
}


def warns_of(group: str, kind: str) -> Warns | None:
    """Return what gives the warnings about valid objects of a built-in kind; None where there are never any."""
    return _WARNS.get((group, kind))
