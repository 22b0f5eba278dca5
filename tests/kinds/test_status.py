from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.status import ApiStatus, Details
from support.goldenvalues import GOLDEN

RECORDINGS = ("crds", "defaults", "errors", "lists", "patches")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _responses(recording: str) -> Iterator[dict[str, Any]]:
    for step in json.loads((GOLDEN / f"{recording}.json").read_text())["steps"]:
        response = step.get("response")
        if isinstance(response, dict) and response.get("kind") == "Status":
            yield response


def _text(body: dict[str, Any]) -> str:
    return json.dumps(body)


@pytest.mark.parametrize("recording", RECORDINGS)
def test_recorded_refusals_are_read_and_written_alike(recording: str) -> None:
    bodies = [body for body in _responses(recording) if body["status"] == "Failure"]
    assert bodies
    for body in bodies:
        assert _text(status.from_dict(body).to_dict()) == _text(body)


@pytest.mark.parametrize("recording", RECORDINGS)
def test_common_refusals_are_worded_as_recorded(recording: str) -> None:
    built = 0
    for body in _responses(recording):
        details, message = body.get("details") or {}, body.get("message", "")
        about = (details.get("group", ""), details.get("kind", ""), details.get("name", ""))
        errors: dict[str, ApiStatus] = {
            f"{status.qualified(about[0], about[1])} {json.dumps(about[2])} not found": status.not_found(*about),
            f"{status.qualified(about[0], about[1])} {json.dumps(about[2])} already exists": status.already_exists(
                *about
            ),
        }
        if body.get("reason") == "Conflict" and about[2]:
            errors[message] = status.conflict(*about, message.partition(": ")[2])
        if body.get("reason") == "Forbidden":
            errors[message] = status.forbidden(*about, message.partition(": ")[2])
        if message in errors:
            assert _text(errors[message].to_dict()) == _text(body)
            built += 1
        elif body.get("reason") and details == {} and "details" in body and "\n" not in message:
            assert _text(status.generic(body["code"], message).to_dict()) == _text(body)
            built += 1
    assert built or recording == "crds"


def test_an_invalid_object_is_worded_as_recorded() -> None:
    errors = ErrorList()
    errors.required(Path("spec").child("selector"))
    errors.invalid(
        Path("spec").child("template", "metadata", "labels"),
        {"app": "web"},
        "`selector` does not match template `labels`",
    )
    refused = status.invalid("apps", "Deployment", "d", errors)
    assert refused.to_dict() in list(_responses("errors"))
    assert status.invalid("", "Pod", "p", ErrorList()).message == 'Pod "p" is invalid'


def test_a_future_resource_version_is_worded_as_recorded() -> None:
    assert status.too_large_resource_version(99999999, 427).to_dict() in list(_responses("errors"))


def test_an_apply_conflict_is_worded_as_recorded() -> None:
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "alice"', "field": ".data.a"}
    refused = status.apply_conflict([cause], 'Apply failed with 1 conflict: conflict with "alice": .data.a')
    assert refused.to_dict() in list(_responses("patches"))


def test_success_is_written_as_recorded() -> None:
    bodies = list(_responses("lists"))
    assert status.success(code=201) in bodies
    assert status.success(Details("c0", kind="configmaps", uid="<uid>")) in bodies


def test_the_other_texts() -> None:
    told = {
        'pods "x" already exists, the server was not able to generate a unique name for the object': (
            status.generate_name_conflict("", "pods", "x", 1)
        ),
        'patch is not supported on resources of kind "a.b"': status.method_not_supported("b", "a", "patch"),
        "The create operation against pods could not be completed at this time, please try again.": (
            status.server_timeout("", "pods", "create", 2)
        ),
        "Internal error occurred: broken": status.internal_error("broken"),
        "Timeout: slow": status.timeout("slow", 3),
        "busy": status.too_many_requests("busy", 4),
        "Request entity too large: limit is 3145728": status.too_large("limit is 3145728"),
        "forbidden: no": status.forbidden("", "", "", "no"),
    }
    for message, error in told.items():
        assert (error.message, str(error)) == (message, message)
    assert [error.code for error in told.values()] == [409, 405, 500, 500, 504, 429, 413, 403]
    assert [error.retry_after_seconds for error in told.values()] == [1, 0, 2, 0, 3, 4, 0, 0]
    assert list(status.internal_error("broken").causes) == [{"message": "broken"}]
    assert not status.BadRequest("x").causes


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (403, status.Forbidden, "why"),
        (409, status.Conflict, "the server reported a conflict"),
        (418, status.Unknown, "why"),
        (502, status.InternalError, 'an error on the server ("why") has prevented the request from succeeding'),
        (504, status.Timeout, "the server was unable to return a response in the time allotted, but may still be "),
    ],
)
def test_an_answer_that_is_no_status_becomes_one(code: int, kind: type[ApiStatus], words: str) -> None:
    error = status.generic(code, "why")
    assert type(error) is kind
    assert error.code == code
    assert error.message.startswith(words)


@pytest.mark.parametrize(
    "name", [name for name in status.__all__ if name[0].isupper() and name not in {"MODIFIED", "Details"}]
)
def test_every_reason_has_its_class(name: str) -> None:
    kind: type[ApiStatus] = getattr(status, name)
    error = kind("m")
    again = status.from_dict(error.to_dict())
    assert type(again) is (status.Unknown if kind is ApiStatus else kind)
    assert (again.reason, again.code, again.message) == (kind.REASON, kind.CODE, "m")


def test_errors_that_share_a_code_are_told_apart() -> None:
    assert not isinstance(status.already_exists("", "pods", "x"), status.Conflict)
    assert not isinstance(status.Expired("too old resource version"), status.Gone)


def test_an_unknown_reason_is_kept() -> None:
    error = status.from_dict({"kind": "Status", "reason": "Odd", "message": "m"}, code=499)
    assert isinstance(error, status.Unknown)
    assert (error.reason, error.code) == ("Odd", 499)
    assert error.to_dict()["reason"] == "Odd"


@given(st.dictionaries(st.sampled_from(["message", "reason", "details", "code", "status"]), JSON))
def test_any_body_is_read(body: dict[str, Any]) -> None:
    error = status.from_dict(body)
    again = status.from_dict(error.to_dict())
    assert again.to_dict() == error.to_dict()


@given(
    st.builds(
        Details,
        st.text(max_size=5),
        st.text(max_size=5),
        st.text(max_size=5),
        st.text(max_size=5),
        st.lists(st.fixed_dictionaries({"message": st.text(max_size=5)}), max_size=2),
        st.integers(0, 9),
    )
)
def test_details_survive(details: Details) -> None:
    again = status.from_dict(status.Conflict("m", details).to_dict()).details
    assert again is not None
    assert again.to_dict() == details.to_dict()
    assert all(again.to_dict().values())
