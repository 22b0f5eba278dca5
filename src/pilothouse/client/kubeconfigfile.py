"""Kubeconfig files as they are: reading one, its fields with their types, and merging several."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .errors import ConfigError

__all__ = ["Entry", "Merged", "merge", "read"]

_MAX_BYTES: Final = 8 << 20
_LISTS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A named cluster, user or context, with the file that it stands in. Fields are read with their types."""

    kind: str
    name: str
    path: str
    fields: Mapping[str, Any] = field(repr=False)

    @property
    def where(self) -> str:
        """What errors name."""
        return f'{self.kind} "{self.name}" in {self.path}'

    def problem(self, name: str, text: str) -> ConfigError:
        """Make the error of one field."""
        return ConfigError(f"{self.where}: {name}: {text}")

    def text(self, name: str) -> str:
        """Return a text, empty where there is none."""
        value = self.fields.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.problem(name, f"{_shown(value)} is no text; put it into quotes")
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean, false where there is none."""
        value = self.fields.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.problem(name, f"{_shown(value)} is neither true nor false")
        return value

    def texts(self, name: str) -> Sequence[str]:
        """Return a list of texts."""
        value = self.fields.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.problem(name, "is no list of texts; put numbers into quotes")
        return tuple(value)

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """Return an object, None where there is none."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.problem(name, f"{_shown(value)} is no object")
        return value

    def file(self, name: str) -> str:
        """Return a path, a relative one from the directory of the kubeconfig."""
        value = self.text(name)
        return os.path.join(os.path.dirname(self.path), os.path.expanduser(value)) if value else ""

    def data(self, name: str) -> bytes:
        """Return what a field has in base64."""
        value = self.text(name)
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError):
            raise self.problem(name, "is not base64; encode the PEM file: base64 -w0 FILE") from None


def _shown(value: object) -> str:
    # The value may be what a secret became by a slip in the file.
    return f"a value of type {type(value).__name__}"


@dataclass(slots=True)
class Merged:
    """What several files say together: of each name the first entry counts, and so with current-context."""

    paths: Sequence[str]
    current: str = ""
    clusters: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, Entry] = field(default_factory=dict)
    contexts: dict[str, Entry] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The files, as errors name them."""
        return ", ".join(self.paths)


def read(path: str) -> Mapping[str, Any]:
    """Read a file as YAML or JSON. Raises ConfigError, FileNotFoundError as it is."""
    import yaml  # noqa: PLC0415  # needed once, and takes its time

    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"kubeconfig {path}: cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"kubeconfig {path}: over {_MAX_BYTES} bytes; this is no kubeconfig")
    try:
        found = yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"kubeconfig {path}: not YAML{_place(error)}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"kubeconfig {path}: is no object; it should begin with `apiVersion: v1` and `kind: Config`")
    kind = found.get("kind", "Config"), found.get("apiVersion", "v1")
    if kind != ("Config", "v1"):
        raise ConfigError(f"kubeconfig {path}: kind {kind[0]!r} of {kind[1]!r}; want kind Config of apiVersion v1")
    return found


def _place(error: Exception) -> str:
    # The parser's own message quotes the line, which may hold a secret.
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f": {getattr(error, 'problem', '')} (line {mark.line + 1}, column {mark.column + 1})"


def merge(paths: Sequence[str]) -> Merged:
    """Read and merge files; those that are not there are passed over. Raises ConfigError."""
    merged = Merged([])
    present: list[str] = []
    for path in paths:
        try:
            found = read(path)
        except FileNotFoundError:
            continue
        present.append(path)
        _add(merged, path, found)
    merged.paths = present
    return merged


def _add(merged: Merged, path: str, found: Mapping[str, Any]) -> None:
    current = found.get("current-context") or ""
    if not isinstance(current, str):
        raise ConfigError(f"kubeconfig {path}: current-context: {_shown(current)} is no text; put it into quotes")
    merged.current = merged.current or current
    for name, kind in _LISTS.items():
        into: dict[str, Entry] = getattr(merged, name)
        listed = found.get(name)
        if listed is not None and not isinstance(listed, list):
            raise ConfigError(f"kubeconfig {path}: {name}: is no list; want `- name: ...` with `{kind}: ...`")
        own: set[str] = set()
        for number, one in enumerate(listed or ()):
            entry = _entry(path, f"{name}[{number}]", kind, one)
            if entry.name in own:
                raise ConfigError(f'kubeconfig {path}: {name}: "{entry.name}" is there twice; remove one')
            own.add(entry.name)
            into.setdefault(entry.name, entry)


def _entry(path: str, where: str, kind: str, one: object) -> Entry:
    if not isinstance(one, dict):
        raise ConfigError(f"kubeconfig {path}: {where}: is no object; want `name` and `{kind}`")
    name = one.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"kubeconfig {path}: {where}.name: missing or no text")
    fields = one.get(kind)
    if fields is not None and not isinstance(fields, dict):
        raise ConfigError(f'kubeconfig {path}: {where} "{name}": {kind}: is no object')
    return Entry(kind, name, path, fields or {})
