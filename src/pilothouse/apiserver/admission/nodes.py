"""Steps for nodes: new ones get no pods before they are ready, and each may only write what is its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pilothouse.apiserver.admission.certificates import subject_of
from pilothouse.apiserver.admission.plugin import Plugin, annotations_of, forbid, labels_of, requested
from pilothouse.apiserver.admission.serviceaccount import MIRROR, config_map_names, secret_names
from pilothouse.apiserver.ports import AdmissionRequest, Attributes, Authorizer, Gvr, Object, Operation, View
from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import quote

__all__ = ["NodeRestriction", "TaintNodesByCondition", "node_name"]

_PREFIX: Final = "system:node:"
_NODES: Final = "system:nodes"
_RESTRICTED: Final = "node-restriction.kubernetes.io"
_LEASES: Final = "kube-node-lease"
_KUBELET_LABELS: Final = frozenset({
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
})  # fmt: skip
_KUBELET_DOMAINS: Final = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBELET_SIGNERS: Final = frozenset({"kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"})
_WATCHED: Final = {
    ("", "pods"): "_pod",
    ("", "nodes"): "_node",
    ("", "persistentvolumeclaims"): "_claim",
    ("", "serviceaccounts"): "_token",
    ("coordination.k8s.io", "leases"): "_lease",
    ("storage.k8s.io", "csinodes"): "_csi_node",
    ("resource.k8s.io", "resourceslices"): "_slice",
    ("certificates.k8s.io", "certificatesigningrequests"): "_certificate",
}


class TaintNodesByCondition(Plugin):
    """Taints new nodes as not ready, until the node's controller has seen them ready."""

    OPERATIONS = frozenset({"CREATE"})
    RESOURCES = frozenset({("", "nodes")})
    name = "TaintNodesByCondition"

    def mutate(self, request: AdmissionRequest) -> None:
        """Add the taint."""
        spec = requested(request).setdefault("spec", {})
        taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
        present = spec.get("taints") or []
        if not any((one.get("key"), one.get("effect")) == (taint["key"], taint["effect"]) for one in present):
            spec["taints"] = [*present, taint]


def node_name(request: AdmissionRequest) -> str | None:
    """Return which node asks, None where it is no node."""
    user = request.user
    if _NODES not in user.groups or not user.name.startswith(_PREFIX):
        return None
    return user.name.removeprefix(_PREFIX)


