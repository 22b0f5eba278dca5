"""The strategy of each built-in kind, by group and kind."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.strategies.base import Context, Strategy
from pilothouse.apiserver.strategies.parts import keep_decision
from pilothouse.apiserver.strategies.pods import POD
from pilothouse.apiserver.strategies.services import SERVICE
from pilothouse.kinds.emptyobjects import empty_object

__all__ = ["strategy_for"]

_SPEC = ("spec",)
_ADMISSION = "admissionregistration.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"


def _limit_range(new: Object, context: Context) -> None:
    if not new["metadata"].get("name"):
        new["metadata"]["name"] = context.ids.uuid()


def _requester(new: Object, context: Context) -> None:
    """Have a certificate request say who made it, whatever it says itself: signers and approvers go by that."""
    spec, user = new.setdefault("spec", {}), context.user
    for name in ("username", "uid", "groups", "extra"):
        spec.pop(name, None)
    if user is not None:
        extra = {name: [*values] for name, values in user.extra.items()}
        said = {"username": user.name, "uid": user.uid, "groups": [*user.groups], "extra": extra}
        spec.update({name: value for name, value in said.items() if value})


def _request_stays(new: Object, old: Object, context: Context) -> None:
    """Keep what was asked for, and by whom."""
    new["spec"] = old["spec"]


def _namespace(new: Object, context: Context) -> None:
    spec = new.setdefault("spec", {})
    finalizers = list(spec.get("finalizers") or ())
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")
    spec["finalizers"] = finalizers


def _namespace_update(new: Object, old: Object, context: Context) -> None:
    spec = new.setdefault("spec", {})
    _keep_inner(spec, old.get("spec") or {}, "finalizers")
    if not spec:
        del new["spec"]


def _keep_inner(new: Object, old: Object, name: str) -> None:
    if name in old:
        new[name] = old[name]
    else:
        new.pop(name, None)


def _job(new: Object, context: Context) -> None:
    """Give a job the selector and labels by which it knows its pods."""
    spec = new["spec"]
    if spec.get("manualSelector"):
        return
    uid, name = new["metadata"]["uid"], new["metadata"].get("name") or ""
    template = spec["template"].setdefault("metadata", {})
    labels = dict(template.get("labels") or {})
    wanted = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    template["labels"] = {**labels, **{key: value for key, value in wanted.items() if not labels.get(key)}}
    selector = dict(spec.get("selector") or {})
    matched = dict(selector.get("matchLabels") or {})
    matched.setdefault("batch.kubernetes.io/controller-uid", uid)
    selector["matchLabels"] = matched
    spec["selector"] = selector


def _job_labels(new: Object, context: Context) -> None:
    """Give a job its selector; a job that took over the labels of its template takes over the new ones as well."""
    own = new["metadata"].get("labels")
    follows = not own or own == (new["spec"]["template"].get("metadata") or {}).get("labels")
    _job(new, context)
    if follows and (labels := (new["spec"]["template"].get("metadata") or {}).get("labels")):
        new["metadata"]["labels"] = dict(labels)


def _daemon_set(new: Object, context: Context) -> None:
    annotations = new["metadata"].setdefault("annotations", {})
    annotations[_TEMPLATE_GENERATION] = "1"


_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def _daemon_set_update(new: Object, old: Object, context: Context) -> None:
    before = int((old["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION) or 0)
    if (new.get("spec") or {}).get("template") != (old.get("spec") or {}).get("template"):
        before += 1
    new["metadata"].setdefault("annotations", {})[_TEMPLATE_GENERATION] = str(before)


def _node(new: Object, context: Context) -> None:
    status = new.setdefault("status", {})
    for name, value in empty_object("v1", "Node")["status"].items():
        status.setdefault(name, value)


def _volume(new: Object, context: Context) -> None:
    new["status"] = {"phase": "Pending", "lastPhaseTransitionTime": context.now}


def _volume_status(new: Object, old: Object, context: Context) -> None:
    status = new.setdefault("status", {})
    if status.get("phase") != (old.get("status") or {}).get("phase") and not status.get("lastPhaseTransitionTime"):
        status["lastPhaseTransitionTime"] = context.now


def _definition(new: Object, context: Context) -> None:
    stored = [version.get("name") or "" for version in new["spec"].get("versions") or () if version.get("storage")]
    names = {"plural": "", "kind": ""}
    new["status"] = {"conditions": None, "acceptedNames": names, "storedVersions": stored}


def _definition_update(new: Object, old: Object, context: Context) -> None:
    status = new.get("status")
    if not isinstance(status, dict):
        return
    stored = [version.get("name") or "" for version in new["spec"].get("versions") or () if version.get("storage")]
    known = list(status.get("storedVersions") or ())
    if missing := [name for name in stored if name not in known]:
        new["status"] = {**status, "storedVersions": [*known, *missing]}


def _generated(*wanted: str, **more: Any) -> Strategy:
    return Strategy(wanted=wanted or _SPEC, **more)


def _with_status(status: Object | None = None, **more: Any) -> Strategy:
    return Strategy(status=status if status is not None else {}, status_subresource=True, **more)


_BALANCED: Object = {"loadBalancer": {}}
_DAEMON_SET: Object = {
    "currentNumberScheduled": 0,
    "numberMisscheduled": 0,
    "desiredNumberScheduled": 0,
    "numberReady": 0,
}
_PDB: Object = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
_ROLES = Strategy(creates_on_update=True)

_STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "Endpoints"): Strategy(creates_on_update=True),
    ("", "Event"): Strategy(creates_on_update=True, ttl=3600),
    ("events.k8s.io", "Event"): Strategy(creates_on_update=True, ttl=3600),
    ("", "LimitRange"): Strategy(creates_on_update=True, finish_create=_limit_range),
    ("", "Namespace"): _with_status({"phase": "Active"}, finish_create=_namespace, finish_update=_namespace_update),
    ("", "Node"): Strategy(status_subresource=True, keeps_status=True, finish_create=_node),
    ("", "PersistentVolume"): Strategy(
        status_subresource=True, keeps_status=True, finish_create=_volume, finish_status=_volume_status
    ),
    ("", "PersistentVolumeClaim"): _with_status({"phase": "Pending"}),
    ("", "Pod"): POD,
    ("", "PodTemplate"): _generated("template"),
    ("", "ReplicationController"): _with_status({"replicas": 0}, wanted=_SPEC, orphans_by_default=True),
    ("", "ResourceQuota"): _with_status(),
    ("", "Service"): SERVICE,
    (_ADMISSION, "MutatingAdmissionPolicy"): _generated(unconditional=False),
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): _generated(unconditional=False),
    (_ADMISSION, "MutatingWebhookConfiguration"): _generated("webhooks", unconditional=False),
    (_ADMISSION, "ValidatingAdmissionPolicy"): _with_status(wanted=_SPEC, unconditional=False),
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): _generated(unconditional=False),
    (_ADMISSION, "ValidatingWebhookConfiguration"): _generated("webhooks", unconditional=False),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Strategy(
        status_subresource=True,
        keeps_status=True,
        wanted=_SPEC,
        unconditional=False,
        finish_create=_definition,
        finish_update=_definition_update,
    ),
    ("apiregistration.k8s.io", "APIService"): _with_status(unconditional=False),
    ("apps", "DaemonSet"): _with_status(
        _DAEMON_SET, wanted=_SPEC, finish_create=_daemon_set, finish_update=_daemon_set_update
    ),
    ("apps", "Deployment"): _with_status(wanted=_SPEC, counts_annotations=True),
    ("apps", "ReplicaSet"): _with_status({"replicas": 0}, wanted=_SPEC),
    ("apps", "StatefulSet"): _with_status({"replicas": 0, "availableReplicas": 0}, wanted=_SPEC),
    ("autoscaling", "HorizontalPodAutoscaler"): _with_status({"desiredReplicas": 0, "currentMetrics": None}),
    ("batch", "CronJob"): _with_status(wanted=_SPEC),
    ("batch", "Job"): _with_status(wanted=_SPEC, orphans_by_default=True, finish_create=_job_labels),
    ("certificates.k8s.io", "CertificateSigningRequest"): _with_status(
        finish_create=_requester, finish_update=_request_stays, finish_status=keep_decision
    ),
    ("coordination.k8s.io", "Lease"): Strategy(creates_on_update=True, unconditional=False),
    ("discovery.k8s.io", "EndpointSlice"): _generated("addressType", "endpoints", "ports", counts_labels=True),
    (_FLOW, "FlowSchema"): _with_status(wanted=_SPEC, unconditional=False),
    (_FLOW, "PriorityLevelConfiguration"): _with_status(wanted=_SPEC, unconditional=False),
    ("networking.k8s.io", "Ingress"): _with_status(_BALANCED, wanted=_SPEC),
    ("networking.k8s.io", "IngressClass"): _generated(),
    ("networking.k8s.io", "NetworkPolicy"): _generated(),
    ("networking.k8s.io", "ServiceCIDR"): _with_status(),
    ("policy", "PodDisruptionBudget"): _with_status(_PDB, wanted=_SPEC, unconditional=False),
    (_RBAC, "ClusterRole"): _ROLES,
    (_RBAC, "ClusterRoleBinding"): _ROLES,
    (_RBAC, "Role"): _ROLES,
    (_RBAC, "RoleBinding"): _ROLES,
    ("resource.k8s.io", "DeviceClass"): _generated(),
    ("resource.k8s.io", "ResourceClaim"): _with_status(),
    ("resource.k8s.io", "ResourceSlice"): _generated(),
    ("scheduling.k8s.io", "PriorityClass"): Strategy(wanted=("value", "globalDefault")),
    ("node.k8s.io", "RuntimeClass"): Strategy(unconditional=False),
    ("storage.k8s.io", "CSIDriver"): _generated(unconditional=False),
    ("storage.k8s.io", "CSINode"): Strategy(unconditional=False),
    ("storage.k8s.io", "VolumeAttachment"): _with_status({"attached": False}, unconditional=False),
}
_PLAIN = Strategy()


def strategy_for(group: str, kind: str) -> Strategy:
    """Return the strategy of a built-in kind."""
    return _STRATEGIES.get((group, kind), _PLAIN)
