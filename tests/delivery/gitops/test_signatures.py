"""Signed commits and tags, by the real gpg: who signed, with which key, and when that was good."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.delivery.resources.applications import Application, AppProject
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, from_dict
from support.gitopskit import World, config_map
from support.gitrepo import GitRepo

pytestmark = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not there")
LONG_AGO = "20200101T120000"


class Ring:
    """A keyring with keys of three people: one who may sign, a stranger, and one whose key has expired."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        self.base = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
        self.base += ["--passphrase", ""]
        self.keys = {name: self._make(name) for name in ("ada", "eve")}
        self.keys["old"] = self._make("old", "--faked-system-time", LONG_AGO)

    def _make(self, name: str, *options: str) -> str:
        address = f"{name}@example.com"
        lasting = "1d" if options else "0"
        words = [*self.base, *options, "--quick-generate-key", address, "ed25519", "sign", lasting]
        subprocess.run(words, check=True, capture_output=True)
        words = [*self.base, "--list-keys", "--with-colons", address]
        listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return next(line.split(":")[4] for line in listed.splitlines() if line.startswith("pub"))

    def public(self, name: str) -> str:
        words = [*self.base, "--armor", "--export", self.keys[name]]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def sign_as(self, repo: GitRepo, name: str) -> None:
        """Have a repository sign as somebody, at a time when the key was good."""
        faked = f"--faked-system-time {LONG_AGO}" if name == "old" else ""
        script = self.home / "sign"
        script.write_text(f'#!/bin/sh\nexec {" ".join(self.base[:-1])} "" {faked} "$@"\n')
        script.chmod(0o755)
        repo.git("config", "gpg.program", str(script))
        repo.git("config", "user.signingkey", self.keys[name])


@pytest.fixture(scope="module")
def ring() -> Iterator[Ring]:
    place = Path(tempfile.mkdtemp(prefix="ph"))  # sockets want a short path
    try:
        yield Ring(place / "g")
    finally:
        subprocess.run(["gpgconf", "--homedir", str(place / "g"), "--kill", "all"], check=False)
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
async def strict(world: World, ring: Ring) -> World:
    """Give a world with a project that wants signatures of two of them."""
    tree = {
        "metadata": {"name": "strict", "namespace": "argocd"},
        "spec": {
            "sourceRepos": ["*"],
            "destinations": [{"server": "*", "namespace": "*"}],
            "signatureKeys": [{"keyID": ring.keys[name]} for name in ("ada", "old")],
        },
    }
    await world.client.create(from_dict(tree, AppProject))
    labels = {"app.kubernetes.io/part-of": "argocd"}
    metadata = ObjectMeta(name="argocd-gpg-keys-cm", namespace="argocd", labels=labels)
    data = {ring.keys[name]: ring.public(name) for name in ring.keys}
    await world.client.create(ConfigMap(metadata=metadata, data=data))
    return world


async def test_who_may_sign(strict: World, repo: GitRepo, ring: Ring) -> None:
    ring.sign_as(repo, "ada")
    first = repo.commit({"app/a.yaml": config_map("a", x="1")}, "--gpg-sign")
    await strict.make(project="strict")
    await strict.settle()
    assert await strict.data("a") == {"x": "1"}, (await strict.app()).status.conditions
    for who, why in (("eve", "public key"), ("old", "expired"), ("", "no signature")):
        ring.sign_as(repo, who or "ada")
        repo.commit({"app/a.yaml": config_map("a", x=who or "nobody")}, *(["--gpg-sign"] if who else []))
        await strict.news()
        (said,) = (await strict.app()).status.conditions
        assert "is not signed as project strict demands: " in said.message
        assert why in said.message.lower(), said.message
        assert await strict.data("a") == {"x": "1"}
    ring.sign_as(repo, "ada")
    last = repo.commit({"app/a.yaml": config_map("a", x="5")}, "--gpg-sign")
    await strict.news()
    assert await strict.data("a") == {"x": "5"}
    assert first != last


@pytest.mark.parametrize(
    ("who", "how", "fine"),
    [("ada", "signed", True), ("eve", "signed", False), ("old", "signed", False), ("ada", "plain", False)],
)
async def test_a_signed_tag_of_a_commit_that_is_not(
    strict: World, repo: GitRepo, ring: Ring, who: str, how: str, fine: bool
) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    ring.sign_as(repo, who)
    repo.git("tag", *(["--sign", "--message", "one"] if how == "signed" else []), "v1.0.0")
    await strict.make(project="strict", source={"targetRevision": "v1.0.0"})
    await strict.settle()
    app = await strict.app()
    if not fine:
        assert await strict.data("a") is None
        assert "is not signed as project strict demands" in app.status.conditions[0].message
        return
    assert await strict.data("a") == {"x": "1"}, app.status.conditions
    # By its commit, as a rollback would have it, it is as good; another commit is not.
    await strict.client.patch(
        Application, "shop", {"spec": {"source": {"targetRevision": app.status.sync.revision}}}, "argocd"
    )
    await strict.settle()
    assert (await strict.sync_of())[0] == "Synced"
    assert not (await strict.app()).status.conditions
    repo.commit({"app/a.yaml": config_map("a", x="2")})
    await strict.client.patch(Application, "shop", {"spec": {"source": {"targetRevision": "main"}}}, "argocd")
    await strict.news()
    assert await strict.data("a") == {"x": "1"}
    assert "is not signed" in (await strict.app()).status.conditions[0].message


async def test_a_key_that_nobody_has(strict: World, repo: GitRepo, ring: Ring) -> None:
    ring.sign_as(repo, "ada")
    repo.commit({"app/a.yaml": config_map("a", x="1")}, "--gpg-sign")
    await strict.client.patch(AppProject, "strict", {"spec": {"signatureKeys": [{"keyID": "0" * 16}]}}, "argocd")
    await strict.make(project="strict")
    await strict.settle()
    assert f"none of the keys {'0' * 16} is in argocd-gpg-keys-cm" in (await strict.app()).status.conditions[0].message
    assert await strict.data("a") is None
