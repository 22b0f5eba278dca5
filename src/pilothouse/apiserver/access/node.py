"""The node authorizer: what a kubelet may do, and that it sees only what its own pods use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from pilothouse.apiserver.access.default_roles import default_objects
from pilothouse.apiserver.access.rules import Rule
from pilothouse.apiserver.access.users import NODES, node_of
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes, Decision, Object, View

__all__ = ["NodeAuthorizer", "references"]

_Reference: TypeAlias = tuple[str, str, str]
"""Resource, namespace and name of what a pod uses."""

_ALLOWED: Final = Decision(allowed=True)
_NO_OPINION: Final = Decision(allowed=False)
_READ: Final = frozenset({"get", "list", "watch"})
_OWN: Final = frozenset({"get", "create", "update", "patch", "delete"})
_LEASES: Final = "kube-node-lease"


class NodeAuthorizer:
    """Decides for users `system:node:NAME` of the group `system:nodes`, and has no opinion on others.

    Which pods are on which node, and what they use, is followed in the view from the first such request on; pods that
    changed are looked at when a node next asks.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._used: dict[str, Counter[_Reference]] = {}
        self._pods: dict[tuple[str, str], tuple[str, frozenset[_Reference]]] = {}
        self._changed: set[tuple[str, str]] = set()
        self._following = False
        self._rules: tuple[Rule, ...] = ()

    def authorize(self, attributes: Attributes) -> Decision:
        """Decide."""
        if NODES not in attributes.user.groups:
            return _NO_OPINION
        node = _node(attributes.user)
        if not node:
            return _silent(f'unknown node for user "{attributes.user.name}"')
        if not self._following:
            self._follow()
        while self._changed:
            self._refresh(*self._changed.pop())
        why = self._lacks(node, attributes) if attributes.is_resource else None
        if why is None:
            return _ALLOWED if any(rule.allows(attributes) for rule in self._rules) else _silent("")
        return _silent(why) if why else _ALLOWED

    def _lacks(self, node: str, wanted: Attributes) -> str | None:
        """Say why a request is not allowed: empty where it is, None where only the common rules count."""
        judge = _JUDGES.get((wanted.group, wanted.resource))
        return None if judge is None else judge(self, node, wanted)

    def _read_only(self, node: str, wanted: Attributes) -> str:
        if wanted.verb not in _READ:
            return "can only read resources of this type"
        if wanted.subresource:
            return "cannot read subresource"
        if not wanted.namespace:
            return "can only read namespaced object of this type"
        return self._unrelated(node, wanted)

    def _volume_claim(self, node: str, wanted: Attributes) -> str:
        if wanted.subresource != "status":
            return self._get_only(node, wanted)
        ok = wanted.verb in {"update", "patch"}
        return self._unrelated(node, wanted) if ok else "can only get/update/patch this type"

    def _get_only(self, node: str, wanted: Attributes) -> str:
        if wanted.verb != "get":
            return "can only get individual resources of this type"
        return "cannot get subresource" if wanted.subresource else self._unrelated(node, wanted)

    def _unrelated(self, node: str, wanted: Attributes) -> str:
        if not wanted.name:
            return "No Object name found"
        key = (wanted.resource, wanted.namespace, wanted.name)
        used = self._used.get(node, ())
        related = key in used
        if wanted.resource == "persistentvolumes":
            claim = _claim(self._view.get("persistentvolumes", "", wanted.name))
            related = claim is not None and ("persistentvolumeclaims", *claim) in used
        return "" if related else _no_relation(node)

    def _attachment(self, node: str, wanted: Attributes) -> str:
        if wanted.verb != "get":
            return "can only get individual resources of this type"
        found = self._view.get("volumeattachments.storage.k8s.io", "", wanted.name)
        return "" if found is not None and found["spec"].get("nodeName") == node else _no_relation(node)

    def _token(self, node: str, wanted: Attributes) -> str | None:
        if wanted.verb == "get" and not wanted.subresource:
            return self._unrelated(node, wanted)
        if wanted.verb != "create" or not wanted.name:
            return "can only create tokens for individual service accounts"
        if wanted.subresource != "token":
            return "can only create token subresource of serviceaccount"
        return self._unrelated(node, wanted)

    def _pod(self, node: str, wanted: Attributes) -> str | None:
        if wanted.subresource or wanted.verb not in _READ:
            return None
        if wanted.verb == "get" or wanted.name:
            pod = self._view.get("pods", wanted.namespace, wanted.name)
            return "" if pod is not None and _placed(pod) == node else _no_relation(node)
        own = f"spec.nodeName={node}" in wanted.field_selector.replace("==", "=").split(",")
        return "" if own else "can only list/watch pods with spec.nodeName field selector"

    def _follow(self) -> None:
        self._following = True
        self._rules = next(
            tuple(map(Rule, obj["rules"])) for _, obj in default_objects() if obj["metadata"]["name"] == "system:node"
        )
        self._view.notify("pods", lambda namespace, name: self._changed.add((namespace, name)))
        for pod in self._view.list("pods"):
            metadata = pod["metadata"]
            self._take(metadata.get("namespace") or "", metadata["name"], pod)

    def _refresh(self, namespace: str, name: str) -> None:
        node, used = self._pods.pop((namespace, name), ("", frozenset()))
        if node:
            counts = self._used[node]
            counts.subtract(used)
            for reference in used:
                if counts[reference] <= 0:
                    del counts[reference]
            if not counts:
                del self._used[node]
        pod = self._view.get("pods", namespace, name)
        if pod is not None:
            self._take(namespace, name, pod)

    def _take(self, namespace: str, name: str, pod: Object) -> None:
        node = _placed(pod)
        if not node:
            return
        used = frozenset(references(pod))
        self._pods[namespace, name] = (node, used)
        self._used.setdefault(node, Counter()).update(used)


