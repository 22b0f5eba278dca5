"""RBAC: what roles and their bindings allow, remembered until one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.apiserver.access.rules import PolicyRule, Rule
from pilothouse.apiserver.access.users import MASTERS, service_account_username
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes, Decision, Object, View
from pilothouse.kinds.fielderrors import quote

__all__ = ["GROUP", "RESOURCES", "RbacAuthorizer", "RoleMissing"]

GROUP: Final = "rbac.authorization.k8s.io"
ROLES: Final = f"roles.{GROUP}"
ROLE_BINDINGS: Final = f"rolebindings.{GROUP}"
CLUSTER_ROLES: Final = f"clusterroles.{GROUP}"
CLUSTER_ROLE_BINDINGS: Final = f"clusterrolebindings.{GROUP}"
RESOURCES: Final = (ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS)
"""What decisions are made of."""

_MEMO: Final = 8_192
"""Decisions remembered at most; when there are more, all are forgotten and found again."""
_MEMO_LENGTH: Final = 1_024
"""Characters of the longest question whose answer is remembered, so that hostile ones do not fill memory."""
_NAMESPACES: Final = 4_096
"""Namespaces whose bindings are kept indexed at most."""
_GRANTS: Final = 4_096
"""Combinations of user, groups and namespace whose bindings are kept at most."""
_LONGEST_NAME: Final = 63
"""Characters of the longest name that a namespace can have."""
_ALLOWED: Final = Decision(allowed=True)


class RoleMissing(Exception):
    """A binding refers to a role that is not there; the message is Kubernetes' own."""


@dataclass(frozen=True, slots=True)
class _Binding:
    """A binding, and the subjects it names by the key they are found under."""

    order: int
    role: tuple[str, str, str]
    """Kind, namespace (empty for the cluster) and name of the role."""
    told: str
    subjects: tuple[tuple[str, str], ...]
    """Key of each subject, and how it is told."""


_Index = dict[str, list[_Binding]]
_Resolved = list[tuple[str, tuple[Rule, ...], str]]
"""For each binding of a user: how it is told, the role's rules, or what is wrong with the role."""


