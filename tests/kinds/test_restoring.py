"""Objects that do not fit their Go types, as they are told of when they come from plain values."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.kinds.restoring import restore_fault, with_restored_numbers
from pilothouse.kinds.table import schema_for

POD, LEASE, CLAIM = ("", "v1", "Pod"), ("coordination.k8s.io", "v1", "Lease"), ("", "v1", "PersistentVolumeClaim")
SECRET, DEPLOYMENT = ("", "v1", "Secret"), ("apps", "v1", "Deployment")
DEFINITION = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@pytest.mark.parametrize(
    ("gvk", "obj", "message"),
    [
        (POD, {"metadata": "x"}, "cannot restore struct from: string"),
        (POD, {"metadata": []}, "cannot restore struct from: slice"),
        (POD, {"metadata": 1.5}, "cannot restore struct from: float64"),
        (POD, {"metadata": 10**20}, "cannot restore struct from: float64"),
        (POD, {"spec": True}, "cannot restore struct from: bool"),
        (POD, {"metadata": {"labels": 1}}, "cannot restore map from int64"),
        (POD, {"metadata": {"labels": []}}, "cannot restore map from slice"),
        (POD, {"spec": {"containers": {}}}, "cannot restore slice from map"),
        (POD, {"metadata": {"name": 1}}, "cannot convert int64 to string"),
        (POD, {"metadata": {"name": True}}, "unrecognized type: string"),
        (POD, {"metadata": {"name": 1.5}}, "unrecognized type: string"),
        (POD, {"metadata": {"uid": 1}}, "cannot convert int64 to types.UID"),
        (DEFINITION, {"spec": {"scope": 1}}, "cannot convert int64 to v1.ResourceScope"),
        (POD, {"metadata": {"creationTimestamp": 1}}, "json: cannot unmarshal number into Go value of type string"),
        (POD, {"spec": {"hostNetwork": "x"}}, "unrecognized type: bool"),
        (LEASE, {"spec": {"leaseDurationSeconds": "x"}}, "unrecognized type: int32"),
        (LEASE, {"spec": {"leaseDurationSeconds": 1.5}}, "cannot convert float64 to int32"),
        (LEASE, {"spec": {"leaseDurationSeconds": 10**20}}, None),
        (CLAIM, {"spec": {"resources": {"requests": {"storage": "x"}}}}, QUANTITY),
        (CLAIM, {"spec": {"resources": {"requests": {"storage": 1.5}}}}, None),
        (SECRET, {"data": {"a": "&"}}, "error decoding from json: illegal base64 data at input byte 0"),
        (SECRET, {"data": {"a": 1}}, "cannot restore slice from int64"),
        (SECRET, {"data": {"a": ["x"]}}, "unrecognized type: uint8"),
        (DEPLOYMENT, {"spec": None, "unknown": 1, "metadata": {"labels": {"a": None}}}, None),
        (POD, {"metadata": "x", "spec": 1}, "cannot restore struct from: string"),
        (POD, {"spec": 1, "metadata": "x"}, "cannot restore struct from: int64"),
    ],
)
def test_the_first_value_that_does_not_fit_is_told(
    gvk: tuple[str, str, str], obj: dict[str, Any], message: str | None
) -> None:
    schema = schema_for(*gvk)
    assert schema is not None
    assert restore_fault(schema, obj) == message


@pytest.mark.parametrize(
    ("number", "seconds", "generation"),
    [
        (7, 7, 7),
        (2.0, 2, 2),
        (2**31, -(2**31), 2**31),
        (2**32 + 5, 5, 2**32 + 5),
        (10**20, 0, -(2**63)),
        (1e20, 0, -(2**63)),
    ],
)
def test_integers_that_are_too_large_end_as_in_go(number: float, seconds: int, generation: int) -> None:
    schema = schema_for(*LEASE)
    assert schema is not None
    lease = {"metadata": {"generation": number}, "spec": {"leaseDurationSeconds": number, "unknown": number}}
    assert with_restored_numbers(schema, lease) == {
        "metadata": {"generation": generation},
        "spec": {"leaseDurationSeconds": seconds, "unknown": number},
    }
