"""The node agent: pods' life on one node. Everything is imported when it is first named."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agent import Agent
    from .life import PodLife
    from .options import AgentOptions, Thresholds
    from .ports import ConfigError, MountError, Ports

__all__ = ["Agent", "AgentOptions", "ConfigError", "MountError", "PodLife", "Ports", "Thresholds"]

_HOMES = {
    "Agent": "agent",
    "AgentOptions": "options",
    "ConfigError": "ports",
    "MountError": "ports",
    "PodLife": "life",
    "Ports": "ports",
    "Thresholds": "options",
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
