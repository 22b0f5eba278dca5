"""A kubeconfig among others: what is there stays, ours is replaced, and nothing is ever half written or lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.apiserver.access.kubeconfig import KubeconfigError, write_kubeconfig
from pilothouse.apiserver.access.kubeconfigmerge import merge_kubeconfig
from pilothouse.client import load_kubeconfig

_OTHERS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {"colors": True},
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod:6443"}}],
    "users": [{"name": "kubernetes-admin", "user": {"token": "theirs"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "kubernetes-admin", "namespace": "web"}}],
    "current-context": "prod",
}


def ours(directory: Path, server: str = "https://127.0.0.1:6443") -> str:
    path = str(directory / "admin.kubeconfig")
    write_kubeconfig(path, server, b"", token="ours", user="kubernetes-admin")
    return path


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_new_file_is_ours_and_current(tmp_path: Path) -> None:
    target = tmp_path / "kube" / "config"
    merge_kubeconfig(ours(tmp_path), str(target))
    found = load_kubeconfig(target)
    assert (found.server, found.token) == ("https://127.0.0.1:6443", "ours")
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(target.parent) == ["config"]


def test_what_others_have_stays_and_so_does_the_current_context(tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text(yaml.safe_dump(_OTHERS), encoding="utf-8")
    target.chmod(0o644)
    for server in ("https://127.0.0.1:1", "https://127.0.0.1:2"):  # the second start has another port
        merge_kubeconfig(ours(tmp_path, server), str(target))
    found = read(target)
    for field in ("clusters", "users", "contexts"):
        assert found[field][:1] == _OTHERS[field]
        assert [each["name"] for each in found[field]][1:] == ["pilothouse"]
    assert (found["current-context"], found["preferences"]) == ("prod", {"colors": True})
    assert load_kubeconfig(target, context="pilothouse").server == "https://127.0.0.1:2"
    assert load_kubeconfig(target).token == "theirs"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("", encoding="utf-8")
    (tmp_path / "config").symlink_to("real")
    merge_kubeconfig(ours(tmp_path), str(tmp_path / "config"))
    assert (tmp_path / "config").is_symlink()
    assert read(tmp_path / "real")["current-context"] == "pilothouse"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes files of others")
def test_a_file_stays_its_owners(tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text("", encoding="utf-8")
    os.chown(target, 65534, 65533)
    merge_kubeconfig(ours(tmp_path), str(target))
    assert (target.stat().st_uid, target.stat().st_gid) == (65534, 65533)


@pytest.mark.parametrize("text", ["a: [", "- x", "kind: Pod\napiVersion: v1", "clusters: 7"])
def test_what_cannot_be_read_is_not_written_over(tmp_path: Path, text: str) -> None:
    target = tmp_path / "config"
    target.write_text(text, encoding="utf-8")
    with pytest.raises(KubeconfigError, match=str(target)):
        merge_kubeconfig(ours(tmp_path), str(target))
    assert target.read_text(encoding="utf-8") == text
    assert not (tmp_path / "config.lock").exists()


def test_who_changes_it_with_kubectl_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilothouse.apiserver.access import kubeconfigmerge

    monkeypatch.setattr(kubeconfigmerge, "_LOCK_SECONDS", 0.05)
    lock = tmp_path / "config.lock"
    lock.touch()
    with pytest.raises(KubeconfigError, match="remove that file if nobody does"):
        merge_kubeconfig(ours(tmp_path), str(tmp_path / "config"))
    assert (lock.exists(), (tmp_path / "config").exists()) == (True, False)
    lock.unlink()
    merge_kubeconfig(ours(tmp_path), str(tmp_path / "config"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KubeconfigError, match="file/config: cannot be written"):
        merge_kubeconfig(ours(tmp_path), str(tmp_path / "file" / "config"))
