"""Revisions: hashes, numbers, what a revision brings back, and what history keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import ControllerRevision, ObjectMeta, StatefulSet, from_dict, to_dict
from pilothouse.kinds.structs.core_pods import PodTemplateSpec
from pilothouse.workloads.revisions import (
    by_revision,
    data_hash,
    data_of,
    has_data,
    new_revision,
    next_number,
    revision_name,
    surplus,
    template_of,
)

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "db"}},
    "spec": {
        "automountServiceAccountToken": False,
        "containers": [
            {
                "image": "img:1",
                "imagePullPolicy": "IfNotPresent",
                "name": "c",
                "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 0,
    },
}


def revision(number: int, name: str = "", created: str = "2026-01-01T00:00:00Z") -> ControllerRevision:
    return ControllerRevision(
        metadata=ObjectMeta(name=name or f"r{number}", creation_timestamp=created), revision=number
    )


def test_a_hash_is_that_of_the_real_controller() -> None:
    assert data_hash(data_of(from_dict(TEMPLATE, PodTemplateSpec)), 0) == "65b4b75f6f"


@pytest.mark.parametrize(
    ("value", "written"),
    [("<a&b>", rb'"\u003ca\u0026b\u003e"'), ("\u2028", rb'"\u2028"'), (2**62 + 1, b"4611686018427388000"), (7, b"7")],
)
def test_data_is_hashed_as_go_writes_it(value: Any, written: bytes) -> None:
    number = 0x811C9DC5
    for byte in b'{"a":' + written + b"}":
        number = ((number * 0x01000193) & 0xFFFFFFFF) ^ byte
    letters = "bcdfghjklmnpqrstvwxz2456789"
    assert data_hash({"a": value}) == "".join(letters[ord(digit) % 27] for digit in str(number))


def test_a_collision_gives_another_hash() -> None:
    assert len({data_hash({}, probe) for probe in (None, 0, 1, 2)}) == 4


def test_a_revision_brings_its_template_back() -> None:
    template = from_dict(TEMPLATE, PodTemplateSpec)
    data = data_of(template)
    assert data == {"spec": {"template": {**TEMPLATE, "$patch": "replace"}}}
    made = ControllerRevision(data=data)
    assert to_dict(template_of(made)) == TEMPLATE
    assert has_data(made, data)
    assert not has_data(made, {})
    assert template_of(ControllerRevision()) == PodTemplateSpec()


def test_a_new_revision_has_labels_and_the_annotations_of_its_owner() -> None:
    owner = StatefulSet(metadata=ObjectMeta(name="db", namespace="n", uid="u", annotations={"why": "so"}))
    made = new_revision(owner, "db-x", {"app": "db"}, {"spec": {}}, 3)
    assert (made.metadata.name, made.metadata.namespace, made.revision) == ("db-x", "n", 3)
    assert (made.metadata.labels, made.metadata.annotations) == ({"app": "db"}, {"why": "so"})
    assert [each.uid for each in made.metadata.owner_references] == ["u"]


def test_a_long_name_leaves_room_for_the_hash() -> None:
    assert revision_name("a" * 250, "hash") == "a" * 223 + "-hash"


def test_revisions_come_by_number_then_age_then_name() -> None:
    late = "2026-01-01T00:00:01Z"
    ordered = [revision(1, "z"), revision(2, "c"), revision(2, "a", late), revision(2, "b", late)]
    assert sorted([*ordered[2:], *ordered[:2]], key=by_revision) == ordered


@given(st.lists(st.integers(1, 50), unique=True), st.integers(-1, 12) | st.none())
def test_the_oldest_idle_revisions_go(numbers: list[int], limit: int | None) -> None:
    found = [revision(number) for number in numbers]
    gone = surplus(found, limit, idle=found)
    if limit is None or limit < 0:
        assert gone == []
    else:
        assert [each.revision for each in gone] == sorted(numbers)[: max(0, len(numbers) - limit)]
    assert next_number(found) == max(numbers, default=0) + 1


def test_revisions_in_use_stay_beyond_the_limit() -> None:
    found = [revision(1), revision(2), revision(3)]
    assert surplus(found, 0, idle=[found[2]]) == [found[2]]
