"""Templates of ApplicationSets without Go's: `{{name}}` is the text of a parameter; what is not known stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["fill", "flattened"]

_MARK: Final = re.compile(r"\{\{([^{}]*)\}\}")
_MAX_DEPTH: Final = 50


def fill(template: Any, parameters: Mapping[str, str]) -> Any:
    """Return a template with the parameters in all its texts, keys of maps too."""
    if isinstance(template, str):
        return _MARK.sub(lambda found: parameters.get(found[1].strip(), found[0]), template)
    if isinstance(template, Mapping):
        return {fill(name, parameters): fill(value, parameters) for name, value in template.items()}
    if isinstance(template, list | tuple):
        return [fill(each, parameters) for each in template]
    return template


def flattened(values: Any, prefix: str = "", depth: int = 0) -> dict[str, str]:
    """Return nested values as texts by dotted names, list elements as `name[0]` and `name.0`."""
    found: dict[str, str] = {}
    if depth > _MAX_DEPTH:
        return found
    if isinstance(values, Mapping):
        for name, value in values.items():
            found |= flattened(value, f"{prefix}.{name}" if prefix else str(name), depth + 1)
    elif isinstance(values, list | tuple):
        for number, value in enumerate(values):
            for name in (f"{prefix}.{number}", f"{prefix}[{number}]"):
                found |= flattened(value, name, depth + 1)
    elif isinstance(values, bool):
        found[prefix] = "true" if values else "false"
    elif values is not None:
        found[prefix] = str(values)
    return found
