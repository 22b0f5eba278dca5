"""Managed fields of a real kube-apiserver, reproduced from its recorded requests and answers."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from pilothouse.kinds.apply import ApplyConflictError, ApplyRefusedError, FieldManager
from pilothouse.kinds.emptyobjects import empty_object
from pilothouse.kinds.fieldset import of_paths
from pilothouse.kinds.table import schema_for

Step = dict[str, Any]
GOLDEN = Path(__file__).parent.parent / "golden"
# One second for all, as most of the recording took place within one: entries of one second are sorted by name.
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESET = {
    "": of_paths([("f:status",)]),
    "status": of_paths([("f:spec",), ("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:ownerReferences")]),
}
# What kube-apiserver sets after it has computed the owners: admission, allocation, and preparation of storage.
SET_LATER: dict[str, list[str]] = {
    "namespace": ["spec.finalizers"],
    "pod": ["spec.volumes", "spec.containers.0.volumeMounts"],
    "pod under limitrange": [
        "metadata.annotations",
        "spec.containers.0.resources.limits",
        "spec.containers.0.resources.requests",
    ],
    "job": ["metadata.labels", "spec.selector", "spec.template.metadata.labels"],
    "nodeport service": ["spec.ports.0.nodePort"],
    "service": ["spec.clusterIP"],
    "pvc": ["metadata.finalizers"],
    "pv": ["metadata.finalizers"],
    "node": ["spec.taints"],
}
SET_LATER_BY_KIND = {
    "Pod": ["preemptionPolicy", "priority", "serviceAccount", "serviceAccountName", "tolerations"],
    "Service": ["clusterIPs", "ipFamilies", "ipFamilyPolicy"],
}
SET_LATER["nodeport service"].append("spec.clusterIP")


def steps(name: str) -> list[Step]:
    found: list[Step] = json.loads((GOLDEN / f"{name}.json").read_text())["steps"]
    return found


def manager_for(api_version: str, kind: str, subresource: str = "") -> FieldManager:
    group, _, version = api_version.rpartition("/")
    schema = schema_for(group, version, kind)
    assert schema is not None
    reset = {api_version: RESET[subresource]}
    empty = empty_object(api_version, kind)
    return FieldManager(schema, api_version, subresource=subresource, reset=reset, empty=empty)


def without_times(entries: list[dict[str, Any]] | None) -> str:
    return json.dumps([{**entry, "time": "<time>"} if "time" in entry else entry for entry in entries or []])


def entries_of(obj: dict[str, Any]) -> str:
    return without_times(obj["metadata"].get("managedFields"))


def drop(obj: dict[str, Any], path: str) -> None:
    *parents, last = path.split(".")
    inner: Any = obj
    for name in parents:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner.pop(last, None)


CREATES = [step for step in steps("defaults") if step["status"] == 201]


@pytest.mark.parametrize("step", CREATES, ids=[step["label"] for step in CREATES])
def test_a_create_owns_what_was_recorded(step: Step) -> None:
    stored = step["response"]
    new = json.loads(json.dumps(stored))
    new["metadata"].pop("managedFields", None)
    for path in SET_LATER.get(step["label"], []) + [f"spec.{n}" for n in SET_LATER_BY_KIND.get(new["kind"], [])]:
        drop(new, path)
    agent = step["headers"].get("User-Agent", "Python-urllib").split("/")[0]
    manager = manager_for(new["apiVersion"], new["kind"])
    assert entries_of(manager.update(None, new, agent, NOW)) == entries_of(stored)
    assert entries_of(manager.update(None, new, agent, NOW)) == entries_of(stored)


class Replay:
    """Replays the patches against objects as the recording left them, with managed fields as computed here."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.compared = 0

    def run(self, step: Step) -> None:
        url = urlparse(step["path"])
        query = parse_qs(url.query)
        path, subresource = (url.path[:-7], "status") if url.path.endswith("/status") else (url.path, "")
        if step["method"] == "POST":
            path += "/" + step["body"]["metadata"]["name"]
        owner = query.get("fieldManager", ["Python-urllib"])[0]
        if step["headers"].get("Content-Type") == "application/apply-patch+yaml":
            made = self.apply(step, path, subresource, owner, force="force" in query)
        elif step["status"] < 300:
            made = self.write(step, path, subresource, owner)
        else:
            return
        if made is not None:
            assert entries_of(made) == entries_of(step["response"])
            managed = made["metadata"].get("managedFields", [])
            metadata = {**step["response"]["metadata"], "managedFields": managed}
            self.objects[path] = {**step["response"], "metadata": metadata}
        self.compared += 1

    def apply(self, step: Step, path: str, subresource: str, owner: str, *, force: bool) -> dict[str, Any] | None:
        body, answer = step["body"], step["response"]
        if step["status"] not in {200, 201, 409}:
            self.compared -= 1
            return None
        manager = manager_for(body["apiVersion"], body["kind"], subresource)
        live = self.objects.get(path)
        if step["status"] == 409:
            with pytest.raises(ApplyConflictError) as refused:
                manager.apply(live, body, owner, NOW, force=force)
            assert str(refused.value) == answer["message"]
            assert refused.value.causes == answer["details"]["causes"]
            return None
        made = manager.apply(live, body, owner, NOW, force=force)
        assert_within(made, answer, "")
        return made

    def write(self, step: Step, path: str, subresource: str, owner: str) -> dict[str, Any]:
        new = json.loads(json.dumps(step["response"]))
        new["metadata"].pop("managedFields", None)
        if step["label"] == "namespace":
            drop(new, "spec.finalizers")
        if step["label"] == "clear managedFields":
            new["metadata"]["managedFields"] = step["body"]["metadata"]["managedFields"]
        manager = manager_for(new["apiVersion"], new["kind"], subresource)
        return manager.update(self.objects.get(path), new, owner, NOW)


def assert_within(made: Any, stored: Any, path: str) -> None:
    """Assert that all of the merged object is in the stored one, which has defaults besides."""
    if isinstance(made, dict):
        for name in made.keys() - {"managedFields", "resourceVersion", "generation"}:
            assert name in stored, f"{path}.{name}"
            assert_within(made[name], stored[name], f"{path}.{name}")
    elif isinstance(made, list):
        assert len(made) == len(stored), path
        for mine, theirs in zip(made, stored, strict=True):
            assert_within(mine, theirs, path + "[]")
    else:
        assert made == stored, path


def test_patches_and_applies_leave_the_owners_that_were_recorded() -> None:
    replay = Replay()
    for step in steps("patches"):
        replay.run(step)
    assert replay.compared == 32


def test_managed_fields_are_refused_in_an_applied_configuration() -> None:
    step = next(step for step in steps("patches") if step["label"] == "apply with managedFields")
    with pytest.raises(ApplyRefusedError) as refused:
        manager_for("v1", "ConfigMap").apply(None, step["body"], "x", NOW)
    assert step["response"]["message"] == str(refused.value)
