"""Conversion by webhook and without, and the names that definitions get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pilothouse.apiserver.crds import ConversionError, TakenNames, convert_many, status_after, taken_names

Raw = dict[str, Any]
CRD: Raw = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "names": {
            "plural": "things",
            "singular": "thing",
            "kind": "Thing",
            "listKind": "ThingList",
            "shortNames": ["t"],
        },
        "versions": [{"name": "v1", "storage": True}, {"name": "v2"}],
        "conversion": {
            "strategy": "Webhook",
            "webhook": {"clientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v9", "v1"]},
        },
    },
}
OBJECT: Raw = {
    "apiVersion": "example.com/v1",
    "kind": "Thing",
    "metadata": {"name": "a", "uid": "u", "labels": {"x": "y"}},
    "spec": {"n": 1},
}


async def convert(crd: Raw, obj: Raw, version: str, uid: str, call: Any) -> Raw:
    (found,) = await convert_many(crd, [obj], version, uid, call, single=True)
    return found


async def _never(client: Mapping[str, Any], review: Raw) -> Raw:
    raise AssertionError("not to be called")


def _answer(**changes: Any) -> Any:
    async def call(client: Mapping[str, Any], review: Raw) -> Raw:
        assert client == {"url": "https://x"}
        request = review["request"]
        objects = [{**obj, "apiVersion": request["desiredAPIVersion"], **changes} for obj in request["objects"]]
        response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects}
        return {"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response}

    return call


async def test_without_a_webhook_only_the_version_changes() -> None:
    crd = {**CRD, "spec": {**CRD["spec"], "conversion": {"strategy": "None"}}}
    assert await convert(crd, OBJECT, "v2", "1", _never) == {**OBJECT, "apiVersion": "example.com/v2"}
    assert await convert(CRD, OBJECT, "v1", "1", _never) == OBJECT


async def test_the_webhook_may_change_what_is_not_identity() -> None:
    metadata = {"name": "a", "uid": "u", "annotations": {"a": "b"}, "generation": 7}
    found = await convert(CRD, OBJECT, "v2", "1", _answer(spec={"m": 1}, metadata=metadata))
    assert found == {
        "apiVersion": "example.com/v2",
        "kind": "Thing",
        "metadata": {"name": "a", "uid": "u", "annotations": {"a": "b"}},
        "spec": {"m": 1},
    }


async def test_lists_keep_their_order() -> None:
    current = {**OBJECT, "apiVersion": "example.com/v2"}
    found = await convert_many(CRD, [current, OBJECT, current], "v2", "1", _answer())
    assert [obj["apiVersion"] for obj in found] == ["example.com/v2"] * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"kind": "Other"},
            (
                "conversion webhook for example.com/v1, Kind=Thing returned invalid object at index 0:"
                " invalid kind (expected"
                " Thing, received Other)"
            ),
        ),
        (
            {"apiVersion": "example.com/v1"},
            (
                "conversion webhook for example.com/v1, Kind=Thing returned invalid object at index 0:"
                " invalid groupVersion"
                " (expected example.com/v2, received example.com/v1)"
            ),
        ),
        (
            {"metadata": {"name": "b", "uid": "u"}},
            (
                "conversion webhook for example.com/v1, Kind=Thing returned invalid object: must have"
                " the same name: a != b"
            ),
        ),
        (
            {"metadata": {"name": "a", "uid": "u", "labels": {"x": 1}}},
            (
                "conversion webhook for example.com/v1, Kind=Thing returned invalid metadata:"
                " metadata.labels[x] must be a"
                " string, but is int64 in converted object"
            ),
        ),
    ],
)
async def test_answers_that_do_not_fit(changes: Raw, said: str) -> None:
    with pytest.raises(ConversionError) as failed:
        await convert(CRD, OBJECT, "v2", "1", _answer(**changes))
    assert str(failed.value) == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got , Kind="),
        ({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}, "no response provided"),
        (
            {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {"uid": "2"}},
            'expected response.uid="1", got "2"',
        ),
        (
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "ConversionReview",
                "response": {"uid": "1", "result": {"status": "Failure", "message": "no"}},
            },
            "no",
        ),
    ],
)
async def test_answers_that_are_none(answer: Raw, said: str) -> None:
    async def call(client: Mapping[str, Any], review: Raw) -> Raw:
        return answer

    with pytest.raises(ConversionError) as failed:
        await convert(CRD, OBJECT, "v2", "1", call)
    assert str(failed.value) == f"conversion webhook for example.com/v1, Kind=Thing failed: {said}"


def test_names_that_others_have_are_not_accepted() -> None:
    status = status_after(CRD, TakenNames(frozenset({"t"}), frozenset({"ThingList"})), "now")
    assert status["acceptedNames"] == {"plural": "things", "singular": "thing", "kind": "Thing"}
    naming, established = status["conditions"]
    assert (naming["status"], naming["reason"], naming["message"]) == (
        "False",
        "ListKindConflict",
        '"ThingList" is already in use',
    )
    assert (established["status"], established["reason"]) == ("False", "NotAccepted")
    later = status_after({**CRD, "status": status}, TakenNames(), "later")
    assert [each["status"] for each in later["conditions"]] == ["True", "True"]
    assert later["acceptedNames"] == CRD["spec"]["names"]
    again = status_after({**CRD, "status": later}, TakenNames(frozenset({"things"})), "much later")
    assert again == later
    other = {"metadata": {"name": "o"}, "spec": {"group": "example.com"}, "status": later}
    assert taken_names([other], "example.com", "things.example.com") == TakenNames(
        frozenset({"things", "thing", "t"}), frozenset({"Thing", "ThingList"})
    )


def test_versions_that_were_stored_are_remembered() -> None:
    moved = {**CRD["spec"], "versions": [{"name": "v1"}, {"name": "v2", "storage": True}]}
    status = status_after({**CRD, "spec": moved, "status": {"storedVersions": ["v1"]}}, TakenNames(), "now")
    assert status["storedVersions"] == ["v1", "v2"]
