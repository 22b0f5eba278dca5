"""Custom resources: what a definition says, compiled; pure functions over plain dictionaries.

`CompiledVersion` prunes, defaults and validates objects of one version, `complete_definition` validates definitions,
`status_after` decides what their status says, `conversion` converts between versions, `openapi` publishes schemas.
"""

from pilothouse.apiserver.crds.conversion import ConversionError, convert_many
from pilothouse.apiserver.crds.definitions import complete_definition
from pilothouse.apiserver.crds.naming import TakenNames, initial_status, status_after, taken_names, terminating
from pilothouse.apiserver.crds.openapi import openapi_v2, openapi_v3
from pilothouse.apiserver.crds.scaling import ScalePaths
from pilothouse.apiserver.crds.version import CompiledVersion
from pilothouse.apiserver.crds.warnings import definition_warnings

__all__ = [
    "CompiledVersion",
    "ConversionError",
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
