"""Run pods on this machine: runtimes behind one interface, fit for CRI.

Everything is imported when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clearing import Cleared, clear, clear_node
    from .process.machine import Machine, capabilities_of_this_machine
    from .process.options import Options
    from .process.runtime import ProcessRuntime
    from .runtime import Runtime

__all__ = [
    "Cleared",
    "Machine",
    "Options",
    "ProcessRuntime",
    "Runtime",
    "capabilities_of_this_machine",
    "clear",
    "clear_node",
]

_HOMES = {
    "Cleared": "clearing",
    "Machine": "process.machine",
    "Options": "process.options",
    "ProcessRuntime": "process.runtime",
    "Runtime": "runtime",
    "capabilities_of_this_machine": "process.machine",
    "clear": "clearing",
    "clear_node": "clearing",
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
