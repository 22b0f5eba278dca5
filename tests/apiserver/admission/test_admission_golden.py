"""Admission against the recordings of a real kube-apiserver: what pods and claims look like, and what is refused."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest

from pilothouse.apiserver.admission.assembly import assemble
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import AdmissionRequest, Object
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.kinds import status
from pilothouse.kinds.defaults import default
from pilothouse.kinds.registry import builtin
from support.dictview import DictLocal, DictView, Rules, write

GOLDEN = Path(__file__).parents[2] / "golden"
SOURCES = Path(__file__).parents[3] / "src" / "pilothouse" / "apiserver" / "admission"


def recorded(file: str) -> dict[str, Object]:
    return {one["label"]: one for one in json.loads((GOLDEN / file).read_text())["steps"]}


async def admitted(view: DictView, step: Object, resource: str) -> Object:
    """Send what a recorded step sent through defaults and admission."""
    group, version, kind = next(one.gvk for one in builtin() if one.full_name == resource and one.storage)
    item = default(deepcopy(step["body"]), group, version, kind)
    item["metadata"]["namespace"] = "golden"
    made = assemble(view, Rules(), DictLocal(view), SeededIds(1), FakeClock(), find=lambda version, kind: None)
    request: AdmissionRequest = write("CREATE", resource, item, user=User("golden"))
    for run in (made.chain.admit, made.chain.validate):
        pending = run(request)
        if pending is not None:
            await pending
    return item


@pytest.fixture
def view() -> DictView:
    found = DictView()
    found.namespace("golden")
    found.put("serviceaccounts", {"metadata": {"name": "default", "namespace": "golden"}})
    return found


def limited(view: DictView, steps: dict[str, Object]) -> None:
    limits = default(deepcopy(steps["limitrange"]["body"]), "", "v1", "LimitRange")
    limits["metadata"]["namespace"] = "golden"
    view.put("limitranges", limits)


@pytest.mark.parametrize("label", ["pod", "pod under limitrange"])
async def test_pods(view: DictView, label: str) -> None:
    steps = recorded("defaults.json")
    if "limitrange" in label:
        limited(view, steps)
    item = await admitted(view, steps[label], "pods")
    answer = json.loads(
        re.sub("kube-api-access-[a-z0-9]{5}", "kube-api-access-x", json.dumps(steps[label]["response"]))
    )
    item = json.loads(re.sub("kube-api-access-[a-z0-9]{5}", "kube-api-access-x", json.dumps(item)))
    assert item["spec"] == answer["spec"]
    assert item["metadata"].get("annotations") == answer["metadata"].get("annotations")


async def test_claims(view: DictView) -> None:
    step = recorded("defaults.json")["pvc"]
    item = await admitted(view, step, "persistentvolumeclaims")
    assert item["metadata"]["finalizers"] == step["response"]["metadata"]["finalizers"]
    assert item["spec"] == step["response"]["spec"]


async def test_refusals(view: DictView) -> None:
    steps = recorded("defaults.json")
    limited(view, steps)
    with pytest.raises(status.ApiStatus) as caught:
        await admitted(view, steps["pod over limitrange"], "pods")
    assert caught.value.to_dict() == steps["pod over limitrange"]["response"]
    missing = recorded("errors.json")["pod missing service account"]
    with pytest.raises(status.ApiStatus) as caught:
        await admitted(view, missing, "pods")
    assert caught.value.to_dict() == json.loads(json.dumps(missing["response"]).replace("golden-err", "golden"))


def test_names_of_resources_are_those_that_are_served() -> None:
    served = {one.full_name for one in builtin()}
    groups = {one.group for one in builtin() if one.group}
    named = {
        found
        for file in SOURCES.glob("*.py")
        for found in re.findall(r'"([a-z]+(?:\.[a-z0-9.]+\.k8s\.io))"', file.read_text())
        if found.partition(".")[2] in groups
    }
    assert named
    assert named - served == set()
