"""One container's place in a pod: the newest of its runs, what is under way, and its waits. Pure data."""

from __future__ import annotations

from typing import Literal

from .backoff import Backoff
from .facts import AnyContainer, Role, probe_of
from .model import ProbeKind, Record
from .probing import ProbeState, is_probe

__all__ = ["Slot", "Stopping"]

_KINDS: tuple[ProbeKind, ...] = ("startup", "liveness", "readiness")


class Stopping:
    """How far the end of a running container is: its hook runs, it waits for its turn, or the signal is sent."""

    __slots__ = ("deadline", "phase")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.phase: Literal["begin", "hook", "turn", "signal"] = "begin"


class Slot:
    """What is known of one container of a pod. `epoch` is the sandbox that the newest run belongs to."""

    def __init__(self, name: str, role: Role, spec: AnyContainer) -> None:
        self.name = name
        self.role = role
        self.spec = spec
        self.first_attempt = 0
        """The number of the first run that this life makes: where the runtime has forgotten earlier ones, one more."""
        self.current: Record | None = None
        self.last: Record | None = None
        self.epoch = -1
        self.next_epoch = -1
        self.busy: Literal["", "pull", "create", "start"] = ""
        self.image_id = ""
        self.pulled = False
        """Whether the image is here for a run that is to be made."""
        self.made = ""
        """The container that was made and is to be started."""
        self.waiting: tuple[str, str] = ("", "")
        self.crash = Backoff()
        self.image_backoff = Backoff()
        self.pull_failed: tuple[float, str, str] | None = None
        self.retry_at = 0.0
        self.cleared = False
        """Whether the wait after a crash is over and the next run is being prepared."""
        self.told_backoff = False
        self.hooking = False
        """Whether the hook after the start is under way."""
        self.hook_failed = ""
        self.startup_done = False
        self.probes: dict[ProbeKind, ProbeState] = {}
        self.stopping: Stopping | None = None

    @property
    def is_running(self) -> bool:
        """Whether the container runs."""
        return self.current is not None and self.current.state == "Running"

    @property
    def is_started(self) -> bool:
        """Whether it runs, its hook after the start is through and its startup probe has succeeded."""
        return self.is_running and not self.hooking and self.startup_done

    @property
    def is_ready(self) -> bool:
        """Whether it may be sent work."""
        if not self.is_started:
            return False
        readiness = self.probes.get("readiness")
        return readiness is None or readiness.result is True

    @property
    def next_attempt(self) -> int:
        """The number of the next run."""
        return self.first_attempt if self.current is None else self.current.attempt + 1

    def begun(self, now: float) -> None:
        """Set up probes for a run that has just been seen."""
        started = self.current.started_at if self.current else now
        self.probes = {}
        for kind in _KINDS:
            probe = probe_of(self.spec, kind)
            if probe is not None and is_probe(probe):
                self.probes[kind] = ProbeState(kind, probe, started, now)
        self.startup_done = "startup" not in self.probes

    def ended(self) -> None:
        """Forget what belonged to a run."""
        self.probes = {}
        self.startup_done = False
        self.hooking = False
        self.stopping = None
        self.told_backoff = False
        self.cleared = False
