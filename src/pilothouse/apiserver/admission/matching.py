"""Which requests a webhook, a policy or a binding is for: rules, selectors, and the same resource in other versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pilothouse.apiserver.admission.plugin import labels_of
from pilothouse.apiserver.ports import AdmissionRequest, Gvk, Gvr, Object, View
from pilothouse.kinds import labels, status

__all__ = ["EXEMPT", "VIRTUAL", "Criteria", "Match", "Rule"]

EXEMPT: Final = frozenset(
    ("admissionregistration.k8s.io", plural)
    for plural in (
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
    )
)
"""What configures admission is never subject to it, so that nobody locks himself out."""

VIRTUAL: Final = frozenset({
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
})  # fmt: skip
"""Questions about permissions, which policies do not see."""

_ANY: Final = "*"
_NAMESPACES: Final = "namespaces"
_COHABITING: Final = frozenset({"events"})
"""Resources that two groups serve."""


class Match(NamedTuple):
    """As which resource and kind a request matched; another version where `matchPolicy: Equivalent` found it."""

    resource: Gvr
    kind: Gvk

    @property
    def api_version(self) -> str:
        """The `apiVersion` of the kind."""
        return f"{self.kind[0]}/{self.kind[1]}" if self.kind[0] else self.kind[1]


class Rule(NamedTuple):
    """One rule: an item of `rules`, `resourceRules` or `excludeResourceRules`."""

    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]
    scope: str = _ANY
    names: frozenset[str] = frozenset()

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Rule:
        """Read a rule as the API has it."""
        pairs = [str(one).partition("/") for one in found.get("resources") or ()]
        return cls(
            frozenset(found.get("operations") or ()),
            frozenset(found.get("apiGroups") or ()),
            frozenset(found.get("apiVersions") or ()),
            tuple((resource, subresource) for resource, _, subresource in pairs),
            found.get("scope") or _ANY,
            frozenset(found.get("resourceNames") or ()),
        )

    def takes(self, operation: str, resource: Gvr, subresource: str) -> bool:
        """Whether operation and resource are the rule's, in this group and version."""
        return (
            self.takes_plural(operation, resource[2], subresource)
            and (_ANY in self.groups or resource[0] in self.groups)
            and (_ANY in self.versions or resource[1] in self.versions)
        )

    def may_take(self, operation: str, resource: Gvr, subresource: str) -> bool:
        """Whether the rule may hold for the same resource in another version, or another group where it has one."""
        group, _, plural = resource
        named = plural in _COHABITING or any(one == plural for one, _ in self.resources)
        return self.takes_plural(operation, plural, subresource) and (
            named or _ANY in self.groups or group in self.groups
        )

    def takes_plural(self, operation: str, plural: str, subresource: str) -> bool:
        """Whether operation and resource are the rule's, in any group and version."""
        return (_ANY in self.operations or operation in self.operations) and any(
            one in {_ANY, plural} and sub in {_ANY, subresource} for one, sub in self.resources
        )

    def holds(self, request: AdmissionRequest, resource: Gvr) -> bool:
        """Whether a request is the rule's when it is seen as this resource."""
        return (
            self.takes(request.operation, resource, request.subresource)
            and self._in_scope(request, resource)
            and (not self.names or request.name in self.names)
        )

    def _in_scope(self, request: AdmissionRequest, resource: Gvr) -> bool:
        if self.scope == _ANY:
            return True
        # A namespace carries its own name as namespace, but belongs to the cluster.
        of_cluster = not request.namespace or (resource[0], resource[2]) == ("", _NAMESPACES)
        return of_cluster if self.scope == "Cluster" else not of_cluster


class Criteria:
    """Rules and selectors together.

    rules: as the API has them; with `unbounded` none means all. Raises nothing for selectors that cannot be read:
    they refuse what they would be asked about.
    """

    def __init__(
        self,
        rules: Iterable[Mapping[str, Any]],
        found: Mapping[str, Any],
        *,
        excluded: Iterable[Mapping[str, Any]] = (),
        unbounded: bool = False,
    ) -> None:
        self._rules = tuple(Rule.read(one) for one in rules)
        self._excluded = tuple(Rule.read(one) for one in excluded)
        self._everything = unbounded and not self._rules
        self._equivalent = found.get("matchPolicy", "Equivalent") == "Equivalent"
        self._problem = ""
        self._namespaces = self._selector(found.get("namespaceSelector"))
        self._objects = self._selector(found.get("objectSelector"))

    @classmethod
    def of_resources(cls, found: Mapping[str, Any] | None) -> Criteria:
        """Read the `matchConstraints` of a policy or the `matchResources` of a binding; None matches all."""
        told = found or {}
        return cls(
            told.get("resourceRules") or (),
            told,
            excluded=told.get("excludeResourceRules") or (),
            unbounded=True,
        )

    def _selector(self, found: Mapping[str, Any] | None) -> labels.Selector:
        try:
            return labels.from_label_selector(found) if found else labels.EVERYTHING
        except labels.SelectorError as error:
            self._problem = str(error)
            return labels.EVERYTHING

    def concerns(self, operation: str, resource: Gvr, subresource: str) -> bool:
        """Whether a request of this form may ever match, whatever its object."""
        if self._everything:
            return True
        if self._equivalent:
            return any(rule.may_take(operation, resource, subresource) for rule in self._rules)
        return any(rule.takes(operation, resource, subresource) for rule in self._rules)

    def match(self, request: AdmissionRequest, view: View) -> Match | None:
        """Return as what a request matches, None where it does not.

        Raises NotFound for a namespace that is not there, InternalError for selectors that cannot be read.
        """
        if not self._selects(self._objects, request.object, request.old):
            return None
        if self._excluded and self._find(self._excluded, request) is not None:
            return None
        found = Match(request.resource, request.kind) if self._everything else self._find(self._rules, request)
        if found is None:
            return None
        if self._problem:
            raise status.internal_error(self._problem)
        return found if self._in_namespaces(request, view) else None

    def _find(self, rules: Sequence[Rule], request: AdmissionRequest) -> Match | None:
        if any(rule.holds(request, request.resource) for rule in rules):
            return Match(request.resource, request.kind)
        if self._equivalent and request.equivalents:
            for rule in rules:
                for resource, kind in request.equivalents:
                    if resource != request.resource and rule.holds(request, resource):
                        return Match(resource, kind)
        return None

    @staticmethod
    def _selects(selector: labels.Selector, *items: Object | None) -> bool:
        return selector.empty or any(item is not None and selector.matches(labels_of(item)) for item in items)

    def _in_namespaces(self, request: AdmissionRequest, view: View) -> bool:
        selector = self._namespaces
        if selector.empty:
            return True
        if request.resource[2] == _NAMESPACES and not request.subresource and request.operation in _WRITTEN:
            return selector.matches(labels_of(request.object))
        if not request.namespace:
            return True
        namespace = view.get(_NAMESPACES, "", request.namespace)
        if namespace is None:
            raise status.not_found("", _NAMESPACES, request.namespace)
        return selector.matches(labels_of(namespace))


_WRITTEN: Final = frozenset({"CREATE", "UPDATE"})
