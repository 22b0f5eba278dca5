"""Which controllers there are, by the names that kube-controller-manager knows them by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from pilothouse.operator import Manager

from .reconcilers.admissionpolicies import add_policy_status
from .reconcilers.autoscaler import add_autoscalers
from .reconcilers.certificates import add_certificate_approval, add_certificate_cleaning
from .reconcilers.cronjob import add_cronjobs
from .reconcilers.daemonset import add_daemonsets
from .reconcilers.deployment import add_deployments
from .reconcilers.disruption import add_disruption
from .reconcilers.endpoints import add_endpoints, add_mirroring
from .reconcilers.ephemeralvolumes import add_ephemeral_volumes
from .reconcilers.job import add_jobs
from .reconcilers.localvolumes import add_local_volumes
from .reconcilers.nodeipam import add_nodeipam
from .reconcilers.nodelifecycle import add_nodelifecycle
from .reconcilers.nodettl import add_node_ttl
from .reconcilers.podgc import add_podgc
from .reconcilers.quota import add_quotas
from .reconcilers.replicaset import add_replicasets, add_replicationcontrollers
from .reconcilers.statefulset import add_statefulsets
from .reconcilers.tainteviction import add_tainteviction
from .reconcilers.tokens import add_token_cleaning
from .reconcilers.ttl import add_ttl
from .reconcilers.volumeattributes import add_attributes_protection
from .reconcilers.volumes import add_claim_protection, add_volume_protection, add_volumes

__all__ = ["CONTROLLERS", "NODE_IPAM", "add_controllers"]

NODE_IPAM: Final = "node-ipam-controller"

CONTROLLERS: Final[Mapping[str, Callable[[Manager], None]]] = {
    "certificatesigningrequest-approving-controller": add_certificate_approval,
    "certificatesigningrequest-cleaner-controller": add_certificate_cleaning,
    "cronjob-controller": add_cronjobs,
    "daemonset-controller": add_daemonsets,
    "deployment-controller": add_deployments,
    "disruption-controller": add_disruption,
    "endpointslice-controller": add_endpoints,
    "endpointslice-mirroring-controller": add_mirroring,
    "ephemeral-volume-controller": add_ephemeral_volumes,
    "horizontal-pod-autoscaler-controller": add_autoscalers,
    "job-controller": add_jobs,
    "pod-garbage-collector-controller": add_podgc,
    "local-path-provisioner": add_local_volumes,
    NODE_IPAM: add_nodeipam,
    "node-lifecycle-controller": add_nodelifecycle,
    "persistentvolume-binder-controller": add_volumes,
    "persistentvolume-protection-controller": add_volume_protection,
    "persistentvolumeclaim-protection-controller": add_claim_protection,
    "replicaset-controller": add_replicasets,
    "replicationcontroller-controller": add_replicationcontrollers,
    "resourcequota-controller": add_quotas,
    "statefulset-controller": add_statefulsets,
    "taint-eviction-controller": add_tainteviction,
    "token-cleaner-controller": add_token_cleaning,
    "ttl-after-finished-controller": add_ttl,
    "ttl-controller": add_node_ttl,
    "validatingadmissionpolicy-status-controller": add_policy_status,
    "volumeattributesclass-protection-controller": add_attributes_protection,
}


def add_controllers(manager: Manager, without: Collection[str] = ()) -> None:
    """Add all controllers to a manager but those that are left out. Raises ValueError for a name that is none."""
    unknown = sorted(set(without) - CONTROLLERS.keys())
    if unknown:
        raise ValueError(f"there is no controller {', '.join(unknown)}; there are {', '.join(CONTROLLERS)}")
    for name, add in CONTROLLERS.items():
        if name not in without:
            add(manager)
