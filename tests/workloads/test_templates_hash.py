"""Hashes of pod templates are those that Kubernetes' own code gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pilothouse.kinds.structs import decode, replace
from pilothouse.kinds.structs.core_pods import PodTemplateSpec
from pilothouse.workloads.templates import safe_encode, template_hash

GOLDEN: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "template-hashes.json").read_text(encoding="utf-8")
)


def template(tree: dict[str, Any]) -> PodTemplateSpec:
    return decode(json.dumps(tree).encode(), PodTemplateSpec)


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_a_hash_is_that_of_kubernetes(number: int) -> None:
    found = template(GOLDEN[number]["template"])
    assert [template_hash(found, count) for count in (None, 0, 7)] == GOLDEN[number]["hashes"]


def test_the_hash_of_a_recorded_daemon_set_has_seven_letters() -> None:
    assert template_hash(template(GOLDEN[2]["template"])) == "7cdb7f4"


def test_the_order_of_labels_does_not_matter_and_their_values_do() -> None:
    one = template({"metadata": {"labels": {"a": "1", "b": "2"}}})
    assert template_hash(one) == template_hash(template({"metadata": {"labels": {"b": "2", "a": "1"}}}))
    assert template_hash(one) != template_hash(replace(one, metadata__labels={"a": "1", "b": "3"}))


def test_digits_become_letters_that_make_no_words() -> None:
    assert safe_encode("0123456789") == "456789bcdf"
