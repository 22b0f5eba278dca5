"""Other forms in which objects are told: as tables and as metadata alone."""

from pilothouse.apiserver.tables.jsonpath import JsonPath, JsonPathError, compile_path
from pilothouse.apiserver.tables.partial import check_partial, to_partial, to_partial_list
from pilothouse.apiserver.tables.table import IncludeObject, columns, include_object, printer, to_table
from pilothouse.kinds.ages import Ages, human_duration, short_human_duration

__all__ = [
    "Ages",
    "IncludeObject",
    "JsonPath",
    "JsonPathError",
    "check_partial",
    "columns",
    "compile_path",
    "human_duration",
    "include_object",
    "printer",
    "short_human_duration",
    "to_partial",
    "to_partial_list",
    "to_table",
]
