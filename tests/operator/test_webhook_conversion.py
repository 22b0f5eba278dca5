"""Conversion between versions: functions by their annotations, through the hub, and ConversionReview to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import Deployment
from pilothouse.operator import BuildError, converts
from pilothouse.operator.webhook_conversion import Conversions, convert_review, read_conversion
from pilothouse.operator.webhook_review import ReviewError
from support.webhookkit import CONVERSIONS, Page, PageSpecV1, PageV1, PageV3, from_v1, from_v3, to_v1, to_v3

KNOWN = {("hooks.example.com", "Page"): Conversions(Page, CONVERSIONS)}
CONVERT = KNOWN["hooks.example.com", "Page"].convert


def asked(desired: str, *objects: Any) -> bytes:
    request = {"uid": "u-1", "desiredAPIVersion": desired, "objects": [*objects]}
    return json.dumps(
        {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
    ).encode()


def stored(name: str = "home", **spec: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": "7",
        "resourceVersion": "5",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 2,
        "labels": {"a": "b"},
        "managedFields": [{"manager": "x", "operation": "Apply", "future": {"f:spec": {}}}],
        "unknown": None,
    }
    return {"apiVersion": "hooks.example.com/v2", "kind": "Page", "metadata": metadata, "spec": spec}


def test_golden_review() -> None:
    objects = stored("one", width=3, height=4, title="t"), stored("two", width=1, height=2)
    body, error = convert_review(read_conversion(asked("hooks.example.com/v3", *objects)), KNOWN)
    assert error is None
    assert json.loads(body) == {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "response": {
            "uid": "u-1",
            "result": {"metadata": {}, "status": "Success"},
            "convertedObjects": [
                {**objects[0], "apiVersion": "hooks.example.com/v3", "spec": {"size": [3, 4], "title": "t"}},
                {**objects[1], "apiVersion": "hooks.example.com/v3", "spec": {"size": [1, 2]}},
            ],
        },
    }


@given(st.integers(0, 999), st.integers(0, 999))
def test_from_spoke_to_spoke_goes_by_the_hub_and_comes_back(width: int, height: int) -> None:
    oldest = {**stored(size=f"{width}x{height}"), "apiVersion": "hooks.example.com/v1"}
    newest = CONVERT(oldest, "hooks.example.com/v3")
    assert newest["spec"]["size"] == [width, height]
    assert newest["metadata"] == oldest["metadata"]
    assert CONVERT(newest, "hooks.example.com/v1") == oldest


def test_the_same_version_is_the_same_object() -> None:
    obj = stored(width=1, future={})
    assert CONVERT(obj, "hooks.example.com/v2") == obj


def test_labels_and_annotations_may_change_and_no_other_metadata() -> None:
    from pilothouse.kinds.structs import ObjectMeta

    @converts(source=PageV1, target=Page)
    def forward(old: PageV1) -> Page:
        return Page(metadata=ObjectMeta(name="other", uid="8", annotations={"size": old.spec.size}))

    @converts(source=Page, target=PageV1)
    def back(new: Page) -> PageV1:
        return PageV1(metadata=new.metadata, spec=PageSpecV1(size=new.metadata.annotations["size"]))

    convert = Conversions(Page, [forward, back]).convert
    oldest = {**stored(size="3x4"), "apiVersion": "hooks.example.com/v1"}
    made = convert(oldest, "hooks.example.com/v2")
    kept = {name: value for name, value in oldest["metadata"].items() if name != "labels"}
    assert made["metadata"] == {**kept, "annotations": {"size": "3x4"}}
    assert convert(made, "hooks.example.com/v1")["spec"] == {"size": "3x4"}


@pytest.mark.parametrize(
    ("desired", "obj", "why"),
    [
        (
            "hooks.example.com/v2",
            {**stored(size="wide"), "apiVersion": "hooks.example.com/v1"},
            "ValueError: invalid lit",
        ),
        ("hooks.example.com/v3", stored(width="3"), "it does not fit Page: Expected `int`"),
        ("hooks.example.com/v9", stored(), "version v9 of Page is not known here; known are v2, v1, v3"),
        ("other.example.com/v1", stored(), "want group hooks.example.com"),
        ("hooks.example.com/v3", {**stored(), "kind": "Other"}, "has no conversions of Other of hooks.example.com"),
        ("hooks.example.com/v3", 7, "it is no object"),
    ],
)
def test_a_failure_names_the_object_and_why(desired: str, obj: Any, why: str) -> None:
    body, error = convert_review(read_conversion(asked(desired, stored("fine"), obj)), KNOWN)
    response = json.loads(body)["response"]
    assert error is not None
    assert (response["uid"], response["result"]["status"], response["convertedObjects"]) == ("u-1", "Failure", [])
    message = response["result"]["message"]
    assert why in message
    assert message.startswith("objects[") and desired in message  # noqa: PT018  one text


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no JSON"),
        (b'{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1beta1"}', "want apiextensions.k8s.io/v1"),
        (asked(""), "desiredAPIVersion is missing"),
        (asked("a/v1").replace(b"[]", b"{}"), "objects is no list"),
    ],
)
def test_what_is_no_review_is_said(body: bytes, why: str) -> None:
    with pytest.raises(ReviewError, match=why):
        read_conversion(body)


def wrong_kind(old: Deployment) -> Page:
    raise NotImplementedError


def same(old: Page) -> Page:
    return old


def bare(old):  # type: ignore[no-untyped-def]
    return old


async def waits(old: PageV1) -> Page:
    raise NotImplementedError


def no_hub(old: PageV1) -> PageV3:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("functions", "why"),
    [
        ([], "without functions"),
        ([from_v1], "no function converts v2 to v1"),
        ([from_v1, to_v1, from_v3], "no function converts v2 to v3"),
        ([from_v1, to_v1, from_v1], "two functions convert v1 to v2"),
        ([no_hub], "the hub Page has to be one of both"),
        ([wrong_kind], "want two versions of one group and kind"),
        ([same], "want two versions"),
        ([bare], "the annotations of bare cannot be read"),
        ([waits], "conversions may not wait"),
        ([lambda old: old], "cannot be read"),
    ],
)
def test_functions_that_do_not_fit_are_named(functions: list[Any], why: str) -> None:
    with pytest.raises(BuildError, match=why):
        Conversions(Page, functions)


def test_half_of_the_words_and_no_classes_are_refused() -> None:
    with pytest.raises(BuildError, match="wants both"):
        converts(source=Page)  # type: ignore[call-overload]
    with pytest.raises(BuildError, match="no class of whole objects"):
        converts(source=int, target=Page)(to_v3)  # type: ignore[arg-type]
    assert Conversions(Page, CONVERSIONS).versions == (Page, PageV1, PageV3)


def test_a_function_that_returns_something_else_fails_the_review() -> None:
    @converts(source=Page, target=PageV1)
    def forgets(new: Page) -> PageV1:
        return new  # type: ignore[return-value]

    known = {("hooks.example.com", "Page"): Conversions(Page, [from_v1, forgets])}
    body, _ = convert_review(read_conversion(asked("hooks.example.com/v1", stored())), known)
    assert "returned Page; want PageV1" in json.loads(body)["response"]["result"]["message"]
