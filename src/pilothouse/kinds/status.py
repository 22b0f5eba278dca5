"""Why a server refused: the family of Status errors, their texts, and the JSON in which they travel.

    ApiStatus
    ├── BadRequest 400          ├── Conflict 409               ├── RequestEntityTooLarge 413
    ├── Unauthorized 401        ├── AlreadyExists 409          ├── UnsupportedMediaType 415
    ├── Forbidden 403           ├── Gone 410                   ├── Invalid 422
    ├── NotFound 404            ├── Expired 410                ├── TooManyRequests 429
    ├── MethodNotAllowed 405    ├── ServerTimeout 500          ├── ServiceUnavailable 503
    ├── NotAcceptable 406       ├── StoreReadError 500         ├── Timeout 504
    └── Unknown                 └── InternalError 500

AlreadyExists is no Conflict and Expired is not Gone, though they share codes: who tries again after a conflict must
not do so for an object that is there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pilothouse.kinds.fielderrors import ErrorList, quote

__all__ = [
    "MODIFIED",
    "AlreadyExists",
    "ApiStatus",
    "BadRequest",
    "Conflict",
    "Details",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "StoreReadError",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "Unknown",
    "UnsupportedMediaType",
    "already_exists",
    "apply_conflict",
    "conflict",
    "forbidden",
    "from_dict",
    "generate_name_conflict",
    "generic",
    "internal_error",
    "invalid",
    "method_not_supported",
    "not_found",
    "qualified",
    "server_timeout",
    "success",
    "timeout",
    "too_large",
    "too_large_resource_version",
    "too_many_requests",
]

MODIFIED: Final = "the object has been modified; please apply your changes to the latest version and try again"
"""Why an update with an old resource version is refused."""

_TIMEOUT_RETRY: Final = 1
"""Seconds after which to ask again for a resource version that is not here yet."""


@dataclass(frozen=True, slots=True)
class Details:
    """What a Status is about. `kind` is the resource (`pods`), or the kind where a value is invalid."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: Sequence[Mapping[str, Any]] = field(default=())
    retry_after_seconds: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object, without what is empty."""
        fields = {
            "name": self.name,
            "group": self.group,
            "kind": self.kind,
            "uid": self.uid,
            "causes": [dict(cause) for cause in self.causes],
            "retryAfterSeconds": self.retry_after_seconds,
        }
        return {name: value for name, value in fields.items() if value}


class ApiStatus(Exception):
    """A request was refused.

    reason, code: as the Status has them; `details` is None where it has none.
    """

    REASON: ClassVar[str] = ""
    CODE: ClassVar[int] = 500

    def __init__(self, message: str, details: Details | None = None, *, code: int = 0) -> None:
        super().__init__(message)
        self.message: Final = message
        self.details: Final = details
        self.code: Final = code or self.CODE
        self.reason: str = self.REASON

    @property
    def retry_after_seconds(self) -> int:
        """Seconds to wait before asking again; 0 if the server did not say."""
        return self.details.retry_after_seconds if self.details else 0

    @property
    def causes(self) -> Sequence[Mapping[str, Any]]:
        """The single reasons, each with `reason`, `message` and `field`."""
        return self.details.causes if self.details else ()

    def to_dict(self) -> dict[str, Any]:
        """Give the Status object with the fields and their order as kube-apiserver writes them."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        if self.message:
            body["message"] = self.message
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details.to_dict()
        body["code"] = self.code
        return body


class BadRequest(ApiStatus):
    """The request cannot be read."""

    REASON, CODE = "BadRequest", 400


class Unauthorized(ApiStatus):
    """Nobody knows who asks."""

    REASON, CODE = "Unauthorized", 401


class Forbidden(ApiStatus):
    """Who asks may not do this."""

    REASON, CODE = "Forbidden", 403


class NotFound(ApiStatus):
    """There is no such object or path."""

    REASON, CODE = "NotFound", 404


class MethodNotAllowed(ApiStatus):
    """The resource does not have this verb."""

    REASON, CODE = "MethodNotAllowed", 405


class NotAcceptable(ApiStatus):
    """The server cannot write any of the formats asked for."""

    REASON, CODE = "NotAcceptable", 406


class Conflict(ApiStatus):
    """The object is not as the request supposes."""

    REASON, CODE = "Conflict", 409


class AlreadyExists(ApiStatus):
    """An object of this name is there already."""

    REASON, CODE = "AlreadyExists", 409


