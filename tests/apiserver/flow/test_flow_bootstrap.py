"""The default objects, and what is written of them."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from pilothouse.apiserver.flow import FLOW_SCHEMAS, PRIORITY_LEVELS, dangling_condition, ensure_defaults
from pilothouse.kinds.status import already_exists
from pilothouse.kinds.validation import validate_create
from support.apiserverkit import api_server, until

GROUP = "flowcontrol.apiserver.k8s.io"


class Server:
    """Keeps what is written; a view and the server in one."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.refuse = False

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.objects.get((resource.partition(".")[0], name))

    async def call(self, method: str, path: str, body: Any = None, *, content_type: str = "") -> dict[str, Any]:
        self.calls.append((method, path))
        resource = path.split("/")[4]
        if self.refuse:
            raise already_exists("", resource, "x")
        self.objects[resource, body["metadata"]["name"]] = copy.deepcopy(body)
        return dict(body)


async def ensure(server: Server) -> int:
    return await ensure_defaults(server, server)  # type: ignore[arg-type]  # the parts that are used


async def test_defaults_are_made_once() -> None:
    server = Server()
    assert await ensure(server) == len(FLOW_SCHEMAS) + len(PRIORITY_LEVELS) == 19
    assert await ensure(server) == 0


async def test_what_is_ours_is_renewed_and_what_is_theirs_left_alone() -> None:
    server = Server()
    await ensure(server)
    ours = server.objects["prioritylevelconfigurations", "system"]
    ours["spec"]["limited"]["nominalConcurrencyShares"] = 1
    theirs = server.objects["prioritylevelconfigurations", "workload-low"]
    theirs["spec"]["limited"]["nominalConcurrencyShares"] = 1
    theirs["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"] = "false"
    assert await ensure(server) == 1
    assert server.objects["prioritylevelconfigurations", "system"]["spec"]["limited"]["nominalConcurrencyShares"] == 30
    assert theirs["spec"]["limited"]["nominalConcurrencyShares"] == 1


async def test_another_server_may_have_been_quicker() -> None:
    server = Server()
    server.refuse = True
    assert await ensure(server) == 0


@pytest.mark.parametrize("obj", [*FLOW_SCHEMAS, *PRIORITY_LEVELS], ids=lambda each: f"{each['metadata']['name']}")
def test_defaults_are_valid(obj: dict[str, Any]) -> None:
    assert validate_create(obj, ("flowcontrol.apiserver.k8s.io", "v1", obj["kind"])) == []


def test_a_schema_without_its_level_dangles() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    schema = copy.deepcopy(FLOW_SCHEMAS[4])
    found = dangling_condition(schema, ["exempt"], at)
    assert found == {
        "type": "Dangling",
        "status": "False",
        "lastTransitionTime": "2026-01-02T00:00:00Z",
        "reason": "Found",
        "message": 'This FlowSchema references the PriorityLevelConfiguration object named "exempt" and it exists',
    }
    schema["status"] = {"conditions": [found]}
    assert dangling_condition(schema, ["exempt"], at) is None
    gone = dangling_condition(schema, [], at)
    assert gone is not None
    assert (gone["status"], gone["reason"]) == ("True", "NotFound")


async def test_schemas_say_whether_their_level_is_there() -> None:
    def dangling(name: str) -> str:
        found = api.server.view.get(f"flowschemas.{GROUP}", "", name)
        conditions = ((found or {}).get("status") or {}).get("conditions") or [{}]
        return str(conditions[0].get("status"))

    async with api_server() as api:
        listed = (await api.get(f"/apis/{GROUP}/v1/flowschemas")).body["items"]
        assert {each["status"]["conditions"][0]["reason"] for each in listed} == {"Found"}
        schema = copy.deepcopy(FLOW_SCHEMAS[4])
        schema["metadata"] = {"name": "mine"}
        schema["spec"]["priorityLevelConfiguration"] = {"name": "later"}
        await api.made(f"/apis/{GROUP}/v1/flowschemas", schema)
        await until(lambda: dangling("mine") == "True")
        level = copy.deepcopy(next(each for each in PRIORITY_LEVELS if each["spec"]["type"] == "Limited"))
        level["metadata"] = {"name": "later"}
        await api.made(f"/apis/{GROUP}/v1/prioritylevelconfigurations", level)
        await until(lambda: dangling("mine") == "False")
