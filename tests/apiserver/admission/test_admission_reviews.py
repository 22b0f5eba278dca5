"""AdmissionReview as pure functions: hostile answers end in one kind of error, denials in a Status."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.admission.reviews import ReviewError, Verdict, choose_version, denial, operations, read
from pilothouse.kinds.status import ApiStatus

values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["uid", "allowed", "status", "patch", "patchType", "auditAnnotations", "warnings"])
answers = st.fixed_dictionaries(
    {},
    optional={"apiVersion": values, "kind": values, "response": values | st.dictionaries(fields, values, max_size=5)},
)


@given(st.binary(max_size=60) | answers.map(msgspec.json.encode), st.sampled_from(["v1", "v1beta1"]), st.booleans())
def test_whatever_a_webhook_sends_is_a_verdict_or_an_error(body: bytes, version: str, mutating: bool) -> None:
    with contextlib.suppress(ReviewError):
        verdict = read(body, "u", version, mutating=mutating)
        assert isinstance(verdict, Verdict)
        assert all(isinstance(text, str) for text in verdict.warnings)
        assert isinstance(operations(verdict), list)


@given(st.none() | st.dictionaries(st.sampled_from(["message", "reason", "code", "details", "status"]), values))
def test_denials_are_refusals_whatever_they_say(result: dict[str, Any] | None) -> None:
    error = denial("w", result)
    assert isinstance(error, ApiStatus)
    assert error.code >= 400
    assert error.message.startswith('admission webhook "w" denied the request')
    msgspec.json.encode(error.to_dict())


def test_deep_answers_end_soon() -> None:
    for body in (b"[" * 200_000, b'{"response":' * 100_000):
        with pytest.raises(ReviewError, match="json parse error"):
            read(body, "u", "v1", mutating=True)


def test_versions() -> None:
    assert choose_version(["v2", "v1beta1", "v1"]) == "v1beta1"
    with pytest.raises(ReviewError, match="does not accept known AdmissionReview versions"):
        choose_version([])
