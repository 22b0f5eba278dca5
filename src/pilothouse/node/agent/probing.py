"""When a container is probed and what its answers mean: delays, periods and thresholds. Pure."""

from __future__ import annotations

from typing import Literal

from pilothouse.kinds.structs.core_handlers import Probe

from .model import ProbeKind

__all__ = ["ProbeState", "is_probe"]

_PERIOD, _FAILURES = 10, 3


def is_probe(probe: Probe | None) -> bool:
    """Say whether a probe is there with something to do."""
    return probe is not None and bool(
        probe.exec.command or probe.http_get.port or probe.tcp_socket.port or probe.grpc.port
    )


class ProbeState:
    """One probe of one running container.

    `result` is None before the first answer that counts; `due` is when to probe next, None while a probe is under way.
    """

    __slots__ = ("_run", "_threshold_of", "due", "kind", "period", "result")

    def __init__(self, kind: ProbeKind, probe: Probe, started_at: float, now: float) -> None:
        self.kind = kind
        self.period = probe.period_seconds or _PERIOD
        self.due: float | None = max(started_at + probe.initial_delay_seconds, now)
        self.result: bool | None = None
        self._run: tuple[bool, int] = (False, 0)
        self._threshold_of = {True: probe.success_threshold or 1, False: probe.failure_threshold or _FAILURES}

    def answered(self, result: Literal["success", "failure", "error"], now: float) -> bool:
        """Take an answer; return whether `result` was decided by it, anew or again. Errors only cost a period."""
        self.due = now + self.period
        if result == "error":
            return False
        good = result == "success"
        same, count = self._run
        self._run = (good, count + 1 if same == good else 1)
        if self._run[1] < self._threshold_of[good]:
            return False
        self.result = good
        return True

    def begin_again(self) -> None:
        """Forget the run of equal answers, as after a kill."""
        self._run = (False, 0)
