"""Nodes without processes: a runtime and whole fleets of nodes whose pods live by rules. Imported when first named."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fleet import Fleet, FleetOptions
    from .rules import Rules
    from .runtime import SimulatedRuntime

__all__ = ["Fleet", "FleetOptions", "Rules", "SimulatedRuntime"]

_HOMES = {"Fleet": "fleet", "FleetOptions": "fleet", "Rules": "rules", "SimulatedRuntime": "runtime"}


if not TYPE_CHECKING:  # so that a checker refuses names that there are not

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
