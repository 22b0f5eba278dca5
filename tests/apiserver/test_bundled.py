"""Objects that come with the program: as if requests had made them, brought up to date, somebody's own left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pilothouse.apiserver.bundled import MARK
from pilothouse.apiserver.options import ServerOptions
from pilothouse.foundation.metrics import Metrics
from pilothouse.testing import ControlPlane

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "ships.example.com"
OF_A_MOMENT = ("uid", "resourceVersion", "creationTimestamp", "managedFields")


def definition(**properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "ships", "singular": "ship", "kind": "Ship", "listKind": "ShipList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [version]},
    }


SHIP = {"apiVersion": "example.com/v1", "kind": "Ship", "metadata": {"name": "a", "namespace": "default"}}
NUMBER, TEXT = {"type": "integer", "default": 3}, {"type": "string"}


def plain(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in obj["metadata"].items() if name not in OF_A_MOMENT}
    metadata.pop("annotations", None)
    status = dict(obj.get("status") or {})
    if status.get("conditions"):
        status["conditions"] = [{**each, "lastTransitionTime": ""} for each in status["conditions"]]
    return {**obj, "metadata": metadata, **({"status": status} if status else {})}


def is_established(obj: Any) -> bool:
    return any(each["type"] == "Established" for each in (obj["status"]["conditions"] or ()))


async def made_by_requests(*properties: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a definition as the server has it, once for each of the properties that it had."""
    found = []
    for each in properties:
        async with ControlPlane() as plane:
            await plane.call("POST", PATH, definition(size=each))
            await plane.wait_for(f"{PATH}/{NAME}", is_established, timeout=30)
            found.append(await plane.call("GET", f"{PATH}/{NAME}"))
    return found


def bundle(place: Path, *objects: dict[str, Any]) -> ServerOptions:
    place.write_text("".join(json.dumps(each) + "\n" for each in objects))
    return ServerOptions(metrics=Metrics(), bundled=(str(place),))


async def test_they_are_as_if_requests_had_made_them(tmp_path: Path) -> None:
    (wanted,) = await made_by_requests(NUMBER)
    async with ControlPlane(options=bundle(tmp_path / "objects", plain(wanted))) as plane:
        found = await plane.call("GET", f"{PATH}/{NAME}")
        assert plain(found) == plain(wanted)
        assert {found["metadata"]["generation"], *found["metadata"]["annotations"]} == {1, MARK}
        assert all(each["lastTransitionTime"] for each in found["status"]["conditions"])
        ships = "/apis/example.com/v1/namespaces/default/ships"
        made = await plane.call("POST", ships, {**SHIP, "spec": {"other": 1}})
        assert made["spec"] == {"size": 3}


async def test_definitions_are_brought_up_to_date_and_the_rest_is_kept(tmp_path: Path) -> None:
    first, second = await made_by_requests(NUMBER, TEXT)
    data, objects = tmp_path / "data", tmp_path / "objects"
    async with ControlPlane(data_dir=data, options=bundle(objects, plain(first))) as plane:
        before = await plane.call("PATCH", f"{PATH}/{NAME}", {"metadata": {"labels": {"mine": "1"}}})
    async with ControlPlane(data_dir=data, options=bundle(objects, plain(first))) as plane:
        again = await plane.call("GET", f"{PATH}/{NAME}")
        assert again["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    async with ControlPlane(data_dir=data, options=bundle(objects, plain(second))) as plane:
        after = await plane.call("GET", f"{PATH}/{NAME}")
        assert after["spec"] == second["spec"]
        assert (after["metadata"]["uid"], after["metadata"]["labels"]) == (before["metadata"]["uid"], {"mine": "1"})
        assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
        assert is_established(after)
        ships = "/apis/example.com/v1/namespaces/default/ships"
        assert (await plane.call("POST", ships, {**SHIP, "spec": {"size": "big"}}))["spec"] == {"size": "big"}


async def test_what_somebody_put_in_stays_as_it_is(tmp_path: Path) -> None:
    (theirs, ours) = await made_by_requests(NUMBER, TEXT)
    data = tmp_path / "data"
    async with ControlPlane(data_dir=data) as plane:
        await plane.call("POST", PATH, definition(size=NUMBER))
        await plane.wait_for(f"{PATH}/{NAME}", is_established, timeout=30)
    async with ControlPlane(data_dir=data, options=bundle(tmp_path / "objects", plain(ours))) as plane:
        assert plain(await plane.call("GET", f"{PATH}/{NAME}")) == plain(theirs)


async def test_an_object_of_no_kind_that_is_served_is_left_out(tmp_path: Path) -> None:
    (wanted,) = await made_by_requests(NUMBER)
    nobody = {**SHIP, "apiVersion": "example.org/v1"}
    async with ControlPlane(options=bundle(tmp_path / "objects", nobody, plain(wanted))) as plane:
        assert await plane.call("GET", f"{PATH}/{NAME}")
