"""A kubeconfig put among others in a file that somebody has already, as kubectl's own commands would change it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any, Final

from pilothouse.apiserver.access.kubeconfig import KubeconfigError
from pilothouse.client import ConfigError
from pilothouse.client.kubeconfigfile import read
from pilothouse.foundation.files import OsFileSystem, write_whole

__all__ = ["merge_kubeconfig", "merged"]

_LISTS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}
_LOCK_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.02
_MODE: Final = 0o600


def merged(existing: dict[str, Any], ours: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a kubeconfig with the only cluster, user and context of another in the place of those called `name`.

    The current context stays what it is; where there is none, it is the new one. Pure.
    """
    made = {"apiVersion": "v1", "kind": "Config", **existing}
    for field, kind in _LISTS.items():
        (entry,) = ours[field]
        content = {"cluster": name, "user": name} if kind == "context" else entry[kind]
        kept = [one for one in made.get(field) or [] if not (isinstance(one, dict) and one.get("name") == name)]
        made[field] = [*kept, {"name": name, kind: content}]
    if not made.get("current-context"):
        made["current-context"] = name
    return made


def merge_kubeconfig(source: str, path: str, name: str = "pilothouse") -> None:
    """Put the kubeconfig in `source` into the file at `path` under `name`, whole or not at all, mode 0600.

    The file's owner keeps it; a link is followed; one that kubectl changes at the moment is waited for. Raises
    KubeconfigError, with nothing changed, where what is there cannot be read or written.
    """
    import yaml  # noqa: PLC0415  # seldom needed

    target = os.path.realpath(os.path.expanduser(path))
    try:
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        with _locked(target):
            text = yaml.safe_dump(merged(_read(target), dict(read(source)), name), sort_keys=False)
            _write(target, text.encode())
    except ConfigError as error:
        raise KubeconfigError(f"{error}; it stays as it is") from error
    except OSError as error:
        raise KubeconfigError(f"kubeconfig {path}: cannot be written: {error.strerror or error}") from error


def _read(target: str) -> dict[str, Any]:
    try:
        found = dict(read(target))
    except FileNotFoundError:
        return {}
    for field in _LISTS:
        if not isinstance(found.get(field) or [], list):
            raise ConfigError(f"kubeconfig {target}: {field}: is no list")
    return found


def _write(target: str, data: bytes) -> None:
    try:
        before: os.stat_result | None = os.stat(target)
    except FileNotFoundError:
        before = None
    write_whole(OsFileSystem(), target, data, _MODE)
    if before is not None and before.st_uid != os.geteuid() and os.geteuid() == 0:
        os.chown(target, before.st_uid, before.st_gid)


@contextlib.contextmanager
def _locked(target: str) -> Iterator[None]:
    """Hold the lock that kubectl takes while it changes a file: FILE.lock, which only one can make."""
    lock, end = f"{target}.lock", time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE))
            break
        except FileExistsError:
            if time.monotonic() >= end:
                raise KubeconfigError(
                    f"kubeconfig {target}: {lock} says that somebody changes it; remove that file if nobody does"
                ) from None
            time.sleep(_PAUSE_SECONDS)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
