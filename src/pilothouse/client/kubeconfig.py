"""From kubeconfig files to how one server is reached: which files, which context, and what is wrong with them."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from .config import ClientConfig, ExecConfig, Impersonation
from .errors import ConfigError
from .kubeconfigfile import Entry, Merged, merge

__all__ = ["kubeconfig_paths", "load_kubeconfig"]

_EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_EXEC_EXTENSION: Final = "client.authentication.k8s.io/exec"
_INTERACTIVE: Final = ("Never", "IfAvailable", "Always")
_PROXIES: Final = ("http", "https", "socks5")
_NO_ENTRY: Final = Entry("user", "", "", {})


def kubeconfig_paths(path: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the files to read: the one given, else those of KUBECONFIG, else ~/.kube/config."""
    if path is not None:
        return [os.path.expanduser(os.fspath(path))]
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return list(dict.fromkeys(listed)) or [os.path.expanduser("~/.kube/config")]


def load_kubeconfig(
    path: str | os.PathLike[str] | None = None, *, context: str | None = None, namespace: str | None = None
) -> ClientConfig:
    """Read kubeconfig files and choose a context, `current-context` unless one is given.

    Several files, as KUBECONFIG may name, are merged as kubectl does: of each cluster, user and context the first
    entry counts. Raises ConfigError.
    """
    wanted = kubeconfig_paths(path)
    merged = merge(wanted)
    if not merged.paths:
        raise ConfigError(
            f"kubeconfig {', '.join(wanted)}: there is no such file; pass a path, set KUBECONFIG, or inside of a pod "
            "use Client.in_cluster()"
        )
    chosen = _context(merged, context)
    cluster = _named(merged, chosen, "cluster", merged.clusters)
    if cluster is None:
        raise chosen.problem("cluster", "is missing; name one of the clusters: " + _names(merged.clusters))
    user = _named(merged, chosen, "user", merged.users) or _NO_ENTRY
    return _config(merged, chosen, cluster, user, namespace)


def _names(entries: Mapping[str, Entry]) -> str:
    return ", ".join(f'"{name}"' for name in entries) or "there are none"


def _context(merged: Merged, context: str | None) -> Entry:
    name = context or merged.current
    if not name:
        raise ConfigError(
            f"kubeconfig {merged.where}: current-context is not set; pass context=... or run "
            f"`kubectl config use-context NAME`; contexts: {_names(merged.contexts)}"
        )
    found = merged.contexts.get(name)
    if found is None:
        said = "" if context else "current-context: "
        raise ConfigError(
            f'kubeconfig {merged.where}: {said}there is no context "{name}"; contexts: {_names(merged.contexts)}'
        )
    return found


def _named(merged: Merged, context: Entry, kind: str, entries: Mapping[str, Entry]) -> Entry | None:
    name = context.text(kind)
    if not name:
        return None
    found = entries.get(name)
    if found is None:
        raise context.problem(kind, f'there is no {kind} "{name}" in {merged.where}; {kind}s: {_names(entries)}')
    return found


def _config(merged: Merged, context: Entry, cluster: Entry, user: Entry, namespace: str | None) -> ClientConfig:
    ca_data = cluster.data("certificate-authority-data")
    insecure = cluster.flag("insecure-skip-tls-verify")
    if insecure and (ca_data or cluster.text("certificate-authority")):
        raise cluster.problem(
            "insecure-skip-tls-verify", "cannot be with a certificate authority, which nothing would check; remove one"
        )
    certificate, key = _pair(user)
    return ClientConfig(
        server=_server(cluster),
        namespace=namespace or context.text("namespace") or "default",
        tls_server_name=cluster.text("tls-server-name"),
        insecure=insecure,
        ca_data=ca_data,
        ca_file="" if ca_data else _there(cluster, "certificate-authority"),
        certificate_data=certificate,
        certificate_file="" if certificate else _there(user, "client-certificate"),
        key_data=key,
        key_file="" if key else _there(user, "client-key"),
        token=user.text("token").strip(),
        token_file=_there(user, "tokenFile"),
        username=user.text("username"),
        password=user.text("password"),
        exec=_exec(user, cluster),
        proxy_url=_proxy(cluster),
        compression=False if cluster.flag("disable-compression") else None,
        impersonate=_impersonation(user),
        source=f"{context.where}, {cluster.kind} {cluster.name!r}, user {user.name!r}",
    )


def _server(cluster: Entry) -> str:
    server = cluster.text("server")
    if not server:
        raise cluster.problem("server", "is missing; want the API server's URL, such as https://10.0.0.1:6443")
    text = server if "://" in server else f"https://{server}"
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.query or parts.fragment:
        raise cluster.problem("server", f"{server!r} is no URL of a server; want such as https://10.0.0.1:6443")
    return text


