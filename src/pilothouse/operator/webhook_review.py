"""AdmissionReview of admission.k8s.io/v1: what a webhook is asked, and the answer as servers read it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import ErrorList, FieldError
from pilothouse.kinds.status import ApiStatus

from .errors import OperatorError

__all__ = ["AdmissionRequest", "Denied", "ReviewError", "UserInfo", "Verdict", "answer", "denial", "read_review"]

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
OPERATIONS: Final = ("CREATE", "UPDATE", "DELETE", "CONNECT")

Gvk = tuple[str, str, str]


class ReviewError(ValueError):
    """What was sent is no review that can be answered; the message says what is wrong with it."""


class Denied(OperatorError):
    """Raise it from a validator or a mutator: the request is refused, with this message.

    errors: of fields, as `pilothouse.kinds.fielderrors.ErrorList` collects them; they become the causes of the Status,
    which is then `Invalid` (422) and says whose fields they are. reason, code: of the Status otherwise.
    """

    def __init__(
        self, message: str = "", errors: Iterable[FieldError] = (), *, reason: str = "Forbidden", code: int = 403
    ) -> None:
        self.errors: Final = ErrorList(errors)
        super().__init__(message or self.errors.message() or "denied without explanation")
        self.message: Final = message
        self.reason: Final = reason
        self.code: Final = code


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Who asks, as the server authenticated them."""

    username: str = ""
    uid: str = ""
    groups: Sequence[str] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What the server asks about: fields as in AdmissionRequest of admission.k8s.io/v1.

    operation: CREATE, UPDATE, DELETE or CONNECT. kind, resource: in the version that the webhook's rules name;
    request_kind, request_resource: in that of the request. object, old_object: as they came, None where there is none.
    dry_run: nothing is stored, so a handler may not have effects elsewhere. options: of the operation.
    `warn` and `annotate` add to the answer, whatever it is.
    """

    uid: str
    operation: str
    kind: Gvk = ("", "", "")
    resource: Gvk = ("", "", "")
    subresource: str = ""
    request_kind: Gvk = ("", "", "")
    request_resource: Gvk = ("", "", "")
    name: str = ""
    namespace: str = ""
    user: UserInfo = field(default_factory=UserInfo)
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name or "an object without a name"
        return f"{self.operation} {status.qualified(self.resource[0], self.resource[2])} {where}"

    def warn(self, text: str) -> None:
        """Have the client shown a warning."""
        self.warnings.append(text)

    def annotate(self, key: str, value: str) -> None:
        """Add to the audit event of the request; the server prefixes the key by the webhook's name."""
        self.annotations[key] = value


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a handler says. refusal: None allows. patch: operations of a JSON patch."""

    refusal: ApiStatus | None = None
    warnings: Sequence[str] = ()
    patch: Sequence[Mapping[str, Any]] = ()


def read_review(body: bytes) -> AdmissionRequest:
    """Read a review. Raises ReviewError."""
    request = read_request(body, API_VERSION, KIND)
    operation = request.get("operation")
    if operation not in OPERATIONS:
        raise ReviewError(f"request.operation is {operation!r}; want one of {', '.join(OPERATIONS)}")
    user = _mapping(request, "userInfo")
    kind, resource = _triple(request, "kind", "kind"), _triple(request, "resource", "resource")
    extra = user.get("extra")
    return AdmissionRequest(
        uid=request["uid"],
        operation=operation,
        kind=kind,
        resource=resource,
        subresource=_text(request, "subResource"),
        request_kind=_triple(request, "requestKind", "kind") if request.get("requestKind") else kind,
        request_resource=_triple(request, "requestResource", "resource")
        if request.get("requestResource")
        else resource,
        name=_text(request, "name"),
        namespace=_text(request, "namespace"),
        user=UserInfo(
            _text(user, "username"),
            _text(user, "uid"),
            tuple(user.get("groups") or ()),
            extra if isinstance(extra, dict) else {},
        ),
        object=_object(request, "object"),
        old_object=_object(request, "oldObject"),
        dry_run=request.get("dryRun") is True,
        options=_mapping(request, "options"),
    )


def read_request(body: bytes, api_version: str, kind: str) -> dict[str, Any]:
    """Read the `request` of a review of this kind, with a uid that is a text. Raises ReviewError."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReviewError(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict) or (found.get("apiVersion"), found.get("kind")) != (api_version, kind):
        told = f"{found.get('apiVersion')} {found.get('kind')}" if isinstance(found, dict) else "no object"
        raise ReviewError(f"the body is {told}; want {api_version} {kind}")
    request = found.get("request")
    if not isinstance(request, dict):
        raise ReviewError("the review has no request")
    if not isinstance(request.get("uid"), str) or not request["uid"]:
        raise ReviewError("request.uid is missing")
    return request


def answer(request: AdmissionRequest, verdict: Verdict) -> bytes:
    """Write the review that answers a request."""
    refusal = verdict.refusal
    response: dict[str, Any] = {"uid": request.uid, "allowed": refusal is None}
    if refusal is None:
        response["status"] = {"metadata": {}, "code": 200}
        if verdict.patch:
            response["patch"] = base64.b64encode(msgspec.json.encode([*verdict.patch])).decode()
            response["patchType"] = "JSONPatch"
    else:
        told = refusal.to_dict()
        response["status"] = {name: value for name, value in told.items() if name not in {"kind", "apiVersion"}}
    if warnings := [*request.warnings, *verdict.warnings]:
        response["warnings"] = warnings
    if request.annotations:
        response["auditAnnotations"] = dict(request.annotations)
    return msgspec.json.encode({"kind": KIND, "apiVersion": API_VERSION, "response": response})


def denial(request: AdmissionRequest, denied: Denied) -> ApiStatus:
    """Make the Status of a refusal: `Invalid` with its causes where fields are wrong."""
    group, _, kind = request.kind
    if not denied.errors:
        return status.from_dict({"message": str(denied), "reason": denied.reason, "code": denied.code})
    made = status.invalid(group, kind, request.name or _own_name(request), denied.errors)
    if not denied.message:
        return made
    told = made.to_dict()
    return status.from_dict({**told, "message": denied.message})


def _own_name(request: AdmissionRequest) -> str:
    metadata = (request.object or request.old_object or {}).get("metadata")
    return str(metadata.get("name") or metadata.get("generateName") or "") if isinstance(metadata, dict) else ""


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _mapping(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def _object(found: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = found.get(name)
    if value is not None and not isinstance(value, dict):
        raise ReviewError(f"request.{name} is no object")
    return value


def _triple(found: Mapping[str, Any], name: str, last: str, default: Gvk = ("", "", "")) -> Gvk:
    value = found.get(name)
    if not isinstance(value, dict):
        return default
    return _text(value, "group"), _text(value, "version"), _text(value, last)
