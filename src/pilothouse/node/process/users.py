"""Users and groups as an image's /etc/passwd and /etc/group have them."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from .spec import UserSpec

__all__ = ["Identity", "UnknownUser", "resolve"]

_MAX_FILE = 1 << 20
_MAX_GROUPS = 65_536


class UnknownUser(Exception):
    """The image has no such user or group."""


class Identity(NamedTuple):
    """Whom a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(spec: UserSpec, passwd: str | None = None, group: str | None = None) -> Identity:
    """Return numbers for a user; the texts are the files of the current root unless given. Raises `UnknownUser`."""
    users = _rows(passwd if passwd is not None else _text("/etc/passwd"), 7)
    groups = _rows(group if group is not None else _text("/etc/group"), 4)
    wanted, _, wanted_group = spec.name.partition(":")
    if spec.uid is not None:
        wanted = str(spec.uid)
    row = next((row for row in users if wanted in {row[0], row[2]}), None) if wanted else None
    if row is None and wanted and not wanted.isdigit():
        raise UnknownUser(f"unable to find user {wanted}: no matching entries in passwd file")
    uid = int(row[2]) if row else int(wanted or 0)
    if not wanted:
        row = next((row for row in users if row[2] == "0"), None)
    gid = int(row[3]) if row else 0
    if wanted_group and spec.uid is None:
        gid = _group(wanted_group, groups)
    if spec.gid is not None:
        gid = spec.gid
    # The primary group is among them, so that leaving it never gives rights that its members are denied.
    found = [gid, *spec.groups]
    if spec.merge and row is not None:
        found += [int(entry[2]) for entry in groups if row[0] in entry[3].split(",")]
    return Identity(uid, gid, tuple(dict.fromkeys(found))[:_MAX_GROUPS], row[5] if row else "/")


def _group(name: str, groups: list[list[str]]) -> int:
    row = next((row for row in groups if name in {row[0], row[2]}), None)
    if row is not None:
        return int(row[2])
    if name.isdigit():
        return int(name)
    raise UnknownUser(f"unable to find group {name}: no matching entries in group file")


def _rows(text: str, width: int) -> list[list[str]]:
    rows = (line.split(":") for line in text.splitlines())
    numbers = (2, 3) if width == 7 else (2,)
    return [row for row in rows if len(row) >= width and all(row[place].isdigit() for place in numbers)]


def _text(path: str) -> str:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(_MAX_FILE).decode(errors="replace")
    return ""
