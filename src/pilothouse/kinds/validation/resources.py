"""Validation of resource names and amounts: requests and limits of containers, storage, quotas."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.quantity import ZERO, Quantity, parse
from pilothouse.kinds.validation.checks import Object

__all__ = [
    "amount",
    "container_resource_name",
    "container_resources",
    "may_overcommit",
    "quota_resource_name",
    "resource_name",
]

_CONTAINER = frozenset({"cpu", "memory", "ephemeral-storage"})
_HUGE_PAGES = "hugepages-"
_OBJECT_COUNTS = frozenset(
    {
        "pods",
        "services",
        "resourcequotas",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    }
)
_QUOTA = _CONTAINER | _OBJECT_COUNTS | {f"limits.{name}" for name in _CONTAINER}
_QUOTA |= {f"requests.{name}" for name in (*_CONTAINER, "storage")}
_STANDARD = _QUOTA | {"storage"}
_NativeRule = Callable[[ErrorList, Path, str], None]


def _is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def _is_extended(name: str) -> bool:
    return not _is_native(name) and not name.startswith("requests.") and not names.qualified_name(f"requests.{name}")


def may_overcommit(name: str) -> bool:
    """Say whether more of a resource may be promised than there is."""
    return _is_native(name) and not name.startswith(_HUGE_PAGES)


def resource_name(errors: ErrorList, at: Path, name: str) -> bool:
    """Check the name of a resource; say whether it is well formed."""
    messages = names.qualified_name(name)
    for message in messages:
        errors.invalid(at, name, message)
    if messages:
        return False
    if "/" not in name and name not in _STANDARD and not name.startswith((_HUGE_PAGES, f"requests.{_HUGE_PAGES}")):
        errors.invalid(at, name, "must be a standard resource type or fully qualified")
    return True


def container_resource_name(errors: ErrorList, at: Path, name: str) -> None:
    """Check the name of a resource of which a container has some."""
    if name in _CONTAINER:
        return
    resource_name(errors, at, name)
    if "/" not in name:
        if not name.startswith(_HUGE_PAGES):
            errors.invalid(at, name, "must be a standard resource for containers")
    elif not _is_native(name) and not _is_extended(name):
        errors.invalid(at, name, "doesn't follow extended resource name standard")


def quota_resource_name(errors: ErrorList, at: Path, name: str) -> None:
    """Check the name of what a quota limits."""
    resource_name(errors, at, name)
    if "/" not in name and name not in _QUOTA and not name.startswith((_HUGE_PAGES, f"requests.{_HUGE_PAGES}")):
        errors.invalid(at, name, "must be a standard resource for quota")


def amount(errors: ErrorList, at: Path, name: str, value: Quantity) -> None:
    """Check an amount of a resource: not negative, and whole where parts of one do not exist."""
    if value < ZERO:
        errors.invalid(at, str(value), "must be greater than or equal to 0")
    if (name in _OBJECT_COUNTS or _is_extended(name)) and value.milli_value() % 1000:
        errors.invalid(at, str(value), "must be an integer")


def container_resources(errors: ErrorList, at: Path, resources: Object, claims: Iterable[str] = ()) -> None:
    """Check the requests and limits of a container, and the claims it names."""
    limits = {key: parse(str(value)) for key, value in (resources.get("limits") or {}).items()}
    requests = {key: parse(str(value)) for key, value in (resources.get("requests") or {}).items()}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for key, value in amounts.items():
            if key not in _CONTAINER or value < ZERO:
                place = at.child(field).key(key)
                container_resource_name(errors, place, key)
                amount(errors, place, key, value)
            if field == "requests":
                _against_limit(errors, at, key, value, limits.get(key))
    named = limits.keys() | requests.keys()
    if any(key.startswith(_HUGE_PAGES) for key in named) and not named & {"cpu", "memory"}:
        errors.forbidden(at, "HugePages require cpu or memory")
    _claims(errors, at.child("claims"), resources.get("claims") or (), frozenset(claims))


def _against_limit(errors: ErrorList, at: Path, key: str, value: Quantity, limit: Quantity | None) -> None:
    if limit is None:
        if not may_overcommit(key):
            errors.required(at.child("limits"), "Limit must be set for non overcommitable resources")
    elif value != limit and not may_overcommit(key):
        errors.invalid(at.child("requests"), str(value), f"must be equal to {key} limit of {limit}")
    elif limit < value:
        errors.invalid(at.child("requests"), str(value), f"must be less than or equal to {key} limit of {limit}")


def _claims(errors: ErrorList, at: Path, claims: Iterable[Object], known: frozenset[str]) -> None:
    for position, claim in enumerate(claims):
        name = claim.get("name")
        if not name:
            errors.required(at.index(position))
        elif name not in known:
            errors.not_found(at.index(position), name)
