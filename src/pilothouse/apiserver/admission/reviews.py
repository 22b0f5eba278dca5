"""AdmissionReview: what a webhook is asked, and what its answer says. Pure; versions v1 and v1beta1."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pilothouse.apiserver.admission.expressions import options_of, user_info
from pilothouse.apiserver.admission.matching import Match
from pilothouse.apiserver.ports import AdmissionRequest, Object
from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import quote

__all__ = ["ReviewError", "Verdict", "choose_version", "denial", "encode", "operations", "read"]

_GROUP: Final = "admission.k8s.io"
_VERSIONS: Final = ("v1", "v1beta1")
_JSON_PATCH: Final = "JSONPatch"


class ReviewError(ValueError):
    """A webhook cannot be asked, or its answer is none; the message follows `failed calling webhook "x": `."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a webhook answered. patch: the operations as sent, None without any."""

    allowed: bool
    patch: bytes = b""
    patch_type: str = ""
    result: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


def choose_version(accepted: Sequence[str]) -> str:
    """Return the first version that the webhook accepts and this server knows. Raises ReviewError."""
    for version in accepted:
        if version in _VERSIONS:
            return version
    raise ReviewError(
        "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
    )


def encode(
    request: AdmissionRequest, match: Match, uid: str, version: str, item: Object | None, old: Object | None
) -> bytes:
    """Write the review; item and old in the version that matched."""
    asked: Object = {
        "uid": uid,
        "kind": dict(zip(("group", "version", "kind"), match.kind, strict=True)),
        "resource": dict(zip(("group", "version", "resource"), match.resource, strict=True)),
        "subResource": request.subresource,
        "requestKind": dict(zip(("group", "version", "kind"), request.kind, strict=True)),
        "requestResource": dict(zip(("group", "version", "resource"), request.resource, strict=True)),
        "requestSubResource": request.subresource,
        "name": request.name,
        "namespace": request.namespace,
        "operation": request.operation,
        "userInfo": user_info(request),
        "object": item,
        "oldObject": old,
        "dryRun": request.dry_run,
        "options": options_of(request) or None,
    }
    told = {name: value for name, value in asked.items() if value != ""}
    return msgspec.json.encode({"kind": "AdmissionReview", "apiVersion": f"{_GROUP}/{version}", "request": told})


def read(body: bytes, uid: str, version: str, *, mutating: bool) -> Verdict:
    """Read an answer to a review of this uid and version. Raises ReviewError."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReviewError(f"failed to call webhook: couldn't get version/kind; json parse error: {error}") from None
    if not isinstance(found, dict):
        raise ReviewError("failed to call webhook: couldn't get version/kind; json parse error: not an object")
    answer = found.get("response")
    if answer is None:
        raise _invalid("webhook response was absent")
    if not isinstance(answer, dict):
        raise ReviewError("failed to call webhook: response is not an object")
    _check_types(answer)
    if version == "v1":
        _check_identity(found, answer, uid)
        _check_patch(answer, mutating=mutating)
    return _verdict(answer, version, mutating=mutating)


def _invalid(why: str) -> ReviewError:
    return ReviewError(f"received invalid webhook response: {why}")


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "uid": (str,),
    "allowed": (bool,),
    "status": (dict,),
    "patch": (str,),
    "patchType": (str,),
    "auditAnnotations": (dict,),
    "warnings": (list,),
}


def _check_types(answer: Mapping[str, Any]) -> None:
    for name, kinds in _TYPES.items():
        value = answer.get(name)
        if value is not None and not isinstance(value, kinds):
            raise ReviewError(
                f"failed to call webhook: json: cannot unmarshal response.{name}: not a {kinds[0].__name__}"
            )
    noted = answer.get("auditAnnotations") or {}
    texts = [*noted.values(), *(answer.get("warnings") or ())]
    if not all(isinstance(text, str) for text in texts):
        raise ReviewError("failed to call webhook: json: cannot unmarshal response: a text is expected")


def _check_identity(found: Mapping[str, Any], answer: Mapping[str, Any], uid: str) -> None:
    told = answer.get("uid") or ""
    if told != uid:
        raise _invalid(f"expected response.uid={quote(uid)}, got {quote(told)}")
    version, kind = str(found.get("apiVersion") or ""), str(found.get("kind") or "")
    if (version, kind) != (f"{_GROUP}/v1", "AdmissionReview"):
        shown = version if "/" in version else f"/{version}"
        raise _invalid(f"expected webhook response of {_GROUP}/v1, Kind=AdmissionReview, got {shown}, Kind={kind}")


def _check_patch(answer: Mapping[str, Any], *, mutating: bool) -> None:
    patch, kind = answer.get("patch") or "", answer.get("patchType")
    if not mutating:
        if patch:
            raise _invalid("validating webhook may not return response.patch")
        if kind is not None:
            raise _invalid("validating webhook may not return response.patchType")
    elif patch and kind is None:
        raise _invalid("webhook returned response.patch but not response.patchType")
    elif kind is not None and not patch:
        raise _invalid("webhook returned response.patchType but not response.patch")
    elif kind is not None and not kind:
        raise _invalid(f"webhook returned invalid response.patchType of {quote(kind)}")


def _verdict(answer: Mapping[str, Any], version: str, *, mutating: bool) -> Verdict:
    patch = b""
    if mutating and answer.get("patch"):
        try:
            patch = base64.b64decode(answer["patch"], validate=True)
        except binascii.Error as error:
            raise ReviewError(f"failed to call webhook: response.patch: illegal base64 data: {error}") from None
    kind = str(answer.get("patchType") or "")
    return Verdict(
        answer.get("allowed") is True,
        patch,
        _JSON_PATCH if version == "v1beta1" and patch else kind,
        answer.get("status"),
        answer.get("warnings") or (),
        answer.get("auditAnnotations") or {},
    )


def operations(verdict: Verdict) -> list[Any]:
    """Return the operations of the patch. Raises ReviewError for what is no JSON patch."""
    if not verdict.patch:
        return []
    try:
        found = msgspec.json.decode(verdict.patch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReviewError(f"received undecodable patch in webhook response: {error}") from None
    if found is None:
        return []
    if not isinstance(found, list):
        raise ReviewError("received undecodable patch in webhook response: not a list of operations")
    if found and verdict.patch_type != _JSON_PATCH:
        raise ReviewError(f"unsupported patch type {quote(verdict.patch_type)}")
    return found


def denial(name: str, result: Mapping[str, Any] | None) -> status.ApiStatus:
    """Make the refusal of a webhook that did not allow, with what it said of code, reason and details."""
    told = dict(result or {})
    denied = f"admission webhook {quote(name)} denied the request"
    message, reason = told.get("message") or "", told.get("reason") or ""
    told["message"] = (
        f"{denied}: {message}" if message else f"{denied}: {reason}" if reason else (f"{denied} without explanation")
    )
    code = told.get("code")
    told["code"] = code if isinstance(code, int) and code >= 400 else 400
    return status.from_dict(told)
