"""Inside of a pod, and choosing between a pod's account and a kubeconfig."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type
from urllib.parse import urlsplit

import msgspec
import pytest

from pilothouse.client import Client, ConfigError, ObjectEvent
from pilothouse.client.incluster import in_cluster, is_in_cluster
from pilothouse.kinds.structs import ConfigMap, Namespace, ObjectMeta, Pod
from pilothouse.testing import ControlPlane


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in (("token", "tok"), ("ca.crt", "CA"), ("namespace", "team\n")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


def test_the_account_of_a_pod(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = in_cluster(str(account))
    assert (found.server, found.namespace) == ("https://10.0.0.1:443", "team")
    assert (found.token_file, found.ca_file) == (str(account / "token"), str(account / "ca.crt"))
    assert in_cluster(str(account), namespace="mine").namespace == "mine"
    (account / "namespace").unlink()
    assert in_cluster(str(account)).namespace == "default"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert in_cluster(str(account)).server == "https://[fd00::1]:443"
    assert is_in_cluster(str(account))


@pytest.mark.parametrize("name", ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"])
def test_outside_of_a_pod(name: str, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name)
    assert not is_in_cluster(str(account))
    with pytest.raises(ConfigError, match=rf"{name}: not set, so this is no pod; use Client.from_kubeconfig"):
        in_cluster(str(account))


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_a_pod_without_an_account(name: str, account: Path) -> None:
    (account / name).unlink()
    with pytest.raises(ConfigError, match=rf"{name}: not there; the pod needs a service account"):
        in_cluster(str(account))


async def test_as_a_service_account_against_our_server(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ControlPlane() as plane:
        parts = urlsplit(plane.url)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(parts.port))
        monkeypatch.setattr("pilothouse.client.incluster.ACCOUNT_DIRECTORY", str(account))
        admin = Client.for_transport(plane.transport, plane.user)
        token = await admin.create_token("default")
        (account / "token").write_text(token.status.token, encoding="utf-8")
        (account / "ca.crt").write_bytes(plane.ca)
        async with Client.from_config(in_cluster(str(account))) as client:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
            answer = msgspec.json.decode(await client.request("POST", path, msgspec.json.encode(review)))
            assert answer["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"


async def test_the_environment_decides(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ControlPlane() as plane:
        monkeypatch.setenv("KUBECONFIG", plane.kubeconfig)
        async with Client.from_environment() as client:
            assert (await client.get(Namespace, "default")).metadata.name == "default"
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
        monkeypatch.delenv("KUBECONFIG")
        monkeypatch.setenv("HOME", str(account))
        with pytest.raises(ConfigError, match="there is no such file"):
            Client.from_environment()


async def test_what_a_type_checker_knows() -> None:
    async with ControlPlane(lifecycle=False) as plane, Client.for_transport(plane.transport, plane.user) as client:
        made = assert_type(await client.create(ConfigMap(metadata=ObjectMeta(name="a"))), ConfigMap)
        assert_type(await client.get(ConfigMap, "a"), ConfigMap)
        assert_type(await client.get(ConfigMap, "a", raw=True), bytes)
        assert_type([one async for one in client.list(Pod)], list[Pod])
        assert_type(await client.patch(ConfigMap, "a", {"data": {}}), ConfigMap)
        async for event in client.watch(ConfigMap, since="", timeout_seconds=1):
            assert_type(event, ObjectEvent[ConfigMap])
            break
        assert_type(await client.delete(ConfigMap, made.metadata.name), ConfigMap | None)
