"""What Go's encoder leaves out of objects."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pilothouse.kinds.omission import leave_out_empty, leave_out_empty_metadata


@pytest.mark.parametrize(
    ("gvk", "given", "left"),
    [
        (("", "v1", "ConfigMap"), {"metadata": {"labels": {}, "name": "a"}, "data": {}}, {"metadata": {"name": "a"}}),
        (("", "v1", "ConfigMap"), {"immutable": False, "data": {"a": ""}}, {"immutable": False, "data": {"a": ""}}),
        (
            ("", "v1", "Pod"),
            {"spec": {"hostNetwork": False, "containers": [{"args": [], "name": "", "securityContext": {}}]}},
            {"spec": {"containers": [{"name": "", "securityContext": {}}]}},
        ),
        (("", "v1", "Pod"), {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}, "status": {}}, None),
        (
            ("apps", "v1", "Deployment"),
            {"spec": {"replicas": 0, "paused": False, "template": {"metadata": {"annotations": {}}}}},
            {"spec": {"replicas": 0, "template": {"metadata": {}}}},
        ),
        (("rbac.authorization.k8s.io", "v1", "Role"), {"rules": []}, None),
        (
            ("networking.k8s.io", "v1", "NetworkPolicy"),
            {"spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}, {}]}},
            None,
        ),
        (("example.com", "v1", "Ship"), {"metadata": {"labels": {}}}, None),
    ],
)
def test_built_in_kinds(gvk: tuple[str, str, str], given: dict[str, Any], left: dict[str, Any] | None) -> None:
    wanted = copy.deepcopy(given) if left is None else left
    assert leave_out_empty(given, *gvk) == wanted
    assert given == wanted


def test_values_of_any_kind_stay() -> None:
    owned = {"manager": "m", "fieldsV1": {"f:data": {}}}
    schema = {"properties": {"description": {}}, "default": {}, "enum": [""]}
    obj: dict[str, Any] = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    obj["metadata"] = {"managedFields": [owned]}
    wanted = copy.deepcopy(obj)
    assert leave_out_empty(obj, "apiextensions.k8s.io", "v1", "CustomResourceDefinition") == wanted


def test_of_custom_objects_only_the_metadata_is_looked_at() -> None:
    obj = {"metadata": {"annotations": {}, "finalizers": [], "name": "a"}, "spec": {"list": [], "flag": False}}
    assert leave_out_empty_metadata(obj) == {"metadata": {"name": "a"}, "spec": {"list": [], "flag": False}}
