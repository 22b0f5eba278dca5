"""All functions of Kubernetes' expressions in one table."""

from __future__ import annotations

from functools import cache

from pilothouse.apiserver.cel.authorization import AUTHORIZER
from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.formats import FORMATS
from pilothouse.apiserver.cel.lists import LISTS
from pilothouse.apiserver.cel.networks import NETWORKS
from pilothouse.apiserver.cel.optionals import OPTIONALS
from pilothouse.apiserver.cel.quantities import QUANTITIES
from pilothouse.apiserver.cel.sizes import text_cost
from pilothouse.apiserver.cel.standard import STANDARD, index
from pilothouse.apiserver.cel.strings import STRINGS
from pilothouse.apiserver.cel.times import TIMES
from pilothouse.apiserver.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    NULL,
    STRING,
    TIMESTAMP,
    UINT,
    Type,
    list_of,
    map_of,
    opaque,
)

__all__ = ["TYPE_NAMES", "functions"]

TYPE_NAMES: dict[str, tuple[Type, str]] = {
    "bool": (BOOL, "bool"),
    "bytes": (BYTES, "bytes"),
    "double": (DOUBLE, "double"),
    "int": (INT, "int"),
    "uint": (UINT, "uint"),
    "string": (STRING, "string"),
    "null_type": (NULL, "null_type"),
    "list": (list_of(DYN), "list"),
    "map": (map_of(DYN, DYN), "map"),
    "type": (Type("type", params=(DYN,)), "type"),
    **{
        name: (opaque(name), name)
        for name in (
            "net.IP",
            "net.CIDR",
            "kubernetes.URL",
            "kubernetes.Quantity",
            "kubernetes.Semver",
            "kubernetes.NamedFormat",
        )
    },
    "google.protobuf.Timestamp": (TIMESTAMP, "google.protobuf.Timestamp"),
    "google.protobuf.Duration": (DURATION, "google.protobuf.Duration"),
}
"""Types that expressions can name, with the name that values of the type have."""


@cache
def functions(*, patches: bool = False) -> Functions:
    """Return all functions; `patches` adds those for JSON patches, which only mutating policies have."""
    table, more = Functions(), Functions()
    more.add("_[_]", index, "list(A), int -> A", "map(A, B), A -> B")
    if patches:
        more.add("jsonpatch.escapeKey", _escape_key, "string -> string", cost=text_cost)
    for library in (STANDARD, TIMES, STRINGS, LISTS, QUANTITIES, NETWORKS, FORMATS, AUTHORIZER, more, OPTIONALS):
        table.include(library)
    return table


def _escape_key(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
