"""Admission policies and their bindings, read once per change and compiled once per generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from pilothouse.apiserver.admission.expressions import Conditions, compiled
from pilothouse.apiserver.admission.matching import EXEMPT, VIRTUAL, Criteria, Match
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Object, Operation, View
from pilothouse.kinds import labels

__all__ = [
    "Binding",
    "ConfigurationFailed",
    "FindResource",
    "Policies",
    "Policy",
    "Scope",
    "at_once",
    "full_name",
    "namespace_object",
    "needs_conversion",
]

FindResource: TypeAlias = Callable[[str, str], tuple[str, bool] | None]
"""Gives plural and scope of a kind: `find("v1", "ConfigMap")` is `("configmaps", True)`; None if nobody serves it."""


class ConfigurationFailed(Exception):
    """A policy or binding cannot be used for a request; the message is Kubernetes'."""


def full_name(api_version: str, plural: str) -> str:
    """Return the name under which a view has a resource."""
    group = api_version.rpartition("/")[0]
    return f"{plural}.{group}" if group else plural


class Scope:
    """The environment of a policy's expressions: the usual variables, `params` and the policy's own `variables`.

    Each of the policy's variables sees those before it. objects: whether objects may be made.
    """

    def __init__(self, spec: Mapping[str, Any], *, objects: bool) -> None:
        from pilothouse.apiserver.cel import Environment  # noqa: PLC0415 - only where there are policies
        from pilothouse.apiserver.cel.types import DYN, Field, Type, object_type  # noqa: PLC0415

        fields: dict[str, Field] = {}
        usual = ["object", "oldObject", "request", "namespaceObject"]
        names: dict[str, Type] = dict.fromkeys(usual, DYN)
        if spec.get("paramKind") is not None:
            names["params"] = DYN
        names["variables"] = object_type("kubernetes.variables", fields)
        self.silent: Final = Environment(names, objects=objects)
        """Without the authorizer, for messages."""
        asking = Environment(["authorizer", "authorizer.requestResource"]).variables
        self.full: Final = self.silent.extended(asking)
        self.variables: list[tuple[str, Any]] = []
        """Names and programs, or why one does not compile."""
        for one in spec.get("variables") or ():
            name, text = str(one.get("name") or ""), str(one.get("expression") or "")
            program = compiled(self.full, text, "any")
            self.variables.append((name, program))
            fields[name] = Field(DYN if isinstance(program, str) else program.type, name)

    def values(
        self, values: dict[str, Any], params: Object | None, namespace: Object | None, budget: Any
    ) -> dict[str, Any]:
        """Add to the variables of a request those of the policy, which are made when first asked for."""
        from pilothouse.apiserver.cel import LazyMap  # noqa: PLC0415

        values["params"], values["namespaceObject"] = params, namespace
        makers = {name: _maker(name, program, values, budget) for name, program in self.variables}
        values["variables"] = LazyMap(makers)
        return values


def _maker(name: str, program: Any, values: Mapping[str, Any], budget: Any) -> Callable[[], Any]:
    from pilothouse.apiserver.cel import CelError, CostExceededError  # noqa: PLC0415

    def make() -> Any:
        if isinstance(program, str):
            raise CelError(f'composited variable "{name}" fails to compile: {program}')
        try:
            return program.value(values, budget=budget)
        except CostExceededError:
            raise
        except CelError as error:
            raise CelError(f'composited variable "{name}" fails to evaluate: {error}') from None

    return make


