"""Kubeconfig files: what is read, how several are merged, and what is said about wrong ones."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.client import ConfigError, Impersonation, load_kubeconfig
from pilothouse.client.kubeconfig import kubeconfig_paths

GOOD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "dev",
    "preferences": {},
    "clusters": [{"name": "c1", "cluster": {"server": "https://10.0.0.1:6443"}}],
    "users": [{"name": "u1", "user": {"token": "t0k3n"}}],
    "contexts": [
        {"name": "dev", "context": {"cluster": "c1", "user": "u1", "namespace": "team"}},
        {"name": "bare", "context": {"cluster": "c1"}},
    ],
}


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def changed(**fields: Any) -> dict[str, Any]:
    """Return the good one with fields of its cluster, user or context replaced: `user__token=3`."""
    made = copy.deepcopy(GOOD)
    for path, value in fields.items():
        kind, _, name = path.partition("__")
        made[f"{kind}s"][0][kind][name.replace("_", "-")] = value
    return made


def test_the_current_context(tmp_path: Path) -> None:
    path = write(tmp_path / "config", GOOD)
    found = load_kubeconfig(path)
    assert (found.server, found.token, found.namespace) == ("https://10.0.0.1:6443", "t0k3n", "team")
    assert found.source == f"context \"dev\" in {path}, cluster 'c1', user 'u1'"
    assert "t0k3n" not in repr(found)


def test_another_context_and_a_user_that_is_none(tmp_path: Path) -> None:
    found = load_kubeconfig(write(tmp_path / "config", GOOD), context="bare")
    assert (found.token, found.namespace) == ("", "default")
    assert load_kubeconfig(write(tmp_path / "config", GOOD), namespace="mine").namespace == "mine"


def test_json_is_yaml_too(tmp_path: Path) -> None:
    assert load_kubeconfig(write(tmp_path / "config", json.dumps(GOOD))).token == "t0k3n"


def test_all_fields(tmp_path: Path) -> None:
    for name in ("ca.crt", "u.crt", "u.key", "token"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    found = load_kubeconfig(
        write(
            tmp_path / "config",
            changed(
                cluster__certificate_authority="ca.crt",
                cluster__tls_server_name="api",
                cluster__proxy_url="socks5://proxy:1080",
                cluster__disable_compression=True,
                user__client_certificate="u.crt",
                user__client_key=str(tmp_path / "u.key"),
                user__tokenFile="token",
                user__username="n",
                user__password="p",
                user__as="jane",
                user__as_groups=["g"],
                user__as_uid="1",
                user__as_user_extra={"k": ["v"]},
            ),
        )
    )
    assert found.ca_file == str(tmp_path / "ca.crt")
    assert (found.certificate_file, found.key_file) == (str(tmp_path / "u.crt"), str(tmp_path / "u.key"))
    assert (found.token_file, found.tls_server_name) == (str(tmp_path / "token"), "api")
    assert (found.proxy_url, found.compression) == ("socks5://proxy:1080", False)
    assert found.impersonate == Impersonation("jane", ("g",), "1", {"k": ["v"]})
    assert (found.username, found.password) == ("n", "p")


def test_data_count_before_files(tmp_path: Path) -> None:
    found = load_kubeconfig(
        write(
            tmp_path / "config",
            changed(
                cluster__certificate_authority_data=b64("CA"),
                cluster__certificate_authority="nowhere",
                user__client_certificate_data=b64("CRT"),
                user__client_certificate="nowhere",
                user__client_key_data=b64("KEY"),
            ),
        )
    )
    assert (found.ca_data, found.ca_file, found.certificate_data, found.certificate_file, found.key_data) == (
        b"CA",
        "",
        b"CRT",
        "",
        b"KEY",
    )


def test_of_several_files_the_first_that_sets_something_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second, third = copy.deepcopy(GOOD), copy.deepcopy(GOOD)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ca").write_text("CA", encoding="utf-8")
    first = {"clusters": [{"name": "c1", "cluster": {"server": "https://first", "certificate-authority": "ca"}}]}
    second["current-context"], second["users"] = "bare", [{"name": "u1", "user": {"username": "n"}}]
    third["clusters"][0]["cluster"]["tls-server-name"] = "third"
    paths = [
        write(tmp_path / "sub" / "first", first),
        str(tmp_path / "missing"),
        write(tmp_path / "second", second),
        write(tmp_path / "third", third),
    ]
    monkeypatch.setenv("KUBECONFIG", ":".join(["", *paths, paths[0]]))
    assert kubeconfig_paths() == paths
    found = load_kubeconfig(context="dev")
    assert (found.server, found.tls_server_name) == ("https://first", "")  # entries are taken whole
    assert found.ca_file == str(tmp_path / "sub" / "ca")  # from where its own file is
    assert (found.token, found.username) == ("", "n")
    assert load_kubeconfig().source.startswith('context "bare"')


def test_where_files_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kubeconfig_paths() == [str(tmp_path / ".kube" / "config")]
    assert kubeconfig_paths("~/x") == [str(tmp_path / "x")]
    with pytest.raises(ConfigError, match=r"there is no such file; pass a path, set KUBECONFIG.*Client.in_cluster"):
        load_kubeconfig()


def test_exec_plugins(tmp_path: Path) -> None:
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./bin/login",
        "args": ["--x"],
        "env": [{"name": "A", "value": "b"}],
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": True,
        "installHint": "install it",
    }
    extension = [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}]
    path = write(tmp_path / "config", changed(user__exec=plugin, cluster__extensions=extension))
    found = load_kubeconfig(path).exec
    assert found is not None
    assert Path(found.command) == tmp_path / "bin/login"
    assert (found.args, found.env, found.interactive) == (("--x",), {"A": "b"}, False)
    assert found.cluster == {"server": "https://10.0.0.1:6443", "config": {"audience": "a"}}
    plain = load_kubeconfig(write(tmp_path / "config", changed(user__exec={**plugin, "command": "login"}))).exec
    assert plain is not None
    assert plain.command == "login"  # of PATH


def _without(name: str) -> Callable[[], Any]:
    return lambda: {key: value for key, value in GOOD.items() if key != name}


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "interactiveMode": "Never"}

WRONG: dict[str, tuple[Any, str]] = {
    "yaml": ("a: [1\nb: 2", r"not YAML: .* \(line 2, column 2\)"),
    "bytes": ("\x00", "not YAML"),
    "list": ("- a", "is no object; it should begin with `apiVersion: v1`"),
    "kind": ({"kind": "Pod", "apiVersion": "v1"}, "kind 'Pod' of 'v1'; want kind Config"),
    "empty": ("", r"current-context is not set; pass context=.*contexts: there are none"),
    "no current": (_without("current-context")(), r'current-context is not set.*"dev", "bare"'),
    "current": ({**GOOD, "current-context": "x"}, r'current-context: there is no context "x"; contexts: "dev", "bare"'),
    "current type": ({**GOOD, "current-context": 1}, "current-context: a value of type int is no text"),
    "clusters": ({**GOOD, "clusters": {}}, "clusters: is no list"),
    "cluster": ({**GOOD, "clusters": ["x"]}, r"clusters\[0\]: is no object"),
    "cluster name": ({**GOOD, "clusters": [{"cluster": {}}]}, r"clusters\[0\].name: missing"),
    "cluster fields": ({**GOOD, "clusters": [{"name": "c1", "cluster": 1}]}, r'"c1": cluster: is no object'),
    "twice": ({**GOOD, "users": GOOD["users"] * 2}, r'users: "u1" is there twice'),
    "no cluster": (changed(context__cluster=""), r'context "dev" in .*: cluster: is missing; name one.*"c1"'),
    "other cluster": (changed(context__cluster="c9"), r'context "dev" in .*: cluster: there is no cluster "c9"'),
    "other user": (changed(context__user="u9"), r'context "dev" in .*: user: there is no user "u9" in .*; users: "u1"'),
    "namespace": (changed(context__namespace=5), r'context "dev" in .*: namespace: a value of type int is no text'),
    "no server": (changed(cluster__server=""), r'cluster "c1" in .*: server: is missing; want the API server'),
    "server": (changed(cluster__server="ftp://x"), r'cluster "c1" in .*: server: .* is no URL of a server'),
    "server port": (changed(cluster__server="https://x:y"), "is no URL of a server"),
    "server user": (changed(cluster__server="https://u:p@x"), "is no URL of a server"),
    "insecure": (changed(cluster__insecure_skip_tls_verify="yes"), "is neither true nor false"),
    "insecure and ca": (
        changed(cluster__insecure_skip_tls_verify=True, cluster__certificate_authority_data=b64("x")),
        "insecure-skip-tls-verify: cannot be with a certificate authority",
    ),
    "ca data": (changed(cluster__certificate_authority_data="!"), "certificate-authority-data: is not base64; encode"),
    "ca file": (changed(cluster__certificate_authority="no.crt"), r"certificate-authority: file .*/no.crt: No such"),
    "proxy": (changed(cluster__proxy_url="ftp://x"), "proxy-url: is no URL of a proxy; want http"),
    "token": (changed(user__token=123), r'user "u1" in .*: token: a value of type int is no text; put it into quotes'),
    "token file": (changed(user__tokenFile="no"), r"tokenFile: file .*/no: No such file"),
    "key alone": (changed(user__client_key_data=b64("x")), "client-certificate: is missing, but there is a client-key"),
    "certificate alone": (changed(user__client_certificate_data=b64("x")), "client-key: is missing, but there is a"),
    "as": (changed(user__as_groups=["g"]), "as: is missing, but there are groups"),
    "as groups": (changed(user__as="x", user__as_groups=[1]), "as-groups: is no list of texts"),
    "as extra": (changed(user__as="x", user__as_user_extra={"k": "v"}), "as-user-extra.k: is no list of texts"),
    "provider": (changed(user__auth_provider={"name": "gcp"}), "auth-provider: 'gcp' was removed.*use its `exec`"),
    "exec": (changed(user__exec=1), "exec: a value of type int is no object"),
    "exec version": (
        changed(user__exec={**EXEC, "apiVersion": "client.authentication.k8s.io/v1alpha1"}),
        "exec.apiVersion: .*v1alpha1' is not supported",
    ),
    "exec command": (changed(user__exec={**EXEC, "command": ""}), "exec.command: is missing"),
    "exec mode": (changed(user__exec={**EXEC, "interactiveMode": "Maybe"}), "exec.interactiveMode: 'Maybe'; want one"),
    "exec no mode": (changed(user__exec={**EXEC, "interactiveMode": None}), "exec.interactiveMode: ''; want one of"),
    "exec args": (changed(user__exec={**EXEC, "args": [1]}), "exec.args: is no list of texts; put numbers into quotes"),
    "exec env": (changed(user__exec={**EXEC, "env": {"A": "b"}}), "exec.env: is no list"),
    "exec env value": (changed(user__exec={**EXEC, "env": [{"name": "A", "value": 1}]}), r"exec.env\[0\]: want a name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_says_where_and_what_to_do(case: str, tmp_path: Path) -> None:
    content, message = WRONG[case]
    path = write(tmp_path / "config", content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_kubeconfig(path)
    assert path in str(caught.value)


def test_no_secret_is_in_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "config", "users:\n- name: u\n  user: {token: s3cret, : [}\n")
    with pytest.raises(ConfigError) as caught:
        load_kubeconfig(path)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_kubeconfig(tmp_path)
    (tmp_path / "big").write_bytes(b"#" * (9 << 20))
    with pytest.raises(ConfigError, match="this is no kubeconfig"):
        load_kubeconfig(tmp_path / "big")