def _silent(reason: str) -> Decision:
    return Decision(allowed=False, reason=reason) if reason else _NO_OPINION


def _node(user: User) -> str:
    return node_of(user.name)


def _no_relation(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"


def _placed(pod: Object) -> str:
    return (pod.get("spec") or {}).get("nodeName") or ""


def _claim(volume: Object | None) -> tuple[str, str] | None:
    claim = ((volume or {}).get("spec") or {}).get("claimRef")
    return (claim.get("namespace") or "", claim.get("name") or "") if claim else None


def _lease(node: str, wanted: Attributes) -> str:
    if wanted.verb not in _OWN:
        return "can only get, create, update, patch, or delete a node lease"
    if wanted.namespace != _LEASES:
        return f'can only access leases in the "{_LEASES}" system namespace'
    if wanted.verb != "create" and wanted.name != node:
        return "can only access node lease with the same name as the requesting node"
    return ""


def _own_object(node: str, wanted: Attributes, kind: str) -> str:
    if wanted.verb not in _OWN:
        return f"can only get, create, update, patch, or delete a {kind}"
    if wanted.subresource:
        return f"cannot authorize {kind} subresources"
    if wanted.verb != "create" and wanted.name != node:
        return f"can only access {kind} with the same name as the requesting node"
    return ""


def _node_object(node: str, wanted: Attributes) -> str | None:
    """Let a node read itself only; that it writes nothing else is up to the admission plugin NodeRestriction."""
    if wanted.subresource or wanted.verb not in _READ or wanted.name == node:
        return None
    what = f"'{wanted.name}'" if wanted.name else "all nodes"
    return f"node '{node}' cannot read {what}, only its own Node object"


_JUDGES: Final[Mapping[tuple[str, str], Callable[[NodeAuthorizer, str, Attributes], str | None]]] = {
    ("", "secrets"): NodeAuthorizer._read_only,
    ("", "configmaps"): NodeAuthorizer._read_only,
    ("", "persistentvolumeclaims"): NodeAuthorizer._volume_claim,
    ("", "persistentvolumes"): NodeAuthorizer._get_only,
    ("resource.k8s.io", "resourceclaims"): NodeAuthorizer._get_only,
    ("storage.k8s.io", "volumeattachments"): NodeAuthorizer._attachment,
    ("", "serviceaccounts"): NodeAuthorizer._token,
    ("coordination.k8s.io", "leases"): lambda _, node, wanted: _lease(node, wanted),
    ("storage.k8s.io", "csinodes"): lambda _, node, wanted: _own_object(node, wanted, "CSINode"),
    ("", "nodes"): lambda _, node, wanted: _node_object(node, wanted),
    ("", "pods"): NodeAuthorizer._pod,
}
"""How requests for resources are judged that are not the same for all nodes."""


def references(pod: Object) -> Iterator[_Reference]:
    """Give what a pod uses: its service account, secrets, config maps, claims and resource claims."""
    namespace, spec = pod["metadata"].get("namespace") or "", pod.get("spec") or {}
    if spec.get("serviceAccountName"):
        yield "serviceaccounts", namespace, spec["serviceAccountName"]
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", namespace, secret.get("name") or ""
    for field in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            yield from _environment(namespace, container)
    for volume in spec.get("volumes") or ():
        yield from _volume(namespace, pod, volume)
    for claim in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        if claim.get("resourceClaimName"):
            yield "resourceclaims", namespace, claim["resourceClaimName"]
    for claim in spec.get("resourceClaims") or ():
        if claim.get("resourceClaimName"):
            yield "resourceclaims", namespace, claim["resourceClaimName"]


_SOURCES: Final = {"secretRef": "secrets", "configMapRef": "configmaps"}
_KEYS: Final = {"secretKeyRef": "secrets", "configMapKeyRef": "configmaps"}


def _environment(namespace: str, container: Object) -> Iterator[_Reference]:
    for source in container.get("envFrom") or ():
        yield from _named(namespace, source, _SOURCES)
    for variable in container.get("env") or ():
        yield from _named(namespace, variable.get("valueFrom") or {}, _KEYS)


def _named(namespace: str, source: Object, fields: dict[str, str]) -> Iterator[_Reference]:
    for field, resource in fields.items():
        if source.get(field):
            yield resource, namespace, source[field].get("name") or ""


def _volume(namespace: str, pod: Object, volume: Object) -> Iterator[_Reference]:
    sources: Iterable[Object] = (volume.get("projected") or {}).get("sources") or ()
    for one in (volume, *sources):
        secret: Any = one.get("secret")
        if secret:
            yield "secrets", namespace, secret.get("secretName") or secret.get("name") or ""
        if one.get("configMap"):
            yield "configmaps", namespace, one["configMap"].get("name") or ""
    claim = volume.get("persistentVolumeClaim")
    if claim:
        yield "persistentvolumeclaims", namespace, claim.get("claimName") or ""
    if volume.get("ephemeral"):
        yield "persistentvolumeclaims", namespace, f"{pod['metadata']['name']}-{volume['name']}"
    for source in volume.values():
        if isinstance(source, dict):
            for field in ("secretRef", "nodePublishSecretRef"):
                if isinstance(source.get(field), dict):
                    yield "secrets", namespace, source[field].get("name") or ""
