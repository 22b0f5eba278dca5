"""Every JSON, merge and strategic patch of the recordings, replayed against the object before it.

Left out of the comparison, since the server and not the patch decides them: `metadata.resourceVersion`, `generation`
and `managedFields`; of a write to `/status` everything but `status`, of a write to the object itself its `status`; and
the four defaults of a new container, which are added here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pilothouse.kinds import jsonpatch, mergepatch, strategicpatch
from pilothouse.kinds.patcherrors import PatchError
from pilothouse.kinds.table import schema_for

STEPS = json.loads((Path(__file__).parents[1] / "golden" / "patches.json").read_text())["steps"]
TYPES = ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json")
LATER = {
    "patch to invalid": "validation",
    "patch stale resourceVersion": "the precondition",
    "force on merge": "the query",
}
"""Steps that the server refuses for another reason than the patch: this one applies."""
CONTAINER_DEFAULTS = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "Always",
}


def _object_path(step: dict[str, Any]) -> str:
    path: str = step["path"].partition("?")[0].removesuffix("/status")
    return f"{path}/{step['body']['metadata']['name']}" if step["method"] == "POST" else path


def _cases() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    objects: dict[str, Any] = {}
    cases = []
    for step in STEPS:
        path = _object_path(step)
        if step["method"] == "PATCH" and step["headers"]["Content-Type"] in TYPES and path in objects:
            cases.append((step, objects[path]))
        if step["response"]["kind"] != "Status":
            objects[path] = step["response"]
    return cases


CASES = _cases()


def _apply(step: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    media_type = step["headers"]["Content-Type"]
    if media_type == TYPES[0]:
        return jsonpatch.apply(before, step["body"])
    if media_type == TYPES[1]:
        return mergepatch.apply(before, step["body"])
    group, _, version = before["apiVersion"].rpartition("/")
    return strategicpatch.apply(before, step["body"], schema_for(group, version, before["kind"]))


def _decided(found: dict[str, Any], path: str) -> dict[str, Any]:
    """Return what the patch alone decides."""
    found = json.loads(json.dumps(found))
    if path.partition("?")[0].endswith("/status"):
        return {"status": found.get("status")}
    found.pop("status", None)
    for name in ("resourceVersion", "generation", "managedFields"):
        found["metadata"].pop(name, None)
    for container in found.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
        for name, value in CONTAINER_DEFAULTS.items():
            container.setdefault(name, value)
    return found


def test_the_recording_has_patches_of_each_type() -> None:
    found = [step["headers"]["Content-Type"] for step, _ in CASES]
    assert [found.count(media_type) for media_type in TYPES] == [4, 10, 6]


@pytest.mark.parametrize(("step", "before"), CASES, ids=[step["label"] for step, _ in CASES])
def test_a_recorded_patch_gives_the_recorded_answer(step: dict[str, Any], before: dict[str, Any]) -> None:
    encoded = json.dumps([before, step["body"]])
    if step["status"] >= 400 and step["label"] not in LATER:
        with pytest.raises(PatchError) as refused:
            _apply(step, before)
        status = step["response"]
        assert (refused.value.code, refused.value.reason) == (status["code"], status["reason"])
        assert refused.value.message == status["message"]
        assert refused.value.has_details == ("details" in status)
    else:
        patched = _apply(step, before)
        if step["status"] < 400:
            assert _decided(patched, step["path"]) == _decided(step["response"], step["path"])
    assert json.dumps([before, step["body"]]) == encoded
