"""The systemd unit that runs `pilothouse up`, as a text."""

from __future__ import annotations

import re
import resource
from collections.abc import Sequence
from typing import Final

__all__ = ["unit_text"]

_OPEN_FILES: Final = 1_048_576
_STOP_SECONDS: Final = 20
"""Four times what it promises; what is over by then is killed, pods are not."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9@^_+=:,./~-]+")


def unit_text(command: Sequence[str], *, is_root: bool) -> str:
    """Return a unit for a command. is_root: of the machine; else of an ordinary user (`systemctl --user`).

    Pods are not of the unit: KillMode=process has them run on when it stops or is started again.
    """
    wanted = "multi-user.target" if is_root else "default.target"
    lines = [
        "[Unit]",
        "Description=Pilothouse: the cloud-native stack in one program",
        *(["Wants=network-online.target", "After=network-online.target"] if is_root else []),
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(map(_quoted, command))}",
        "Restart=always",
        "RestartSec=2",
        "# a wrong option or damaged data: trying again does not help",
        "RestartPreventExitStatus=2 6",
        "# only the platform is stopped; pods run on, and the next start takes them over",
        "KillMode=process",
        f"TimeoutStopSec={_STOP_SECONDS}",
        "TimeoutStartSec=120",
        "# limits of pods are ours to set below this unit",
        "Delegate=yes",
        f"LimitNOFILE={_open_files(is_root)}",
        *(["LimitNPROC=infinity"] if is_root else []),
        "TasksMax=infinity",
        "",
        "[Install]",
        f"WantedBy={wanted}",
        "",
    ]
    return "\n".join(lines)


def _open_files(is_root: bool) -> int:
    if is_root:
        return _OPEN_FILES
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a user's manager may not raise it
    return _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)


def _quoted(word: str) -> str:
    """Quote a word of a command line for systemd, which knows %, $, quotes and backslashes."""
    text = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
