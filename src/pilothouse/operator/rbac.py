"""Rights that an operator needs, derived from its controllers, and the roles and bindings that grant no more."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pilothouse.kinds.structs import Resource

from .builder import Owned
from .errors import BuildError
from .reconciler import FunctionReconciler

if TYPE_CHECKING:
    from .controllers import Controller
    from .manager import Manager

__all__ = ["Permission", "needs", "permissions_of", "roles_of"]

T = TypeVar("T", bound=Callable[..., Any])

ALL_NAMESPACES: Final = "*"
_API: Final = "rbac.authorization.k8s.io"
_LEASES: Final = "coordination.k8s.io"
_NEEDS: Final = "__rbac_needs__"
"""The attribute of a class or function that has what it was said to need."""

READ: Final = frozenset({"get", "list", "watch"})
WRITE: Final = READ | {"create", "delete", "patch", "update"}
_VERBS: Final = WRITE | {"deletecollection", "approve", "attest", "bind", "escalate", "impersonate", "sign", "use"}
_RESOURCE: Final = re.compile(r"(?P<name>[a-z0-9-]+)(\.(?P<group>[a-z0-9.-]+))?(/(?P<part>[a-z0-9/-]+))?")


@dataclass(frozen=True, slots=True)
class Permission:
    """What may be done with one resource.

    resource: with its subresource, `pods/log`. names: of the only objects, all where there are none. namespace: the
    only one; where the operator looks if empty. namespaced: False for resources of the whole cluster.
    """

    group: str
    resource: str
    verbs: frozenset[str]
    names: tuple[str, ...] = ()
    namespace: str = ""
    namespaced: bool = True


@dataclass(frozen=True, slots=True)
class _Need:
    """What a decorator said; resources by name are looked up when rights are derived, which reads a large table."""

    of: type[Resource] | str
    permission: Permission


def needs(
    resource: type[Resource] | str,
    *verbs: str,
    subresource: str = "",
    names: Sequence[str] = (),
    namespace: str = "",
    namespaced: bool = True,
) -> Callable[[T], T]:
    """Say above a reconciler, its method or `build` what it does beside its controllers: `@needs(Secret, "get")`.

    resource: a type, or as kubectl has it: `pods/log`, `certificates.cert-manager.io`. names: of the only objects.
    namespace: the only one, such as the operator's own. namespaced: False for a resource given by name that is of the
    whole cluster and not Kubernetes' own. Raises BuildError.
    """
    shown = resource if isinstance(resource, str) else resource.__name__
    _check_verbs(shown, verbs)
    if isinstance(names, str):
        raise BuildError(f"needs({shown}): names={names!r} is one text; write a list: [{names!r}]")
    if names and "create" in verbs:
        raise BuildError(f"needs({shown}): create cannot be bound to names; say it apart, without names")
    if isinstance(resource, str):
        found = _RESOURCE.fullmatch(resource)
        if found is None or subresource:
            raise BuildError(f"needs({shown!r}): want RESOURCE.GROUP/SUBRESOURCE, such as deployments.apps/scale")
        name, group, subresource = found["name"], found["group"] or "", found["part"] or ""
    else:
        name, group, namespaced = str(resource.plural), str(resource.group), resource.namespaced
    path = f"{name}/{subresource}" if subresource else name
    made = _Need(resource, Permission(group, path, frozenset(verbs), tuple(names), namespace, namespaced))

    def tell(item: T) -> T:
        setattr(item, _NEEDS, (made, *vars(item).get(_NEEDS, ())))
        return item

    return tell


def _check_verbs(shown: str, verbs: Sequence[str]) -> None:
    if not verbs:
        raise BuildError(f'needs({shown}): no verbs; say what is done with it: needs({shown}, "get", "list", "watch")')
    for verb in verbs:
        if verb not in _VERBS:
            close = difflib.get_close_matches(verb, _VERBS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(_VERBS))}"
            raise BuildError(f"needs({shown}): {verb!r} is no verb; {hint}")


def permissions_of(manager: Manager, *also: object) -> list[Permission]:
    """Return what the controllers of a manager do, without events and leases, each resource once.

    also: functions and classes with further `needs`, such as `build`. Raises BuildError for an unknown resource.
    """
    found: list[Permission] = []
    for controller in manager.controllers:
        found += _of_controller(controller)
    found += [_of(kind, READ) for kind in manager.caches()]  # also those that only `manager.informer` made
    found += [_resolved(need) for item in also for need in _needs_of(item)]
    return _merged(found)


def _of_controller(controller: Controller[Any]) -> Iterator[Permission]:
    kind = controller.kind
    yield _of(kind, READ | {"patch", "update"})
    yield _of(kind, frozenset({"get", "patch", "update"}), "status")
    # Who sets blockOwnerDeletion on a child may have to be allowed to set finalizers of the owner.
    yield _of(kind, frozenset({"update"}), "finalizers")
    for source in controller.sources:
        yield _of(source.kind, WRITE if isinstance(source, Owned) else READ)
    reconciler = controller.reconciler
    item = reconciler.function if isinstance(reconciler, FunctionReconciler) else type(reconciler)
    for need in _needs_of(item):
        yield _resolved(need)


def _of(kind: type[Resource], verbs: frozenset[str], subresource: str = "") -> Permission:
    name = f"{kind.plural}/{subresource}" if subresource else str(kind.plural)
    return Permission(str(kind.group), name, verbs, namespaced=kind.namespaced)


def _needs_of(item: object) -> Iterator[_Need]:
    """Find what a function was said to need, or a class, its bases, and the methods of all of these."""
    places = item.__mro__ if inspect.isclass(item) else (item,)
    for place in places:
        own: dict[str, Any] = getattr(place, "__dict__", {})
        yield from own.get(_NEEDS, ())
        if inspect.isclass(place):
            for method in own.values():
                function = inspect.unwrap(getattr(method, "__func__", method)) if callable(method) else method
                if not inspect.isclass(function):
                    yield from getattr(function, "__dict__", {}).get(_NEEDS, ())


def _resolved(need: _Need) -> Permission:
    """Fill in group and scope of a resource that was given by name alone, as Kubernetes knows it."""
    if not isinstance(need.of, str):
        return need.permission
    from pilothouse.kinds.registry import builtin  # noqa: PLC0415  reads a large table

    given = need.permission
    name, _, part = given.resource.partition("/")
    known = builtin().find(f"{name}.{given.group}" if given.group else name)
    if known is None:
        if given.group:
            return given
        close = difflib.get_close_matches(name, [each.resource for each in builtin()], 1)
        hint = f"did you mean {close[0]}?" if close else f"write {name}.GROUP"
        raise BuildError(f"needs({need.of!r}): Kubernetes has no {name} of its own; {hint}")
    resource = f"{known.resource}/{part}" if part else known.resource
    return replace(given, group=known.group, resource=resource, namespaced=known.namespaced)


def _merged(permissions: Iterable[Permission]) -> list[Permission]:
    """Bring what is said of one resource together, in a stable order."""
    verbs: dict[Permission, frozenset[str]] = {}
    for each in permissions:
        key = replace(each, verbs=frozenset())
        verbs[key] = verbs.get(key, frozenset()) | each.verbs
    made = [replace(key, verbs=found) for key, found in verbs.items()]
    return sorted(made, key=lambda each: (each.namespace, each.group, each.resource, each.names))


def roles_of(
    manager: Manager, *also: object, name: str, namespace: str, lease: str = "", labels: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the roles of an operator and their bindings to the service account `name` of `namespace`.

    What is in the namespace that the manager follows, if it follows one, is granted there alone, by a Role. lease: the
    name of the one that leaders hold, in `namespace`; none by default. also: see `permissions_of`.
    """
    places: dict[str, list[Permission]] = {}
    found = [*permissions_of(manager, *also), *_events(manager), *_lease(lease, namespace), *_webhooks(manager)]
    for each in _merged(found):
        followed = manager.namespace if each.namespaced else ALL_NAMESPACES
        places.setdefault(each.namespace or followed, []).append(replace(each, namespace=""))
    made: list[dict[str, Any]] = []
    for place, permissions in sorted(places.items()):
        made += _role(name, place, namespace, permissions, labels or {})
    return made


