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
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "pilothouse":
            raise
        raise ModuleNotFoundError(
            f"pilothouse.testing runs an API server, which needs {error.name}: pip install 'pilothouse[server]'",
            name=error.name,
        ) from error
    return getattr(module, name)
