"""Protobuf: what is read and written, what is refused and with which words, and that nothing sent can do harm."""

from __future__ import annotations

import random
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pilothouse.kinds import protobuf
from pilothouse.kinds.protobuf import ProtobufError, UnknownKind
from pilothouse.kinds.protobuf._facts import message_of
from support.protobufsamples import kinds, sample

POD = ("", "v1", "Pod")
DEPLOYMENT = ("apps", "v1", "Deployment")
CRD = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition")


def field(number: int, content: bytes) -> bytes:
    """Write a field that has a length, by a way of its own."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def envelope(api_version: str, kind: str, raw: bytes, *more: bytes) -> bytes:
    meta = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\0" + field(1, meta) + field(2, raw) + b"".join(more)


def read(gvk: protobuf.Gvk, data: bytes) -> dict[str, Any]:
    made = protobuf.decode_message(data, *gvk)
    assert (made.pop("apiVersion"), made.pop("kind")) == ("/".join(filter(None, gvk[:2])), gvk[2])
    return made


def test_an_object_is_read_with_what_it_is_first() -> None:
    data = envelope("v1", "ConfigMap", field(1, field(1, b"c")) + field(2, field(1, b"k") + field(2, b"v")))
    made = protobuf.decode(data)
    assert made == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}}
    assert list(made) == ["apiVersion", "kind", "metadata", "data"]


def test_what_is_zero_is_dropped_where_go_drops_it() -> None:
    spec = field(2, b"\x58\x00" + b"\x28\x00")  # hostNetwork false, activeDeadlineSeconds 0
    assert read(POD, spec)["spec"] == {"activeDeadlineSeconds": 0, "containers": None}
    assert read(DEPLOYMENT, field(2, b"\x08\x00\x28\x00"))["spec"]["replicas"] == 0
    assert "minReadySeconds" not in read(DEPLOYMENT, field(2, b"\x08\x00\x28\x00"))["spec"]


def test_structs_and_required_fields_are_there_though_nothing_was_sent() -> None:
    assert read(POD, b"") == {"metadata": {}, "spec": {"containers": None}, "status": {}}
    deployment = read(DEPLOYMENT, b"")
    assert deployment["spec"] == {
        "selector": None,
        "template": {"metadata": {}, "spec": {"containers": None}},
        "strategy": {},
    }
    # each is its own, so that filling in one does not fill in others
    deployment["spec"]["template"]["metadata"]["name"] = "a"
    assert read(DEPLOYMENT, b"")["spec"]["template"]["metadata"] == {}


def test_the_last_of_a_field_counts_and_parts_of_a_message_are_put_together() -> None:
    assert read(POD, field(1, field(1, b"a") + field(1, b"")))["metadata"] == {}
    parts = field(1, field(1, b"a")) + field(1, field(3, b"n"))
    assert read(POD, parts)["metadata"] == {"name": "a", "namespace": "n"}


def test_unknown_fields_are_passed_over() -> None:
    unknown = b"\xf8\x3f\x05" + b"\xf9\x3f" + bytes(8) + b"\xfd\x3f" + bytes(4)
    group = b"\xfb\x3f" + field(1, b"x") + b"\xfb\x40\xfc\x40" + b"\xfc\x3f"
    data = field(1, field(1, b"a") + unknown + group) + group + field(1000, b"more")
    assert read(POD, data)["metadata"] == {"name": "a"}


def test_numbers_may_be_sent_packed() -> None:
    spec = read(POD, field(2, field(14, field(4, b"\x01\x80\x01"))))["spec"]
    assert spec["securityContext"] == {"supplementalGroups": [1, 128]}


def test_json_within_the_envelope_is_read_where_it_says_so() -> None:
    raw = b'{"metadata":{"name":"a"},"kind":"Pod","apiVersion":"v1"}'
    made = protobuf.decode(envelope("v1", "Pod", raw, field(4, b"application/json")))
    assert list(made) == ["apiVersion", "kind", "metadata"]
    assert made == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    made = protobuf.decode(envelope("example.com/v1", "Boat", b"{}", field(4, b"application/json")))
    assert made == {"apiVersion": "example.com/v1", "kind": "Boat"}
    with pytest.raises(ProtobufError, match="is no object"):
        protobuf.decode(envelope("v1", "Pod", b"[]", field(4, b"application/json")))


def test_what_the_envelope_does_not_say_is_as_expected() -> None:
    bare = b"k8s\0" + field(2, field(1, field(1, b"a")))
    assert protobuf.decode(bare, default=POD)["kind"] == "Pod"
    with pytest.raises(ProtobufError, match="does not say its kind; set apiVersion and kind"):
        protobuf.decode(bare)
    with pytest.raises(ProtobufError, match="does not say its version"):
        protobuf.decode(envelope("", "Pod", b""))


def test_an_object_within_an_object_may_be_in_either_form() -> None:
    pod = protobuf.encode({"metadata": {"name": "a"}}, *POD)
    review = ("admission.k8s.io", "v1", "AdmissionReview")
    request = field(1, field(9, field(1, pod)) + field(10, field(1, b'{"kind":"Pod"}')))
    read_request = read(review, request)["request"]
    assert read_request["object"] == protobuf.decode(pod)
    assert read_request["oldObject"] == {"kind": "Pod"}
    assert read_request["options"] is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the data are no Kubernetes protobuf: they do not begin with k8s and a zero byte"),
        (b'{"kind":"Pod"}', "the data are no Kubernetes protobuf"),
        (b"k8s\0", "there is no object"),
        (b"k8s\0\x0a\x05ab", "the data end within a field"),
        (b"k8s\0\x08\x01", "field 1 of the envelope was sent as wire type 0"),
        (envelope("v1", "Pod", b"", field(3, b"gzip")), "the object is encoded as 'gzip'; send it without an encoding"),
        (envelope("v1", "Pod", b"\x0a"), "Pod: the data end within a field"),
        (envelope("v1", "Pod", b"\x0a\xff"), "Pod: the data end within a field"),
        (envelope("v1", "Pod", b"\x0a" + b"\xff" * 10 + b"\x01"), "Pod: a number takes more than ten bytes"),
        (envelope("v1", "Pod", field(1, b"\x0a\x05ab")), "Pod.metadata.name: the data end within a field"),
        (envelope("v1", "Pod", field(1, b"\x08\x01")), "Pod.metadata.name: was sent as wire type 0"),
        (envelope("v1", "Pod", b"\x00"), "tag 0 at byte"),
        (envelope("v1", "Pod", b"\xfc\x3f"), "a group ends at byte"),
        (envelope("v1", "Pod", b"\xfb\x3f"), "the data end within a field"),
        (
            envelope("v1", "Pod", field(2, field(2, b"") + field(2, field(8, field(1, field(2, field(1, b"x"))))))),
            r"Pod.spec.containers\[1\].resources.limits\[\]: quantities must match",
        ),
        (envelope("v1", "Pod", field(1, field(8, b"\x08" + b"\xff" * 8 + b"\x7f"))), "not within the years 1 to 9999"),
        (
            envelope("v1", "Boat", b""),
            'no kind "Boat" of version "v1" has a protobuf message; send and accept it as JSON',
        ),
        (envelope("example.com/v1", "Boat", b""), 'version "example.com/v1"'),
        (envelope("meta.k8s.io/v1", "Table", b""), 'no kind "Table"'),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(ProtobufError, match=message):
        protobuf.decode(data)


def test_a_kind_without_a_message_has_an_error_of_its_own() -> None:
    with pytest.raises(UnknownKind) as caught:
        protobuf.encode({}, "example.com", "v1", "Boat")
    assert (caught.value.group, caught.value.version, caught.value.kind) == ("example.com", "v1", "Boat")
    with pytest.raises(UnknownKind):
        protobuf.encode_list({}, [], ("example.com", "v1", "BoatList"))
    with pytest.raises(ProtobufError, match="List is no list of objects of one kind; write it with encode"):
        protobuf.encode_list({}, [], ("", "v1", "List"))


def test_kinds_that_every_group_has() -> None:
    for kind in ("DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "ListOptions", "GetOptions"):
        assert protobuf.supported(("example.com", "v1alpha1", kind))
    for gvk in [("", "v1", "Status"), ("autoscaling", "v1", "Scale"), ("policy", "v1", "Eviction"), ("", "v1", "List")]:
        assert protobuf.supported(gvk)
    assert not protobuf.supported(("example.com", "v1", "Pod"))


@pytest.mark.parametrize(
    ("obj", "gvk", "message"),
    [
        ({"metadata": {"name": 7}}, POD, "Pod.metadata.name: cannot be written: a number is not what the field holds"),
        ({"metadata": []}, POD, "Pod.metadata: cannot be written: a list is not"),
        (
            {"metadata": {"finalizers": ["a", 1]}},
            POD,
            r"Pod.metadata.finalizers\[1\]: cannot be written: a number is not",
        ),
        ({"metadata": {"labels": {"a": True}}}, POD, r"Pod.metadata.labels\[a\]: cannot be written: a boolean is not"),
        ({"metadata": {"labels": ["a"]}}, POD, "Pod.metadata.labels: cannot be written: a list is not"),
        ({"metadata": {"labels": 5}}, POD, "Pod.metadata.labels: cannot be written: a number is not"),
        (
            {"spec": {"containers": [{}, {"ports": [{"protocol": 1}]}]}},
            POD,
            r"Pod.spec.containers\[1\].ports\[0\].protocol",
        ),
        ({"spec": {"replicas": 2**31}}, DEPLOYMENT, "Deployment.spec.replicas: 2147483648 is no whole number"),
        ({"spec": {"replicas": 1.5}}, DEPLOYMENT, "Deployment.spec.replicas: cannot be written: a number is not"),
        ({"spec": {"hostNetwork": "yes"}}, POD, "Pod.spec.hostNetwork: cannot be written: a string is not"),
        (
            {"metadata": {"creationTimestamp": "today"}},
            POD,
            "Pod.metadata.creationTimestamp: cannot be written: parsing",
        ),
        ({"data": {"k": "not base64"}}, ("", "v1", "Secret"), r"Secret.data\[k\]: cannot be written"),
        ({"metadata": {"name": "\ud800"}}, POD, "Pod.metadata.name: cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_place(obj: Any, gvk: protobuf.Gvk, message: str) -> None:
    with pytest.raises(ProtobufError, match=message):
        protobuf.encode(obj, *gvk)


def test_what_a_kind_does_not_have_is_left_out() -> None:
    assert protobuf.encode({"wombat": 1, "metadata": {"wombat": {}}}, *POD) == protobuf.encode({}, *POD)


def schema_within(levels: int) -> bytes:
    schema = b""
    for _ in range(levels):
        schema = field(29, field(1, b"p") + field(2, schema))
    return field(2, field(7, field(4, field(1, schema))))


def test_schemas_within_each_other_end_at_a_hundred() -> None:
    made = read(CRD, schema_within(90))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for _ in range(90):
        made = made["properties"]["p"]
    assert made == {}
    with pytest.raises(ProtobufError, match="more than 100 messages lie within each other"):
        read(CRD, schema_within(101))


def test_a_schema_too_deep_for_the_stack_is_not_written() -> None:
    schema: dict[str, Any] = {}
    for _ in range(sys.getrecursionlimit()):
        schema = {"items": schema}
    crd = {"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}}
    with pytest.raises(ProtobufError, match="lie within each other"):
        protobuf.encode(crd, *CRD)


def test_envelopes_within_each_other_end_too() -> None:
    data = envelope("v1", "List", b"")
    for _ in range(300):
        data = envelope("v1", "List", field(2, field(1, data)))
    with pytest.raises(ProtobufError, match="lie within each other"):
        protobuf.decode(data)


def test_json_within_is_written_as_go_writes_it() -> None:
    written = protobuf.encode_message({"data": {"a": "<&>\u2028\u2029"}}, "apps", "v1", "ControllerRevision")
    assert rb'{"a":"\u003c\u0026\u003e\u2028\u2029"}' in written


@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"a":' * 100_000])
def test_json_within_that_is_too_deep_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtobufError, match="JSON within is not valid"):
        protobuf.decode(envelope("apps/v1", "ControllerRevision", field(2, field(1, raw))))


@pytest.mark.parametrize("unknown", [b"\xfb\x3f" * 100_000, b"\xfb\x3f" * 50_000 + b"\xfc\x3f" * 50_000])
def test_groups_within_each_other_cost_no_stack(unknown: bytes) -> None:
    try:
        assert read(POD, unknown) == read(POD, b"")
    except ProtobufError as error:
        assert "end within" in str(error)  # noqa: PT017


def test_empty_objects_beyond_all_measure_are_refused() -> None:
    many = envelope("v1", "PodList", field(2, b"") * 300_000)
    tracemalloc.start()
    try:
        with pytest.raises(ProtobufError, match="more objects than their size allows"):
            protobuf.decode(many)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 * len(many)


def test_many_objects_of_usual_size_are_read() -> None:
    pod = protobuf.encode_message({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}, *POD)
    assert len(protobuf.decode(protobuf.encode_list({}, [pod] * 5000, ("", "v1", "PodList")))["items"]) == 5000


@given(st.binary(max_size=200))
@example(b"")
def test_anything_is_read_or_refused(data: bytes) -> None:
    for whole in (data, b"k8s\0" + data, envelope("v1", "Pod", data), envelope(CRD[0] + "/v1", CRD[2], data)):
        try:
            assert list(protobuf.decode(whole))[:2] == ["apiVersion", "kind"]
        except ProtobufError as error:
            assert str(error)  # noqa: PT017


@settings(deadline=None)  # objects may be large, and the machine busy
@given(st.integers(0, 2**32), st.sampled_from(kinds()), st.data())
def test_any_part_of_an_object_is_read_or_refused(seed: int, gvk: protobuf.Gvk, data: st.DataObject) -> None:
    message = message_of(*gvk)
    assert message is not None
    whole = bytearray(protobuf.encode_message(sample(gvk, message, random.Random(seed)), *gvk))
    place = data.draw(st.integers(0, len(whole)))
    whole[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    for damaged in (bytes(whole), bytes(whole[:place])):
        try:
            made = protobuf.decode_message(damaged, *gvk)
        except ProtobufError:
            continue
        # what was read can be written
        assert protobuf.decode_message(protobuf.encode_message(made, *gvk), *gvk) == made


@settings(deadline=None)  # objects may be large, and the machine busy
@given(st.integers(0, 2**32), st.sampled_from(kinds()))
def test_what_is_written_is_read_as_it_is_shown(seed: int, gvk: protobuf.Gvk) -> None:
    message = message_of(*gvk)
    assert message is not None
    shown = protobuf.decode(protobuf.encode(sample(gvk, message, random.Random(seed)), *gvk))
    assert protobuf.decode(protobuf.encode(shown, *gvk)) == shown
