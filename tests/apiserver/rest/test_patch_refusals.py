"""What is said of patches whose outcome is no object of the kind, or another object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.apiserverkit import Api, Reply, api_server, config_map

MAPS = "/api/v1/namespaces/default/configmaps"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
INVALID = ' "" is invalid: patch: Invalid value: '
MAP = {"apiVersion": "v1", "kind": "ConfigMap"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server(ready=False) as found:
        await found.made(MAPS, config_map("a", {"x": "1"}))
        yield found


async def patched(api: Api, media: str, body: Any, query: str = "") -> Reply:
    query = f"fieldManager=m&{query}" if media == APPLY else query
    return await api.call("PATCH", f"{MAPS}/a?{query}", body, content_type=media)


class TestTypes:
    async def test_a_merge_patch_is_told_with_what_came_of_it(self, api: Api) -> None:
        reply = await patched(api, MERGE, {"metadata": "<x>", "data": {"z": "2", "y": "3"}})
        assert (reply.status, reply.body["reason"]) == (422, "Invalid")
        shown = r"{\"apiVersion\":\"v1\",\"data\":{\"x\":\"1\",\"y\":\"3\",\"z\":\"2\"},\"kind\":\"ConfigMap\","
        shown += r"\"metadata\":\"\\u003cx\\u003e\"}"
        why = "json: cannot unmarshal string into Go struct field ConfigMap.metadata of type v1.ObjectMeta"
        assert reply.message == f'{INVALID}"{shown}": {why}'

    async def test_the_first_fault_is_that_of_the_text(self, api: Api) -> None:
        reply = await patched(api, MERGE, {"metadata": 1, "data": 1})
        assert reply.message.endswith("number into Go struct field ConfigMap.data of type map[string]string")

    async def test_a_strategic_merge_patch_is_told_as_it_came(self, api: Api) -> None:
        reply = await patched(api, STRATEGIC, {"metadata": {"labels": [1.5]}, "data": None})
        assert (reply.status, reply.body["reason"]) == (422, "Invalid")
        assert reply.message == INVALID + '"map[data:<nil> metadata:map[labels:[1.5]]]": cannot restore map from slice'

    async def test_unknown_fields_are_in_the_order_of_what_is_shown(self, api: Api) -> None:
        body = {"z": 1, "data": {"x": "1"}, "b": 1}
        merged = await patched(api, MERGE, body, "fieldValidation=Strict")
        assert merged.message.endswith(': strict decoding error: unknown field "b", unknown field "z"')
        strategic = await patched(api, STRATEGIC, body, "fieldValidation=Strict")
        shown = "map[b:1 data:map[x:1] z:1]"
        assert strategic.message == f'{INVALID}"{shown}": strict decoding error: unknown field "b", unknown field "z"'


class TestNames:
    @pytest.mark.parametrize("media", [MERGE, STRATEGIC])
    @pytest.mark.parametrize("metadata", [None, {"name": None}, {"name": ""}])
    async def test_the_name_may_not_go(self, api: Api, media: str, metadata: Any) -> None:
        reply = await patched(api, media, {"metadata": metadata})
        assert reply.status == 400
        assert reply.message == "the name of the object (a based on URL) was undeterminable: name must be provided"

    @pytest.mark.parametrize("media", [MERGE, STRATEGIC, APPLY])
    async def test_nor_change(self, api: Api, media: str) -> None:
        reply = await patched(api, media, {**MAP, "metadata": {"name": "B!"}})
        assert reply.status == 400
        assert reply.message == "the name of the object (B!) does not match the name on the URL (a)"

    async def test_what_is_applied_may_leave_it_out(self, api: Api) -> None:
        assert (await patched(api, APPLY, MAP)).status == 200
        reply = await api.call("PATCH", f"{MAPS}/new?fieldManager=m", MAP, content_type=APPLY)
        assert reply.status == 400
        assert reply.message == "the name of the object (new based on URL) was undeterminable: name must be provided"


class TestApplying:
    @pytest.mark.parametrize(
        ("obj", "where", "why"),
        [
            ({"metadata": "x"}, "/", ".metadata: expected map, got &{x}"),
            ({"metadata": {"name": 1}}, "/", ".metadata.name: expected string, got &value.valueUnstructured{Value:1}"),
            ({"metadata": {"name": "b"}, "nope": 1}, "/b", ".nope: field not declared in schema"),
            ({"metadata": {"name": "a", "namespace": "n"}, "data": []}, "n/a", ".data: expected map, got &{[]}"),
        ],
    )
    async def test_what_does_not_fit_is_named_as_it_names_itself(
        self, api: Api, obj: Any, where: str, why: str
    ) -> None:
        reply = await patched(api, APPLY, {**MAP, **obj})
        assert reply.status == 500
        assert reply.message == f"failed to create typed patch object ({where}; /v1, Kind=ConfigMap): {why}"

    async def test_what_says_not_what_it_is(self, api: Api) -> None:
        reply = await patched(api, APPLY, {"metadata": {"name": 1}})
        assert (reply.status, reply.message) == (400, "invalid object type: /, Kind=")

    async def test_quantities_are_read_and_written_as_others_write_them(self, api: Api) -> None:
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}}
        path = f"{QUOTAS}/q?fieldManager=m"
        made = await api.call("PATCH", path, {**quota, "spec": {"hard": {"cpu": 70000}}}, content_type=APPLY)
        assert made.body["spec"]["hard"] == {"cpu": "70k"}
        reply = await api.call("PATCH", path, {**quota, "spec": {"hard": {"cpu": "x"}}}, content_type=APPLY)
        assert reply.status == 500
        assert reply.message.startswith(
            "failed to convert new object (/q; /v1, Kind=ResourceQuota) to proper version: "
            "unable to convert unstructured object to /v1, Kind=ResourceQuota: quantities must match"
        )
