"""How simulated pods live: how long things take, what fails, and what a pod's annotations say of it. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["PREFIX", "Rules", "Run", "rules_of"]

PREFIX: Final = "simulated.pilothouse.dev/"
_FAILED: Final = 1


class Run(msgspec.Struct, frozen=True):
    """One run of a container: seconds until it ends by itself (None: never) and its exit code then."""

    seconds: float | None
    exit_code: int


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a pod unless its annotations say otherwise; each field is one, as in `run-seconds`.

    start_seconds: from bound to running. ready_seconds: from running to ready. run_seconds: until a container ends
    with `exit_code`; None never. stop_seconds: until it ends when it is asked to. failure_rate: the share of runs that
    end with code 1 after `failure_seconds`. pull_error_rate: the share of pulls that fail. jitter: by how much of
    itself each time may be longer.
    """

    start_seconds: float = 0.2
    ready_seconds: float = 0.0
    run_seconds: float | None = None
    exit_code: int = 0
    stop_seconds: float = 0.1
    failure_rate: float = 0.0
    failure_seconds: float = 1.0
    pull_error_rate: float = 0.0
    jitter: float = 0.0

    def run(self, source: random.Random) -> Run:
        """Draw the next run."""
        if self.failure_rate and source.random() < self.failure_rate:
            return Run(self.lasting(self.failure_seconds, source), _FAILED)
        seconds = None if self.run_seconds is None else self.lasting(self.run_seconds, source)
        return Run(seconds, self.exit_code)

    def lasting(self, seconds: float, source: random.Random) -> float:
        """Draw how long something takes."""
        return seconds * (1 + self.jitter * source.random()) if self.jitter else seconds


def rules_of(annotations: Mapping[str, str], rules: Rules) -> Rules:
    """Return the rules of a pod. Raises `ValueError` for an annotation that is no number, and names it."""
    changes: dict[str, float | int] = {}
    for name, text in annotations.items():
        if not name.startswith(PREFIX):
            continue
        field = name.removeprefix(PREFIX).replace("-", "_")
        if field not in Rules.__struct_fields__:
            continue
        try:
            changes[field] = int(text) if field == "exit_code" else float(text)
        except ValueError:
            raise ValueError(f"annotation {name}: {text!r} is no number") from None
    return msgspec.structs.replace(rules, **changes) if changes else rules
