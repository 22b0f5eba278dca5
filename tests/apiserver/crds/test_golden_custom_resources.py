"""Definitions and their objects are answered as a recorded kube-apiserver answered."""

from __future__ import annotations

import copy
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.crds import (
    CompiledVersion,
    TakenNames,
    complete_definition,
    definition_warnings,
    initial_status,
    openapi_v2,
    openapi_v3,
    status_after,
    terminating,
)
from pilothouse.kinds.apply import FieldManager
from pilothouse.kinds.defaults import default
from pilothouse.kinds.validation import validate_create

_GVK = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
_STEPS = {
    step["label"]: step
    for step in json.loads((Path(__file__).parents[2] / "golden" / "crds.json").read_text())["steps"]
}
CRD = _STEPS["established"]["response"]


def _causes(found: Any) -> list[str]:
    return sorted(json.dumps(cause, sort_keys=True) for cause in found)


def _recorded(label: str) -> list[str]:
    return _causes((_STEPS[label]["response"].get("details") or {}).get("causes", []))


@pytest.mark.parametrize(
    "label",
    [
        "create prunes and defaults",
        "missing required",
        "bad values",
        "wrong type",
        "cel rule",
        "duplicate map key",
        "too many",
    ],
)
def test_objects_are_taken_or_refused(label: str) -> None:
    version = CompiledVersion(CRD, "v1")
    obj = copy.deepcopy(_STEPS[label]["body"])
    obj["metadata"] |= {"namespace": "golden-crd", "uid": "u"}
    obj, messages = version.prune(obj)
    errors = version.validate(version.default(obj))
    assert _causes(errors.causes()) == _recorded(label)
    if label == "create prunes and defaults":
        assert messages == ['unknown field "spec.wombat"']
        assert obj["spec"] == _STEPS[label]["response"]["spec"]


def test_transition_rules_see_what_was_there() -> None:
    version = CompiledVersion(CRD, "v1")
    old = copy.deepcopy(_STEPS["create prunes and defaults"]["response"])
    old["metadata"] |= {"resourceVersion": "1", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    new = copy.deepcopy(old)
    new["metadata"].pop("managedFields")
    old["metadata"].pop("managedFields")
    new["spec"]["size"] = 2
    assert _causes(version.validate(new, old).causes()) == _recorded("transition rule")
    new["spec"]["size"] = 4
    assert not version.validate(new, old)


@pytest.mark.parametrize("label", ["create crd", "bad crd", "non structural"])
def test_definitions_are_taken_or_refused(label: str) -> None:
    crd = copy.deepcopy(_STEPS[label]["body"])
    default(crd, *_GVK)
    errors = complete_definition(validate_create(crd, _GVK), crd)
    assert _causes(errors.causes()) == _recorded(label)


def test_status_of_a_new_definition() -> None:
    status = status_after(_STEPS["create crd"]["response"], TakenNames(), "<time>")
    assert status == CRD["status"]


def test_status_when_created_and_deleted() -> None:
    created = _STEPS["create crd"]["response"]
    assert initial_status(created) == created["status"]
    deleted = _STEPS["delete crd"]["response"]["status"]
    assert terminating(CRD["status"], "InstanceDeletionPending", "<time>") == deleted


def test_scale() -> None:
    version = CompiledVersion(CRD, "v1")
    assert version.scale is not None
    obj = _STEPS["status"]["response"]
    scale = version.scale.read(obj)
    recorded = _STEPS["scale"]["response"]
    assert (scale["spec"], scale["status"], scale["kind"], scale["apiVersion"]) == (
        recorded["spec"],
        recorded["status"],
        "Scale",
        "autoscaling/v1",
    )
    assert version.scale.write(obj, 5)["spec"]["size"] == 5
    assert obj["spec"]["size"] == 4


def test_the_resource_is_as_discovery_lists_it() -> None:
    version = CompiledVersion(CRD, "v1")
    listed = _STEPS["resources"]["response"]["resources"]
    resource = version.resource
    assert list(resource.verbs) == listed[0]["verbs"]
    assert list(resource.short_names) == listed[0]["shortNames"]
    assert [f"widgets/{each.name}" for each in resource.subresources] == [each["name"] for each in listed[1:]]
    assert [list(each.verbs) for each in resource.subresources] == [each["verbs"] for each in listed[1:]]
    columns = _STEPS["table"]["response"]["columnDefinitions"][1:]
    assert [(each.name, each.type, each.priority) for each in version.columns] == [
        (each["name"], each["type"], each["priority"]) for each in columns
    ]
    assert version.selectable_fields == (".spec.color",)
    assert CompiledVersion(CRD, "v1beta1").columns[0].json_path == ".metadata.creationTimestamp"
    with pytest.raises(LookupError):
        CompiledVersion(CRD, "v2")


def test_an_old_version_says_what_to_use() -> None:
    text = _STEPS["deprecated version"]["warning"]
    assert text == f'299 - "{CompiledVersion(CRD, "v1beta1").deprecation_warning}"'
    assert not CompiledVersion(CRD, "v1").deprecation_warning


def test_warnings() -> None:
    obj = copy.deepcopy(_STEPS["create prunes and defaults"]["body"])
    obj["metadata"] |= {"uid": "u", "finalizers": ["mine", "a.b/c"]}
    said = CompiledVersion(CRD, "v1").validate_with_warnings(obj)[1]
    text = "prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
    assert said == [f'metadata.finalizers: "mine": {text}']
    crd = copy.deepcopy(CRD)
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"]["properties"]["min"]["format"] = "int16"
    assert definition_warnings(crd) == ['unrecognized format "int16"']
    assert definition_warnings(crd, crd) == []


def test_schemas_are_published() -> None:
    published = openapi_v3(CRD, "v1")
    widget = published["example.golden.v1.Widget"]
    assert widget["x-kubernetes-group-version-kind"] == [{"group": "golden.example", "kind": "Widget", "version": "v1"}]
    assert set(widget["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}
    assert published["example.golden.v1.WidgetList"]["required"] == ["items"]
    older = openapi_v2(CRD, "v1")["example.golden.v1.Widget"]
    assert older["properties"]["spec"]["properties"]["free"] == {"x-kubernetes-preserve-unknown-fields": True}
    assert "properties" not in openapi_v2(CRD, "v1beta1")["example.golden.v1beta1.Widget"]
    assert _STEPS["established"]["response"] == CRD


def _managed(obj: Any) -> Any:
    fields = [dict(entry) for entry in obj["metadata"]["managedFields"]]
    return [{name: value for name, value in entry.items() if name != "time"} for entry in fields]


def test_fields_are_owned_as_recorded() -> None:
    version = CompiledVersion(CRD, "v1")
    manager = FieldManager(version.schema, "golden.example/v1", evolving=True)
    step = _STEPS["create prunes and defaults"]
    obj = version.default(version.prune(copy.deepcopy(step["body"]))[0])
    del obj["status"]
    created = manager.update(None, obj, "Python-urllib", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    assert _managed(created) == _managed(step["response"])
    step = _STEPS["apply list map"]
    live = copy.deepcopy(_STEPS["selectable"]["response"]["items"][0])
    for entry in live["metadata"]["managedFields"]:
        if "time" in entry:
            entry["time"] = "2026-01-01T00:00:00Z"
    applied = manager.apply(live, copy.deepcopy(step["body"]), "alice", dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    assert applied["spec"] == step["response"]["spec"]
    assert _managed(applied) == _managed(step["response"])
