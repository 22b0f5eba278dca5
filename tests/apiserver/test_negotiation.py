"""The form of an answer, by the Accept header."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.model import Request
from pilothouse.apiserver.negotiation import NO_KINDS, Negotiated, negotiate, wants_pretty
from pilothouse.kinds.status import NotAcceptable

GOLDEN = Path(__file__).parent.parent / "golden"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
BETA = "application/json;as=Table;v=v1beta1;g=meta.k8s.io"
AS_TABLE = Negotiated("json", "Table", "meta.k8s.io", "v1")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Negotiated("json")),
        ("*/*", Negotiated("json")),
        ("application/yaml", Negotiated("yaml")),
        ("application/yaml;q=0.5,application/json;q=0.6", Negotiated("json")),
        ("*/*,application/yaml", Negotiated("yaml")),
        ("application/vnd.kubernetes.protobuf,application/json", Negotiated("json")),
        ("application/vnd.kubernetes.protobuf", Negotiated("protobuf")),
        (f"{TABLE},{BETA},application/json", AS_TABLE),
        (f"{BETA};q=0.3,{TABLE};q=0.4", AS_TABLE),
        ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io," + TABLE, AS_TABLE),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Negotiated("json")),
        ("image/png, application/json;stream=watch", Negotiated("json", stream="watch")),
        ("application/json;pretty=1", Negotiated("json", pretty=True)),
        ("application/json;q=nonsense", Negotiated("json")),
        (
            "application/yaml;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Negotiated("yaml", "PartialObjectMetadataList", "meta.k8s.io", "v1"),
        ),
    ],
)
def test_chosen(accept: str, expected: Negotiated) -> None:
    assert negotiate(accept) == expected


def test_refused_before_the_parameters_count() -> None:
    steps = json.loads((GOLDEN / "errors.json").read_text())["steps"]
    recorded = next(step for step in steps if step["label"] == "not acceptable")
    with pytest.raises(NotAcceptable) as refused:
        negotiate(recorded["headers"]["Accept"])
    assert refused.value.to_dict() == recorded["response"]


@pytest.mark.parametrize(
    "accept",
    [TABLE.replace("Table", "Chair"), "application/json;stream=other", "application/vnd.kubernetes.protobuf;as=Table"],
)
def test_refused_by_parameters(accept: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        negotiate(accept)
    assert refused.value.to_dict() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "only the following media types are accepted: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        "reason": "NotAcceptable",
        "code": 406,
    }


def test_no_kinds() -> None:
    assert negotiate(f"{TABLE},application/yaml", kinds=NO_KINDS) == Negotiated("yaml")


def test_api_version_and_content_type() -> None:
    assert AS_TABLE.api_version == "meta.k8s.io/v1"
    assert negotiate("application/yaml").content_type == "application/yaml"


@given(st.text(alphabet="aqjson/;*=,. 01nif-+e", max_size=80))
def test_any_text_is_answered_or_refused(accept: str) -> None:
    with contextlib.suppress(NotAcceptable):
        assert negotiate(accept).media_type in ("json", "yaml", "protobuf")


def test_long_headers_are_not_remembered() -> None:
    assert negotiate("image/png," * 500 + "application/json").media_type == "json"


@pytest.mark.parametrize(
    ("query", "agent", "expected"),
    [
        ("pretty=true", "", True),
        ("pretty=0", "curl/8", False),
        ("pretty=", "curl/8", True),
        ("", "curl/8", True),
        ("", "kubectl", False),
    ],
)
def test_pretty(query: str, agent: str, expected: bool) -> None:
    request = Request("GET", "/", "/", query, {"user-agent": agent} if agent else {})
    assert wants_pretty(request) is expected
