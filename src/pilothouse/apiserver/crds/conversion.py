"""Converts custom resources between versions: by changing the name of the version, or by asking a webhook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from pilothouse.apiserver.crds.scaling import go_type
from pilothouse.kinds import labels
from pilothouse.kinds.fielderrors import ErrorList, Path, quote
from pilothouse.kinds.validation.metadata import check_annotations

__all__ = ["Call", "ConversionError", "convert_many", "review_versions"]

Object = dict[str, Any]
Call = Callable[[Mapping[str, Any], Object], Awaitable[Object]]
"""Posts a ConversionReview to the webhook of a client configuration and returns its answer, decoded."""
_GROUP = "apiextensions.k8s.io"
_KNOWN = ("v1", "v1beta1")


class ConversionError(Exception):
    """A conversion that failed; Kubernetes answers with 500 and this text."""


def review_versions(crd: Mapping[str, Any]) -> Sequence[str]:
    """Return the versions of ConversionReview that a definition's webhook takes."""
    webhook = (crd["spec"].get("conversion") or {}).get("webhook") or {}
    return webhook.get("conversionReviewVersions") or ()


async def convert_many(
    crd: Mapping[str, Any], objects: Sequence[Object], version: str, uid: str, call: Call, *, single: bool = False
) -> list[Object]:
    """Return objects of one kind in another version, in their order; those already in it come back as they are.

    uid: of the review, a fresh one. Without a webhook only the apiVersion changes. Raises ConversionError, worded as
    Kubernetes does, for an answer that does not fit; what `call` raises is told the same way.
    """
    wanted = f"{crd['spec']['group']}/{version}"
    stale = [obj for obj in objects if obj.get("apiVersion") != wanted]
    if not stale:
        return list(objects)
    if (crd["spec"].get("conversion") or {}).get("strategy") != "Webhook":
        return [obj if obj.get("apiVersion") == wanted else {**obj, "apiVersion": wanted} for obj in objects]
    client = crd["spec"]["conversion"]["webhook"]["clientConfig"]
    shown = _shown(crd, stale[0], single=single)
    review = _review(crd, stale, wanted, uid)
    try:
        answer = await call(client, review)
    except Exception as error:
        raise ConversionError(f"conversion webhook for {shown} failed: {error}") from error
    converted = _converted(answer, review, shown)
    if len(converted) != len(stale):
        text = f"returned {len(converted)} objects, expected {len(stale)}"
        raise ConversionError(f"conversion webhook for {shown} {text}")
    fresh = iter(
        [
            _checked(old, new, wanted, shown, at, single=single)
            for at, (old, new) in enumerate(zip(stale, converted, strict=True))
        ]
    )
    return [obj if obj.get("apiVersion") == wanted else next(fresh) for obj in objects]


def _shown(crd: Mapping[str, Any], obj: Object, *, single: bool) -> str:
    api_version = str(obj.get("apiVersion") or "")
    kind = obj.get("kind") if single else crd["spec"]["names"].get("listKind") or f"{obj.get('kind')}List"
    return f"{api_version}, Kind={kind}"


def _review(crd: Mapping[str, Any], objects: Sequence[Object], wanted: str, uid: str) -> Object:
    version = next((each for each in review_versions(crd) if each in _KNOWN), None)
    if version is None:
        raise ConversionError("no supported conversion review versions")
    return {
        "kind": "ConversionReview",
        "apiVersion": f"{_GROUP}/{version}",
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": list(objects)},
    }


def _converted(answer: Any, review: Object, shown: str) -> list[Any]:
    """Return the objects of a webhook's answer, or say why it is none."""
    failed = f"conversion webhook for {shown} failed: "
    answer = answer if isinstance(answer, dict) else {}
    response = answer.get("response")
    if review["apiVersion"] == f"{_GROUP}/v1":
        if answer.get("apiVersion") != review["apiVersion"] or answer.get("kind") != "ConversionReview":
            got = f"{answer.get('apiVersion') or ''}, Kind={answer.get('kind') or ''}"
            wanted = f"{review['apiVersion']}, Kind=ConversionReview"
            raise ConversionError(f"{failed}expected webhook response of {wanted}, got {got}")
        if isinstance(response, dict) and response.get("uid") != review["request"]["uid"]:
            expected, got = review["request"]["uid"], str(response.get("uid") or "")
            raise ConversionError(f"{failed}expected response.uid={quote(expected)}, got {quote(got)}")
    if not isinstance(response, dict):
        raise ConversionError(f"{failed}no response provided")
    result = response.get("result") or {}
    if result.get("status") != "Success":
        text = result.get("message") or f"response.result.status was '{result.get('status') or ''}', not 'Success'"
        raise ConversionError(f"{failed}{text}")
    found = response.get("convertedObjects")
    return found if isinstance(found, list) else []


def _checked(old: Object, new: Any, wanted: str, shown: str, at: int, *, single: bool) -> Object:
    what = "object at index 0" if single else f"converted object at index {at}"
    invalid = f"conversion webhook for {shown} returned invalid {what}: "
    new = new if isinstance(new, dict) else {}
    got, kind = str(new.get("apiVersion") or ""), str(new.get("kind") or "")
    if got != wanted:
        raise ConversionError(f"{invalid}invalid groupVersion (expected {wanted}, received {got})")
    if kind != old.get("kind"):
        raise ConversionError(f"{invalid}invalid kind (expected {old.get('kind')}, received {kind})")
    returned = f"conversion webhook for {shown} returned invalid "
    where = "" if single else f" in object at index {at}"
    before = old.get("metadata") or {}
    after = new.get("metadata")
    named = after if isinstance(after, dict) else {}
    for field, called in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        one, two = before.get(field) or "", named.get(field) or ""
        if one != two:
            label = "object" if single else what
            raise ConversionError(f"{returned}{label}: must have the same {called}: {one} != {two}")
    return {**new, "metadata": _metadata(before, after, f"{returned}metadata{where}: ")}


def _metadata(before: Object, after: Any, invalid: str) -> Object:
    """Return the metadata of the original with the labels and annotations of the converted object."""
    if after is None:
        raise ConversionError(f"{invalid}missing metadata in converted object")
    if not isinstance(after, dict):
        raise ConversionError(f"{invalid}invalid metadata of type {go_type(after)} in converted object")
    made = deepcopy(before)
    for field in ("labels", "annotations"):
        values = after.get(field)
        if values is None:
            made.pop(field, None)
            continue
        if not isinstance(values, dict):
            raise ConversionError(f"{invalid}invalid metadata.{field} of type {go_type(values)} in converted object")
        _check_values(field, values, invalid, unchanged=values == before.get(field))
        made[field] = values
    return made


def _check_values(field: str, values: Object, invalid: str, *, unchanged: bool) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            text = f"metadata.{field}[{name}] must be a string, but is {go_type(value)} in converted object"
            raise ConversionError(invalid + text)
    errors = ErrorList()
    if unchanged:
        return
    if field == "labels":
        labels.validate_labels(values, Path("metadata.labels"), errors)
    else:
        check_annotations(errors, Path("metadata.annotation"), values)
    if errors:
        raise ConversionError(invalid + errors.message())
