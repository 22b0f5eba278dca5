"""Reviews: answers to whether a token is good, who one is, and what somebody may do."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final

from pilothouse.apiserver.access.authenticator import RequestAuthenticator, TokenVerdict
from pilothouse.apiserver.access.rbac import RbacAuthorizer
from pilothouse.apiserver.access.rules import PolicyRule
from pilothouse.apiserver.access.users import MASTERS, NODES, with_authenticated
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes, Authorizer, Decision, Object
from pilothouse.kinds.fielderrors import ErrorList, Path, Raw, Struct
from pilothouse.kinds.status import BadRequest, InternalError, invalid

__all__ = ["KINDS", "Reviews"]

AUTHENTICATION: Final = "authentication.k8s.io"
AUTHORIZATION: Final = "authorization.k8s.io"
KINDS: Final = {
    "TokenReview": AUTHENTICATION,
    "SelfSubjectReview": AUTHENTICATION,
    "SubjectAccessReview": AUTHORIZATION,
    "LocalSubjectAccessReview": AUTHORIZATION,
    "SelfSubjectAccessReview": AUTHORIZATION,
    "SelfSubjectRulesReview": AUTHORIZATION,
}
"""The kinds answered here and their groups."""

_SPEC: Final = Path("spec")
_EITHER: Final = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
_BOTH: Final = "cannot be specified in combination with resourceAttributes"


class Reviews:
    """Answers reviews. They are never kept: what is posted comes back with its status.

    authorizer: what decides about requests. rbac: what lists rules; it is a part of the authorizer.
    """

    def __init__(
        self,
        authenticator: RequestAuthenticator,
        authorizer: Authorizer,
        rbac: RbacAuthorizer,
        *,
        api_audiences: Sequence[str] = (),
    ) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._rbac = rbac
        self._api_audiences = tuple(api_audiences)

    def answer(self, kind: str, obj: Object, user: User, namespace: str = "") -> Object | Awaitable[Object]:
        """Return a review with its status; at once, or something to await where a token has to be looked up elsewhere.

        kind: one of `KINDS`. obj: as posted, decoded and defaulted. user: who asks. namespace: of the path, which only
        LocalSubjectAccessReview has. Raises ApiStatus.
        """
        match kind:
            case "TokenReview":
                return self._token(obj)
            case "SelfSubjectReview":
                return {**obj, "status": {"userInfo": _told(user)}}
            case "SelfSubjectRulesReview":
                return self._rules(obj, user)
            case "SelfSubjectAccessReview":
                _check_access(kind, obj, subject=False)
                return self._access(obj, user)
            case "LocalSubjectAccessReview":
                _check_access(kind, obj, namespace=namespace)
                return self._access(obj, _subject(obj))
            case _:
                _check_access(kind, obj)
                return self._access(obj, _subject(obj))

    def _token(self, obj: Object) -> Object | Awaitable[Object]:
        spec = obj.get("spec") or {}
        token = spec.get("token") or ""
        if not token:
            raise BadRequest("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or self._api_audiences)
        verdict = self._authenticator.check_token(token, audiences)
        if inspect.isawaitable(verdict):
            return _later(obj, verdict, audiences)
        return _reviewed(obj, verdict, audiences)

    def _access(self, obj: Object, user: User) -> Object:
        decision = self._authorizer.authorize(_attributes(obj["spec"], user))
        return {**obj, "status": _status(decision)}

    def _rules(self, obj: Object, user: User) -> Object:
        namespace = (obj.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise BadRequest("no namespace on request")
        rules, errors = self._rbac.rules_for(user, namespace)
        if MASTERS in user.groups:
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            rules = [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}, *rules]
        if NODES in user.groups:
            errors = [*errors, "node authorizer does not support user rule resolution"]
        status: Object = {
            "resourceRules": [_rule(rule, _RESOURCE_FIELDS) for rule in rules if rule.get("resources")],
            "nonResourceRules": [_rule(rule, _PATH_FIELDS) for rule in rules if rule.get("nonResourceURLs")],
            "incomplete": bool(errors),
        }
        if errors:
            status["evaluationError"] = ", ".join(dict.fromkeys(errors))
        return {**obj, "spec": {}, "status": status}


_RESOURCE_FIELDS: Final = ("verbs", "apiGroups", "resources", "resourceNames")
_PATH_FIELDS: Final = ("verbs", "nonResourceURLs")


def _rule(rule: PolicyRule, fields: Sequence[str]) -> Object:
    return {field: list(rule[field]) for field in fields if rule.get(field)}


async def _later(obj: Object, verdict: Awaitable[TokenVerdict], audiences: tuple[str, ...]) -> Object:
    return _reviewed(obj, await verdict, audiences)


def _reviewed(obj: Object, verdict: TokenVerdict, audiences: tuple[str, ...]) -> Object:
    answer = verdict.answer
    if answer is None:
        return {**obj, "status": {"user": {}, "error": verdict.error}}
    if audiences and not set(audiences) & set(answer.audiences):
        message = "error validating audiences"
        raise InternalError(f"Internal error occurred: {message}")
    status: Object = {"authenticated": True, "user": _told(with_authenticated(answer.user))}
    if answer.audiences:
        status["audiences"] = list(answer.audiences)
    return {**obj, "status": status}


def _told(user: User) -> Object:
    told: Object = {
        "username": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra.items()},
    }
    return {field: value for field, value in told.items() if value}


def _status(decision: Decision) -> Object:
    status: Object = {"allowed": decision.allowed}
    if decision.denied:
        status["denied"] = True
    if decision.reason:
        status["reason"] = decision.reason
    if decision.error and decision.error not in decision.reason:
        status["evaluationError"] = decision.error
    return status


def _subject(obj: Object) -> User:
    spec = obj["spec"]
    extra = {key.lower(): tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
    return User(spec.get("user") or "", spec.get("uid") or "", tuple(spec.get("groups") or ()), extra)


def _attributes(spec: Mapping[str, Any], user: User) -> Attributes:
    wanted = spec.get("resourceAttributes")
    if wanted is None:
        path = spec.get("nonResourceAttributes") or {}
        return Attributes(user, path.get("verb") or "", is_resource=False, path=path.get("path") or "")
    return Attributes(
        user,
        wanted.get("verb") or "",
        group=wanted.get("group") or "",
        version=wanted.get("version") or "",
        resource=wanted.get("resource") or "",
        subresource=wanted.get("subresource") or "",
        namespace=wanted.get("namespace") or "",
        name=wanted.get("name") or "",
        field_selector=_selector(wanted.get("fieldSelector") or {}),
    )


def _selector(selector: Mapping[str, Any]) -> str:
    """Write what a review narrows down by fields as a selector, as far as it says that fields have single values."""
    requirements = [
        f"{one.get('key')}={one['values'][0]}"
        for one in selector.get("requirements") or ()
        if one.get("operator") == "In" and len(one.get("values") or ()) == 1
    ]
    return selector.get("rawSelector") or ",".join(requirements)


def _check_access(kind: str, obj: Object, *, subject: bool = True, namespace: str | None = None) -> None:
    spec, errors = obj.get("spec") or {}, ErrorList()
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    shown = Raw("null") if path is None else Struct(Path=path.get("path") or "", Verb=path.get("verb") or "")
    if resource is not None and path is not None:
        errors.invalid(_SPEC.child("nonResourceAttributes"), shown, _BOTH)
    if resource is None and path is None:
        errors.invalid(_SPEC.child("resourceAttributes"), shown, _EITHER)
    if subject and not spec.get("user") and not spec.get("groups"):
        errors.invalid(_SPEC.child("user"), "", "at least one of user or group must be specified")
    _check_metadata(errors, obj, local=namespace is not None)
    if namespace is not None:
        _check_local(errors, obj, namespace, shown)
    if errors:
        raise invalid(AUTHORIZATION, kind, "", errors)


def _check_metadata(errors: ErrorList, obj: Object, *, local: bool) -> None:
    ignored = {"managedFields", "creationTimestamp", *(("namespace",) if local else ())}
    metadata = {field: value for field, value in (obj.get("metadata") or {}).items() if field not in ignored and value}
    if metadata:
        told = "must be empty except for namespace" if local else "must be empty"
        errors.invalid(Path("metadata"), metadata, told)


def _check_local(errors: ErrorList, obj: Object, namespace: str, shown: Any) -> None:
    spec, own = obj.get("spec") or {}, (obj.get("metadata") or {}).get("namespace") or ""
    if own and own != namespace:
        raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
    resource = spec.get("resourceAttributes")
    if resource is not None and (resource.get("namespace") or "") != namespace:
        at = _SPEC.child("resourceAttributes", "namespace")
        errors.invalid(at, resource.get("namespace") or "", "must match metadata.namespace")
    if spec.get("nonResourceAttributes") is not None:
        errors.invalid(_SPEC.child("nonResourceAttributes"), shown, "disallowed on this kind of request")