def _events(manager: Manager) -> Iterator[Permission]:
    verbs = frozenset({"create", "patch"})
    yield Permission("", "events", verbs)
    if manager.namespace != ALL_NAMESPACES and any(not each.kind.namespaced for each in manager.controllers):
        yield Permission("", "events", verbs, namespace="default")  # where events about such objects are


def _lease(name: str, namespace: str) -> Iterator[Permission]:
    if name:
        # A create is authorized before the server reads the name, so it cannot be bound to one.
        yield Permission(_LEASES, "leases", frozenset({"create"}), namespace=namespace)
        yield Permission(_LEASES, "leases", frozenset({"get", "update"}), (name,), namespace)


def _webhooks(manager: Manager) -> Iterator[Permission]:
    """Say what keeps certificates and configurations: what is made by whoever installs the operator is not created."""
    webhooks = manager.webhooks
    if webhooks is None or not (webhooks.hooks or webhooks.conversions):
        return
    options, keep = webhooks.options, READ | {"patch"}
    if not options.certificate_dir:
        namespace, name = options.secret_name(manager.client.namespace)
        yield Permission("", "secrets", frozenset({"create"}), namespace=namespace)
        yield Permission("", "secrets", READ | {"update"}, (name,), namespace)
    if not options.configure:
        return
    for mutating in {hook.mutating for hook in webhooks.hooks}:
        resource = f"{'mutating' if mutating else 'validating'}webhookconfigurations"
        yield Permission("admissionregistration.k8s.io", resource, keep, (options.name,), namespaced=False)
    for conversions in webhooks.conversions.values():
        name = f"{conversions.hub.plural}.{conversions.hub.group}"
        yield Permission("apiextensions.k8s.io", "customresourcedefinitions", keep, (name,), namespaced=False)


def _role(
    name: str, place: str, home: str, permissions: Sequence[Permission], labels: dict[str, str]
) -> list[dict[str, Any]]:
    prefix, metadata = (
        ("Cluster", {"name": name}) if place == ALL_NAMESPACES else ("", {"name": name, "namespace": place})
    )
    whole: dict[str, Any] = metadata | ({"labels": labels} if labels else {})
    return [
        {"apiVersion": f"{_API}/v1", "kind": f"{prefix}Role", "metadata": whole, "rules": _rules(permissions)},
        {
            "apiVersion": f"{_API}/v1",
            "kind": f"{prefix}RoleBinding",
            "metadata": whole,
            "roleRef": {"apiGroup": _API, "kind": f"{prefix}Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": home}],
        },
    ]


def _rules(permissions: Iterable[Permission]) -> list[dict[str, Any]]:
    """Join resources of one group with the same verbs to one rule."""
    joined: dict[tuple[str, tuple[str, ...], tuple[str, ...]], set[str]] = {}
    for each in permissions:
        joined.setdefault((each.group, tuple(sorted(each.verbs)), each.names), set()).add(each.resource)
    return [
        {"apiGroups": [group], "resources": sorted(resources)}
        | ({"resourceNames": list(names)} if names else {})
        | {"verbs": list(verbs)}
        for (group, verbs, names), resources in joined.items()
    ]
