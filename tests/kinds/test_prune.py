"""Decoding as Kubernetes does: unknown and duplicate fields, wrong types, null."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import prune
from pilothouse.kinds._fastshape import _QUANTITY, compile_fast
from pilothouse.kinds._goformats import quote
from pilothouse.kinds.prune import (
    DecodeError,
    decode,
    duplicate_fields,
    has_duplicates,
    strict_decoding_error,
    strict_errors,
)
from pilothouse.kinds.quantity import canonical
from pilothouse.kinds.registry import builtin
from pilothouse.kinds.schema import ANY, Schema
from pilothouse.kinds.table import schema_for

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DECODING = json.loads((GOLDEN / "decoding.json").read_text(encoding="utf-8"))
GROUPS = {"Deployment": "apps", "Lease": "coordination.k8s.io", "CustomResourceDefinition": "apiextensions.k8s.io"}


def schema(kind: str) -> Schema:
    found = schema_for(GROUPS.get(kind, ""), "v1", kind)
    assert found is not None
    return found


@pytest.mark.parametrize(("kind", "text", "message"), DECODING["wrong"], ids=str)
def test_wrong_types_are_refused_in_the_words_of_go(kind: str, text: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(schema(kind), msgspec.json.decode(text))
    assert str(caught.value) == message


@pytest.mark.parametrize(("kind", "text", "messages"), DECODING["strict"], ids=str)
def test_unknown_and_duplicate_fields_are_named_in_order(kind: str, text: str, messages: list[str]) -> None:
    raw = text.encode()
    assert strict_errors(schema(kind), raw) == messages
    decoded = msgspec.json.decode(raw)
    assert has_duplicates(raw, decoded) == any(message.startswith("duplicate") for message in messages)
    unknown = decode(schema(kind), decoded)[1]
    assert set(unknown) <= set(messages)


PATH = re.compile(r"/apis?/(?:([^/]+\.[^/]+|apps|batch)/)?(v\d)/(?:namespaces/[^/]+/)?([a-z]+)(?:\?.*)?")
OTHERWISE = ("unknown conversion", "is registered")


def golden() -> list[Any]:
    """Pick the recorded creations that end in decoding or warn of a field."""
    cases = []
    for step in json.loads((GOLDEN / "errors.json").read_text(encoding="utf-8"))["steps"]:
        place = PATH.fullmatch(step["path"])
        resource = builtin().get(place[1] or "", place[2], place[3]) if place else None
        if resource is None or step["method"] != "POST":
            continue
        message, warning = step["response"].get("message", ""), step.get("warning", "")
        undecoded = " cannot be handled as a " in message and not any(text in message for text in OTHERWISE)
        if undecoded or warning:
            raw = step["raw"] if "raw" in step else json.dumps(step["body"])
            cases.append(pytest.param(resource.gvk, raw, message, warning, id=step["label"]))
    return cases


@pytest.mark.parametrize(("gvk", "raw", "message", "warning"), golden())
def test_recorded_answers(gvk: tuple[str, str, str], raw: str, message: str, warning: str) -> None:
    found = schema_for(*gvk)
    assert found is not None
    try:
        _, unknown = decode(found, msgspec.json.decode(raw))
    except DecodeError as error:
        said = str(error)
    else:
        messages = strict_errors(found, raw.encode())
        assert messages == unknown or has_duplicates(raw.encode(), msgspec.json.decode(raw))
        said = strict_decoding_error(messages)
        if warning:
            assert warning == f"299 - {json.dumps(messages[0])}"
            return
    assert message == f'{gvk[2]} in version "{gvk[1]}" cannot be handled as a {gvk[2]}: {said}'


def test_the_recordings_hold_what_is_wanted() -> None:
    assert len(golden()) >= 8


POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}, "creationTimestamp": "2024-12-31T23:59:59Z"},
    "spec": {
        "containers": [
            {
                "name": "web",
                "args": ["--port", "8080"],
                "ports": [{"containerPort": 8080}],
                "resources": {"limits": {"cpu": "100m", "memory": "1536Mi"}, "requests": {"cpu": "1500m"}},
                "livenessProbe": {"httpGet": {"port": "http"}},
                "readinessProbe": {"httpGet": {"port": 80}},
            }
        ],
        "nodeSelector": {"disk": "ssd"},
        "terminationGracePeriodSeconds": 30,
        "hostNetwork": False,
    },
}


def test_a_right_object_comes_back_as_it_is() -> None:
    made, messages = decode(schema("Pod"), POD)
    assert made is POD
    assert messages == []


def test_null_is_absent_in_objects() -> None:
    spec = {**POD["spec"], "hostNetwork": None, "tolerations": None}
    given_pod = {**POD, "spec": spec, "status": None}
    made, messages = decode(schema("Pod"), given_pod)
    wanted = {**POD, "spec": {key: value for key, value in POD["spec"].items() if key != "hostNetwork"}}
    assert (made, messages) == (wanted, [])
    assert given_pod["status"] is None, "the input changed"


def test_null_in_lists_and_maps_is_the_zero_value() -> None:
    spec = {
        "nodeSelector": {"a": None},
        "tolerations": [None],
        "containers": [{"args": [None], "resources": {"limits": {"cpu": None}}}],
    }
    made, _ = decode(schema("Pod"), {"spec": spec})
    assert made["spec"] == {
        "nodeSelector": {"a": ""},
        "tolerations": [{}],
        "containers": [{"args": [""], "resources": {"limits": {"cpu": "0"}}}],
    }


def test_a_null_creation_timestamp_is_dropped_where_it_is_a_field() -> None:
    made, messages = decode(schema("Pod"), {**POD, "metadata": {"name": "a", "creationTimestamp": None}})
    assert (made["metadata"], messages) == ({"name": "a"}, [])
    listed = {"metadata": {"creationTimestamp": None}, "items": []}
    assert decode(schema("PodList"), listed)[1] == ['unknown field "metadata.creationTimestamp"']


def test_unknown_fields_are_left_out_and_the_input_stays() -> None:
    before = json.loads(json.dumps(POD))
    given_pod = json.loads(json.dumps(POD))
    given_pod["spec"]["containers"][0]["foo"] = {"bar": 1}
    made, messages = decode(schema("Pod"), given_pod)
    assert made == before
    assert messages == ['unknown field "spec.containers[0].foo"']
    assert given_pod["spec"]["containers"][0]["foo"] == {"bar": 1}


def test_at_most_a_hundred_fields_are_named() -> None:
    many: dict[str, Any] = {f"f{number}": [] for number in range(1000)}
    made, messages = decode(schema("Pod"), many)
    assert (made, len(messages)) == ({}, 100)
    assert len(strict_errors(schema("Pod"), json.dumps(many).encode())) == 100
    assert len(prune.prune(Schema("object"), many)[1]) == 100


def test_nesting_without_end_is_refused() -> None:
    props: dict[str, Any] = {}
    for _ in range(300):
        props = {"properties": {"a": props}}
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": props}}]
    with pytest.raises(DecodeError, match="exceeded max depth"):
        decode(schema("CustomResourceDefinition"), {"spec": {"versions": versions}})


def test_what_kubernetes_parses_by_code_comes_before_other_mistakes() -> None:
    spec = {"hostNetwork": 1, "containers": [{"resources": {"limits": {"cpu": "lots"}}}]}
    with pytest.raises(DecodeError, match="quantities must match"):
        decode(schema("Pod"), {"spec": spec})


@pytest.mark.parametrize(
    ("given_value", "text"),
    [
        ("0", "0"),
        ("+1.5", "1500m"),
        ("-.5", "-500m"),
        ("100m", "100m"),
        (" 1 ", "1"),
        (1, "1"),
        (0.5, "500m"),
        ("1Ki", "1Ki"),
    ],
)
def test_quantities_come_back_as_go_writes_them(given_value: Any, text: str) -> None:
    made, _ = decode(schema("Pod"), {"spec": {"containers": [{"resources": {"limits": {"cpu": given_value}}}]}})
    assert made["spec"]["containers"][0]["resources"]["limits"]["cpu"] == text


@given(st.from_regex(_QUANTITY))
def test_quantities_that_the_compiled_check_passes_need_no_rewriting(text: str) -> None:
    assert canonical(text) == text


@pytest.mark.parametrize("text", ["1ki", "1e", "1mm", "1iK"])
def test_bad_suffixes(text: str) -> None:
    with pytest.raises(DecodeError, match="unable to parse quantity's suffix"):
        decode(schema("Pod"), {"spec": {"containers": [{"resources": {"limits": {"cpu": text}}}]}})


def test_long_numbers_cost_their_length() -> None:
    limits = {"cpu": "1" * 1_000_000 + "x"}
    with pytest.raises(DecodeError, match="quantities must match"):
        decode(schema("Pod"), {"spec": {"containers": [{"resources": {"limits": limits}}]}})


@pytest.mark.parametrize(
    "text",
    ["2024-01-31T10:11:12.\u0661Z", "\u0662\u0660\u0662\u0664-01-31T10:11:12Z", "2024-01-31T10:11:12+\u06600:00"],
)
def test_digits_of_other_scripts_are_no_time(text: str) -> None:
    with pytest.raises(DecodeError, match="parsing time"):
        decode(schema("Pod"), {"metadata": {"creationTimestamp": text}})


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("2020-01-01T00:00:00.923Z", "2020-01-01T00:00:00Z"),
        ("2020-01-31T01:00:00+02:00", "2020-01-30T23:00:00Z"),
        ("2020-12-31T23:59:59,5Z", "2020-12-31T23:59:59Z"),
        ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+01:00"),
    ],
)
def test_times_come_back_as_go_writes_them(given_text: str, text: str) -> None:
    made, _ = decode(schema("Pod"), {"metadata": {"creationTimestamp": given_text}})
    assert made == {"metadata": {"creationTimestamp": text}}


def test_micro_times_keep_their_digits() -> None:
    made, _ = decode(schema("Lease"), {"spec": {"renewTime": "2024-02-29T10:00:00.120000-01:00"}})
    assert made == {"spec": {"renewTime": "2024-02-29T11:00:00.120000Z"}}


def test_base64_comes_back_without_line_ends() -> None:
    made, _ = decode(
        schema("Secret"), {"data": {"a": "YW\nJj\r\n", "b": "YQ==\n", "c": "", "d": "YQ=\n=", "e": "YR=="}}
    )
    assert made == {"data": {"a": "YWJj", "b": "YQ==", "c": "", "d": "YQ==", "e": "YQ=="}}


WIDGET = Schema(
    "object",
    fields_or_thunk={
        "spec": Schema(
            "object",
            fields_or_thunk={
                "size": Schema("integer"),
                "list": Schema("list", element=Schema("object", fields_or_thunk={"name": Schema("string")})),
                "map": Schema("map", element=Schema("object", fields_or_thunk={"a": Schema("string")})),
                "free": Schema("object", fields_or_thunk={"kept": Schema("object")}, preserve_unknown=True),
            },
        )
    },
)


def test_custom_objects_lose_unknown_fields_and_nothing_else() -> None:
    spec = {
        "size": "wrong",
        "wombat": 1,
        "list": [{"name": None, "x": 1}, 5],
        "map": {"k": {"a": "1", "b": 2}},
        "free": {"any": {"thing": 1}, "kept": {"gone": 1}},
    }
    made, messages = prune.prune(WIDGET, {"spec": spec})
    assert made["spec"] == {
        "size": "wrong",
        "list": [{"name": None}, 5],
        "map": {"k": {"a": "1"}},
        "free": {"any": {"thing": 1}, "kept": {}},
    }
    names = ["spec.free.kept.gone", "spec.list[0].x", "spec.map.k.b", "spec.wombat"]
    assert messages == [f'unknown field "{name}"' for name in names]
    assert spec["wombat"] == 1


def test_duplicates_without_a_schema() -> None:
    raw = b'{"a":{"b":1,"b":[{"c":1,"c":"c"}]},"a":"x"}'
    wanted = [f'duplicate field "{path}"' for path in ("a.b", "a.b[0].c", "a")]
    assert duplicate_fields(raw) == wanted
    assert duplicate_fields(b'["a", "b"]') == []
    with pytest.raises(ValueError, match="Expecting"):
        duplicate_fields(b"{")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4), st.booleans())
def test_no_duplicates_are_seen_where_there_are_none(value: dict[str, Any], ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=1).encode("utf-8", "surrogatepass")
    assert duplicate_fields(raw) == []
    if b"\\u0022" not in raw:
        assert not has_duplicates(raw, msgspec.json.decode(raw))


@given(st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=4), st.data())
def test_every_duplicate_is_seen(value: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    again = json.dumps({name: data.draw(JSON)})
    raw = f"{json.dumps(value)[:-1]}, {again[1:]}".encode()
    assert has_duplicates(raw, msgspec.json.decode(raw))
    assert f"duplicate field {quote(name)}" in duplicate_fields(raw)


def mutations() -> st.SearchStrategy[dict[str, Any]]:
    """Draw pods with one value replaced by anything."""

    def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(found for key, item in inner for found in places(item, (*path, key)))]

    def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
        if not path:
            return new
        made = value.copy()
        made[path[0]] = put(value[path[0]], path[1:], new)
        return made

    return st.builds(lambda path, new: put(POD, path, new), st.sampled_from(places(POD)[1:]), JSON)


@given(mutations())
def test_what_the_compiled_check_passes_the_full_one_passes_unchanged(pod: dict[str, Any]) -> None:
    surely_right = compile_fast(schema("Pod"))
    assert surely_right is not None
    if surely_right(pod):
        walk = prune._Decoding()
        assert walk.value(schema("Pod"), pod, None, 0) == pod
        assert walk.wrong is None
        assert not walk.messages


@given(mutations())
def test_decoding_twice_changes_nothing_more(pod: dict[str, Any]) -> None:
    try:
        once, _ = decode(schema("Pod"), pod)
    except DecodeError:
        return
    assert decode(schema("Pod"), once) == (once, [])


def test_types_beyond_the_compiled_check_go_through_the_full_one() -> None:
    assert compile_fast(schema("Secret")) is None
    assert compile_fast(schema("CustomResourceDefinition")) is None
    assert compile_fast(Schema("object", preserve_unknown=True)) is None
    assert compile_fast(ANY) is not None


def test_zero_values_of_every_kind_of_element() -> None:
    elements = [
        ("boolean", "", False),
        ("integer", "int32", 0),
        ("number", "double", 0),
        ("string", "int-or-string", 0),
        ("string", "date-time", None),
        ("list", "", None),
        ("any", "", None),
    ]
    for shape, form, zero in elements:
        element = Schema(shape, format=form, element=Schema("string") if shape == "list" else None)  # type: ignore[arg-type]
        top = Schema("object", fields_or_thunk={"a": Schema("list", element=element)})
        assert decode(top, {"a": [None]})[0] == {"a": [zero]}, shape


def test_numbers_where_go_has_floats_and_booleans() -> None:
    top = Schema("object", name="x.v1.T", fields_or_thunk={"a": Schema("number", format="double")})
    flag = Schema(
        "object", name="x.v1.U", fields_or_thunk={"a": Schema("boolean"), "b": Schema("string", format="byte")}
    )
    for value in (1, 1.5, -3):
        assert decode(top, {"a": value, "gone": 1}) == ({"a": value}, ['unknown field "gone"'])
    assert decode(flag, {"a": True, "b": "YQ=="}) == ({"a": True, "b": "YQ=="}, [])
    with pytest.raises(DecodeError, match=r"cannot unmarshal bool into Go struct field T.a of type float64"):
        decode(top, {"a": True})


def test_a_type_that_keeps_unknown_fields_keeps_them() -> None:
    top = Schema("object", fields_or_thunk={"a": Schema("string")}, preserve_unknown=True)
    value = {"a": "x", "b": {"c": None}}
    assert decode(top, value) == (value, [])
    assert strict_errors(top, b'{"a":"x","b":1,"b":2}') == []


def test_a_value_that_is_no_object_has_no_field_in_its_message() -> None:
    with pytest.raises(DecodeError, match=r"^json: cannot unmarshal array into Go value of type v1.Pod$"):
        decode(schema("Pod"), [])


@pytest.mark.parametrize(("text", "offset"), [("YWI=x", 4), ("YQ=\n", 4), ("YQ=\nx", 3), ("YW\n", 1)])
def test_where_base64_breaks(text: str, offset: int) -> None:
    with pytest.raises(DecodeError, match=f"^illegal base64 data at input byte {offset}$"):
        decode(schema("Secret"), {"data": {"a": text}})


class TestSchemasWithinSchemas:
    """`items` and `additionalProperties` of a CustomResourceDefinition, which the table does not tell of."""

    def decoded(self, inner: object) -> tuple[Any, list[str]]:
        definition = schema_for("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
        assert definition is not None
        root = {"type": "object", "properties": {"a": {"type": "array", "items": inner}}}
        versions = [{"name": "v1", "schema": {"openAPIV3Schema": root}}]
        made, messages = decode(definition, {"spec": {"versions": versions}})
        return made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["a"]["items"], messages

    @pytest.mark.parametrize(
        ("inner", "end"),
        [
            ({"properties": "x"}, "properties of type map[string]v1.JSONSchemaProps"),
            ({"properties": {"n": 5}}, "properties of type v1.JSONSchemaProps"),
            ({"properties": {"n": {"pattern": 5}}}, "properties.pattern of type string"),
        ],
    )
    def test_a_wrong_type_is_told_with_its_whole_path(self, inner: object, end: str) -> None:
        at = "JSONSchemaProps.spec.versions.schema.openAPIV3Schema.properties.items."
        with pytest.raises(DecodeError, match=re.escape(f"into Go struct field {at}{end}")):
            self.decoded(inner)

    def test_what_is_unknown_goes_in_silence(self) -> None:
        assert self.decoded({"type": "object", "odd": 1, "properties": {"n": None}}) == (
            {"type": "object", "properties": {"n": {}}},
            [],
        )
        assert self.decoded([{"type": "string"}]) == ([{"type": "string"}], [])