class Gone(ApiStatus):
    """What was asked for is no longer there and will not come back."""

    REASON, CODE = "Gone", 410


class Expired(ApiStatus):
    """The resource version or continue token is too old; list anew."""

    REASON, CODE = "Expired", 410


class RequestEntityTooLarge(ApiStatus):
    """The body is too large."""

    REASON, CODE = "RequestEntityTooLarge", 413


class UnsupportedMediaType(ApiStatus):
    """The server cannot read the format of the body."""

    REASON, CODE = "UnsupportedMediaType", 415


class Invalid(ApiStatus):
    """Some fields are wrong; the causes say which."""

    REASON, CODE = "Invalid", 422


class TooManyRequests(ApiStatus):
    """The server is busy; try again after the seconds given."""

    REASON, CODE = "TooManyRequests", 429


class InternalError(ApiStatus):
    """The server failed."""

    REASON, CODE = "InternalError", 500


class ServerTimeout(ApiStatus):
    """The server could not do it in time and did nothing; try again."""

    REASON, CODE = "ServerTimeout", 500


class StoreReadError(ApiStatus):
    """The stored object cannot be read."""

    REASON, CODE = "StorageReadError", 500


class ServiceUnavailable(ApiStatus):
    """The server, or one behind it, does not serve now."""

    REASON, CODE = "ServiceUnavailable", 503


class Timeout(ApiStatus):
    """The server did not finish in time; it may still have done what was asked."""

    REASON, CODE = "Timeout", 504


class Unknown(ApiStatus):
    """The reason is not given or is none of Kubernetes' own."""


_CLASSES: Final[Mapping[str, type[ApiStatus]]] = {
    kind.REASON: kind
    for kind in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        NotAcceptable,
        Conflict,
        AlreadyExists,
        Gone,
        Expired,
        RequestEntityTooLarge,
        UnsupportedMediaType,
        Invalid,
        TooManyRequests,
        InternalError,
        ServerTimeout,
        StoreReadError,
        ServiceUnavailable,
        Timeout,
    )
}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _details(found: Mapping[str, Any]) -> Details:
    causes = found.get("causes")
    return Details(
        _text(found.get("name")),
        _text(found.get("group")),
        _text(found.get("kind")),
        _text(found.get("uid")),
        [dict(cause) for cause in causes if isinstance(cause, Mapping)] if isinstance(causes, list) else (),
        _number(found.get("retryAfterSeconds")),
    )


def from_dict(body: Mapping[str, Any], *, code: int = 0) -> ApiStatus:
    """Read a Status of failure as a server sent it; fields of a wrong type count as absent.

    code: of the HTTP response, for a Status that has none.
    """
    reason, details = _text(body.get("reason")), body.get("details")
    kind = _CLASSES.get(reason, Unknown)
    error = kind(
        _text(body.get("message")),
        _details(details) if isinstance(details, Mapping) else None,
        code=_number(body.get("code")) or code,
    )
    error.reason = reason
    return error


def success(details: Details | None = None, *, code: int = 0) -> dict[str, Any]:
    """Give the Status object of success, as a deletion answers with it."""
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details is not None:
        body["details"] = details.to_dict()
    if code:
        body["code"] = code
    return body


def qualified(group: str, name: str) -> str:
    """Write a resource or kind with its group: `deployments.apps`, `pods`."""
    return f"{name}.{group}" if group else name


def not_found(group: str, resource: str, name: str) -> NotFound:
    """Say that there is no object of this name."""
    return NotFound(f"{qualified(group, resource)} {quote(name)} not found", Details(name, group, resource))


def already_exists(group: str, resource: str, name: str) -> AlreadyExists:
    """Say that there is an object of this name already."""
    return AlreadyExists(f"{qualified(group, resource)} {quote(name)} already exists", Details(name, group, resource))


def generate_name_conflict(group: str, resource: str, name: str, retry_after_seconds: int) -> AlreadyExists:
    """Say that every name made from `generateName` was taken."""
    return AlreadyExists(
        f"{qualified(group, resource)} {quote(name)} already exists, "
        "the server was not able to generate a unique name for the object",
        Details(name, group, resource, retry_after_seconds=retry_after_seconds),
    )


def forbidden(group: str, resource: str, name: str, why: str) -> Forbidden:
    """Say that this is not allowed; the name may be empty, and so may the resource."""
    if not group and not resource:
        subject = "forbidden"
    else:
        subject = f"{qualified(group, resource)}{f' {quote(name)}' if name else ''} is forbidden"
    return Forbidden(f"{subject}: {why}", Details(name, group, resource))