class Binding:
    """A binding: for what it uses a policy, with which parameters and to what end."""

    def __init__(self, found: Object) -> None:
        spec = found.get("spec") or {}
        self.name = str(found["metadata"]["name"])
        self.policy = str(spec.get("policyName") or "")
        self.actions = tuple(spec.get("validationActions") or ())
        self.reference: Mapping[str, Any] | None = spec.get("paramRef")
        resources = spec.get("matchResources")
        self._criteria = Criteria.of_resources(resources) if resources is not None else None

    def takes(self, request: AdmissionRequest, view: View) -> bool:
        """Whether the binding is for a request. Raises ApiStatus where that cannot be told."""
        return self._criteria is None or self._criteria.match(request, view) is not None

    def params(self, policy: Policy, request: AdmissionRequest, view: View) -> list[Object | None]:
        """Return the parameters, each of which the policy is evaluated with; None for without.

        Raises ConfigurationFailed.
        """
        kind, reference = policy.param_kind, self.reference
        if kind is None or reference is None:
            return [None]
        plural, namespaced = policy.param_resource or ("", False)
        namespace = str(reference.get("namespace") or "")
        if namespaced:
            namespace = namespace or request.namespace
            if not namespace:
                raise ConfigurationFailed(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif namespace:
            raise ConfigurationFailed("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        found = _chosen(view, full_name(kind[0], plural), namespace, reference)
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            raise ConfigurationFailed("no params found for policy binding with `Deny` parameterNotFoundAction")
        return [{"apiVersion": kind[0], "kind": kind[1], **one} for one in found]


def _chosen(view: View, resource: str, namespace: str, reference: Mapping[str, Any]) -> list[Object]:
    name = reference.get("name")
    if name:
        one = view.get(resource, namespace, str(name))
        return [] if one is None else [one]
    if reference.get("selector") is None:
        raise ConfigurationFailed("one of name or selector must be provided")
    try:
        selector = labels.from_label_selector(reference["selector"])
    except labels.SelectorError as error:
        raise ConfigurationFailed(str(error)) from None
    listed = view.list(resource, namespace)
    return [one for one in listed if selector.matches((one.get("metadata") or {}).get("labels") or {})]


class Policy:
    """A policy, whose expressions are compiled when a request first needs them.

    param_kind: apiVersion and kind. param_resource: plural and scope of it, None where nobody serves it.
    """

    OBJECTS = False
    """Whether its expressions may make objects."""

    def __init__(self, found: Object, find: FindResource) -> None:
        self.name = str(found["metadata"]["name"])
        self.spec: Mapping[str, Any] = found.get("spec") or {}
        self.ignores_failure = self.spec.get("failurePolicy") == "Ignore"
        self.criteria = Criteria.of_resources(self.spec.get("matchConstraints"))
        kind = self.spec.get("paramKind")
        self.param_kind = None if kind is None else (str(kind.get("apiVersion")), str(kind.get("kind")))
        self._find = find
        self._scope: Scope | None = None
        policy = str(self.spec.get("failurePolicy") or "Fail")
        self.conditions = Conditions(self.spec.get("matchConditions") or (), policy, lambda: self.scope.full)

    @property
    def scope(self) -> Scope:
        """The environment of its expressions."""
        if self._scope is None:
            self._scope = Scope(self.spec, objects=self.OBJECTS)
        return self._scope

    @property
    def param_resource(self) -> tuple[str, bool] | None:
        """What serves the parameters."""
        return None if self.param_kind is None else self._find(*self.param_kind)

    def check(self) -> None:
        """Raise ConfigurationFailed where nobody serves the kind of the parameters."""
        if self.param_kind is not None and self.param_resource is None:
            version, kind = self.param_kind
            shown = version if "/" in version else f"/{version}"
            raise ConfigurationFailed(f"failed to find resource referenced by paramKind: '{shown}, Kind={kind}'")


class Policies:
    """All policies of one kind that have bindings, by name. `changed` is called after each change.

    made: makes a policy of an object; what it made is kept as long as uid and generation stay.
    """

    def __init__(
        self, view: View, policies: str, bindings: str, made: Callable[[Object], Policy], changed: Callable[[], None]
    ) -> None:
        self._view = view
        self._resources = policies, bindings
        self._made = made
        self._tell = changed
        self._kept: dict[tuple[str, Any], Policy] = {}
        self._all: list[tuple[Policy, list[Binding]]] | None = None
        for resource in self._resources:
            view.notify(resource, self._changed)

    def _changed(self, namespace: str, name: str) -> None:
        self._all = None
        self._tell()

    def all(self) -> list[tuple[Policy, list[Binding]]]:
        """Return the policies of now with their bindings."""
        if self._all is None:
            bound: dict[str, list[Binding]] = {}
            for found in sorted(self._view.list(self._resources[1]), key=_by_name):
                binding = Binding(found)
                bound.setdefault(binding.policy, []).append(binding)
            kept: dict[tuple[str, Any], Policy] = {}
            every = []
            for found in sorted(self._view.list(self._resources[0]), key=_by_name):
                metadata = found["metadata"]
                key = (str(metadata.get("uid")), metadata.get("generation") or metadata.get("resourceVersion"))
                policy = kept[key] = self._kept.get(key) or self._made(found)
                if policy.name in bound:
                    every.append((policy, bound[policy.name]))
            self._kept, self._all = kept, every
        return self._all

    def concerned(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether any policy with a binding may match requests of this form."""
        if (resource[0], resource[2]) in EXEMPT or (resource[0], resource[2]) in VIRTUAL:
            return False
        return any(policy.criteria.concerns(operation, resource, subresource) for policy, _ in self.all())


def _by_name(found: Object) -> str:
    return str(found["metadata"]["name"])


def at_once(work: Any) -> None:
    """Run a coroutine that awaits nothing to its end."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("a policy waits where nothing is to be converted")


def namespace_object(request: AdmissionRequest, view: View) -> Object | None:
    """Return the variable `namespaceObject`, None for what belongs to the cluster."""
    if not request.namespace or (request.kind[0], request.kind[2]) == ("", "Namespace"):
        return None
    found = view.get("namespaces", "", request.namespace)
    if found is None:
        return None
    metadata = {name: value for name, value in found["metadata"].items() if name not in _HIDDEN}
    return {"metadata": metadata, "spec": found.get("spec") or {}, "status": found.get("status") or {}}


_HIDDEN: Final = frozenset({"managedFields", "ownerReferences", "selfLink"})


def needs_conversion(request: AdmissionRequest, match: Match) -> bool:
    """Whether a policy sees the objects in another version than the request has them."""
    return match.kind != request.kind and request.convert is not None
