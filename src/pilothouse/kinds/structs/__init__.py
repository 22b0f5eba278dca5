"""Typed structs: Kubernetes' kinds as classes, for code that handles objects field by field.

`from pilothouse.kinds.structs import Pod` imports the module with pods and what that needs, and nothing else. Where two
groups have a struct of the same name, the name alone means the one that is a whole object, then the one of the core
group; others are in the modules of their groups (`structs.events.Event`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._absent import Carried
from ._codec import StructError, decode, encode, from_dict, replace, to_dict
from ._index import GROUPS, MODULES
from ._struct import Struct, field

if TYPE_CHECKING:
    from ._resource import ObjectList, Resource
    from ._values import IntOrString, Quantity, Time
    from .admissionregistration import *  # noqa: F403
    from .apiextensions import *  # noqa: F403
    from .apiregistration import *  # noqa: F403
    from .apps import *  # noqa: F403
    from .authentication import *  # noqa: F403
    from .authorization import *  # noqa: F403
    from .autoscaling import *  # noqa: F403
    from .autoscaling_v1 import *  # noqa: F403
    from .batch import *  # noqa: F403
    from .certificates import *  # noqa: F403
    from .coordination import *  # noqa: F403
    from .core_config import *  # noqa: F403
    from .core_containers import *  # noqa: F403
    from .core_drivers import *  # noqa: F403
    from .core_handlers import *  # noqa: F403
    from .core_nodes import *  # noqa: F403
    from .core_pod_status import *  # noqa: F403
    from .core_pods import *  # noqa: F403
    from .core_references import *  # noqa: F403
    from .core_scheduling import *  # noqa: F403
    from .core_services import *  # noqa: F403
    from .core_storage import *  # noqa: F403
    from .core_volumes import *  # noqa: F403
    from .discovery import *  # noqa: F403
    from .events import *  # noqa: F403
    from .meta import *  # noqa: F403
    from .networking import *  # noqa: F403
    from .node import *  # noqa: F403
    from .policy import *  # noqa: F403
    from .rbac import *  # noqa: F403
    from .scheduling import *  # noqa: F403
    from .storage import *  # noqa: F403

__all__ = [
    "Carried",
    "IntOrString",
    "ObjectList",
    "Quantity",
    "Resource",
    "Struct",
    "StructError",
    "Time",
    "built_in_type_for",
    "decode",
    "encode",
    "field",
    "from_dict",
    "replace",
    "to_dict",
    "type_for",
]

_LATER = {"ObjectList": "_resource", "Resource": "_resource", "IntOrString": "_values", "Quantity": "_values"}
_LATER["Time"] = "_values"
_homes: dict[str, str] = {}


def _home(name: str) -> str | None:
    """Return the module that has the struct of this name."""
    if not _homes:
        for module, names in MODULES.items():
            _homes.update(dict.fromkeys(names.split(), module))
        _homes.update(_LATER)
    return _homes.get(name)


if not TYPE_CHECKING:  # so that a checker refuses names that there are not

    def __getattr__(name: str) -> object:
        home = _home(name)
        if home is None:
            if name in MODULES:
                return import_module(f".{name}", __name__)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(import_module(f".{home}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    _home("")
    return sorted({*__all__, *MODULES, *(name for name in _homes if name.isidentifier())})


def type_for(group: str, version: str, kind: str) -> type[Resource] | None:
    """Return the class for a kind, built in or made by a subclass of `Resource`, or None where there is none.

    The core group is the empty string. Where several classes were made for a kind, the last counts.
    """
    made = import_module("._resource", __name__).types_made
    for module in GROUPS.get((group, version), ()):
        if (group, version, kind) not in made and kind in MODULES[module].replace("(", "").replace(")", "").split():
            import_module(f".{module}", __name__)
    found: type[Resource] | None = made.get((group, version, kind))
    return found


def built_in_type_for(group: str, version: str, kind: str) -> type[Resource] | None:
    """Return the built-in class for a kind, whatever other classes were made for it, or None where there is none."""
    for module in GROUPS.get((group, version), ()):
        found: type[Resource] | None = getattr(import_module(f".{module}", __name__), kind, None)
        if found is not None and getattr(found, "gvk", None) == (group, version, kind):
            return found
    return None