class RbacAuthorizer:
    """Decides by the roles and bindings that the watch cache holds.

    A hot decision is one look-up. A change forgets all decisions but re-reads only what changed: one role, the
    bindings of one namespace, or those of the cluster.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._memo: dict[tuple[Any, ...], Decision] = {}
        self._named: dict[tuple[tuple[Any, ...], str], Decision] = {}
        self._granted: dict[tuple[str, tuple[str, ...], str], _Resolved] = {}
        self._cluster: _Index | None = None
        self._namespaces: dict[str, _Index] = {}
        self._rules: dict[tuple[str, str, str], tuple[Rule, ...]] = {}
        self._stops = [view.notify(resource, self._listener(resource)) for resource in RESOURCES]

    def close(self) -> None:
        """Stop following the rules."""
        for stop in self._stops:
            stop()

    def authorize(self, attributes: Attributes) -> Decision:
        """Decide: allowed with the binding that allows it, or not allowed with what could not be read."""
        user = attributes.user
        key = (
            user.name,
            user.groups,
            attributes.verb,
            attributes.resource,
            attributes.namespace,
            attributes.subresource,
            attributes.group,
            None if attributes.is_resource else attributes.path,
        )
        return self._memo.get(key) or self._decide(key, attributes)

    def _decide(self, key: tuple[Any, ...], attributes: Attributes) -> Decision:
        """Find a decision and remember it: for all names of objects at once where no rule in question names any."""
        if _length(attributes) > _MEMO_LENGTH:
            return self._evaluate(attributes)[0]
        by_name = (key, attributes.name)
        found = self._named.get(by_name)
        if found is None:
            found, named = self._evaluate(attributes)
            if len(self._memo) + len(self._named) >= _MEMO:
                self._forget()
            if named:
                self._named[by_name] = found
            else:
                self._memo[key] = found
        return found

    def _evaluate(self, attributes: Attributes) -> tuple[Decision, bool]:
        """Return a decision, and whether it might be another for an object of another name."""
        if MASTERS in attributes.user.groups:
            return _ALLOWED, False
        errors: dict[str, None] = {}
        named = False
        for told, rules, error in self._grants(attributes.user, attributes.namespace):
            if error:
                errors[error] = None
                continue
            for rule in rules:
                if not rule.concerns(attributes):
                    continue
                named = named or rule.named
                if rule.allows(attributes):
                    return Decision(allowed=True, reason=f"RBAC: allowed by {told}"), named
        text = _aggregate(list(errors))
        return Decision(allowed=False, reason=f"RBAC: {text}" if text else "", error=text), named

    def rules_for(self, user: User, namespace: str = "") -> tuple[list[PolicyRule], list[str]]:
        """Return all rules that hold for a user in the cluster and a namespace, and what could not be read."""
        rules: list[PolicyRule] = []
        errors: list[str] = []
        for _, found, error in self._grants(user, namespace):
            rules.extend(rule.source for rule in found)
            if error:
                errors.append(error)
        return rules, errors

    def role_rules(self, kind: str, namespace: str, name: str) -> list[PolicyRule]:
        """Return the rules of a role; the namespace counts for a Role only. Raises RoleMissing."""
        return [rule.source for rule in self._role(_role_key(kind, namespace, name))]

    def _grants(self, user: User, namespace: str) -> _Resolved:
        key = (user.name, user.groups, namespace)
        found = self._granted.get(key)
        if found is None:
            found = [self._resolve(told, binding) for told, binding in self._bindings(user, namespace)]
            if len(self._granted) >= _GRANTS:
                self._granted.clear()
            if len(namespace) <= _LONGEST_NAME:
                self._granted[key] = found
        return found

    def _resolve(self, told: str, binding: _Binding) -> tuple[str, tuple[Rule, ...], str]:
        try:
            return told, self._role(binding.role), ""
        except RoleMissing as error:
            return told, (), str(error)

    def _bindings(self, user: User, namespace: str) -> Iterable[tuple[str, _Binding]]:
        keys = {f"u:{user.name}", *(f"g:{group}" for group in user.groups)}
        if self._cluster is None:
            self._cluster = _index(self._view.list(CLUSTER_ROLE_BINDINGS), "")
        yield from _applying(self._cluster, keys)
        if namespace:
            index = self._namespaces.get(namespace)
            if index is None:
                index = _index(self._view.list(ROLE_BINDINGS, namespace), namespace)
                if len(self._namespaces) >= _NAMESPACES:
                    self._namespaces.clear()
                if len(namespace) <= _LONGEST_NAME:
                    self._namespaces[namespace] = index
            yield from _applying(index, keys)

    def _role(self, key: tuple[str, str, str]) -> tuple[Rule, ...]:
        found = self._rules.get(key)
        if found is None:
            kind, namespace, name = key
            if kind not in {"Role", "ClusterRole"}:
                raise RoleMissing(f"unsupported role reference kind: {quote(kind)}")
            role = self._view.get(ROLES if kind == "Role" else CLUSTER_ROLES, namespace, name)
            if role is None:
                raise RoleMissing(f"{kind.lower()}.{GROUP} {quote(name)} not found")
            # bounded by the roles there are: what is deleted or changed is forgotten
            found = self._rules[key] = tuple(Rule(rule) for rule in role.get("rules") or ())
        return found

    def _listener(self, resource: str) -> Callable[[str, str], None]:
        def changed(namespace: str, name: str) -> None:
            if resource == CLUSTER_ROLE_BINDINGS:
                self._cluster = None
            elif resource == ROLE_BINDINGS:
                self._namespaces.pop(namespace, None)
            else:
                self._rules.pop(("Role" if resource == ROLES else "ClusterRole", namespace, name), None)
            self._granted.clear()
            self._forget()

        return changed

    def _forget(self) -> None:
        self._memo.clear()
        self._named.clear()


def _length(attributes: Attributes) -> int:
    user = attributes.user
    texts = (attributes.verb, attributes.group, attributes.resource, attributes.subresource, attributes.namespace)
    return sum(map(len, (*texts, attributes.name, attributes.path, user.name, *user.groups)))


def _role_key(kind: str, namespace: str, name: str) -> tuple[str, str, str]:
    return kind, namespace if kind == "Role" else "", name


def _index(bindings: Sequence[Object], namespace: str) -> _Index:
    index: _Index = {}
    for order, obj in enumerate(bindings):
        binding = _binding(order, obj, namespace)
        for key in dict.fromkeys(key for key, _ in binding.subjects):
            index.setdefault(key, []).append(binding)
    return index


def _binding(order: int, obj: Object, namespace: str) -> _Binding:
    reference = obj.get("roleRef") or {}
    kind, role = reference.get("kind") or "", reference.get("name") or ""
    name = obj["metadata"]["name"]
    title = f"RoleBinding {quote(f'{name}/{namespace}')}" if namespace else f"ClusterRoleBinding {quote(name)}"
    subjects = (_subject(subject, namespace) for subject in obj.get("subjects") or ())
    return _Binding(
        order,
        _role_key(kind, namespace, role),
        f"{title} of {kind} {quote(role)} to ",
        tuple(subject for subject in subjects if subject is not None),
    )


def _subject(subject: Object, namespace: str) -> tuple[str, str] | None:
    kind, name = subject.get("kind"), subject.get("name") or ""
    if kind == "User":
        return f"u:{name}", f"User {quote(name)}"
    if kind == "Group":
        return f"g:{name}", f"Group {quote(name)}"
    home = subject.get("namespace") or namespace
    if kind == "ServiceAccount" and home:
        return f"u:{service_account_username(home, name)}", f"ServiceAccount {quote(f'{name}/{home}')}"
    return None


def _applying(index: _Index, keys: set[str]) -> Iterable[tuple[str, _Binding]]:
    found = {binding.order: binding for key in keys for binding in index.get(key, ())}
    for order in sorted(found):
        binding = found[order]
        yield binding.told + next(told for key, told in binding.subjects if key in keys), binding


def _aggregate(errors: Sequence[str]) -> str:
    return errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]" if errors else ""
