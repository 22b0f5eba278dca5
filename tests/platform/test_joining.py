"""Joining a cluster: with a good token, with bad ones, again, and renewed; against a server with its controllers."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from pilothouse.apiserver.access.pki import Pki
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.program import Program, ProgramOptions
from pilothouse.client import Client
from pilothouse.client.kubeconfig import load_kubeconfig
from pilothouse.foundation import tls
from pilothouse.foundation.clock import Clock, FakeClock, SystemClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import Forbidden
from pilothouse.kinds.structs import (
    CertificateSigningRequest,
    ConfigMap,
    Node,
    ObjectMeta,
    Secret,
    SelfSubjectReview,
    to_dict,
)
from pilothouse.operator import Manager
from pilothouse.platform.joining import JoinError, join, renew
from pilothouse.platform.jointoken import JoinToken, TokenError, authorities, pin_of, pinned
from pilothouse.workloads.bootstraptokens import token_secret
from pilothouse.workloads.reconcilers.certificates import add_certificate_approval
from support.apiserverkit import until

IDENTITY, SECRET = "abcdef", "0123456789abcdef"
CA = tls.make_ca("one")


@dataclass
class Cluster:
    program: Program
    admin: Client

    @property
    def url(self) -> str:
        return self.program.url

    @property
    def token(self) -> str:
        return self.token_of(IDENTITY, SECRET)

    def token_of(self, identity: str, secret: str) -> str:
        ca = authorities(self.program.pki.read("ca.crt"))[0]
        return JoinToken(identity, secret, pin_of(ca)).text


@asynccontextmanager
async def cluster(directory: Path, *, approves: bool = True, clock: Clock | None = None) -> AsyncIterator[Cluster]:
    """Run a server with the controller that approves, as the platform has them, and one token."""
    settings = ServerOptions(metrics=Metrics(), lifecycle=True, platform=True, clock=clock or SystemClock())
    options = ProgramOptions(data_dir=str(directory), port=0, server=settings, components=True)
    program = await Program.start(options)
    try:
        await until(lambda: program.server.view.get("configmaps", "kube-public", "cluster-info") is not None)
        await program.server.background.wait_started()
        working = load_kubeconfig(directory / "controllers.kubeconfig")
        async with (
            Client.from_config(load_kubeconfig(program.kubeconfig)) as admin,
            Client.from_config(working) as client,
        ):
            manager = Manager(client, metrics=Metrics())
            if approves:
                add_certificate_approval(manager)
            if program.server.view.get("secrets", "kube-system", f"bootstrap-token-{IDENTITY}") is None:
                await admin.create(token_secret(IDENTITY, SECRET, now=SystemClock().now(), ttl_seconds=3600))
            async with manager:
                yield Cluster(program, admin)
    finally:
        await program.close()


async def who(path: str) -> tuple[str, set[str]]:
    async with Client.from_config(load_kubeconfig(path)) as client:
        user = (await client.create(SelfSubjectReview())).status.user_info
    return user.username, {*user.groups}


async def refused(*arguments: str, seconds: float = 30.0) -> JoinError:
    with pytest.raises(JoinError) as caught:
        await join(*arguments, seconds=seconds)
    return caught.value


async def test_a_machine_joins_as_its_node_and_only_once(tmp_path: Path) -> None:
    home = str(tmp_path / "agent")
    async with cluster(tmp_path / "server") as there:
        path = await join(there.url, there.token, "n1", home)
        assert path == os.path.join(home, "agent.kubeconfig")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert await who(path) == ("system:node:n1", {"system:nodes", "system:authenticated"})
        written = os.stat(path).st_mtime_ns
        for token in (there.token, "", there.token_of("zzzzzz", "0" * 16)):
            assert await join(there.url, token, "n1", home) == path
        assert os.stat(path).st_mtime_ns == written
        assert len(await there.admin.list_all(CertificateSigningRequest)) == 1
        await join(there.url, there.token, "n2", home)  # another name is another node
        assert (await who(path))[0] == "system:node:n2"
    assert await join(there.url, "", "n2", home) == path  # nobody has to be there


async def test_each_thing_that_is_wrong_is_told_for_itself(tmp_path: Path) -> None:
    home = str(tmp_path / "agent")
    async with cluster(tmp_path / "server") as there:
        admin, url = there.admin, there.url
        over = token_secret("bbbbbb", SECRET, now=SystemClock().now() - timedelta(days=2), ttl_seconds=3600)
        await admin.create(over)
        pin = there.token.rpartition(".")[2]
        cases = {
            "has no such form": await refused(url, "abc", "n1", home),
            "is unknown": await refused(url, f"{IDENTITY}.{'x' * 16}.{pin}", "n1", home),
            "is over": await refused(url, f"bbbbbb.{SECRET}.{pin}", "n1", home),
            "is for another": await refused(url, f"{IDENTITY}.{SECRET}.{'0' * 64}", "n1", home),
            "is missing": await refused(url, "", "n1", home),
            "name": await refused(url, there.token, "N_1", home),
            "url": await refused(url.replace("https", "http"), there.token, "n1", home),
            "path": await refused(f"{url}/api", there.token, "n1", home),
        }
        told = {name: str(error) for name, error in cases.items()}
        assert "not of the form ID.SECRET.PIN" in told["has no such form"]
        for name in ("is unknown", "is over"):
            assert "does not know the token" in told[name]
            assert "its time is over" in told[name]
        assert "its authority is not the one that the token is for" in told["is for another"]
        assert "no token" in told["is missing"]
        assert "node name 'N_1'" in told["name"]
        assert "want https://HOST:6443" in told["url"]
        assert "want https://HOST:6443" in told["path"]
        for error in cases.values():
            assert not error.again
            assert SECRET not in str(error)
        assert os.listdir(tmp_path) == ["server"]
        assert await admin.list_all(CertificateSigningRequest) == []


async def test_who_cannot_be_reached_may_be_tried_again(tmp_path: Path) -> None:
    async with cluster(tmp_path / "server") as there:
        url, token = there.url, there.token
    error = await refused(url, token, "n1", str(tmp_path / "agent"))
    assert error.again
    assert "cannot be joined" in str(error)


async def test_the_name_of_a_node_that_is_alive_is_taken(tmp_path: Path) -> None:
    home = str(tmp_path / "agent")
    async with cluster(tmp_path / "server") as there:
        await there.admin.create(Node(metadata=ObjectMeta(name="n1")))
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        await there.admin.patch(Node, "n1", {"status": {"conditions": [ready]}}, subresource="status")
        error = await refused(there.url, there.token, "n1", home)
        assert "there is one of this name, which is alive" in str(error)
        gone = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
        await there.admin.patch(Node, "n1", gone, subresource="status")
        assert await join(there.url, there.token, "n1", home)


async def test_a_request_that_nobody_decides_or_that_is_denied_is_told(tmp_path: Path) -> None:
    home = str(tmp_path / "agent")
    async with cluster(tmp_path / "server", approves=False) as there:
        error = await refused(there.url, there.token, "n1", home, seconds=0.2)
        assert "kubectl certificate approve node-csr-" in str(error)
        assert error.again
        joining = asyncio.create_task(refused(there.url, there.token, "n2", home))
        view = there.program.server.view
        requests = "certificatesigningrequests.certificates.k8s.io"
        await until(lambda: len(view.list(requests)) == 2)
        (name,) = {each["metadata"]["name"] for each in view.list(requests)} - {str(error).split()[4].rstrip(":")}
        denied = {"type": "Denied", "status": "True", "reason": "No", "message": "not this one"}
        found = await there.admin.get(CertificateSigningRequest, name)
        tree = {"status": {"conditions": [denied]}}
        path = f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}/approval"
        await there.admin.request("PUT", path, json.dumps(to_dict(found) | tree).encode())
        assert "denied: not this one" in str(await joining)


async def test_a_kubeconfig_of_another_cluster_is_replaced_and_one_that_is_damaged(tmp_path: Path) -> None:
    home = str(tmp_path / "agent")
    async with cluster(tmp_path / "one") as one:
        path = await join(one.url, one.token, "n1", home)
    async with cluster(tmp_path / "two") as two:
        # as where a new cluster is made in the place of an old one
        change(path, lambda text: text.replace(one.url, two.url))
        await join(two.url, two.token, "n1", home)
        assert (await who(path))[0] == "system:node:n1"
        change(path, lambda _: "damaged: [")
        await join(two.url, two.token, "n1", home)
        assert (await who(path))[0] == "system:node:n1"


def change(path: str, how: Callable[[str], str]) -> None:
    file = Path(path)
    file.write_text(how(file.read_text()))


async def test_a_server_that_has_moved_is_followed_with_the_same_certificate(tmp_path: Path) -> None:
    home = str(tmp_path / "agent")
    async with cluster(tmp_path / "server") as there:
        path = await join(there.url, there.token, "n1", home)
        moved = there.url.replace("127.0.0.1", "localhost")
        assert await join(moved, there.token, "n1", home) == path
        assert load_kubeconfig(path).server == moved
        assert len(await there.admin.list_all(CertificateSigningRequest)) == 1
        assert (await who(path))[0] == "system:node:n1"
        assert "there is no kubeconfig of node n1 for" in str(await refused(there.url, "", "n1", home))


async def test_a_certificate_is_renewed_when_it_ends_soon_and_when_another_authority_signs(tmp_path: Path) -> None:
    home, clock = str(tmp_path / "agent"), FakeClock(SystemClock().now())
    async with cluster(tmp_path / "server", clock=clock) as there:
        path = await join(there.url, there.token, "n1", home)
        assert not await renew(path)
        before = load_kubeconfig(path)
        assert await renew(path, clock=FakeClock(clock.now() + timedelta(days=300)))
        renewed = load_kubeconfig(path)
        assert renewed.certificate_data != before.certificate_data
        assert (await who(path))[0] == "system:node:n1"
        pki = Pki(str(tmp_path / "server" / "pki"))
        await exchanged(there, pki, clock)
        assert await renew(path)
        announced = load_kubeconfig(path)
        assert (announced.certificate_data, announced.ca_data) == (renewed.certificate_data, pki.read("ca.crt"))
        await exchanged(there, pki, clock)
        assert await renew(path)
        authority = authorities(pki.read("ca.crt"))[0]
        x509.load_pem_x509_certificate(load_kubeconfig(path).certificate_data).verify_directly_issued_by(authority)
        assert (await who(path))[0] == "system:node:n1"


async def exchanged(there: Cluster, pki: Pki, clock: FakeClock) -> None:
    """Take a step of exchanging the authority, and wait until the running server has taken it up."""
    pki.rotate_ca()
    await clock.run(11)
    await until(lambda: told(there) == pki.read("ca.crt"))


def told(there: Cluster) -> bytes:
    found = there.program.server.view.get("configmaps", "kube-public", "cluster-info")
    assert found is not None
    info = yaml.safe_load(found["data"]["kubeconfig"])
    return base64.b64decode(info["clusters"][0]["cluster"]["certificate-authority-data"])


async def test_strangers_learn_the_authority_and_nothing_else(tmp_path: Path) -> None:
    async with cluster(tmp_path / "server") as there:
        config = dataclasses.replace(
            load_kubeconfig(there.program.kubeconfig), certificate_data=b"", key_data=b"", token=""
        )
        async with Client.from_config(config) as stranger:
            info = await stranger.get(ConfigMap, "cluster-info", "kube-public")
            assert "users: null" in info.data["kubeconfig"]
            for kind, name, namespace in (
                (Secret, f"bootstrap-token-{IDENTITY}", "kube-system"),
                (ConfigMap, "extension-apiserver-authentication", "kube-system"),
            ):
                with pytest.raises(Forbidden):
                    await stranger.get(kind, name, namespace)
            with pytest.raises(Forbidden):
                await stranger.list_all(ConfigMap, "kube-public")


def test_tokens_are_read_and_told_without_their_secret() -> None:
    pin = pin_of(authorities(CA.certificate)[0])
    token = JoinToken.parse(f" {IDENTITY}.{SECRET}.{pin}\n")
    assert (token.identity, token.secret, token.pin) == (IDENTITY, SECRET, pin)
    assert (token.bearer, token.text) == (f"{IDENTITY}.{SECRET}", f"{IDENTITY}.{SECRET}.{pin}")
    assert SECRET not in repr(token)
    for wrong in ("", IDENTITY, token.bearer, f"{token.bearer}.{pin[:-1]}", f"{IDENTITY.upper()}.{SECRET}.{pin}"):
        with pytest.raises(TokenError) as caught:
            JoinToken.parse(wrong)
        assert SECRET not in str(caught.value)


def test_only_what_the_pin_vouches_for_is_trusted() -> None:
    other = tls.make_ca("one")
    bundle = authorities(CA.certificate + other.certificate)
    assert pinned(bundle, pin_of(bundle[0])) == CA.certificate
    assert pinned(bundle, pin_of(bundle[1])) == other.certificate
    assert pinned(bundle, "0" * 64) == b""
