"""AdmissionReview: what is asked, what handlers say, and the answer to the letter."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.jsonpatch import apply
from pilothouse.kinds.structs import Deployment, replace
from pilothouse.operator import AdmissionRequest, Denied, Mutator, Validator
from pilothouse.operator.webhook_calls import Runner
from pilothouse.operator.webhook_handlers import Handle, RawMutation, RawValidation, TypedMutation, TypedValidation
from pilothouse.operator.webhook_review import ReviewError, answer, read_review
from support.webhookkit import Page, review

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text("ab", max_size=1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
)
UID = "705ab4f5-6393-11e8-b7cc-42010a800002"
PAGE: dict[str, Any] = {
    "apiVersion": "hooks.example.com/v2",
    "kind": "Page",
    "metadata": {"name": "home", "namespace": "default", "creationTimestamp": None, "future": [1]},
    "spec": {"width": 3, "unknown": {"deep": None}},
}


async def answered(handle: Handle, body: bytes) -> dict[str, Any]:
    """Give the response to a review."""
    request = read_review(body)
    told = json.loads(answer(request, await handle(request, Runner(FakeClock()).call)))
    assert (told["apiVersion"], told["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert told["response"]["uid"] == UID
    response: dict[str, Any] = told["response"]
    return response


def test_a_review_is_read_whole() -> None:
    found = read_review(review(PAGE, subResource="status", dryRun=True))
    assert (found.uid, found.operation, found.subresource, found.dry_run) == (UID, "CREATE", "status", True)
    assert found.kind == found.request_kind == ("hooks.example.com", "v2", "Page")
    assert found.resource == found.request_resource == ("hooks.example.com", "v2", "pages")
    assert (found.name, found.namespace, found.object, found.old_object) == ("home", "default", PAGE, None)
    assert (found.user.username, found.user.uid, found.user.groups) == ("ada", "7", ("devs",))
    assert found.user.extra == {"scopes": ["all"]}
    assert found.options["fieldManager"] == "kubectl"
    assert str(found) == "CREATE pages.hooks.example.com default/home"


def test_the_kind_of_the_request_is_that_of_the_rules_unless_it_is_told() -> None:
    other = {"group": "hooks.example.com", "version": "v1", "kind": "Page"}
    assert read_review(review(PAGE, requestKind=other)).request_kind == ("hooks.example.com", "v1", "Page")
    assert read_review(review(PAGE, requestKind=None)).request_kind == ("hooks.example.com", "v2", "Page")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "want admission.k8s.io/v1 AdmissionReview"),
        (b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}', "v1beta1 AdmissionReview; want"),
        (b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}', "no request"),
        (review(PAGE, uid=""), "uid is missing"),
        (review(PAGE, operation="PATCH"), "operation is 'PATCH'"),
        (review(PAGE, object=[1]), "object is no object"),
    ],
)
def test_what_is_no_review_is_said(body: bytes, why: str) -> None:
    with pytest.raises(ReviewError, match=why):
        read_review(body)


class Judge(Validator[Page]):
    async def create(self, new: Page, request: AdmissionRequest) -> Sequence[str] | None:
        request.annotate("width", str(new.spec.width))
        return ["narrow"] if new.spec.width < 5 else None

    def update(self, old: Page, new: Page, request: AdmissionRequest) -> Sequence[str] | None:
        errors = ErrorList()
        if new.spec.width < old.spec.width:
            errors.invalid(Path("spec.width"), new.spec.width, f"may not be under {old.spec.width}")
        if not new.spec.title:
            errors.required(Path("spec.title"))
        if errors:
            raise Denied(errors=errors)
        return None

    def delete(self, old: Page, request: AdmissionRequest) -> Sequence[str] | None:
        raise Denied(f"{old.metadata.name} stays")


async def test_golden_answers_of_a_validator() -> None:
    handle = TypedValidation(Page, Judge())
    assert handle.judges_deletions
    assert await answered(handle, review(PAGE)) == {
        "uid": UID,
        "allowed": True,
        "status": {"metadata": {}, "code": 200},
        "warnings": ["narrow"],
        "auditAnnotations": {"width": "3"},
    }
    changed = {**PAGE, "spec": {"width": 1}}
    assert await answered(handle, review(changed, PAGE, "UPDATE")) == {
        "uid": UID,
        "allowed": False,
        "status": {
            "metadata": {},
            "status": "Failure",
            "reason": "Invalid",
            "code": 422,
            "message": 'Page.hooks.example.com "home" is invalid: [spec.width: Invalid value: 1: may not be under 3, '
            "spec.title: Required value]",
            "details": {
                "name": "home",
                "group": "hooks.example.com",
                "kind": "Page",
                "causes": [
                    {
                        "reason": "FieldValueInvalid",
                        "message": "Invalid value: 1: may not be under 3",
                        "field": "spec.width",
                    },
                    {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.title"},
                ],
            },
        },
    }
    assert await answered(handle, review(None, PAGE, "DELETE")) == {
        "uid": UID,
        "allowed": False,
        "status": {
            "metadata": {},
            "status": "Failure",
            "message": "home stays",
            "reason": "Forbidden",
            "code": 403,
        },
    }


def wider(obj: Page, request: AdmissionRequest) -> Page:
    request.warn("made wider")
    return replace(obj, spec__width=9, metadata__labels={"by": request.user.username})


async def test_golden_answer_of_a_mutator_which_leaves_what_it_does_not_know() -> None:
    told = await answered(TypedMutation(Page, wider), review(PAGE))
    patch = base64.b64decode(told.pop("patch"))
    assert told == {
        "uid": UID,
        "allowed": True,
        "status": {"metadata": {}, "code": 200},
        "patchType": "JSONPatch",
        "warnings": ["made wider"],
    }
    operations = json.loads(patch)
    assert operations == [
        {"op": "add", "path": "/metadata/labels", "value": {"by": "ada"}},
        {"op": "replace", "path": "/spec/width", "value": 9},
    ]
    assert apply(PAGE, operations) == {
        **PAGE,
        "metadata": {**PAGE["metadata"], "labels": {"by": "ada"}},
        "spec": {**PAGE["spec"], "width": 9},
    }


@given(
    st.dictionaries(st.sampled_from(["a", "b/c", "~", "future"]), JSON, max_size=3),
    st.dictionaries(st.sampled_from(["generation2", "x"]), JSON, max_size=2),
    st.integers(0, 3),
)
async def test_whatever_else_an_object_has_stays(more: dict[str, Any], meta: dict[str, Any], width: int) -> None:
    raw = {**PAGE, **more, "metadata": {**PAGE["metadata"], **meta}, "spec": {"width": width, **more}}
    told = await answered(TypedMutation(Page, wider), review(raw))
    labelled = {**raw["metadata"], "labels": {"by": "ada"}}
    expected = {**raw, "metadata": labelled, "spec": {**raw["spec"], "width": 9}}
    assert apply(raw, json.loads(base64.b64decode(told["patch"]))) == expected


async def test_an_object_that_is_left_has_no_patch() -> None:
    class Leave(Mutator[Page]):
        async def mutate(self, obj: Page, request: AdmissionRequest) -> Page:
            return replace(obj, spec__width=3)

    told = await answered(TypedMutation(Page, Leave()), review(PAGE))
    assert "patch" not in told
    assert "patchType" not in told


async def test_a_null_where_an_object_comes_is_replaced() -> None:
    told = await answered(TypedMutation(Page, wider), review({**PAGE, "spec": None}))
    operations = json.loads(base64.b64decode(told["patch"]))
    assert apply({**PAGE, "spec": None}, operations)["spec"] == {"width": 9}


async def test_an_object_that_does_not_fit_is_refused_with_its_place() -> None:
    told = await answered(TypedValidation(Page, Judge()), review({**PAGE, "spec": {"width": "3"}}))
    assert (told["allowed"], told["status"]["code"], told["status"]["reason"]) == (False, 400, "BadRequest")
    assert "CREATE pages.hooks.example.com default/home: object does not fit the type Page" in told["status"]["message"]
    told = await answered(TypedValidation(Page, Judge()), review(None, None, "UPDATE"))
    assert "the review has no oldObject" in told["status"]["message"]


async def test_functions_and_raw_handlers() -> None:
    def judge(new: Page, request: AdmissionRequest) -> list[str]:
        return [f"{request.operation} {new.spec.width}"]

    handle = TypedValidation(Page, judge)
    assert not handle.judges_deletions
    assert (await answered(handle, review(PAGE, PAGE, "UPDATE")))["warnings"] == ["UPDATE 3"]

    def label(request: AdmissionRequest) -> dict[str, Any] | None:
        assert request.object is not None
        request.object["metadata"]["labels"] = {"a/b": "c"}  # in place
        return request.object

    told = await answered(RawMutation(label), review(PAGE))
    assert json.loads(base64.b64decode(told["patch"])) == [
        {"op": "add", "path": "/metadata/labels", "value": {"a/b": "c"}}
    ]

    async def leave(request: AdmissionRequest) -> None:
        return None

    assert "patch" not in await answered(RawMutation(leave), review(PAGE))
    assert (await answered(RawValidation(leave), review(None, None, "CONNECT")))["allowed"] is True


async def test_denials_by_reason_code_and_status() -> None:
    def busy(_: AdmissionRequest) -> None:
        raise Denied("later", reason="TooManyRequests", code=429)

    def gone(_: AdmissionRequest) -> None:
        raise status.not_found("", "configmaps", "base")

    def named(_: AdmissionRequest) -> None:
        errors = ErrorList()
        errors.required(Path("spec"))
        raise Denied("not like this", errors)

    async def told(function: Any) -> dict[str, Any]:
        found: dict[str, Any] = (await answered(RawValidation(function), review(PAGE)))["status"]
        return found

    found = await told(busy)
    assert (found["code"], found["reason"], found["message"]) == (429, "TooManyRequests", "later")
    found = await told(gone)
    assert (found["code"], found["reason"]) == (404, "NotFound")
    found = await told(named)
    assert (found["message"], found["reason"], len(found["details"]["causes"])) == ("not like this", "Invalid", 1)
    assert str(Denied()) == "denied without explanation"


@pytest.mark.parametrize(
    ("handle", "why"),
    [
        (TypedMutation(Page, lambda obj, request: Deployment()), "returned Deployment; want the Page as it shall be"),  # type: ignore[arg-type, return-value]
        (TypedMutation(Page, lambda obj, request: None), "returned NoneType; want the Page"),  # type: ignore[arg-type, return-value]
        (TypedValidation(Page, lambda obj, request: "no"), "returned 'no'; want a list of warnings, or None"),
        (RawMutation(lambda request: [1]), "returned list; want the object"),  # type: ignore[arg-type, return-value]
        (RawValidation(lambda request: status.ApiStatus), "want a list of warnings"),  # type: ignore[arg-type, return-value]
    ],
)
async def test_a_handler_that_returns_something_else_is_an_error_of_its_own(handle: Handle, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        await answered(handle, review(PAGE))


async def test_a_failure_of_the_server_within_a_handler_is_no_denial() -> None:
    def fails(_: AdmissionRequest) -> None:
        raise status.internal_error("no disk")

    with pytest.raises(status.InternalError, match="no disk"):
        await answered(RawValidation(fails), review(PAGE))