def _proxy(cluster: Entry) -> str | None:
    url = cluster.text("proxy-url")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        good = parts.scheme in _PROXIES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise cluster.problem("proxy-url", "is no URL of a proxy; want http://, https:// or socks5:// and a host")
    return url


def _there(entry: Entry, name: str) -> str:
    path = entry.file(name)
    if path:
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise entry.problem(name, f"file {path}: {error.strerror}") from error
    return path


def _pair(user: Entry) -> tuple[bytes, bytes]:
    certificate, key = user.data("client-certificate-data"), user.data("client-key-data")
    has_certificate = certificate or user.text("client-certificate")
    has_key = key or user.text("client-key")
    if bool(has_certificate) != bool(has_key):
        missing, present = (
            ("client-key", "client-certificate") if has_certificate else ("client-certificate", "client-key")
        )
        raise user.problem(missing, f"is missing, but there is a {present}; add {missing}-data or {missing}")
    return certificate, key


def _impersonation(user: Entry) -> Impersonation | None:
    name, groups, uid = user.text("as"), user.texts("as-groups"), user.text("as-uid")
    extra = user.mapping("as-user-extra") or {}
    for key, values in extra.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise user.problem(f"as-user-extra.{key}", "is no list of texts")
    if not name and (groups or uid or extra):
        raise user.problem("as", "is missing, but there are groups, uid or extra to act with; name the user")
    return Impersonation(name, groups, uid, extra) if name else None


def _exec(user: Entry, cluster: Entry) -> ExecConfig | None:
    if provider := user.mapping("auth-provider"):
        raise user.problem(
            "auth-provider", f"{provider.get('name')!r} was removed from Kubernetes; use its `exec` plugin instead"
        )
    found = user.mapping("exec")
    if found is None:
        return None
    inner = Entry(user.kind, user.name, user.path, {f"exec.{name}": value for name, value in found.items()})
    version, command = inner.text("exec.apiVersion"), inner.text("exec.command")
    if version not in _EXEC_VERSIONS:
        raise inner.problem("exec.apiVersion", f"{version!r} is not supported; want {' or '.join(_EXEC_VERSIONS)}")
    if not command:
        raise inner.problem("exec.command", "is missing; name the program that prints credentials")
    mode = inner.text("exec.interactiveMode") or ("" if version == _EXEC_VERSIONS[0] else "IfAvailable")
    if mode not in _INTERACTIVE:
        raise inner.problem("exec.interactiveMode", f"{mode!r}; want one of {', '.join(_INTERACTIVE)}")
    if os.sep in command:
        command = os.path.join(os.path.dirname(user.path), command)
    return ExecConfig(
        api_version=version,
        command=command,
        args=inner.texts("exec.args"),
        env=_environment(inner),
        install_hint=inner.text("exec.installHint"),
        interactive=mode == "Always",
        cluster=_told(cluster) if inner.flag("exec.provideClusterInfo") else None,
        source=user.where,
    )


def _environment(inner: Entry) -> Mapping[str, str]:
    listed: Any = inner.fields.get("exec.env") or ()
    if not isinstance(listed, list | tuple):
        raise inner.problem("exec.env", "is no list; want `- name: ...` with `value: ...`")
    made = {}
    for number, one in enumerate(listed):
        name, value = (one.get("name"), one.get("value", "")) if isinstance(one, dict) else (None, None)
        if not isinstance(name, str) or not name or not isinstance(value, str):
            raise inner.problem(f"exec.env[{number}]", "want a name and a value, both texts; put numbers into quotes")
        made[name] = value
    return made


def _told(cluster: Entry) -> Mapping[str, Any]:
    """Say what a plugin is told of the cluster. Follows `Cluster` of client.authentication.k8s.io."""
    told: dict[str, Any] = {name: cluster.text(name) for name in ("server", "tls-server-name", "proxy-url")}
    told["insecure-skip-tls-verify"] = cluster.flag("insecure-skip-tls-verify")
    told["disable-compression"] = cluster.flag("disable-compression")
    told["certificate-authority-data"] = cluster.text("certificate-authority-data")
    path = cluster.file("certificate-authority")
    if path and not told["certificate-authority-data"]:
        with open(path, "rb") as file:
            told["certificate-authority-data"] = base64.b64encode(file.read()).decode()
    extensions: Any = cluster.fields.get("extensions") or ()
    told["config"] = next(
        (one.get("extension") for one in extensions if isinstance(one, dict) and one.get("name") == _EXEC_EXTENSION),
        None,
    )
    return {name: value for name, value in told.items() if value}
