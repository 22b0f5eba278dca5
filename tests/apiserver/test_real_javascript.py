"""The JavaScript client: typed calls, watches, informers, applies and custom objects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.clientskit import Command, Server, client_program, prepare, serving_program, which

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SOURCE = Path(__file__).parents[1] / "support" / "jsclient" / "client.mjs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    which("node", "install Node.js 18 or newer")
    client_program("js/node_modules/@kubernetes/client-node/package.json")
    with serving_program(tmp_path_factory.mktemp("javascript")) as found:
        prepare(found, "js")
        yield found


@pytest.fixture(scope="module")
def seen(server: Server) -> dict[str, Any]:
    # Modules are looked for beside the file that wants them.
    script = client_program("js") / "client.mjs"
    shutil.copyfile(SOURCE, script)
    node = Command(Path(which("node", "install Node.js 18 or newer")), server)
    code, out, err = node.whole(str(script), str(server.kubeconfig), "js", seconds=60)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_typed_calls(seen: dict[str, Any]) -> None:
    assert seen["created"] is True
    assert (seen["conflict"]["code"], seen["conflict"]["reason"]) == (409, "Conflict")
    assert seen["patched"] == {"x": "2", "y": "3", "z": "4"}
    assert seen["listed"] == ["a"]
    assert seen["pages"] == ["a", "kube-root-ca.crt"]
    assert seen["absent"] == {"code": 404, "reason": "NotFound", "message": 'configmaps "absent" not found'}
    assert seen["gone"] == "NotFound"


def test_applies(seen: dict[str, Any]) -> None:
    why = 'Apply failed with 1 conflict: conflict with "first": .data.x'
    assert seen["applyConflict"] == {"code": 409, "reason": "Conflict", "message": why}
    assert seen["applied"] == {"data": {"x": "2"}, "managers": ["second"]}


def test_status_and_scale(seen: dict[str, Any]) -> None:
    assert seen["deployment"] == {"wanted": 4, "there": 1, "selector": "app=web"}


def test_custom_objects(seen: dict[str, Any]) -> None:
    assert seen["ship"] == {"crew": 5}
    assert (seen["wrongShip"]["code"], seen["wrongShip"]["reason"]) == (422, "Invalid")


def test_watches_and_informers(seen: dict[str, Any]) -> None:
    assert seen["watched"] == ["ADDED w", "DELETED w"]
    assert seen["informed"] == ["add before", "add during", "update during", "delete during"]
    assert seen["cached"] == {"x": "2"}
