"""How to reach one server as one user: addresses, certificates and credentials, from whatever source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ClientConfig", "ExecConfig", "Impersonation"]


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Another user to act as. Follows Kubernetes' `Impersonate-*` headers."""

    user: str
    groups: Sequence[str] = ()
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    """A program that prints credentials (client.authentication.k8s.io).

    command: the path of a program, or its name in PATH. env: added to our own environment. cluster: what the program
    is told of the cluster, None where it asked for nothing.
    """

    api_version: str
    command: str
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    install_hint: str = ""
    interactive: bool = False
    cluster: Mapping[str, Any] | None = field(default=None, repr=False)
    source: str = ""
    """What errors name: `user "x" in FILE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """How to reach one server. Data (`*_data`, PEM) win over files; files are read anew when they change.

    server: the URL. namespace: for calls that name none. tls_server_name: that the certificate must have, instead of
    the URL's host. insecure: accept every certificate. token_file wins over token. compression: None compresses what
    does not stay on this machine. source: what errors name, such as `context "x" in FILE`.
    """

    server: str
    namespace: str = "default"
    tls_server_name: str = ""
    insecure: bool = False
    ca_file: str = ""
    ca_data: bytes = field(default=b"", repr=False)
    certificate_file: str = ""
    certificate_data: bytes = field(default=b"", repr=False)
    key_file: str = ""
    key_data: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    exec: ExecConfig | None = None
    proxy_url: str | None = field(default=None, repr=False)
    """None takes the environment's proxy, the empty string takes none."""
    compression: bool | None = None
    impersonate: Impersonation | None = None
    source: str = ""
