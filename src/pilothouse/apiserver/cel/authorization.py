"""Questions to the authorizer in expressions: `authorizer.group('apps').resource('deployments').check('get')`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.sizes import AUTHORIZATION
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes, Decision
from pilothouse.kinds import names

__all__ = ["AUTHORIZER", "Authorizer", "GroupCheck", "ResourceCheck"]

AUTHORIZER = Functions()
_PREFIX = "kubernetes.authorization."
_Ask = Callable[[Attributes], Decision]


@dataclass(frozen=True, slots=True, eq=False)
class Authorizer:
    """The variable `authorizer`: who asks, and what decides."""

    user: User
    authorize: _Ask

    type_name = f"{_PREFIX}Authorizer"


@dataclass(frozen=True, slots=True, eq=False)
class PathCheck:
    """A question about a path that is no resource."""

    authorizer: Authorizer
    path: str

    type_name = f"{_PREFIX}PathCheck"


@dataclass(frozen=True, slots=True, eq=False)
class GroupCheck:
    """The beginning of a question about a resource."""

    authorizer: Authorizer
    group: str

    type_name = f"{_PREFIX}GroupCheck"


@dataclass(frozen=True, slots=True, eq=False)
class ResourceCheck:
    """A question about a resource; `authorizer.requestResource` is one made of the request."""

    authorizer: Authorizer
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    version: str = "*"

    type_name = f"{_PREFIX}ResourceCheck"


@dataclass(frozen=True, slots=True, eq=False)
class DecisionValue:
    """What the authorizer said."""

    decision: Decision

    type_name = f"{_PREFIX}Decision"


def _path(found: Authorizer, path: str) -> PathCheck:
    if not path.strip():
        raise CelError("path must not be empty")
    return PathCheck(found, path)


def _resource(found: GroupCheck, resource: str) -> ResourceCheck:
    if not resource.strip():
        raise CelError("resource must not be empty")
    return ResourceCheck(found.authorizer, found.group, resource)


def _service_account(found: Authorizer, namespace: str, name: str) -> Authorizer:
    if names.dns1123_subdomain(name):
        raise CelError("Invalid service account name")
    if names.dns1123_label(namespace):
        raise CelError("Invalid service account namespace")
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return Authorizer(User(f"system:serviceaccount:{namespace}:{name}", groups=groups), found.authorize)


def _check_path(found: PathCheck, verb: str) -> DecisionValue:
    user = found.authorizer.user
    return DecisionValue(found.authorizer.authorize(Attributes(user, verb, is_resource=False, path=found.path)))


def _check_resource(found: ResourceCheck, verb: str) -> DecisionValue:
    asked = Attributes(
        found.authorizer.user,
        verb,
        group=found.group,
        version=found.version,
        resource=found.resource,
        subresource=found.subresource,
        namespace=found.namespace,
        name=found.name,
    )
    return DecisionValue(found.authorizer.authorize(asked))


def _selector_cost(_: ResourceCheck, text: str) -> int:
    return 10 + -(-len(text) // 10) + 25 * len(text)


_AUTHORIZER, _PATH, _GROUP = (f"{_PREFIX}{name}" for name in ("Authorizer", "PathCheck", "GroupCheck"))
_RESOURCE, _DECISION = f"{_PREFIX}ResourceCheck", f"{_PREFIX}Decision"
AUTHORIZER.add("path", _path, f"{_AUTHORIZER} @ string -> {_PATH}")
AUTHORIZER.add("group", GroupCheck, f"{_AUTHORIZER} @ string -> {_GROUP}")
AUTHORIZER.add("serviceAccount", _service_account, f"{_AUTHORIZER} @ string, string -> {_AUTHORIZER}")
AUTHORIZER.add("resource", _resource, f"{_GROUP} @ string -> {_RESOURCE}")
for _name in ("subresource", "namespace", "name"):
    AUTHORIZER.add(
        _name, lambda found, text, name=_name: replace(found, **{name: text}), f"{_RESOURCE} @ string -> {_RESOURCE}"
    )
for _name in ("fieldSelector", "labelSelector"):
    AUTHORIZER.add(_name, lambda found, text: found, f"{_RESOURCE} @ string -> {_RESOURCE}", cost=_selector_cost)
AUTHORIZER.add("check", _check_path, f"{_PATH} @ string -> {_DECISION}", cost=lambda *_: AUTHORIZATION)
AUTHORIZER.add("check", _check_resource, f"{_RESOURCE} @ string -> {_DECISION}", cost=lambda *_: AUTHORIZATION)
AUTHORIZER.add("errored", lambda found: bool(found.decision.error), f"{_DECISION} @ -> bool")
AUTHORIZER.add("error", lambda found: found.decision.error, f"{_DECISION} @ -> string")
AUTHORIZER.add("allowed", lambda found: found.decision.allowed, f"{_DECISION} @ -> bool")
AUTHORIZER.add("reason", lambda found: found.decision.reason, f"{_DECISION} @ -> string")
