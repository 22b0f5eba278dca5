"""Pod and claim specs as Kubernetes' refusals show them: every field in declared order, with internal names.

Facts: field names and order of `pkg/apis/core/types.go` of Kubernetes 1.36, in `data/podlayout.json`. There each type
has its fields as `Name:kind`; a kind is `*Type` (null if missing), `[Type` (list of them), `=Type` (always there), or
the text that stands for a missing value. `Name~Type` puts the fields of a type in place.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["spec_difference"]

Object = dict[str, Any]
_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
_OF_THE_POD = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")
"""Fields that Kubernetes keeps in the security context inside and in the pod spec outside."""


def spec_difference(old: Object, new: Object, kind: str) -> str:
    """Give the unified difference of two specs of a kind: `PodSpec` or `PersistentVolumeClaimSpec`."""
    before, after = (_lines(spec, kind) for spec in (old, new))
    return "".join(f"{line}\n" for line in list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:])


def _lines(spec: Object, kind: str) -> list[str]:
    if kind == "PodSpec":
        moved = {name: spec[name] for name in _OF_THE_POD if name in spec}
        spec = {**spec, "securityContext": {**(spec.get("securityContext") or {}), **moved}}
    return json.dumps(_shown(kind, spec), indent=1, ensure_ascii=False).translate(_HTML).split("\n")


@cache
def _layout() -> dict[str, list[tuple[str, str, str]]]:
    text = resources.files("pilothouse.kinds").joinpath("data/podlayout.json").read_text("utf-8")
    table = {}
    for kind, fields in json.loads(text).items():
        table[kind] = [_field(field) for field in fields.split()]
    return table


def _field(text: str) -> tuple[str, str, str]:
    separator = "~" if "~" in text else ":"
    name, _, rest = text.partition(separator)
    return (name, "~", rest) if separator == "~" else (name, rest[0] if rest[0] in "*[=" else "", rest.lstrip("*[="))


def _shown(kind: str, value: Object) -> Object:
    given = {name.lower(): item for name, item in value.items()}
    shown: Object = {}
    for name, mark, rest in _layout()[kind]:
        item = given.get(name.lower())
        if mark == "~":
            shown |= _shown(rest, value)
        elif mark == "=":
            shown[name] = _shown(rest, item or {})
        elif not mark:
            shown[name] = json.loads(rest) if item is None else item
        elif item is None:
            shown[name] = None
        else:
            shown[name] = [_shown(rest, each) for each in item] if mark == "[" else _shown(rest, item)
    return shown
