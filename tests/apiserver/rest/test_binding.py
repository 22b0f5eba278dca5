"""Bindings: splicing the bytes of a pod gives what decoding and encoding it would, or nothing at all."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.cache.entries import decode, encoded
from pilothouse.apiserver.rest.binding import assigned, binding_of, spliced
from pilothouse.kinds.status import Conflict

CONDITION = {
    "type": "PodScheduled",
    "status": "True",
    "lastProbeTime": None,
    "lastTransitionTime": "2024-01-01T00:00:00Z",
}
BODY = (
    b'{"apiVersion":"v1","kind":"Binding","metadata":{"name":"web","namespace":"default","uid":"u"},'
    b'"target":{"apiVersion":"v1","kind":"Node","name":"n1"}}'
)

texts = st.text(max_size=8)
maps = st.dictionaries(st.sampled_from(["a", "labels", "spec", '"labels":{"a":"b"}', "é"]), texts, max_size=3)
conditions = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["PodScheduled", "Ready"]), "status": texts}), max_size=3
)
managed = st.just([{"manager": "x", "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}}}])


def optional(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


metadata = st.fixed_dictionaries(
    {"name": st.just("web"), "uid": st.sampled_from(["u", "other"])},
    optional={
        "labels": maps | st.none(),
        "annotations": maps | st.none(),
        "managedFields": managed,
        "deletionTimestamp": st.just("2024-01-01T00:00:00Z") | st.none(),
    },
)
spec = optional(
    nodeName=st.sampled_from(["", "n0"]),
    schedulingGates=st.sampled_from([[], [{"name": "g"}]]),
    containers=st.lists(st.fixed_dictionaries({"name": texts}), max_size=2),
    nodeSelector=maps,
)
status = optional(phase=texts, conditions=conditions | st.none())
pods = st.fixed_dictionaries(
    {"kind": st.just("Pod"), "apiVersion": st.just("v1"), "metadata": metadata, "spec": spec},
    optional={"status": status},
)
bindings = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({"name": st.just("web")}, optional={"uid": st.sampled_from(["", "u"])}),
        "target": st.fixed_dictionaries({"name": texts.filter(bool)}),
    }
)


@given(pods, bindings, maps, maps)
def test_splicing_a_pod_is_decoding_and_encoding_it(
    pod: dict[str, Any], binding: dict[str, Any], labels: dict[str, str], annotations: dict[str, str]
) -> None:
    binding = copy.deepcopy(binding)
    binding["metadata"] |= {"labels": labels, "annotations": annotations}
    made = spliced(encoded(pod), binding, CONDITION)
    try:
        wanted = encoded(assigned(copy.deepcopy(pod), binding, "web", CONDITION))
    except Conflict:
        assert made is None
        return
    if made is not None:
        assert decode(made) == decode(wanted)
        # As bytes it is a fixed point too: nothing is in there twice.
        assert encoded(decode(made)) == made


def test_a_new_pod_is_spliced() -> None:
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web", "uid": "u"}, "spec": {"containers": []}}
    binding = binding_of(BODY)
    assert binding is not None
    for state in ({}, {"phase": "Pending"}, {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]}):
        made = spliced(encoded({**pod, "status": state}), binding, CONDITION)
        assert made is not None
        assert decode(made)["spec"]["nodeName"] == "n1"
        assert decode(made)["status"]["conditions"][-1] == CONDITION


def test_a_binding_as_our_scheduler_writes_it_is_read_at_once() -> None:
    assert binding_of(BODY) == msgspec.json.decode(BODY)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (b'"v1","kind":"Binding"', b'"v1","kind":"Pod"'),
        (b'"apiVersion":"v1","kind":"Binding"', b'"apiVersion":"v2","kind":"Binding"'),
        (b'"name":"web"', b'"name":"web","name":"web"'),
        (b'"name":"web"', b'"name": "web"'),
        (b'"name":"web"', b'"name":""'),
        (b'"name":"web"', b'"name":"web","labels":{"a":"b"}'),
        (b'"name":"web"', b'"name":1'),
        (b'"uid":"u"', b'"uid":null'),
        (b',"uid":"u"', b""),
        (b'"name":"n1"', b'"name":"\\u006e1"'),
        (b'"name":"n1"', b'"name":"\xff"'),
        (b"}}", b"}"),
    ],
)
def test_any_other_binding_is_left_to_the_schema(part: bytes, other: bytes) -> None:
    assert part in BODY
    assert binding_of(BODY.replace(part, other, 1)) is None
