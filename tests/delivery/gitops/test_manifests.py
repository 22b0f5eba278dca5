"""Files as Kubernetes reads them, and what is refused, by file and document."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.errors import ManifestError
from pilothouse.delivery.gitops.manifests import read_documents, read_manifests

OBJECT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
)


def documents(text: str) -> list[Any]:
    return [value for _, value in read_documents("f.yaml", text.encode())]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("0777", 511),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1e3", 1000),
        (".5", 0.5),
        ("1.", 1),
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("~", None),
        ("2020-01-01", "2020-01-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("+1", 1),
        ("-", None),
        ("1.2.3", "1.2.3"),
        ("08", 8),
    ],
)
def test_scalars_are_read_as_kubernetes_does(text: str, value: object) -> None:
    if text == "-":
        assert documents("- ") == [[None]]
        return
    (found,) = documents(f"a: {text}")
    assert found["a"] == value
    assert type(found["a"]) is type(value)


def test_merge_keys_and_anchors() -> None:
    (found,) = documents("base: &b {x: 1, w: 2}\nmade: {<<: *b, w: 3}\nlist: {<<: [*b, {z: 4}]}\n")
    assert found["made"] == {"x": 1, "w": 3}
    assert found["list"] == {"x": 1, "w": 2, "z": 4}


def test_documents_are_counted_and_empty_ones_passed_over() -> None:
    listed = "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n"
    text = f"---\n# nothing\n---\n{OBJECT}---\n{listed}"
    found = read_manifests("f.yaml", text.encode())
    assert [(each.document, each.object["kind"]) for each in found] == [(2, "ConfigMap"), (3, "Secret")]


def test_a_file_that_says_so_is_skipped() -> None:
    assert read_manifests("f.yaml", b"# +argocd:skip-file-rendering\nx: 1\n") == []


REFUSED = {
    "bomb": (BOMB, "anchors"),
    "an anchor that holds itself": ("a: &a [*a]", "holds itself"),
    "deep flow": ("[" * 50_000, "nest"),
    "deep compact lists": ("- " * 50_000 + "x", "nested"),
    "a template": ("replicas: {{ .Values.replicas }}", "template marks"),
    "a template in front": ("{{- if .Values.x }}\na: 1\n{{- end }}", "Helm chart"),
    "a template as name": (OBJECT.replace("name: a", "name: '{{ .x }}'"), "nothing filled in"),
    "a shell's variable as name": (OBJECT.replace("name: a", 'name: "${NAME}"'), "nothing filled in"),
    "a key twice": (OBJECT + "data: {a: x, a: y}", "twice"),
    "a Python object": ("!!python/object/apply:os.system [id]", "not allowed"),
    "a binary value": ("a: !!binary aGk=", "base64"),
    "no object": ("- 1", "no object"),
    "no kind": ("apiVersion: v1\nmetadata: {name: a}", "kind is missing"),
    "no name": ("apiVersion: v1\nkind: X\nmetadata: {}", "metadata.name"),
    "a number as name": ("apiVersion: v1\nkind: X\nmetadata: {name: 1}", "quote numbers"),
    "a number as label": ("apiVersion: v1\nkind: X\nmetadata: {name: a, labels: {v: 1}}", "quote it"),
    "a null character": ("a: \x00", "no YAML"),
    "an open quote": ("a: 'x", "no YAML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_file_and_document(name: str) -> None:
    text, why = REFUSED[name]
    began = time.process_time()
    with pytest.raises(ManifestError, match=why) as raised:
        read_manifests("app/f.yaml", text.encode())
    assert str(raised.value).startswith("app/f.yaml")
    assert time.process_time() - began < 20, "it is bounded"


def test_json_is_read_strictly() -> None:
    good = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}}
    assert len(read_manifests("f.json", json.dumps(good).encode())) == 1
    for text in ('{"a": 1, "a": 2}', "{", "[" * 100_000):
        with pytest.raises(ManifestError):
            read_manifests("f.json", text.encode())


def test_no_text_is_refused() -> None:
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifests("f.yaml", b"\xff\xfe")


# PyYAML writes these without quotes, and Kubernetes reads them as booleans.
TEXTS = st.text(max_size=20).filter(lambda text: text not in set("yYnN"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_as_yaml_reads_back(value: Any) -> None:
    text = yaml.safe_dump({"value": value}, default_style='"')
    assert documents(text) == [{"value": value}]


@given(st.binary(max_size=200))
def test_whatever_is_read_ends_in_documents_or_a_manifest_error(data: bytes) -> None:
    for name in ("f.yaml", "f.json"):
        try:
            read_manifests(name, data)
        except ManifestError:
            continue
