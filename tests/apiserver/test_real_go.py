"""Go's clients: controller-runtime with protobuf, informers that stream their lists, and leader election."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.clientskit import Command, Server, client_program, prepare, serving_program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PROTOCOLS = {"http2": "HTTP/2.0", "http1": "HTTP/1.1"}
PROTOBUF = "application/vnd.kubernetes.protobuf"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    client_program("goclient")
    with serving_program(tmp_path_factory.mktemp("go")) as found:
        prepare(found, *PROTOCOLS)
        yield found


@pytest.fixture(scope="module", params=list(PROTOCOLS))
def seen(request: pytest.FixtureRequest, server: Server) -> dict[str, Any]:
    """What the program saw, with its `protocol`."""
    name = str(request.param)
    without = {"DISABLE_HTTP2": "1", "GODEBUG": "http2client=0"} if name == "http1" else {}
    code, out, err = Command(client_program("goclient"), server, (), without).whole(
        str(server.kubeconfig), name, seconds=90
    )
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return {**found, "protocol": PROTOCOLS[name], "other": PROTOCOLS["http1" if name == "http2" else "http2"]}


def test_all_goes_over_the_protocol_that_was_chosen(seen: dict[str, Any]) -> None:
    assert seen["traffic"][seen["protocol"]] > 40
    assert seen["other"] not in seen["traffic"]


def test_built_in_kinds_travel_as_protobuf(seen: dict[str, Any]) -> None:
    assert seen["traffic"][PROTOBUF] > 20
    assert seen["traffic"][f"{PROTOBUF};stream=watch"] >= 1
    assert seen["version"] == "1.36"
    assert seen["pages"] == {"names": 9, "pages": 3, "partial": 9, "binary": "AP8="}
    assert seen["left"] == 0


def test_the_life_of_a_deployment(seen: dict[str, Any]) -> None:
    assert seen["defaulted"] == "RollingUpdate"
    assert seen["deployment"] == {
        "image": "nginx:2",
        "replicas": 3,
        "status": 3,
        "condition": "Available",
        "annotation": "yes",
        "label": "yes",
        "generation": 4,
    }
    assert (seen["conflict"], seen["exists"], seen["gone"]) == (True, True, True)
    why = "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    assert seen["invalid"] == f'true Deployment.apps "wrong" is invalid: {why}'


def test_applies_of_two_managers(seen: dict[str, Any]) -> None:
    why = 'Apply failed with 1 conflict: conflict with "first": .spec.replicas'
    assert seen["applyConflict"] == f"true {why}"
    assert seen["applied"] == {"replicas": 5, "managers": ["first Apply", "second Apply"]}


def test_custom_objects(seen: dict[str, Any]) -> None:
    assert seen["ship"] == {"spec": {"crew": 4}, "status": {"crew": 4}}
    assert seen["wrongShip"].startswith(
        'true Ship.example.com "wrong" is invalid: [spec.crew: Invalid value: "string":'
    )


@pytest.mark.parametrize(("kind", "others"), [("Map", ["add kube-root-ca.crt"]), ("Ship", ["add ship"])])
def test_informers(seen: dict[str, Any], kind: str, others: list[str]) -> None:
    wanted = ["add before", "add during", "delete during", "update during", *others]
    assert seen[f"events{kind}"] == dict.fromkeys(sorted(wanted), 1)
    assert seen[f"cached{kind}"] == {"a": "c"}
    assert seen["traffic"]["streamed list"] == 2


def test_leaders_follow_one_another(seen: dict[str, Any]) -> None:
    assert seen["leaders"] == ["one", "two"]
    assert seen["transitions"] == 1