class NodeRestriction(Plugin):
    """Lets nodes write only their own object, lease and pods."""

    name = "NodeRestriction"

    def __init__(self, view: View, authorizer: Authorizer | None = None) -> None:
        self._view = view
        self._authorizer = authorizer

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Look at what nodes may write at all."""
        return operation != "CONNECT" and (resource[0], resource[2]) in _WATCHED

    def mutate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for what is not the node's own."""
        if _NODES not in request.user.groups:
            return
        node = node_name(request)
        if node is None:
            return
        if not node:
            raise forbid(request, f"could not determine node from user {quote(request.user.name)}")
        getattr(self, _WATCHED[request.resource[0], request.resource[2]])(node, request)

    def _pod(self, node: str, request: AdmissionRequest) -> None:
        match request.subresource:
            case "":
                self._whole_pod(node, request)
            case "status":
                _pod_status(node, request)
            case "eviction":
                name = request.name or (requested(request).get("metadata") or {}).get("name", "")
                if not name:
                    raise forbid(request, "could not determine pod from request data")
                if self._node_of(request.namespace, name) != node:
                    raise forbid(request, f"node {node} can only evict pods with spec.nodeName set to itself")
            case other:
                raise forbid(
                    request,
                    f"unexpected pod subresource {quote(other)}, only 'status' and 'eviction' are allowed",
                )

    def _whole_pod(self, node: str, request: AdmissionRequest) -> None:
        shown = quote(node)
        if request.operation == "CREATE":
            self._new_pod(shown, node, request)
        elif request.operation == "DELETE":
            if self._node_of(request.namespace, request.name) != node:
                raise forbid(request, f"node {shown} can only delete pods with spec.nodeName set to itself")
        else:
            raise forbid(
                request,
                f"unexpected operation {quote(request.operation)}, node {shown} can only create and delete mirror pods",
            )

    def _node_of(self, namespace: str, name: str) -> str:
        pod = self._view.get("pods", namespace, name)
        if pod is None:
            raise status.not_found("", "pods", name)
        return str((pod.get("spec") or {}).get("nodeName") or "")

    def _new_pod(self, shown: str, node: str, request: AdmissionRequest) -> None:
        pod = requested(request)
        spec = pod.get("spec") or {}
        if MIRROR not in annotations_of(pod):
            raise forbid(
                request,
                f"pod does not have {quote(MIRROR)} annotation, node {shown} can only create mirror pods",
            )
        if spec.get("nodeName") != node:
            raise forbid(request, f"node {shown} can only create pods with spec.nodeName set to itself")
        self._check_owner(shown, node, request, (pod.get("metadata") or {}).get("ownerReferences") or [])
        for found, what in (
            (bool(spec.get("serviceAccountName")), "a service account"),
            (any(True for _ in secret_names(spec)), "secrets"),
            (any(True for _ in config_map_names(spec)), "configmaps"),
            (_projects(spec, "clusterTrustBundle"), "clustertrustbundles"),
            (any(one.get("persistentVolumeClaim") is not None for one in spec.get("volumes") or ()), _CLAIMS_TEXT),
        ):
            if found:
                raise forbid(request, f"node {shown} can not create pods that reference {what}")

    def _check_owner(self, shown: str, node: str, request: AdmissionRequest, owners: list[Object]) -> None:
        if len(owners) > 1:
            raise forbid(request, f"node {shown} can only create pods with a single owner reference set to itself")
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise forbid(request, f"node {shown} can only create pods with an owner reference set to itself")
        if not owner.get("controller"):
            raise forbid(request, f"node {shown} can only create pods with a controller owner reference set to itself")
        if owner.get("blockOwnerDeletion"):
            raise forbid(request, f"node {shown} must not set blockOwnerDeletion on an owner reference")
        found = self._view.get("nodes", "", node)
        if found is None:
            raise status.not_found("", "nodes", node)
        if owner.get("uid") != found["metadata"].get("uid"):
            expected = owner.get("uid", "")
            raise forbid(request, f"node {node} UID mismatch: expected {expected} got {found['metadata'].get('uid')}")

    def _node(self, node: str, request: AdmissionRequest) -> None:
        shown = quote(node)
        name = request.name or (requested(request).get("metadata") or {}).get("name", "")
        if name != node:
            raise forbid(request, f"node {shown} is not allowed to modify node {quote(name)}")
        item, old = requested(request), request.old or {}
        if request.operation == "CREATE":
            if (item.get("spec") or {}).get("configSource") is not None:
                raise forbid(request, f"node {shown} is not allowed to create pods with a non-nil configSource")
            if bad := _forbidden_labels(labels_of(item), {}):
                raise forbid(request, f"node {shown} is not allowed to set the following labels: {', '.join(bad)}")
        elif request.operation == "UPDATE":
            if ((item.get("spec") or {}).get("taints") or []) != ((old.get("spec") or {}).get("taints") or []):
                raise forbid(request, f"node {shown} is not allowed to modify taints")
            if bad := _forbidden_labels(labels_of(item), labels_of(old)):
                raise forbid(request, f"is not allowed to modify labels: {', '.join(bad)}")

    def _claim(self, node: str, request: AdmissionRequest) -> None:
        if request.subresource != "status":
            raise forbid(request, "may only update PVC status")
        if request.operation != "UPDATE":
            raise forbid(request, f"unexpected operation {quote(request.operation)}")
        if _without_capacity(requested(request)) != _without_capacity(request.old or {}):
            raise forbid(
                request,
                f"node {quote(node)} is not allowed to update fields other than status.capacity and status.conditions",
            )

    def _token(self, node: str, request: AdmissionRequest) -> None:
        if request.operation != "CREATE" or request.subresource != "token":
            return
        spec = requested(request).get("spec") or {}
        bound = spec.get("boundObjectRef") or {}
        if (bound.get("apiVersion"), bound.get("kind")) != ("v1", "Pod") or not bound.get("name"):
            raise forbid(request, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise forbid(request, "node requested token with a pod binding without a uid")
        pod = self._view.get("pods", request.namespace, bound["name"])
        if pod is None:
            raise status.not_found("", "pods", bound["name"])
        if bound["uid"] != pod["metadata"].get("uid"):
            raise forbid(
                request,
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record. The object "
                "might have been deleted and then recreated",
            )
        if (pod.get("spec") or {}).get("nodeName") != node:
            raise forbid(request, "node requested token bound to a pod scheduled on a different node")
        audiences = spec.get("audiences") or [""]
        if len(audiences) > 1:
            raise forbid(request, "node may only request 0 or 1 audiences")
        if not self._uses_audience(pod, audiences[0], request):
            why = f"{request.user.name} is not authorized to request tokens for this audience"
            raise forbid(request, f"audience {quote(audiences[0])} not found in pod spec volume, {why}")

    def _uses_audience(self, pod: Object, audience: str, request: AdmissionRequest) -> bool:
        """Whether a pod's volumes need a token for this audience, or the node may ask for any such."""
        for volume in (pod.get("spec") or {}).get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                token = source.get("serviceAccountToken")
                if token is not None and (token.get("audience") or "") == audience:
                    return True
            driver = (volume.get("csi") or {}).get("driver") or self._claimed_driver(pod, volume)
            if driver:
                found = self._view.get("csidrivers.storage.k8s.io", "", driver) or {}
                asked = (found.get("spec") or {}).get("tokenRequests") or ()
                if any((one.get("audience") or "") == audience for one in asked):
                    return True
        if self._authorizer is None:
            return False
        wanted = Attributes(
            request.user, "request-serviceaccounts-token-audience", resource=audience, name=request.name,
            namespace=request.namespace,
        )  # fmt: skip
        return self._authorizer.authorize(wanted).allowed

    def _claimed_driver(self, pod: Object, volume: Object) -> str:
        claim_name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if volume.get("ephemeral") is not None:
            claim_name = f"{pod['metadata']['name']}-{volume['name']}"
        if not claim_name:
            return ""
        claim = self._view.get("persistentvolumeclaims", pod["metadata"].get("namespace", ""), claim_name) or {}
        name = (claim.get("spec") or {}).get("volumeName")
        bound = self._view.get("persistentvolumes", "", name) if name else None
        return str((((bound or {}).get("spec") or {}).get("csi") or {}).get("driver") or "")

    def _lease(self, node: str, request: AdmissionRequest) -> None:
        if request.namespace != _LEASES:
            raise forbid(request, f"can only access leases in the {quote(_LEASES)} system namespace")
        if _own_name(request) != node:
            raise forbid(request, "can only access node lease with the same name as the requesting node")

    def _csi_node(self, node: str, request: AdmissionRequest) -> None:
        if _own_name(request) != node:
            raise forbid(request, "can only access CSINode with the same name as the requesting node")

    def _certificate(self, node: str, request: AdmissionRequest) -> None:
        spec = requested(request).get("spec") or {}
        if request.operation != "CREATE" or spec.get("signerName") not in _KUBELET_SIGNERS:
            return
        try:
            common, _ = subject_of(str(spec.get("request") or ""))
        except ValueError as error:
            raise forbid(request, f"unable to parse csr: {error}") from None
        if common != f"{_PREFIX}{node}":
            raise forbid(request, f"can only create a node CSR with CN={_PREFIX}{node}")

    def _slice(self, node: str, request: AdmissionRequest) -> None:
        item = requested(request) if request.operation == "CREATE" else request.old or {}
        if (item.get("spec") or {}).get("nodeName") != node:
            what = "create" if request.operation == "CREATE" else "delete"
            if request.operation != "UPDATE":
                raise forbid(request, f"can only {what} ResourceSlice with the same NodeName as the requesting node")


_CLAIMS_TEXT: Final = "persistentvolumeclaims"


def _own_name(request: AdmissionRequest) -> str:
    if request.operation == "CREATE":
        return str((requested(request).get("metadata") or {}).get("name") or "")
    return request.name


def _projects(spec: Mapping[str, Any], kind: str) -> bool:
    return any(
        source.get(kind) is not None
        for volume in spec.get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
    )


def _pod_status(node: str, request: AdmissionRequest) -> None:
    if request.operation != "UPDATE":
        raise forbid(request, f"unexpected operation {quote(request.operation)}")
    old, new, shown = request.old or {}, requested(request), quote(node)
    if (old.get("spec") or {}).get("nodeName") != node:
        raise forbid(request, f"node {shown} can only update pod status for pods with spec.nodeName set to itself")  # noqa: S608
    if labels_of(old) != labels_of(new):
        raise forbid(request, f"node {shown} cannot update labels through pod status")
    claims = [((one.get("status") or {}).get("resourceClaimStatuses") or []) for one in (old, new)]
    if claims[0] != claims[1]:
        raise forbid(request, f"node {shown} cannot update resource claim statues")


def _forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """Return the changed labels that are not a node's to set."""
    changed = {key for key in (*new, *old) if new.get(key) != old.get(key)}
    return sorted(key for key in changed if not _may_set(key))


def _may_set(label: str) -> bool:
    domain = label.partition("/")[0] if "/" in label else ""
    if _within(domain, (_RESTRICTED,)):
        return False
    if not _within(domain, ("kubernetes.io", "k8s.io")):
        return True
    return label in _KUBELET_LABELS or _within(domain, _KUBELET_DOMAINS)


def _within(domain: str, parents: Iterable[str]) -> bool:
    return any(domain == parent or domain.endswith(f".{parent}") for parent in parents)


def _without_capacity(claim: Object) -> Object:
    """Leave out what nodes may write, and what says nothing."""
    metadata = {k: v for k, v in (claim.get("metadata") or {}).items() if k not in {"resourceVersion", "managedFields"}}
    own = {"capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"}
    state = {key: value for key, value in (claim.get("status") or {}).items() if key not in own}
    return {**claim, "metadata": metadata, "status": state}
