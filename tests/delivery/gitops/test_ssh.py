"""Repositories over ssh: a real sshd, host keys, and keys that stay where they belong."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.errors import RepositoryError
from pilothouse.delivery.gitops.git import Access, Git
from pilothouse.delivery.gitops.mirrors import Limits, Mirror
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Secret
from support.gitopskit import World, config_map
from support.gitrepo import GitRepo
from support.sshd import MISSING, SSHD, Sshd, make_key, sshd

pytestmark = pytest.mark.skipif(SSHD is None, reason=MISSING)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh") / "sshd") as made:
        yield made


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory for files of a run, with a name that wants quotes."""
    place = tmp_path / "a place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def mirror_of(url: str, tmp_path: Path, access: Access) -> Mirror:
    git = Git(str(tmp_path / "git"))
    return Mirror(parse_address(url), str(tmp_path / "mirrors"), git, FakeClock(), Limits(), access)


async def test_an_application_with_keys_and_hosts_of_argo_cd(
    world: World, repo: GitRepo, host: Sshd, caplog: pytest.LogCaptureFixture
) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    caplog.set_level(logging.DEBUG)
    labels = {"argocd.argoproj.io/secret-type": "repository"}
    data = {"url": host.url(repo.path), "sshPrivateKey": host.key}
    await world.client.create(
        Secret(metadata=ObjectMeta(name="shop", namespace="argocd", labels=labels), string_data=data)
    )
    labels = {"app.kubernetes.io/part-of": "argocd"}
    hosts = ConfigMap(
        metadata=ObjectMeta(name="argocd-ssh-known-hosts-cm", namespace="argocd", labels=labels),
        data={"ssh_known_hosts": f"example.com {(host.place / 'user.pub').read_text()}"},
    )
    await world.client.create(hosts)
    await world.settle(1)
    await world.make(source={"repoURL": host.url(repo.path)})
    await world.settle(1)
    (said,) = (await world.app()).status.conditions
    assert said.type == "ComparisonError"
    assert f"host key of [127.0.0.1]:{host.port} is not known; add it to ssh_known_hosts of ConfigMap" in said.message
    assert await world.data("a") is None
    change = {"data": {"ssh_known_hosts": f"{hosts.data['ssh_known_hosts']}{host.known_hosts}"}}
    await world.client.patch(ConfigMap, hosts.metadata.name, change, "argocd")
    await world.settle(15)
    await world.gitops.repositories.idle()
    await world.settle(15)
    assert await world.data("a") == {"x": "1"}
    raw = await world.client.get(type(await world.app()), "shop", "argocd", raw=True)
    body = host.key.splitlines()[2]
    assert body.encode() not in raw
    assert body not in caplog.text


async def test_the_key_is_a_private_file_for_one_run(
    repo: GitRepo, host: Sshd, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    tools, noted = tmp_path / "bin", tmp_path / "noted"
    tools.mkdir()
    look = f'stat -c "%a %n" "{temporary}"/*/* "{temporary}"/* >> {noted}'
    (tools / "ssh").write_text(f'#!/bin/sh\n{look}\nexec {shutil.which("ssh")} "$@"\n')
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    mirror = mirror_of(host.url(repo.path), tmp_path, Access(ssh_key=host.key, known_hosts=host.known_hosts))
    assert (await mirror.look(60)).resolve("main") == commit
    await mirror.ensure(commit)
    modes = {(Path(line.split(" ", 1)[1]).name, line.split()[0]) for line in noted.read_text().splitlines()}
    assert {each for each in modes if each[0] in {"key", "hosts"}} == {("key", "600"), ("hosts", "600")}
    assert {mode for name, mode in modes if name.startswith("pilothouse-git-")} == {"700"}
    assert os.listdir(temporary) == []
    mirror.access = Access(ssh_key=host.key)
    mirror.stale()
    with pytest.raises(RepositoryError):
        await mirror.look(0)
    assert os.listdir(temporary) == [], "also after a failure"


async def test_keys_as_windows_writes_them(repo: GitRepo, host: Sshd, tmp_path: Path) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    access = Access(ssh_key=host.key.rstrip("\n").replace("\n", "\r\n"), known_hosts=host.known_hosts.rstrip("\n"))
    assert (await mirror_of(host.url(repo.path), tmp_path, access).look(60)).resolve("main") == commit


async def test_insecure_takes_any_host(repo: GitRepo, host: Sshd, tmp_path: Path) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    access = Access(ssh_key=host.key, insecure=True)
    assert (await mirror_of(host.url(repo.path), tmp_path, access).look(60)).resolve("main") == commit


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("another host key", "not that of ssh_known_hosts of ConfigMap argocd-ssh-known-hosts-cm"),
        ("unknown host", "is not known; add it to ssh_known_hosts"),
        ("a key that opens nothing", "Permission denied (publickey); give sshPrivateKey in a repository Secret"),
        ("no key", "Permission denied (publickey); give sshPrivateKey in a repository Secret"),
        ("no key at all", "is no private key"),
        ("no repository", "does not appear to be a git repository"),
        ("a path of a shell", "does not appear to be a git repository"),
        ("nobody there", "Connection refused"),
    ],
)
async def test_what_fails_says_what_to_do(repo: GitRepo, host: Sshd, tmp_path: Path, what: str, why: str) -> None:
    repo.commit({"x.yaml": "x: 1\n"})
    make_key(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    url, key, hosts = host.url(repo.path), host.key, host.known_hosts
    if what == "another host key":
        hosts = f"[127.0.0.1]:{host.port} {other}"
    elif what == "unknown host":
        hosts = f"example.com {other}"
    elif what == "a key that opens nothing":
        key = (tmp_path / "other").read_text()
    elif what == "no key":
        key = ""
    elif what == "no key at all":
        key = "hunter2"
    elif what == "no repository":
        url = host.url(tmp_path / "none")
    elif what == "a path of a shell":
        url = f"{host.url(repo.path)}';touch${{IFS}}{tmp_path}/touched;'"
    else:
        url = "ssh://root@127.0.0.1:1/x"
    with pytest.raises(RepositoryError) as raised:
        await mirror_of(url, tmp_path, Access(ssh_key=key, known_hosts=hosts)).look(60)
    assert why in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert not (tmp_path / "touched").exists()


async def test_hosts_and_keys_of_whoever_runs_it_are_not_used(
    repo: GitRepo, host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh looks below the home of the account, whatever HOME is: what it is told must keep it from there."""
    noted = tmp_path / "noted"
    tools = tmp_path / "bin"
    tools.mkdir()
    script = f'#!/bin/sh\n{shutil.which("ssh")} -G "$@" >> {noted}\nexit 1\n'
    (tools / "ssh").write_text(script)
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    for access in (Access(known_hosts=host.known_hosts), Access(ssh_key=host.key, known_hosts=host.known_hosts)):
        noted.write_text("")
        with pytest.raises(RepositoryError):
            await mirror_of(host.url(repo.path), tmp_path, access).look(60)
        settings = dict(line.split(" ", 1) for line in noted.read_text().splitlines() if " " in line)
        assert settings["globalknownhostsfile"] == "/dev/null"
        assert settings["userknownhostsfile"].endswith("/hosts")
        assert settings["identityfile"] == "none" if not access.ssh_key else settings["identityfile"].endswith("/key")
        assert settings["stricthostkeychecking"] in {"true", "yes"}
        assert settings["forwardagent"] == "no"


def test_the_server_is_a_real_one(host: Sshd) -> None:
    assert subprocess.run([str(SSHD), "-t", "-f", str(host.place / "config")], check=False).returncode == 0
