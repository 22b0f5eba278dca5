"""The built-in steps in Kubernetes' order, and which of them are on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from pilothouse.apiserver.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
    ClusterTrustBundleAttest,
)
from pilothouse.apiserver.admission.expression_checks import ExpressionChecks
from pilothouse.apiserver.admission.lifecycle import NamespaceLifecycle
from pilothouse.apiserver.admission.limitranger import LimitRanger
from pilothouse.apiserver.admission.nodes import NodeRestriction, TaintNodesByCondition
from pilothouse.apiserver.admission.ownerreferences import OwnerReferencesPermissionEnforcement
from pilothouse.apiserver.admission.pods import (
    AlwaysPullImages,
    DefaultTolerationSeconds,
    ExtendedResourceToleration,
    PodResizeValidator,
    PodTopologyLabels,
    RuntimeClass,
)
from pilothouse.apiserver.admission.podsecurity import PodSecurity
from pilothouse.apiserver.admission.priority import Priority
from pilothouse.apiserver.admission.quota import ResourceQuota
from pilothouse.apiserver.admission.serviceaccount import ServiceAccount
from pilothouse.apiserver.admission.storage import (
    DefaultIngressClass,
    DefaultStorageClass,
    DenyServiceExternalIPs,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from pilothouse.apiserver.ports import AdmissionPlugin, Authorizer, Local, View
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids

__all__ = ["DEFAULT_OFF", "ORDER", "UnknownPlugin", "standard"]

ORDER: Final = (
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "PodResizeValidator",
    "ExpressionChecks",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
)
"""All steps by name, in the order in which they run."""

DEFAULT_OFF: Final = frozenset({
    "AlwaysPullImages", "DenyServiceExternalIPs", "ExtendedResourceToleration", "NodeRestriction",
    "OwnerReferencesPermissionEnforcement",
})  # fmt: skip
"""Steps that are on only where asked for, as in kube-apiserver."""


class UnknownPlugin(ValueError):
    """A step of this name does not exist; the message lists those that do."""


def standard(  # noqa: PLR0913 - made in one place
    view: View,
    authorizer: Authorizer,
    local: Local,
    ids: Ids,
    clock: Clock,
    *,
    resources: Callable[[str, str], tuple[str, bool] | None] = lambda version, kind: None,
    dynamic: Sequence[AdmissionPlugin] = (),
    enable: Iterable[str] = (),
    disable: Iterable[str] = (),
    settings: Mapping[str, AdmissionPlugin] | None = None,
) -> list[AdmissionPlugin]:
    """Make the steps of admission, in Kubernetes' order.

    resources: gives plural and scope of a kind (`apps/v1`, `Deployment`), for owner references.
    dynamic: webhooks and policies, put where their names belong. enable, disable: names, beside `DEFAULT_OFF`.
    settings: steps made otherwise, by name, in place of those made here. Raises UnknownPlugin.
    """
    wanted, unwanted = set(enable), set(disable)
    if unknown := (wanted | unwanted).difference(ORDER):
        raise UnknownPlugin(f"admission plugins {sorted(unknown)}: not known; there are {', '.join(ORDER)}")
    makers: dict[str, Callable[[], AdmissionPlugin]] = {
        "NamespaceLifecycle": lambda: NamespaceLifecycle(view),
        "LimitRanger": lambda: LimitRanger(view),
        "ServiceAccount": lambda: ServiceAccount(view, ids, clock),
        "NodeRestriction": lambda: NodeRestriction(view, authorizer),
        "TaintNodesByCondition": TaintNodesByCondition,
        "AlwaysPullImages": AlwaysPullImages,
        "PodSecurity": lambda: PodSecurity(view, clock),
        "Priority": lambda: Priority(view),
        "DefaultTolerationSeconds": DefaultTolerationSeconds,
        "ExtendedResourceToleration": ExtendedResourceToleration,
        "DefaultStorageClass": lambda: DefaultStorageClass(view),
        "StorageObjectInUseProtection": StorageObjectInUseProtection,
        "OwnerReferencesPermissionEnforcement": lambda: OwnerReferencesPermissionEnforcement(authorizer, resources),
        "PersistentVolumeClaimResize": lambda: PersistentVolumeClaimResize(view),
        "RuntimeClass": lambda: RuntimeClass(view),
        "CertificateApproval": lambda: CertificateApproval(authorizer),
        "CertificateSigning": lambda: CertificateSigning(authorizer),
        "ClusterTrustBundleAttest": lambda: ClusterTrustBundleAttest(authorizer),
        "CertificateSubjectRestriction": CertificateSubjectRestriction,
        "DefaultIngressClass": lambda: DefaultIngressClass(view),
        "DenyServiceExternalIPs": DenyServiceExternalIPs,
        "PodTopologyLabels": lambda: PodTopologyLabels(view),
        "PodResizeValidator": lambda: PodResizeValidator(view),
        "ExpressionChecks": ExpressionChecks,
        "ResourceQuota": lambda: ResourceQuota(view, local, clock),
    }
    made = {one.name: one for one in dynamic} | dict(settings or {})
    on = [name for name in ORDER if (name not in DEFAULT_OFF or name in wanted) and name not in unwanted]
    return [made[name] if name in made else makers[name]() for name in on if name in made or name in makers]
