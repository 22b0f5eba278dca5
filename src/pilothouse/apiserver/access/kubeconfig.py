"""Kubeconfigs: how a client reaches the server and who it is, never half written and for the owner's eyes only."""

from __future__ import annotations

import base64
import json
import os
from typing import Final

from pilothouse.foundation.files import FileSystem, OsFileSystem, write_whole

__all__ = ["KubeconfigError", "kubeconfig", "kubeconfig_of_cluster", "write_kubeconfig"]

_MODE: Final = 0o600


class KubeconfigError(Exception):
    """A kubeconfig cannot be written; the message names the file or the field and what is wrong."""


def kubeconfig(  # noqa: PLR0913  # what a kubeconfig holds
    server: str,
    ca: bytes,
    certificate: bytes | None = None,
    key: bytes | None = None,
    *,
    token: str | None = None,
    name: str = "pilothouse",
    user: str = "admin",
    namespace: str = "",
) -> str:
    """Return a kubeconfig (YAML) with one cluster, user and context.

    server: URL. ca: PEM, empty for plain text. A client certificate with its key (PEM), or a token. Raises
    KubeconfigError for anything between.
    """
    if (certificate is None) != (key is None):
        raise KubeconfigError("user: a certificate needs its key, and a key its certificate; pass both or a token")
    if (certificate is None) == (token is None):
        raise KubeconfigError("user: pass either a certificate with its key, or a token")
    lines = ["apiVersion: v1", "kind: Config", f"current-context: {_quoted(name)}", "clusters:"]
    lines += [f"- name: {_quoted(name)}", "  cluster:", f"    server: {_quoted(server)}"]
    if ca:
        lines.append(f"    certificate-authority-data: {_data(ca)}")
    lines += ["contexts:", f"- name: {_quoted(name)}", "  context:"]
    lines += [f"    cluster: {_quoted(name)}", f"    user: {_quoted(user)}"]
    if namespace:
        lines.append(f"    namespace: {_quoted(namespace)}")
    lines += ["users:", f"- name: {_quoted(user)}", "  user:"]
    if certificate is not None and key is not None:
        lines += [f"    client-certificate-data: {_data(certificate)}", f"    client-key-data: {_data(key)}"]
    else:
        lines.append(f"    token: {_quoted(token or '')}")
    return "\n".join([*lines, "preferences: {}", ""])


def kubeconfig_of_cluster(server: str, ca: bytes) -> str:
    """Return a kubeconfig (YAML) that says where a cluster is and whom to trust, and has no user."""
    lines = ["apiVersion: v1", "kind: Config", "clusters:", '- name: ""', "  cluster:"]
    lines += [f"    certificate-authority-data: {_data(ca)}", f"    server: {_quoted(server)}"]
    return "\n".join([*lines, "contexts: null", 'current-context: ""', "users: null", "preferences: {}", ""])


def write_kubeconfig(  # noqa: PLR0913  # what a kubeconfig holds, and where it goes
    path: str,
    server: str,
    ca: bytes,
    certificate: bytes | None = None,
    key: bytes | None = None,
    *,
    token: str | None = None,
    name: str = "pilothouse",
    user: str = "admin",
    namespace: str = "",
    files: FileSystem | None = None,
) -> None:
    """Write what `kubeconfig` returns with mode 0600, whole or not at all. Raises KubeconfigError."""
    text = kubeconfig(server, ca, certificate, key, token=token, name=name, user=user, namespace=namespace)
    files = files or OsFileSystem()
    try:
        files.makedirs(os.path.dirname(os.path.abspath(path)))
        write_whole(files, path, text.encode(), _MODE)
    except OSError as error:
        raise KubeconfigError(f"kubeconfig {path}: cannot be written: {error.strerror}") from error


def _quoted(text: str) -> str:
    """Quote a text for YAML, of which JSON is a part."""
    return json.dumps(text)


def _data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
