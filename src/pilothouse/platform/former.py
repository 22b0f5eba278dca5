"""Seeing to it that parts of a platform end: they do by themselves when their supervisor does, or they are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from typing import Final

from .state import PartState, is_process

__all__ = ["end_parts"]

_STEP_SECONDS: Final = 0.02


def end_parts(parts: Iterable[PartState], seconds: float) -> None:
    """Wait for processes whose supervisor is gone; kill those that are there after `seconds`.

    What is left would hold the store and the port. Gives up on a process that not even SIGKILL ends.
    """
    left = [part for part in parts if is_process(part.pid, part.started)]
    end, is_killed = time.monotonic() + seconds, False
    while left:
        if time.monotonic() >= end:
            if is_killed:
                return
            for part in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(part.pid, signal.SIGKILL)
            end, is_killed = time.monotonic() + seconds, True
        time.sleep(_STEP_SECONDS)
        left = [part for part in left if is_process(part.pid, part.started)]
