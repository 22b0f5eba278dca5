"""Real repositories: over HTTP with credentials, signed, hostile."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.directory import read_directory
from pilothouse.delivery.gitops.errors import ManifestError, RepositoryError, RevisionError, SourceError
from pilothouse.delivery.gitops.git import Access, Git
from pilothouse.delivery.gitops.mirrors import Limits, Mirror, checked_path
from pilothouse.delivery.gitops.settings import access_of
from pilothouse.delivery.resources.applications import AppProject, SourceDirectory
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Secret, from_dict
from support.githttp import git_server
from support.gitopskit import Begin, World, config_map
from support.gitrepo import GitRepo


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(str(tmp_path / "git"))


def mirror_of(url: str, git: Git, tmp_path: Path, **more: Any) -> Mirror:
    return Mirror(parse_address(url), str(tmp_path / "mirrors"), git, FakeClock(), more.pop("limits", Limits()), **more)


async def test_one_fetch_for_all_and_none_for_what_is_there(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    first = repo.commit({"a/x.yaml": "x: 1\n", "b/y.yaml": "y: 1\n"})
    mirror = mirror_of(repo.url, git, tmp_path)
    references = await mirror.look(60)
    assert references.resolve("main") == first
    for _ in range(3):
        await mirror.ensure(first)
        assert (await mirror.look(60)) is references
    assert (mirror.fetches, mirror.polls) == (1, 1)
    before = await mirror.named(first, ["a", "b", "c", ""])
    assert [before[path] and before[path].kind for path in ("a", "b", "c", "")] == ["tree", "tree", None, "tree"]  # type: ignore[union-attr]
    second = repo.commit({"a/x.yaml": "x: 2\n"})
    mirror.stale()
    assert (await mirror.look(60)).resolve("") == second
    await mirror.ensure(second)
    after = await mirror.named(second, ["a", "b"])
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]
    assert mirror.fetches == 2
    # Another program that begins anew finds it all there.
    again = mirror_of(repo.url, git, tmp_path)
    await again.ensure(second)
    assert again.fetches == 0


async def test_old_commits_are_let_go(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    mirror = mirror_of(repo.url, git, tmp_path, limits=Limits(commits=2))
    for number in range(5):
        commit = repo.commit({"x.yaml": f"x: {number}\n"})
        await mirror.ensure(commit)
    kept = await git.run(["for-each-ref", "--format=%(refname)"], repository=mirror.path)
    assert len(kept.split()) == 2


async def test_a_mirror_that_was_killed_while_it_was_made_is_made_anew(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    mirror = mirror_of(repo.url, git, tmp_path)
    os.makedirs(f"{mirror.path}/objects")
    await mirror.ensure(commit)
    leave(mirror.path)
    commit = repo.commit({"x.yaml": "x: 2\n"})
    await mirror_of(repo.url, git, tmp_path).ensure(commit)


def leave(path: str) -> None:
    Path(path, "shallow.lock").write_text("")


async def test_a_commit_that_is_not_there_is_said(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    repo.commit({"x.yaml": "x: 1\n"})
    with pytest.raises(SourceError):
        await mirror_of(repo.url, git, tmp_path).ensure("1" * 40)


async def test_credentials_come_from_secrets_and_are_shown_nowhere(
    begin: Begin, repo: GitRepo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    caplog.set_level(logging.DEBUG)
    with git_server(tmp_path, "ada", "hunter2-secret") as server:
        async with begin() as world:
            url = f"{server.url}/repo/.git"
            await world.make(source={"repoURL": url})
            await world.settle()
            app = await world.app()
            assert app.status.conditions[0].type == "ComparisonError"
            await secret(world, "repo-creds", url=server.url, username="ada", password="hunter2-wrong")
            await world.settle(15)
            await world.gitops.repositories.idle()
            await world.settle(15)
            assert await world.data("a") is None
            await world.client.patch(Secret, "repo-creds", {"stringData": {"password": "hunter2-secret"}}, "argocd")
            await world.settle(15)
            await world.gitops.repositories.idle()
            await world.settle(15)
            assert await world.data("a") == {"x": "1"}
            status = await world.client.get(type(app), "shop", "argocd", raw=True)
            assert b"hunter2" not in status
    assert "hunter2" not in caplog.text
    assert "hunter2" not in repr(access_of({"password": "hunter2"}))


async def secret(world: World, kind: str, **data: str) -> None:
    labels = {"argocd.argoproj.io/secret-type": kind}
    made = Secret(metadata=ObjectMeta(name=kind, namespace="argocd", labels=labels), string_data=data)
    await world.client.create(made)


async def test_nothing_secret_is_on_a_command_line_or_in_errors(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    tools = tmp_path / "bin"
    tools.mkdir()
    real = shutil.which("git")
    noted = tmp_path / "noted"
    (tools / "git").write_text(f'#!/bin/sh\necho "$@" >> {noted}\nexec {real} "$@"\n')
    (tools / "git").chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{tools}:{path}"
    try:
        with git_server(tmp_path, "ada", "hunter2") as server:
            access = Access(username="ada", password="hunter2", ssh_key="PRIVATE-KEY")
            mirror = mirror_of(f"{server.url}/repo/.git", git, tmp_path, access=access)
            await mirror.look(60)
            await mirror.ensure(commit)
            mirror.access = Access(username="ada", password="hunter2-wrong")
            mirror.stale()
            with pytest.raises(RepositoryError) as raised:
                await mirror.look(0)
    finally:
        os.environ["PATH"] = path
    assert "hunter2" not in str(raised.value)
    assert "ls-remote" in noted.read_text()
    assert "hunter2" not in noted.read_text()
    assert "PRIVATE" not in noted.read_text()


async def test_a_token_is_sent_as_bearer(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    with git_server(tmp_path, token="t0ken") as server:
        mirror = mirror_of(f"{server.url}/repo/.git", git, tmp_path, access=Access(bearer_token="t0ken"))
        assert (await mirror.look(60)).resolve("main") == commit
        await mirror.ensure(commit)


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tools / "git").chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{tools}:{path}"
    try:
        slow = Git(str(tmp_path / "git"), seconds=0.2)
        with pytest.raises(RepositoryError, match=r"not done within 0\.2 s"):
            await mirror_of("file:///nowhere", slow, tmp_path).look(60)
    finally:
        os.environ["PATH"] = path


# Hostile trees


async def read(repo: GitRepo, git: Git, tmp_path: Path, path: str = "app", **options: Any) -> list[str]:
    mirror = mirror_of(repo.url, git, tmp_path)
    commit = (await mirror.look(60)).resolve("main")
    await mirror.ensure(commit)
    tree = (await mirror.named(commit, [path]))[path]
    assert tree is not None
    limits = options.pop("limits", Limits())
    found = await read_directory(mirror, path, tree.oid, SourceDirectory(**options), limits)
    return [each.object["metadata"]["name"] for each in found]


async def test_links_within_the_directory_are_followed(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    repo.write({"app/real/a.yaml": config_map("a"), "app/b.yaml": config_map("b")})
    os.symlink("real/a.yaml", repo.path / "app" / "link.yaml")
    os.symlink("link.yaml", repo.path / "app" / "twice.yaml")
    repo.commit()
    assert await read(repo, git, tmp_path, recurse=True, exclude="real/*") == ["b", "a", "a"]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("../outside.yaml", "out of the directory"),
        ("/etc/passwd", "out of the directory"),
        ("../../../../etc/passwd", "out of the directory"),
        ("nothing.yaml", "no file is"),
        ("link.yaml", "circle"),
    ],
)
async def test_other_links_are_refused(repo: GitRepo, git: Git, tmp_path: Path, target: str, why: str) -> None:
    repo.write({"app/b.yaml": config_map("b"), "outside.yaml": config_map("o")})
    os.symlink(target, repo.path / "app" / "link.yaml")
    repo.commit()
    with pytest.raises(ManifestError, match=why) as raised:
        await read(repo, git, tmp_path)
    assert str(raised.value).startswith("app/link.yaml")


async def test_huge_files_and_directories_are_refused(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="x" * 5000), "app/b.yaml": config_map("b")})
    with pytest.raises(ManifestError, match=r"app/a\.yaml: it has \d+ bytes"):
        await read(repo, git, tmp_path, limits=Limits(file_bytes=1000))


async def test_a_tree_with_names_that_escape_is_not_fetched(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    blob = repo.git("hash-object", "-w", "--stdin", stdin=config_map("evil").encode())
    for name in ("..", ".git", "a/../../b"):
        raw = f"100644 {name}".encode() + b"\0" + bytes.fromhex(blob)
        tree = repo.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=raw)
        commit = repo.git("commit-tree", tree, "-m", "evil")
        repo.git("update-ref", "refs/heads/main", commit)
        mirror = mirror_of(repo.url, git, tmp_path)
        with pytest.raises(SourceError):
            await mirror.ensure(commit)


async def test_settings_and_hooks_of_a_repository_do_nothing(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    commit = repo.commit({"x.yaml": "x: 1\n"})
    touched = tmp_path / "touched"
    for name in ("post-checkout", "reference-transaction", "pre-auto-gc", "post-update"):
        hook = repo.path / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {touched}\n")
        hook.chmod(0o755)
    repo.git("config", "core.fsmonitor", f"touch {touched}")
    repo.git("config", "uploadpack.packObjectsHook", f"touch {touched}")
    mirror = mirror_of(repo.url, git, tmp_path)
    await mirror.look(60)
    await mirror.ensure(commit)
    assert not touched.exists()


async def test_submodules_and_other_transports_are_left_alone(repo: GitRepo, git: Git, tmp_path: Path) -> None:
    repo.write(
        {".gitmodules": '[submodule "s"]\n\tpath = app/s\n\turl = ext::touch x\n', "app/a.yaml": config_map("a")}
    )
    repo.git("add", "--all")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},app/s")
    repo.git("commit", "--quiet", "--message", "submodule")
    assert await read(repo, git, tmp_path, recurse=True) == ["a"]


def test_paths_that_escape_are_refused() -> None:
    assert checked_path("./a//b/") == "a/b"
    assert checked_path(".") == ""
    for path in ("..", "a/../../b", "a/.git/hooks", "a\\b", "a\nb"):
        with pytest.raises(RevisionError):
            checked_path(path)


# Signed commits


def sign_by_ssh(repo: GitRepo, tmp_path: Path) -> str:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", str(key)], check=True)
    repo.git("config", "gpg.format", "ssh")
    repo.git("config", "user.signingkey", str(key))
    return f"ada@example.com {key.with_suffix('.pub').read_text()}"


async def test_commits_must_be_signed_where_the_project_says_so(world: World, repo: GitRepo, tmp_path: Path) -> None:
    signers = sign_by_ssh(repo, tmp_path)
    tree = {
        "metadata": {
            "name": "strict",
            "namespace": "argocd",
            "annotations": {"pilothouse.dev/allowed-signers": signers},
        },
        "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}]},
    }
    await world.client.create(from_dict(tree, AppProject))
    repo.commit({"app/a.yaml": config_map("a", x="1")}, "--gpg-sign")
    await world.make(project="strict")
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    await world.push({"app/a.yaml": config_map("a", x="unsigned")})
    assert await world.data("a") == {"x": "1"}
    assert "not signed as project strict demands" in (await world.app()).status.conditions[0].message
    repo.git("config", "user.signingkey", "")
    other = tmp_path / "other"
    other.mkdir()
    sign_by_ssh(repo, other)
    repo.commit({"app/a.yaml": config_map("a", x="stranger")}, "--gpg-sign")
    await world.news()
    assert await world.data("a") == {"x": "1"}


def gpg_key(home: Path) -> tuple[str, str]:
    """Make a key; return its id and itself."""
    home.mkdir(mode=0o700)
    base = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*base, "--quick-generate-key", "ada@example.com", "ed25519", "sign"], check=True)
    listed = subprocess.run([*base, "--list-keys", "--with-colons"], check=True, capture_output=True, text=True).stdout
    key = next(line.split(":")[4] for line in listed.splitlines() if line.startswith("pub"))
    armoured = subprocess.run([*base, "--armor", "--export", key], check=True, capture_output=True, text=True).stdout
    return key, armoured


def end_gpg(home: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    shutil.rmtree(home.parent, ignore_errors=True)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not there")
async def test_commits_signed_by_gpg(world: World, repo: GitRepo, tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="ph"))  # sockets want a short path
    try:
        key, armoured = gpg_key(home / "g")
        tree = {
            "metadata": {"name": "strict", "namespace": "argocd"},
            "spec": {
                "sourceRepos": ["*"],
                "destinations": [{"server": "*", "namespace": "*"}],
                "signatureKeys": [{"keyID": key}],
            },
        }
        await world.client.create(from_dict(tree, AppProject))
        labels = {"app.kubernetes.io/part-of": "argocd"}
        metadata = ObjectMeta(name="argocd-gpg-keys-cm", namespace="argocd", labels=labels)
        await world.client.create(ConfigMap(metadata=metadata, data={key: armoured}))
        script = tmp_path / "gpg"
        script.write_text(
            f'#!/bin/sh\nexec gpg --homedir {home}/g --batch --pinentry-mode loopback --passphrase "" "$@"\n'
        )
        script.chmod(0o755)
        repo.git("config", "gpg.program", str(script))
        repo.git("config", "user.signingkey", key)
        repo.commit({"app/a.yaml": config_map("a", x="1")}, "--gpg-sign")
        await world.make(project="strict")
        await world.settle()
        assert await world.data("a") == {"x": "1"}, (await world.app()).status.conditions
        await world.push({"app/a.yaml": config_map("a", x="unsigned")})
        assert await world.data("a") == {"x": "1"}
    finally:
        end_gpg(home / "g")


async def test_credentials_of_one_project_open_nothing_for_another(world: World, repo: GitRepo, tmp_path: Path) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    with git_server(tmp_path, "ada", "hunter2") as server:
        url = f"{server.url}/repo/.git"
        await secret(world, "repository", url=url, username="ada", password="hunter2", project="one")
        for name in ("one", "two"):
            spec = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}]}
            tree = {"metadata": {"name": name, "namespace": "argocd"}, "spec": spec}
            await world.client.create(from_dict(tree, AppProject))
            await world.make(name, project=name, source={"repoURL": url})
            await world.settle(1)
        assert (await world.sync_of("one"))[0] == "Synced"
        assert (await world.sync_of("two"))[0] == "Unknown"
