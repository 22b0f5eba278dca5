"""Objects with their fields in the order in which Go writes them."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.kinds.goorder import as_written


def order(value: Any) -> Any:
    """Return the names of all fields in their order."""
    if isinstance(value, dict):
        return [(name, order(inner)) if isinstance(inner, dict | list) else name for name, inner in value.items()]
    return [order(item) for item in value] if isinstance(value, list) else value


def test_fields_stand_as_in_their_structs() -> None:
    container = {"imagePullPolicy": "Always", "terminationMessagePolicy": "File", "env": [], "envFrom": [], "name": "c"}
    pod = {
        "spec": {"containers": [container], "initContainers": []},
        "metadata": {"labels": {"b": "1", "a": "2"}, "uid": "u", "namespace": "n", "name": "p", "nope": 1},
        "apiVersion": "v1",
        "kind": "Pod",
    }
    names: list[Any] = ["name", ("envFrom", []), ("env", []), "terminationMessagePolicy", "imagePullPolicy"]
    made = as_written(pod, "", "v1", "Pod")
    assert made == pod
    assert order(made) == [
        "kind",
        "apiVersion",
        ("metadata", ["name", "namespace", "uid", ("labels", ["a", "b"]), "nope"]),
        ("spec", [("initContainers", []), ("containers", [names])]),
    ]


@pytest.mark.parametrize(
    ("gvk", "names"),
    [
        (("", "v1", "ConfigMap"), ["metadata", "immutable", "data", "binaryData"]),
        (("", "v1", "Secret"), ["metadata", "immutable", "data", "stringData", "type"]),
        (("discovery.k8s.io", "v1", "EndpointSlice"), ["metadata", "addressType", "endpoints", "ports"]),
        (("nobody.example", "v1", "Widget"), ["binaryData", "data", "immutable", "metadata"]),
    ],
)
def test_fields_that_are_not_by_number_stand_in_their_places(gvk: tuple[str, str, str], names: list[str]) -> None:
    known = {"metadata", "immutable", "data", "binaryData", "stringData", "type", "addressType", "endpoints", "ports"}
    made = list(as_written(dict.fromkeys(sorted(known), 1), *gvk))
    assert [name for name in made if name in names] == names


def test_values_of_a_wrong_form_stay() -> None:
    obj = {"spec": ["x"], "metadata": {"labels": "x"}, "kind": 1}
    assert as_written(obj, "", "v1", "Pod") == obj


def test_objects_within_others_begin_with_what_they_are() -> None:
    claim = {"metadata": {"name": "c"}, "kind": "PersistentVolumeClaim", "apiVersion": "v1"}
    owner = {"name": "o", "kind": "Pod", "apiVersion": "v1", "uid": "u"}
    obj = {"metadata": {"ownerReferences": [owner]}, "spec": {"volumeClaimTemplates": [claim]}}
    made = as_written(obj, "apps", "v1", "StatefulSet")
    assert order(made["spec"]["volumeClaimTemplates"]) == [["kind", "apiVersion", ("metadata", ["name"])]]
    assert order(made["metadata"]["ownerReferences"]) == [["apiVersion", "kind", "name", "uid"]]
