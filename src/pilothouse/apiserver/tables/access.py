"""The rows of who may do what: role bindings, certificates, admission."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pilothouse.apiserver.tables.cells import NONE, UNSET, Object, Printer, age
from pilothouse.kinds.ages import Ages, human_duration

__all__ = ["PRINTERS"]

_EMPTY: Final[Mapping[str, Any]] = {}


def _parts(obj: Object) -> tuple[str, Mapping[str, Any]]:
    return obj["metadata"].get("name", ""), obj.get("spec") or _EMPTY


def _binding(obj: Object, ages: Ages) -> list[Any]:
    told: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        kind, name = subject.get("kind", ""), subject.get("name", "")
        if kind in told:
            told[kind].append(f"{subject.get('namespace', '')}/{name}" if kind == "ServiceAccount" else name)
    role = obj.get("roleRef") or _EMPTY
    reference = f"{role.get('kind', '')}/{role.get('name', '')}"
    return [obj["metadata"].get("name", ""), reference, age(obj, ages), *(", ".join(names) for names in told.values())]


def _request_condition(status: Object) -> str:
    kinds = {condition.get("type") for condition in status.get("conditions") or ()}
    told = "Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"
    if "Failed" in kinds:
        told += ",Failed"
    return f"{told},Issued" if status.get("certificate") else told


def _signing_request(obj: Object, ages: Ages) -> list[Any]:
    name, spec = _parts(obj)
    lasts = spec.get("expirationSeconds")
    return [
        name,
        age(obj, ages),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        NONE if lasts is None else human_duration(lasts),
        _request_condition(obj.get("status") or _EMPTY),
    ]


def _webhooks(obj: Object, ages: Ages) -> list[Any]:
    return [obj["metadata"].get("name", ""), len(obj.get("webhooks") or ()), age(obj, ages)]


def _policy(field: str) -> Printer:
    def cells(obj: Object, ages: Ages) -> list[Any]:
        name, spec = _parts(obj)
        kind = spec.get("paramKind")
        told = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET
        return [name, len(spec.get(field) or ()), told, age(obj, ages)]

    return cells


def _go_selector(selector: Object) -> str:
    """Write a label selector as its type in Go prints itself."""
    labels = selector.get("matchLabels") or _EMPTY
    pairs = "".join(f"{name}: {labels[name]}," for name in sorted(labels))
    told = "".join(
        f"LabelSelectorRequirement{{Key:{one.get('key', '')},Operator:{one.get('operator', '')},"
        f"Values:[{' '.join(one.get('values') or ())}],}},"
        for one in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{pairs}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{told}}},}}"
    )


def _policy_binding(obj: Object, ages: Ages) -> list[Any]:
    name, spec = _parts(obj)
    reference = spec.get("paramRef") or _EMPTY
    told = UNSET
    if reference.get("name"):
        told = f"{reference.get('namespace') or '*'}/{reference['name']}"
    elif reference.get("selector") is not None:
        told = _go_selector(reference["selector"])
    return [name, spec.get("policyName", ""), told, age(obj, ages)]


PRINTERS: Final[Mapping[tuple[str, str], Printer]] = {
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): _policy("mutations"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): _policy_binding,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): _policy("validations"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): _policy_binding,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
    ("certificates.k8s.io", "CertificateSigningRequest"): _signing_request,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _binding,
    ("rbac.authorization.k8s.io", "RoleBinding"): _binding,
}
