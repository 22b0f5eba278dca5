"""Custom resources: what a definition says, compiled; pure functions over plain dictionaries.

`CompiledVersion` prunes, defaults and validates objects of one version, `DefinedVersion` is one that is compiled when
it is first needed, `complete_definition` validates definitions, `status_after` decides what their status says,
`conversion` converts between versions, `openapi` publishes schemas. Names are imported when they are first asked for:
a server whose definitions nobody uses does without most of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilothouse.apiserver.crds.conversion import ConversionError, convert_many
    from pilothouse.apiserver.crds.defined import DefinedVersion
    from pilothouse.apiserver.crds.definitions import complete_definition
    from pilothouse.apiserver.crds.naming import TakenNames, initial_status, status_after, taken_names, terminating
    from pilothouse.apiserver.crds.openapi import openapi_v2, openapi_v3
    from pilothouse.apiserver.crds.scaling import ScalePaths
    from pilothouse.apiserver.crds.version import CompiledVersion
    from pilothouse.apiserver.crds.warnings import definition_warnings

__all__ = [
    "CompiledVersion",
    "ConversionError",
    "DefinedVersion",
    "ScalePaths",
    "TakenNames",
    "complete_definition",
    "convert_many",
    "definition_warnings",
    "initial_status",
    "openapi_v2",
    "openapi_v3",
    "status_after",
    "taken_names",
    "terminating",
]

_HOMES = {
    "CompiledVersion": "version",
    "ConversionError": "conversion",
    "DefinedVersion": "defined",
    "ScalePaths": "scaling",
    "TakenNames": "naming",
    "complete_definition": "definitions",
    "convert_many": "conversion",
    "definition_warnings": "warnings",
    "initial_status": "naming",
    "openapi_v2": "openapi",
    "openapi_v3": "openapi",
    "status_after": "naming",
    "taken_names": "naming",
    "terminating": "naming",
}


if not TYPE_CHECKING:  # so that a checker refuses names that there are not

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
