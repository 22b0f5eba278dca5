"""Credentials from a program: what it is told, what it prints, and for how long that holds.

Follows client.authentication.k8s.io/v1 and v1beta1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pilothouse.kinds.times import parse

from .config import ExecConfig
from .errors import CredentialsError

__all__ = ["ExecCredential", "read_credential", "run_plugin"]

_SECONDS: Final = 60.0
_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class ExecCredential:
    """What a program printed. Certificate and key are PEM; expires: None holds until it is refused."""

    token: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    expires: datetime | None = None


def read_credential(config: ExecConfig, printed: bytes) -> ExecCredential:
    """Read an ExecCredential. Raises CredentialsError, which never shows what was printed."""
    try:
        found = json.loads(printed)
    except ValueError:
        raise _problem(config, f"printed {len(printed)} bytes that are not JSON; want an ExecCredential") from None
    if not isinstance(found, dict) or found.get("kind") != "ExecCredential":
        raise _problem(config, "printed no object of kind ExecCredential")
    if found.get("apiVersion") != config.api_version:
        raise _problem(
            config,
            f"printed an ExecCredential of {found.get('apiVersion')!r}, but exec.apiVersion says "
            f"{config.api_version!r}; set exec.apiVersion to what the program prints, or update the program",
        )
    status = found.get("status")
    if not isinstance(status, dict):
        raise _problem(config, "printed an ExecCredential without status")
    texts = {name: status.get(name) or "" for name in ("token", "clientCertificateData", "clientKeyData")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise _problem(config, f"status.{name}: is no text")
    certificate, key = texts["clientCertificateData"], texts["clientKeyData"]
    if bool(certificate) != bool(key):
        raise _problem(config, "status: clientCertificateData and clientKeyData belong together; one is missing")
    if not texts["token"] and not certificate:
        raise _problem(config, "status: neither token nor clientCertificateData; one of both is needed")
    return ExecCredential(texts["token"], certificate.encode(), key.encode(), _expires(config, status))


def _expires(config: ExecConfig, status: Mapping[str, Any]) -> datetime | None:
    text = status.get("expirationTimestamp")
    if text is None:
        return None
    try:
        return parse(text)
    except (ValueError, TypeError, AttributeError):
        raise _problem(config, "status.expirationTimestamp: want a time such as 2026-01-31T12:00:00Z") from None


def _problem(config: ExecConfig, text: str) -> CredentialsError:
    hint = f"; {config.install_hint.strip()}" if config.install_hint else ""
    return CredentialsError(f"{config.source or 'exec plugin'}: exec.command {config.command!r} {text}{hint}")


def _told(config: ExecConfig) -> str:
    spec: dict[str, Any] = {"interactive": False}
    if config.cluster is not None:
        spec["cluster"] = dict(config.cluster)
    return json.dumps({"apiVersion": config.api_version, "kind": "ExecCredential", "spec": spec})


async def run_plugin(config: ExecConfig, *, seconds: float = _SECONDS) -> ExecCredential:
    """Run the program and read what it prints. Raises CredentialsError."""
    from pilothouse.foundation.processes import (  # noqa: PLC0415  # most clients run no programs
        ProcessError,
        ProcessNotStarted,
        run,
    )

    if config.interactive:
        raise _problem(
            config, "wants to talk to a person (interactiveMode: Always); log in with it first, set IfAvailable"
        )
    env = {**os.environ, **config.env, "KUBERNETES_EXEC_INFO": _told(config)}
    try:
        done = await run((config.command, *config.args), env=env, timeout=seconds)
    except ProcessNotStarted as error:
        raise _problem(
            config, f"cannot be started ({error.__cause__ or error}); install it or correct its path"
        ) from error
    except ProcessError as error:
        raise _problem(config, f"failed: {error}"[: _SHOWN + len(config.command)]) from error
    if done.stdout_cut:
        raise _problem(config, f"printed over {len(done.stdout)} bytes; want an ExecCredential")
    return read_credential(config, done.stdout)
