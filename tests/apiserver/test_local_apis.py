"""APIServices of what is served here come and go with it, and say that they are local."""

from __future__ import annotations

import asyncio
from typing import Any

from pilothouse.apiserver.discovery import group_priority
from pilothouse.testing import ControlPlane

PATH = "/apis/apiregistration.k8s.io/v1/apiservices"
SCHEMA = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
BOATS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.local.example"},
    "spec": {
        "group": "local.example",
        "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": SCHEMA}],
    },
}


async def named(plane: ControlPlane, name: str, *, there: bool) -> dict[str, Any] | None:
    for _ in range(500):
        listed = await plane.call("GET", PATH)
        found = next((item for item in listed["items"] if item["metadata"]["name"] == name), None)
        available = found is not None and bool((found.get("status") or {}).get("conditions"))
        if available if there else found is None:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"{name}: there={not there}, still")


async def test_what_is_served_here_has_an_api_service() -> None:
    async with ControlPlane() as plane:
        apps = await named(plane, "v1.apps", there=True)
        assert apps is not None
        assert apps["spec"] == {
            "group": "apps",
            "version": "v1",
            "groupPriorityMinimum": group_priority("apps"),
            "versionPriority": 100,
        }
        assert [(each["type"], each["status"], each["reason"]) for each in apps["status"]["conditions"]] == [
            ("Available", "True", "Local")
        ]
        core = await named(plane, "v1.", there=True)
        assert core is not None
        assert core["spec"]["groupPriorityMinimum"] == 18000


async def test_it_comes_and_goes_with_a_definition() -> None:
    async with ControlPlane() as plane:
        await plane.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", BOATS)
        boats = await named(plane, "v1.local.example", there=True)
        assert boats is not None
        assert boats["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
        name = BOATS["metadata"]["name"]  # type: ignore[index]
        await plane.call("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        await named(plane, "v1.local.example", there=False)
