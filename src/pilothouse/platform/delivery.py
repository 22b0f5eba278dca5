"""The platform's delivery: its controllers on one manager, and what they read of the gateway in the same process."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pilothouse.client import Client
from pilothouse.delivery.analysis.reconciler import add_analyses
from pilothouse.delivery.gitops.adding import Gitops, GitopsOptions, add_gitops
from pilothouse.delivery.gitops.hookserver import WebhookServer
from pilothouse.delivery.notices import IncidentOptions, add_incidents, add_notices
from pilothouse.delivery.reliability.recorder import add_service_levels
from pilothouse.delivery.rollouts.experimenting import add_experiments
from pilothouse.delivery.rollouts.running import add_rollouts
from pilothouse.foundation.metrics import Metrics
from pilothouse.foundation.tls import ReloadingContext
from pilothouse.kinds import times
from pilothouse.operator import Companion, Manager
from pilothouse.operator.loop import LoopOptions
from pilothouse.traffic.numbers import LATENESS, Histogram, Key, Sample, Samples, Windows, last_whole

__all__ = ["Counted", "GatewaySamples", "Hooks", "WindowNumbers", "make_delivery"]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a window says. p95: seconds."""

    requests: int = 0
    errors: int = 0
    p95: float = 0.0
    latency: Histogram = field(default_factory=Histogram)

    def slower(self, seconds: float) -> int:
        """Return how many answers took longer."""
        return self.latency.over(seconds)


class WindowNumbers:
    """What a gateway of this process has counted, as who judges versions asks for it."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def last(self) -> tuple[int, float]:
        """Return the last second of which all is known, and in how many seconds the next will be."""
        now = time.monotonic()
        last = last_whole(now)
        return last, last + 2 + LATENESS - now

    def over(self, seconds: int, last: int, *, route: str, version: str, regions: Sequence[str]) -> Counted:
        """Return the figures of so many seconds, of which `last` is the last; see `delivery.analysis.traffic`."""
        wanted = frozenset(regions)

        def group(key: Key) -> bool | None:
            return (
                key.route == route and (not version or key.version == version) and (not wanted or key.region in wanted)
            ) or None

        found = self._windows.grouped(seconds, last + 1 + LATENESS, group).get(True)
        return Counted(found.requests, found.errors, found.p95, found.latency) if found is not None else Counted()


class GatewaySamples:
    """What a gateway of this process has kept of requests that went badly, as incidents show it."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __call__(self, route: str, version: str, since: float) -> Sequence[str]:
        """Return a line for each; see `delivery.notices.recording.Samples`."""
        return [_line(each) for each in self._samples.of(route, version, since)]


def _line(sample: Sample) -> str:
    at = times.format_micros(datetime.fromtimestamp(sample.at, UTC))
    words = [
        f"{at} {sample.method} {sample.path}: {sample.status} in {sample.seconds * 1000:.0f} ms by {sample.version}",
        f"for {sample.region}" if sample.region else "",
        f"trace {sample.trace}" if sample.trace else "",
    ]
    return ", ".join(each for each in words if each)


class _Closing(Companion):
    """Closes repositories when nothing reconciles any more; they begin when they are asked for."""

    name = "repositories"

    def __init__(self, gitops: Gitops) -> None:
        self._gitops = gitops

    async def run(self) -> None:
        """Wait for the end."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._gitops.aclose()


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where webhooks are taken. bound: a socket that listens. renew: makes the certificate anew once it is old."""

    bound: socket.socket
    tls: ReloadingContext
    renew: Callable[[], object] | None = None


def make_delivery(
    client: Client,
    directory: Path,
    windows: Windows | None,
    samples: Samples | None = None,
    *,
    hooks: Hooks | None = None,
) -> Manager:
    """Return a manager with all that delivers. directory: of mirrors; windows, samples: of this process's gateway."""
    manager = Manager(client, loop=LoopOptions(rounds=0), metrics=Metrics())
    numbers = WindowNumbers(windows) if windows is not None else None
    add_rollouts(manager)
    add_experiments(manager)
    add_analyses(manager, numbers)
    add_notices(manager, incidents=True)
    bad = GatewaySamples(samples) if samples is not None else None
    add_incidents(manager, IncidentOptions(directory=str(directory / "incidents")), numbers=numbers, samples=bad)
    gitops = add_gitops(manager, GitopsOptions(directory=str(directory)))
    add_service_levels(manager, numbers, gitops.commits.of)
    manager.add_companion(_Closing(gitops))
    if hooks is not None:
        manager.add_companion(WebhookServer(hooks.bound, gitops.webhook, hooks.tls, renew=hooks.renew))
    return manager
