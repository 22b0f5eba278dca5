"""Programs that render: found on the path, run with bounds and without anything of the user's settings."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Final

from pilothouse.foundation.logs import redact
from pilothouse.foundation.processes import Completed, ProcessFailed, ProcessNotStarted, ProcessTimeout, inherit, run

from .errors import ToolError

__all__ = ["find_program", "run_tool"]

_SECONDS: Final = 90.0
_MAX_OUTPUT: Final = 64 << 20
_MEMORY: Final = 2 << 30
_SHOWN: Final = 800
_HINTS: Final = (
    (
        re.compile(r"basic credential not found|401 Unauthorized|unauthorized", re.IGNORECASE),
        "; is username and password in a repository Secret, and right?",
    ),
    (
        re.compile(r"certificate signed by unknown authority|failed to verify certificate"),
        "; add its CA, under the name of the host, to ConfigMap argocd-tls-certs-cm",
    ),
)
_NO_MEMORY: Final = re.compile(r"fatal error: (runtime: )?(cannot allocate memory|out of memory)|makeslice: len out of")
"""How programs of Go end that may have no more."""


def find_program(*names: str, path: str = "") -> str | None:
    """Return the first of these programs that is there. path: directories to look in before those of PATH."""
    places = os.pathsep.join(part for part in (path, os.environ.get("PATH", os.defpath)) if part)
    found = next((found for name in names if (found := shutil.which(name, path=places))), None)
    return os.path.abspath(found) if found else None  # programs run in other directories


async def run_tool(
    what: str,
    command: Sequence[str],
    *,
    home: str,
    cwd: str,
    stdin: bytes = b"",
    seconds: float = _SECONDS,
    more: Mapping[str, str] | None = None,
) -> bytes:
    """Run a program and return what it printed. what: for errors. home: where it may keep things. more: environment.

    Raises ToolError with the program's own words.
    """
    env = inherit(
        HOME=home,
        TMPDIR=home,
        HELM_CACHE_HOME=f"{home}/helm/cache",
        HELM_CONFIG_HOME=f"{home}/helm/config",
        HELM_DATA_HOME=f"{home}/helm/data",
        KUBECONFIG="/dev/null",
        **(more or {}),
    )
    try:
        done = await run(
            command,
            env=env,
            cwd=cwd,
            timeout=seconds,
            stdin=stdin,
            max_output=_MAX_OUTPUT,
            memory=_MEMORY,
            end_when_cut=True,
        )
    except ProcessNotStarted as error:
        raise ToolError(f"{what}: {error}") from None
    except ProcessTimeout:
        raise ToolError(f"{what}: not done within {seconds:g} s") from None
    except ProcessFailed as error:
        raise ToolError(f"{what}: {_told(error.completed, cwd, home)}") from None
    if done.stdout_cut:
        raise ToolError(f"{what}: it printed more than {_MAX_OUTPUT} bytes")
    return done.stdout


def _told(done: Completed, cwd: str, home: str) -> str:
    # Names of our own directories tell nothing, and are others each time.
    said = done.stderr.decode(errors="replace").strip()
    # helm tells on its standard output why a repository cannot be read.
    _, mark, why = done.stdout.decode(errors="replace").partition("Unable to get")
    said = f"{said} {mark}{' '.join(why.split())}" if mark else said
    for place, name in ((cwd, "."), (home, "~"), (os.path.dirname(home), "..")):
        said = said.replace(place, name)
    if _NO_MEMORY.search(said):
        return f"it wants more than {_MEMORY >> 20} MiB of memory"
    hint = next((text for sign, text in _HINTS if sign.search(said)), "")
    short = said if len(said) <= 2 * _SHOWN else f"{said[:_SHOWN]} … {said[-_SHOWN:]}"
    return f"{redact(short) or f'exit status {done.status}'}{hint}"
