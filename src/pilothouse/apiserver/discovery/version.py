"""Which version the server says that it is: what `/version` answers."""

from __future__ import annotations

import platform
import sys
from typing import Final

import pilothouse

__all__ = ["EMULATED_MAJOR", "EMULATED_MINOR", "version_info"]

EMULATED_MAJOR: Final = "1"
EMULATED_MINOR: Final = "36"
_OLDEST_MINOR: Final = "35"
_PATCH: Final = "0"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def version_info() -> dict[str, str]:
    """Return the document of `/version`: Kubernetes' version with ours as build metadata, which clients parse."""
    ours = pilothouse.__version__.replace("+", ".")
    machine = platform.machine()
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {
        "major": EMULATED_MAJOR,
        "minor": EMULATED_MINOR,
        "emulationMajor": EMULATED_MAJOR,
        "emulationMinor": EMULATED_MINOR,
        "minCompatibilityMajor": EMULATED_MAJOR,
        "minCompatibilityMinor": _OLDEST_MINOR,
        "gitVersion": f"v{EMULATED_MAJOR}.{EMULATED_MINOR}.{_PATCH}+pilothouse-{ours}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{python}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"{sys.platform}/{_MACHINES.get(machine, machine)}",
    }
