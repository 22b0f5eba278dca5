"""Credentials of pulls: those of secrets that pods name, the longest path first, as a kubelet has it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pilothouse.node.images.keyring import CONFIG, CONFIG_JSON, Keyring, KeyringError
from pilothouse.node.images.reference import parse
from support.agentkit import Cluster, cluster, container, pod
from support.imagekit import Blobs, Registry, layer, serve, shell_files
from support.nodekit import NEEDS_ROOT, place

SECRETS = "/api/v1/namespaces/default/secrets"


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def names(keys: dict[str, dict[str, str]], image: str) -> list[str]:
    keyring = Keyring()
    keyring.add({CONFIG_JSON: json.dumps({"auths": keys}).encode()})
    return [each.username for each in keyring.lookup(parse(image))]


@pytest.mark.parametrize(
    ("keys", "image", "found"),
    [
        (["a.example"], "a.example/team/app:1", ["a.example"]),
        (["https://a.example/v2/", "http://a.example"], "a.example/x", ["https://a.example/v2/", "http://a.example"]),
        (["a.example/team", "a.example", "a.example/team/app"], "a.example/team/app", [2, 0, 1]),
        (["a.example/team"], "a.example/other", []),
        (["a.example/te"], "a.example/team/app", ["a.example/te"]),
        (["*.example"], "a.example/x", ["*.example"]),
        (["*.example"], "b.a.example/x", []),
        (["a.example:5000"], "a.example/x", []),
        (["a.example:5000", "a.example:5001"], "a.example:5001/x", [1]),
        (["https://index.docker.io/v1/"], "nginx", [0]),
        (["https://index.docker.io/v1/"], "docker.io/team/app@sha256:" + "0" * 64, [0]),
        (["docker.io", "https://index.docker.io/v1/"], "team/app", [0]),
        (["docker.io/library/nginx"], "nginx:2", [0]),
        (["https://index.docker.io/v1/"], "a.example/nginx", []),
        (["localhost:5000"], "localhost:5000/x", [0]),
    ],
)
def test_credentials_go_with_hosts_and_beginnings_of_paths(keys: list[str], image: str, found: list[Any]) -> None:
    wanted = [keys[each] if isinstance(each, int) else each for each in found]
    given = {key: auth(f"{number}:pw") for number, key in enumerate(keys)}
    assert [keys[int(each)] for each in names(given, image)] == wanted


def test_names_and_passwords_stand_beside_or_in_auth() -> None:
    keyring = Keyring()
    keyring.add({CONFIG: json.dumps({"a.example": {"username": "me", "password": "p", "email": "x@y"}}).encode()})
    keyring.add({CONFIG_JSON: json.dumps({"auths": {"a.example": auth("you:with:colon")}}).encode()})
    found = keyring.lookup(parse("a.example/x"))
    assert [(each.username, each.password) for each in found] == [("me", "p"), ("you", "with:colon")]
    assert "colon" not in repr(found)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({}, 'neither ".dockerconfigjson" nor'),
        ({CONFIG_JSON: b"{"}, "no configuration"),
        ({CONFIG_JSON: b'{"auths":{"a":{"auth":"hidden!"}}}'}, '"auth" of "a" is not in base64'),
        ({CONFIG: b'{"a":{"auth":"aGlkZGVu"}}'}, "with a colon between"),
        ({CONFIG: b'{"a":{"username":["hidden"]}}'}, "no configuration"),
    ],
)
def test_what_is_no_configuration_is_refused_without_being_shown(data: dict[str, bytes], text: str) -> None:
    with pytest.raises(KeyringError, match=text) as raised:
        Keyring().add(data)
    assert "hidden" not in str(raised.value)


async def secret(made: Cluster, name: str, registry: Registry, text: str) -> None:
    config = json.dumps({"auths": {registry.address: auth(text)}}).encode()
    body = {
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {CONFIG_JSON: base64.b64encode(config).decode()},
    }
    await made.plane.call("POST", SECRETS, body)


def private(name: str, registry: Registry, *secrets: str) -> dict[str, Any]:
    main = container("echo fine", image=f"{registry.address}/team/app:1", imagePullPolicy="Always")
    return pod(name, main, restartPolicy="Never", imagePullSecrets=[{"name": each} for each in secrets])


@NEEDS_ROOT
@pytest.mark.parametrize("basic", [True, False])
async def test_a_private_image_runs_with_the_secret_of_its_pod_alone(basic: bool) -> None:
    blobs = Blobs()
    image = blobs.image(layer(*shell_files()))
    async with serve(blobs, **{"1": image}) as registry, place() as made, cluster(made) as one:
        registry.basic = basic
        await secret(one, "right", registry, "user:secret")
        await secret(one, "wrong", registry, "user:other")
        await one.create(private("with", registry, "wrong", "right"))
        await one.until("with", lambda found: found["status"]["phase"] == "Succeeded")
        await one.create(private("without", registry))
        await one.until_event("without", "Failed", "pull access denied")
        await one.create(private("lost", registry, "gone", "wrong"))
        kind, _, message = await one.until_event("lost", "FailedToRetrieveImagePullSecret")
        assert kind == "Warning"
        assert message == (
            "Unable to retrieve some image pull secrets (gone); attempting to pull the image may not succeed."
        )
        await one.until_event("lost", "Failed", "pull access denied")
        for name in ("without", "lost"):
            reason = await one.until(name, lambda found: _waiting(found) in {"ErrImagePull", "ImagePullBackOff"})
            assert "secret" not in json.dumps(reason["status"]).replace("secrets", "")


def _waiting(found: dict[str, Any]) -> str:
    states = [each["state"] for each in found["status"].get("containerStatuses", ())]
    return str(states[0].get("waiting", {}).get("reason", "")) if states else ""
