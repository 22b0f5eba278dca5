"""Validation agrees with recordings of a real kube-apiserver and with its rules."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pilothouse.kinds.defaults import default
from pilothouse.kinds.fielderrors import ErrorList
from pilothouse.kinds.validation import validate_create, validate_update

GOLDEN = Path(__file__).parent.parent / "golden"
Object = dict[str, Any]
Step = dict[str, Any]
POD = ("", "v1", "Pod")
DEPLOYMENT = ("apps", "v1", "Deployment")
SERVICE = ("", "v1", "Service")


def steps(name: str) -> list[Step]:
    found: list[Step] = json.loads((GOLDEN / name).read_text())["steps"]
    return found


STEPS = [*steps("errors.json"), *steps("defaults.json")]
REFUSED = [step for step in STEPS if step["status"] == 422 and step["response"]["details"]["kind"] != "CreateOptions"]
"""Refusals that validation of objects decides; those of request options are decided elsewhere."""


def kind_of(obj: Object) -> tuple[str, str, str]:
    group, _, version = obj["apiVersion"].rpartition("/")
    return group, version, obj["kind"]


def defaulted(obj: Object, gvk: tuple[str, str, str]) -> Object:
    return default(copy.deepcopy(obj), *gvk)


def merged(target: Object, patch: Object) -> Object:
    result = dict(target)
    for key, value in patch.items():
        result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result


def errors_of(step: Step) -> ErrorList:
    if step["method"] == "POST":
        gvk = kind_of(step["body"])
        return validate_create(defaulted(step["body"], gvk), gvk)
    old = next(other["response"] for other in STEPS if is_creation(other, step["path"]))
    return validate_update(old, merged(old, step["body"]), kind_of(old))


def is_creation(step: Step, path: str) -> bool:
    name = (step["response"].get("metadata") or {}).get("name") if isinstance(step["response"], dict) else None
    return step["method"] == "POST" and step["status"] == 201 and f"{step['path']}/{name}" == path


def sorted_causes(causes: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(causes, key=lambda cause: json.dumps(cause, sort_keys=True))


@pytest.mark.parametrize("step", REFUSED, ids=lambda step: str(step["label"]))
def test_causes_are_those_recorded(step: Step) -> None:
    assert sorted_causes(errors_of(step).causes()) == sorted_causes(step["response"]["details"]["causes"])


def test_every_recorded_refusal_of_an_object_is_compared() -> None:
    assert len(REFUSED) == 17


ACCEPTED = [
    step for step in STEPS if step["method"] == "POST" and step["status"] == 201 and "apiVersion" in step["body"]
]


@pytest.mark.parametrize("step", ACCEPTED, ids=lambda step: str(step["label"]))
def test_what_was_accepted_has_no_errors(step: Step) -> None:
    body = copy.deepcopy(step["body"])
    body["metadata"].setdefault("name", "generated")
    gvk = kind_of(body)
    assert validate_create(defaulted(body, gvk), gvk) == []


PLACEHOLDERS = {"<uid>": "9f1c", "<ip>": "10.0.0.1", '"<nodePort>"': "30000"}
STORED = [step for step in ACCEPTED if "dryRun" not in step["path"]]


@pytest.mark.parametrize("step", STORED, ids=lambda step: str(step["label"]))
def test_what_was_answered_may_be_sent_back(step: Step) -> None:
    text = json.dumps(step["response"])
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    answered: Object = json.loads(text)
    assert validate_update(answered, copy.deepcopy(answered), kind_of(answered)) == []
