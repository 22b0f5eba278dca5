"""A Kubernetes API for tests: `ControlPlane` starts a fresh server in this process within milliseconds.

Everything is imported when it is first named, so that the pytest plugin costs those nothing who do not use it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilothouse.testing.blocking import BlockingCaller, BlockingPlane
    from pilothouse.testing.caller import Caller
    from pilothouse.testing.plane import ControlPlane

__all__ = ["BlockingCaller", "BlockingPlane", "Caller", "ControlPlane"]

_HOMES = {
    "BlockingCaller": "pilothouse.testing.blocking",
    "BlockingPlane": "pilothouse.testing.blocking",
    "Caller": "pilothouse.testing.caller",
    "ControlPlane": "pilothouse.testing.plane",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
