"""Repositories over TLS: users, tokens, client certificates, CAs of one's own, redirects that take nothing along."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.errors import RepositoryError
from pilothouse.delivery.gitops.git import Access, Git
from pilothouse.delivery.gitops.mirrors import Limits, Mirror
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.tls import Credentials, issue, make_ca, server_context, write
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Secret
from support.githttp import GitServer, git_server
from support.gitopskit import World, config_map
from support.gitrepo import GitRepo


class Authority(NamedTuple):
    place: Path
    ca: Credentials

    def context(self, *, clients: bool = False) -> ssl.SSLContext:
        paths = str(self.place / "server.crt"), str(self.place / "server.key")
        write(issue(self.ca, "git", hosts=["127.0.0.1"], server=True), *paths)
        (self.place / "ca.crt").write_bytes(self.ca.certificate)
        return server_context(*paths, client_ca=str(self.place / "ca.crt") if clients else None)

    @property
    def text(self) -> str:
        return self.ca.certificate.decode()

    def client(self) -> tuple[str, str]:
        made = issue(self.ca, "ada", client=True)
        return made.certificate.decode(), made.key.decode()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    place = tmp_path / "tls"
    place.mkdir()
    return Authority(place, make_ca("test"))


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path, "ada", "hunter2-secret", tls=authority.context()) as server:
        yield server


def mirror_of(url: str, tmp_path: Path, access: Access) -> Mirror:
    git = Git(str(tmp_path / "git"))
    return Mirror(parse_address(url), str(tmp_path / "mirrors"), git, FakeClock(), Limits(), access)


async def test_an_application_with_a_ca_of_its_own(
    world: World, repo: GitRepo, server: GitServer, authority: Authority
) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    url = f"{server.url}/repo/.git"
    labels = {"argocd.argoproj.io/secret-type": "repository"}
    data = {"url": url, "username": "ada", "password": "hunter2-secret"}
    metadata = ObjectMeta(name="shop", namespace="argocd", labels=labels)
    await world.client.create(Secret(metadata=metadata, string_data=data))
    await world.settle(1)
    await world.make(source={"repoURL": url})
    await world.settle(1)
    (said,) = (await world.app()).status.conditions
    assert "its certificate is not trusted; add its CA, under the name of the host" in said.message
    assert server.seen == [], "nothing is told to a server that nobody vouches for"
    labels = {"app.kubernetes.io/part-of": "argocd"}
    metadata = ObjectMeta(name="argocd-tls-certs-cm", namespace="argocd", labels=labels)
    await world.client.create(ConfigMap(metadata=metadata, data={"127.0.0.1": authority.text}))
    await world.settle(15)
    await world.gitops.repositories.idle()
    await world.settle(15)
    assert await world.data("a") == {"x": "1"}


@pytest.mark.parametrize("how", ["password", "insecure", "token as password", "bearer", "certificate"])
async def test_what_opens_a_repository(repo: GitRepo, authority: Authority, tmp_path: Path, how: str) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    access = Access(ca=authority.text)
    context, user, password, token = authority.context(), "", "", ""
    if how == "password":
        user, password = "ada", "hunter2"
        access = replace(access, username=user, password=password)
    elif how == "insecure":
        access = Access(insecure=True)
    elif how == "token as password":
        user, password = "x-access-token", "t0ken"
        access = replace(access, password=password)
    elif how == "bearer":
        token = "t0ken"
        access = replace(access, bearer_token=token)
    else:
        context = authority.context(clients=True)
        certificate, key = authority.client()
        access = replace(access, tls_certificate=certificate, tls_key=key)
    with git_server(tmp_path, user, password, token=token, tls=context) as server:
        mirror = mirror_of(f"{server.url}/repo/.git", tmp_path, access)
        assert (await mirror.look(60)).resolve("main") == commit
        await mirror.ensure(commit)


async def test_without_its_certificate_a_client_is_refused(repo: GitRepo, authority: Authority, tmp_path: Path) -> None:
    repo.commit({"x.yaml": "x: 1\n"})
    with (
        git_server(tmp_path, tls=authority.context(clients=True)) as server,
        pytest.raises(RepositoryError, match="unable to access"),
    ):
        await mirror_of(f"{server.url}/repo/.git", tmp_path, Access(ca=authority.text)).look(60)
    assert server.requests == []


async def test_a_redirect_takes_no_credentials_along(
    repo: GitRepo, server: GitServer, authority: Authority, tmp_path: Path
) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    access = Access(username="ada", password="hunter2-secret", ca=authority.text)
    for token in ("", "t0ken-secret"):
        with git_server(tmp_path, tls=authority.context()) as other:
            server.redirect = other.url
            mirror = mirror_of(f"{server.url}/repo/.git", tmp_path, replace(access, bearer_token=token))
            with pytest.raises(RepositoryError, match="write the address that it leads to") as raised:
                await mirror.look(60)
            with pytest.raises(RepositoryError):
                await mirror.ensure(commit)
            assert (other.requests, other.seen) == ([], [])
            assert "secret" not in str(raised.value)
