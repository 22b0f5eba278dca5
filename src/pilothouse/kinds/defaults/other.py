"""Defaults of the remaining groups: storage, access, admission, scheduling, flow control, devices, extensions."""

from __future__ import annotations

from collections.abc import Callable

from pilothouse.kinds.defaults.fill import Object, Table, child, empties, fill_empty, fill_missing, items
from pilothouse.kinds.defaults.pods import persistent_source

__all__ = [
    "ADMISSION",
    "AUTHENTICATION",
    "COORDINATION",
    "EXTENSIONS",
    "FLOW_CONTROL",
    "POLICY",
    "RBAC",
    "REGISTRATION",
    "RESOURCE",
    "SCHEDULING",
    "STORAGE",
]

_RBAC_GROUP = "rbac.authorization.k8s.io"
_STORAGE_CLASS: Table = (("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate"))
_CSI_DRIVER: Table = (
    ("attachRequired", True),
    ("podInfoOnMount", False),
    ("storageCapacity", False),
    ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
    ("requiresRepublish", False),
    ("seLinuxMount", False),
)
_WEBHOOK: Table = (("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("timeoutSeconds", 10))
_QUEUING: Table = (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50))
_PORT: Table = (("port", 443),)


def _storage_class(obj: Object) -> None:
    fill_missing(obj, _STORAGE_CLASS)


def _csi_driver(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, _CSI_DRIVER)
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def _volume_attachment(obj: Object) -> None:
    source = child(child(obj, "spec"), "source")
    inline = source.get("inlineVolumeSpec")
    if inline is not None:
        persistent_source(inline)


def _role(obj: Object) -> None:
    fill_missing(obj, (("rules", None),))


def _role_binding(obj: Object) -> None:
    fill_empty(child(obj, "roleRef"), (("apiGroup", _RBAC_GROUP),))
    for subject in items(obj, "subjects"):
        if subject.get("kind") in {"User", "Group"}:
            fill_empty(subject, (("apiGroup", _RBAC_GROUP),))


def _rules(holder: Object, name: str) -> None:
    for rule in items(holder, name):
        fill_missing(rule, (("scope", "*"),))


def _webhook(hook: Object) -> None:
    fill_missing(hook, _WEBHOOK)
    empties(hook, ("namespaceSelector", "objectSelector"))
    service = child(hook, "clientConfig").get("service")
    if service is not None:
        fill_missing(service, _PORT)
    _rules(hook, "rules")


def _validating_webhooks(obj: Object) -> None:
    for hook in items(obj, "webhooks"):
        _webhook(hook)


def _mutating_webhooks(obj: Object) -> None:
    for hook in items(obj, "webhooks"):
        _webhook(hook)
        fill_missing(hook, (("reinvocationPolicy", "Never"),))


def _match_resources(holder: Object, name: str) -> None:
    match = holder.get(name)
    if match is not None:
        fill_missing(match, (("matchPolicy", "Equivalent"),))
        empties(match, ("namespaceSelector", "objectSelector"))
        _rules(match, "resourceRules")
        _rules(match, "excludeResourceRules")


def _policy(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, (("failurePolicy", "Fail"),))
    _match_resources(spec, "matchConstraints")


def _policy_binding(obj: Object) -> None:
    _match_resources(child(obj, "spec"), "matchResources")


def _priority_class(obj: Object) -> None:
    fill_missing(obj, (("preemptionPolicy", "PreemptLowerPriority"), ("value", 0)))


def _flow_schema(obj: Object) -> None:
    spec = child(obj, "spec")
    child(spec, "priorityLevelConfiguration")
    fill_empty(spec, (("matchingPrecedence", 1000),))


def _priority_level(obj: Object) -> None:
    spec = child(obj, "spec")
    for name, shares in (("exempt", 0), ("limited", 30)):
        if spec.get(name) is not None:
            fill_missing(spec[name], (("nominalConcurrencyShares", shares), ("lendablePercent", 0)))
    limited = spec.get("limited")
    if limited is not None:
        queuing = child(limited, "limitResponse").get("queuing")
        if queuing is not None:
            fill_empty(queuing, _QUEUING)


def _token_request(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, (("expirationSeconds", 3600),))


def _device_request(request: Object) -> None:
    fill_empty(request, (("allocationMode", "ExactCount"),))
    if request["allocationMode"] == "ExactCount":
        fill_empty(request, (("count", 1),))
    for toleration in items(request, "tolerations"):
        fill_empty(toleration, (("operator", "Equal"),))


def _claim_spec(spec: Object) -> None:
    for request in items(child(spec, "devices"), "requests"):
        if request.get("exactly") is not None:
            _device_request(request["exactly"])
        for alternative in items(request, "firstAvailable"):
            _device_request(alternative)


def _resource_claim(obj: Object) -> None:
    _claim_spec(child(obj, "spec"))


def _resource_claim_template(obj: Object) -> None:
    spec = child(obj, "spec")
    empties(spec, ("metadata", "spec"))
    _claim_spec(spec["spec"])


def _custom_resource_definition(obj: Object) -> None:
    spec = child(obj, "spec")
    names = child(spec, "names")
    kind = names.get("kind") or ""
    fill_empty(names, (("singular", kind.lower()), ("listKind", kind + "List")))
    conversion = child(spec, "conversion")
    fill_empty(conversion, (("strategy", "None"),))
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        fill_missing(service, _PORT)


def _api_service(obj: Object) -> None:
    service = child(obj, "spec").get("service")
    if service is not None:
        fill_missing(service, _PORT)


def _spec_only(obj: Object) -> None:
    child(obj, "spec")


_Defaulters = dict[str, Callable[[Object], None]]

ADMISSION: _Defaulters = {
    "MutatingAdmissionPolicy": _policy,
    "MutatingAdmissionPolicyBinding": _policy_binding,
    "MutatingWebhookConfiguration": _mutating_webhooks,
    "ValidatingAdmissionPolicy": _policy,
    "ValidatingAdmissionPolicyBinding": _policy_binding,
    "ValidatingWebhookConfiguration": _validating_webhooks,
}
AUTHENTICATION: _Defaulters = {"TokenRequest": _token_request}
COORDINATION: _Defaulters = {"Lease": _spec_only}
EXTENSIONS: _Defaulters = {"CustomResourceDefinition": _custom_resource_definition}
FLOW_CONTROL: _Defaulters = {"FlowSchema": _flow_schema, "PriorityLevelConfiguration": _priority_level}
POLICY: _Defaulters = {"PodDisruptionBudget": _spec_only}
RBAC: _Defaulters = {
    "ClusterRole": _role,
    "ClusterRoleBinding": _role_binding,
    "Role": _role,
    "RoleBinding": _role_binding,
}
REGISTRATION: _Defaulters = {"APIService": _api_service}
RESOURCE: _Defaulters = {"ResourceClaim": _resource_claim, "ResourceClaimTemplate": _resource_claim_template}
SCHEDULING: _Defaulters = {"PriorityClass": _priority_class}
STORAGE: _Defaulters = {
    "CSIDriver": _csi_driver,
    "StorageClass": _storage_class,
    "VolumeAttachment": _volume_attachment,
}