def conflict(group: str, resource: str, name: str, why: str = MODIFIED) -> Conflict:
    """Say that an object is not as the request supposes."""
    message = f"Operation cannot be fulfilled on {qualified(group, resource)} {quote(name)}: {why}"
    return Conflict(message, Details(name, group, resource))


def apply_conflict(causes: Iterable[Mapping[str, Any]], message: str) -> Conflict:
    """Say that an apply would take fields from other managers."""
    return Conflict(message, Details(causes=list(causes)))


def invalid(group: str, kind: str, name: str, errors: ErrorList) -> Invalid:
    """Say which fields of an object are wrong. Takes the kind, not the resource."""
    text = f"{qualified(group, kind)} {quote(name)} is invalid"
    message = f"{text}: {errors.message()}" if errors else text
    return Invalid(message, Details(name, group, kind, causes=errors.causes()))


def too_many_requests(message: str, retry_after_seconds: int) -> TooManyRequests:
    """Say that the server is busy."""
    return TooManyRequests(message, Details(retry_after_seconds=retry_after_seconds))


def method_not_supported(group: str, resource: str, action: str) -> MethodNotAllowed:
    """Say that a resource does not have a verb."""
    subject = qualified(group, resource)
    message = f"{action} is not supported on resources of kind {quote(subject)}"
    return MethodNotAllowed(message, Details(group=group, kind=resource))


def server_timeout(group: str, resource: str, operation: str, retry_after_seconds: int) -> ServerTimeout:
    """Say that nothing was done for want of time."""
    return ServerTimeout(
        f"The {operation} operation against {qualified(group, resource)} could not be completed at this time, "
        "please try again.",
        Details(operation, group, resource, retry_after_seconds=retry_after_seconds),
    )


def internal_error(why: str) -> InternalError:
    """Say that the server failed."""
    return InternalError(f"Internal error occurred: {why}", Details(causes=[{"message": why}]))


def timeout(message: str, retry_after_seconds: int) -> Timeout:
    """Say that the time was over."""
    return Timeout(f"Timeout: {message}", Details(retry_after_seconds=retry_after_seconds))


def too_large_resource_version(wanted: int, current: int) -> Timeout:
    """Say that a resource version lies in the future."""
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return Timeout(
        f"Timeout: Too large resource version: {wanted}, current: {current}",
        Details(causes=causes, retry_after_seconds=_TIMEOUT_RETRY),
    )


def too_large(message: str) -> RequestEntityTooLarge:
    """Say that the body is too large."""
    return RequestEntityTooLarge(f"Request entity too large: {message}")


_GENERIC: Final[Mapping[int, tuple[type[ApiStatus], str]]] = {
    400: (BadRequest, "the server rejected our request for an unknown reason"),
    401: (Unauthorized, "the server has asked for the client to provide credentials"),
    404: (NotFound, "the server could not find the requested resource"),
    405: (MethodNotAllowed, "the server does not allow this method on the requested resource"),
    406: (NotAcceptable, "the server was unable to respond with a content type that the client supports"),
    409: (Conflict, "the server reported a conflict"),
    422: (Invalid, "the server rejected our request due to an error in our request"),
    429: (TooManyRequests, "the server has received too many requests and has asked us to try again later"),
    503: (ServiceUnavailable, "the server is currently unable to handle the request"),
    504: (
        Timeout,
        "the server was unable to return a response in the time allotted, but may still be processing the request",
    ),
}
_OWN_WORDS: Final[Mapping[int, type[ApiStatus]]] = {403: Forbidden, 406: NotAcceptable, 415: UnsupportedMediaType}


def generic(code: int, text: str = "", details: Details | None = None) -> ApiStatus:
    """Make a Status of an HTTP code, for an answer that is none.

    text: what the answer said; shown for the codes where it tells more than the code.
    """
    told = Details() if details is None else details
    if text and code in _OWN_WORDS:
        return _OWN_WORDS[code](text, told)
    if code in _GENERIC:
        kind, message = _GENERIC[code]
        return kind(message, told)
    if code >= InternalError.CODE:
        message = f"an error on the server ({quote(text)}) has prevented the request from succeeding"
        return InternalError(message, told, code=code)
    return Unknown(
        text or f"the server responded with the status code {code} but did not return more information", told, code=code
    )
