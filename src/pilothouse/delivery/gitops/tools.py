"""Programs that render: found on the path, run with bounds and without anything of the user's settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Final

from pilothouse.foundation.logs import redact
from pilothouse.foundation.processes import ProcessFailed, ProcessNotStarted, ProcessTimeout, inherit, run

from .errors import ToolError

__all__ = ["find_program", "run_tool"]

_SECONDS: Final = 90.0
_MAX_OUTPUT: Final = 64 << 20


def find_program(*names: str, path: str = "") -> str | None:
    """Return the first of these programs that is there. path: directories to look in before those of PATH."""
    places = os.pathsep.join(part for part in (path, os.environ.get("PATH", os.defpath)) if part)
    return next((found for name in names if (found := shutil.which(name, path=places))), None)


async def run_tool(
    what: str, command: Sequence[str], *, home: str, cwd: str, stdin: bytes = b"", seconds: float = _SECONDS
) -> bytes:
    """Run a program and return what it printed. what: for errors. home: where it may keep things.

    Raises ToolError with the program's own words.
    """
    env = inherit(
        HOME=home,
        TMPDIR=home,
        HELM_CACHE_HOME=f"{home}/helm/cache",
        HELM_CONFIG_HOME=f"{home}/helm/config",
        HELM_DATA_HOME=f"{home}/helm/data",
        KUBECONFIG="/dev/null",
    )
    try:
        done = await run(command, env=env, cwd=cwd, timeout=seconds, stdin=stdin, max_output=_MAX_OUTPUT)
    except ProcessNotStarted as error:
        raise ToolError(f"{what}: {error}") from None
    except ProcessTimeout:
        raise ToolError(f"{what}: not done within {seconds:g} s") from None
    except ProcessFailed as error:
        told = error.completed.stderr.decode(errors="replace").replace(cwd, ".").strip()[-1500:]
        raise ToolError(f"{what}: {redact(told) or error.completed.status}") from None
    if done.stdout_cut:
        raise ToolError(f"{what}: it printed more than {_MAX_OUTPUT} bytes")
    return done.stdout
