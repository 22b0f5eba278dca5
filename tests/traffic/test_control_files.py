"""A gateway by files: what is read, what is refused and why, and changes that the kernel tells."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from pilothouse.traffic import config
from pilothouse.traffic.cli import gateway
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.files import FileError, problems, read_files
from pilothouse.traffic.control.serving import FileSource
from pilothouse.traffic.control.translate import Options, translate

DOOR = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: pilothouse
  listeners: [{name: http, port: 8080, protocol: HTTP}]
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: front}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"""
BACKEND = """
apiVersion: pilothouse.dev/v1alpha1
kind: Backend
metadata: {name: web}
spec: {endpoints: ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:9000"]}
"""


class Told:
    def __init__(self) -> None:
        self.configurations: asyncio.Queue[config.Configuration] = asyncio.Queue()

    async def push(self, configuration: config.Configuration) -> None:
        self.configurations.put_nowait(configuration)


def test_a_directory_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(DOOR + "---" + ROUTE)
    (tmp_path / "b.yml").write_text(BACKEND)
    (tmp_path / "notes.txt").write_text("not read")
    found = translate(read_files([tmp_path]), Options(Addresses(published=("127.0.0.1",)), may_leave=True))
    assert problems(found) == []
    sent = msgspec.msgpack.encode(found.configuration)
    assert msgspec.msgpack.decode(sent, type=config.Configuration) == found.configuration
    assert [(each.address, each.port) for each in found.configuration.listeners] == [("", 8080)]
    endpoints = found.configuration.backends["default/web:80"].endpoints
    assert [(each.address, each.port) for each in endpoints] == [
        ("10.0.0.1", 8000),
        ("10.0.0.2", 8000),
        ("10.0.0.3", 9000),
    ]


def test_a_service_of_another_name_is_a_backend_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, "
        "spec: {type: ExternalName, externalName: api.example, ports: [{port: 80}]}}\n---" + DOOR + "---" + ROUTE
    )
    found = translate(read_files([tmp_path]), Options(may_leave=True)).configuration.backends["default/web:80"]
    assert found.endpoints == (config.Endpoint(address="api.example", port=80),)
    refused = translate(read_files([tmp_path]))
    assert "ExternalName" in problems(refused)[0]


def test_texts_of_secrets_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "{apiVersion: v1, kind: Secret, metadata: {name: c}, stringData: {tls.crt: hello}}"
    )
    from pilothouse.kinds.structs import Secret

    secret = read_files([tmp_path]).get(Secret, ("default", "c"))
    assert secret is not None
    assert secret.data["tls.crt"] == b"hello"


def test_what_is_wrong_is_said_in_sentences(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(DOOR + "---" + ROUTE)
    found = translate(read_files([tmp_path]))
    assert problems(found) == [
        "HTTPRoute 'default/web' at 'front': ResolvedRefs: BackendNotFound: Service 'default/web' is not there"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "no YAML"),
        ("kind: Gateway", "no object"),
        ("{apiVersion: v1, kind: Service, metadata: {}}", "metadata.name is missing"),
        ("{apiVersion: example.com/v1, kind: Odd, metadata: {name: a}}", "knows no example.com/Odd"),
        (
            "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: a}, spec: {listeners: 3}}",
            "spec",
        ),
        ("{apiVersion: pilothouse.dev/v1alpha1, kind: Backend, metadata: {name: a}}", "spec.endpoints is missing"),
        (
            "{apiVersion: pilothouse.dev/v1alpha1, kind: Backend, metadata: {name: a}, spec: {endpoints: [web]}}",
            "'web' is no ADDRESS:PORT",
        ),
        (DOOR + "---" + DOOR, "Gateway 'default/front' is there twice"),
    ],
)
def test_files_that_cannot_be_used_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        read_files([tmp_path])
    assert "a.yaml" in str(caught.value)


async def test_changes_are_taken_up_and_what_cannot_be_used_leaves_what_was_before(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(DOOR + "---" + ROUTE + "---" + BACKEND)
    told = Told()
    source = FileSource([path], told)
    assert await source.load() == []
    assert (await told.configurations.get()).generation == 1
    following = asyncio.create_task(source.follow())
    await asyncio.sleep(0)  # it watches from now on
    try:
        path.write_text("a: [")
        fresh = tmp_path / "fresh"
        fresh.write_text(DOOR.replace("8080", "8081") + "---" + ROUTE + "---" + BACKEND)
        fresh.rename(path)
        async with asyncio.timeout(20):
            found = await told.configurations.get()
        assert [each.port for each in found.listeners] == [8081]
        assert found.generation == 2
    finally:
        following.cancel()
        await asyncio.wait([following])


async def test_a_poke_counts_as_a_change(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(DOOR)
    told = Told()
    source = FileSource([tmp_path], told)
    following = asyncio.create_task(source.follow(lambda watch: watch.poke()))
    try:
        async with asyncio.timeout(20):
            assert (await told.configurations.get()).generation == 1
    finally:
        following.cancel()
        await asyncio.wait([following])


def test_check_says_what_is_wrong_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(DOOR + "---" + ROUTE)
    done = CliRunner().invoke(gateway, ["check", str(tmp_path)])
    assert done.exit_code == 1
    assert "1 listeners, 1 routes, 0 backends" in done.output
    assert "Service 'default/web' is not there" in done.output
    (tmp_path / "b.yaml").write_text(BACKEND)
    assert CliRunner().invoke(gateway, ["check", str(tmp_path)]).exit_code == 0


def test_install_prints_definitions_for_kubectl() -> None:
    done = CliRunner().invoke(gateway, ["install", "--print"])
    names = [each["metadata"]["name"] for each in json.loads(done.output)["items"]]
    assert "httproutes.gateway.networking.k8s.io" in names
    assert "regionweights.pilothouse.dev" in names
