"""No escalation: who writes a role or a binding may give away only what they hold themselves."""

from __future__ import annotations

from typing import Final

from pilothouse.apiserver.access.rbac import GROUP, RbacAuthorizer, RoleMissing
from pilothouse.apiserver.access.rules import PolicyRule, compact, covers, described, quoted
from pilothouse.apiserver.access.users import MASTERS
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import AdmissionRequest, Attributes, Authorizer, Gvr, Object, Operation
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.status import NotFound, forbidden, not_found

__all__ = ["EscalationCheck", "EscalationPlugin"]

_RESOURCES: Final = {
    "Role": "roles",
    "ClusterRole": "clusterroles",
    "RoleBinding": "rolebindings",
    "ClusterRoleBinding": "clusterrolebindings",
}
_EVERYTHING: Final[tuple[PolicyRule, ...]] = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)
_AGGREGATION: Final = "must have cluster-admin privileges to use an aggregationRule"
_COLLECTED: Final = ("ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation")
"""Fields of metadata that the garbage collector may change without being asked what the role allows."""


class EscalationCheck:
    """Refuses roles and bindings that give what their writer does not hold.

    rbac: knows what each holds. authorizer: of requests, asked for the verbs `escalate` and `bind`.
    """

    def __init__(self, rbac: RbacAuthorizer, authorizer: Authorizer) -> None:
        self._rbac = rbac
        self._authorizer = authorizer

    def check_write(self, user: User, obj: Object, old: Object | None = None) -> None:
        """Check an object of the group `rbac.authorization.k8s.io` before it is written; others pass.

        old: what is there now, None for a creation. Raises Forbidden, NotFound for a binding to no role.
        """
        kind = obj.get("kind")
        if kind not in _RESOURCES or MASTERS in user.groups:
            return
        if old is not None and _only_collected(obj, old):
            return
        if kind in {"Role", "ClusterRole"}:
            self._check_role(user, obj, old)
        else:
            self._check_binding(user, obj)

    def _check_role(self, user: User, obj: Object, old: Object | None) -> None:
        resource, metadata = _RESOURCES[obj["kind"]], obj["metadata"]
        namespace, name = metadata.get("namespace") or "", metadata.get("name") or ""
        if self._may(user, "escalate", resource, namespace, name if old is not None else ""):
            return
        self._confirm(user, resource, namespace, name, obj.get("rules") or [])
        if obj["kind"] != "ClusterRole" or not (obj.get("aggregationRule") or (old or {}).get("aggregationRule")):
            return
        if covers(self._rbac.rules_for(user)[0], _EVERYTHING):
            raise forbidden(GROUP, resource, name, _AGGREGATION)

    def _check_binding(self, user: User, obj: Object) -> None:
        metadata, reference = obj["metadata"], obj.get("roleRef") or {}
        namespace, name = metadata.get("namespace") or "", metadata.get("name") or ""
        kind, role = reference.get("kind") or "", reference.get("name") or ""
        if kind in {"Role", "ClusterRole"} and self._may(user, "bind", _RESOURCES[kind], namespace, role):
            return
        try:
            rules = self._rbac.role_rules(kind, namespace, role)
        except RoleMissing as error:
            raise _missing(kind, role, error) from error
        self._confirm(user, _RESOURCES[obj["kind"]], namespace, name, rules)

    def _may(self, user: User, verb: str, resource: str, namespace: str, name: str) -> bool:
        wanted = Attributes(user, verb, group=GROUP, version="v1", resource=resource, namespace=namespace, name=name)
        return self._authorizer.authorize(wanted).allowed

    def _confirm(self, user: User, resource: str, namespace: str, name: str, rules: list[PolicyRule]) -> None:
        held, errors = self._rbac.rules_for(user, namespace)
        missing = covers(held, rules)
        if not missing:
            return
        told = "\n".join(sorted({described(rule) for rule in compact(missing)}))
        text = (
            f"user {quote(user.name)} (groups={quoted(user.groups)}) "
            f"is attempting to grant RBAC permissions not currently held:\n{told}"
        )
        if errors:
            text += f"; resolution errors: [{' '.join(dict.fromkeys(errors))}]"
        raise forbidden(GROUP, resource, name, text)


class EscalationPlugin:
    """The check as a step of admission, to be the first of those that validate."""

    name = "RBACEscalation"

    def __init__(self, check: EscalationCheck) -> None:
        self._check = check

    @property
    def revision(self) -> int:
        """Always the same: what is checked does not change."""
        return 0

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether a role or binding is written."""
        written = operation in {"CREATE", "UPDATE"} and not subresource
        return written and resource[0] == GROUP and resource[2] in _RESOURCES.values()

    def mutate(self, request: AdmissionRequest) -> None:
        """Change nothing."""

    def validate(self, request: AdmissionRequest) -> None:
        """Refuse what gives more than its writer holds. Raises Forbidden, NotFound."""
        if request.object is not None:
            self._check.check_write(request.user, _placed(request), request.old)


def _placed(request: AdmissionRequest) -> Object:
    """Return the object with kind, name and namespace as the request has them, where it does not say them itself."""
    metadata = {"name": request.name, **(request.object or {}).get("metadata", {})}
    if request.namespace:
        metadata["namespace"] = request.namespace
    return {**(request.object or {}), "kind": request.kind[2], "metadata": metadata}


def _missing(kind: str, role: str, error: RoleMissing) -> NotFound:
    return not_found(GROUP, kind.lower(), role) if kind in _RESOURCES else NotFound(str(error))


def _only_collected(obj: Object, old: Object) -> bool:
    """Whether an update changes nothing but what the garbage collector changes."""
    before, after = ({**one, "metadata": _kept(one["metadata"])} for one in (old, obj))
    return before == after


def _kept(metadata: Object) -> Object:
    return {field: value for field, value in metadata.items() if field not in _COLLECTED}
