"""The controller of analysis runs: measures what is due, side by side, and writes what came of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pilothouse.client.patches import MergePatch
from pilothouse.delivery.errors import AnalysisInvalid
from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisRunSpec, AnalysisRunStatus, Measurement
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import times
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import replace, to_dict
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller

from .arguments import filled, wanted_secrets
from .fetching import Fetcher
from .job import JobProvider
from .providers import MetricError, Provider, Providers, ended
from .runs import COMPLETED, ERROR, Due, due, is_ending, taken
from .secretvalues import SecretValues
from .traffic import PLUGIN, Numbers, TrafficProvider
from .web import PrometheusProvider, WebProvider

__all__ = ["AnalysisReconciler", "add_analyses"]

_CONCURRENCY: Final = 30
_WRITE_SECONDS: Final = 10.0
"""Between writes of what only goes on: a judge looks each second, which nobody has to store each time."""
_MEASURE_SECONDS: Final = 60.0
_MOST_REMEMBERED: Final = 10_000
_log = get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """What is known of a run beyond what was written. written: at, by the monotonic clock."""

    status: AnalysisRunStatus
    written: float


class AnalysisReconciler(Reconciler[AnalysisRun]):
    """Keeps the newest status of runs that go on in memory; what changes their outcome is written at once."""

    def __init__(self, providers: Providers, secrets: SecretValues) -> None:
        self._providers = providers
        self._secrets = secrets
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def reconcile(self, obj: AnalysisRun, context: Context) -> Result | None:
        """Measure what is due; come again when the next is."""
        if obj.metadata.deletion_timestamp or obj.status.phase in COMPLETED:
            self._known.pop(obj.metadata.uid, None)
            return await self._expire(obj, context)
        known = self._known.get(obj.metadata.uid)
        run = replace(obj, status=known.status) if known is not None else obj
        now = context.clock.now()
        try:
            spec = await self._spec(run)
            asked, _ = due(replace(run, spec=spec), now)
            measured = await self._measure(replace(run, spec=spec), asked, now)
            status = taken(replace(run, spec=spec), measured, context.clock.now())
        except (AnalysisInvalid, ValueError) as error:
            status = _invalid(run.status, str(error), now)
        await self._keep(obj, status, context)
        if status.phase in COMPLETED:
            return await self._expire(replace(obj, status=status), context)
        asked, wait = due(replace(run, spec=spec, status=status), context.clock.now())
        return Result(requeue_after=0.0 if asked else wait)

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Forget the oldest runs that nobody asks about any more."""
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return None

    async def _spec(self, run: AnalysisRun) -> AnalysisRunSpec:
        """Return the specification with arguments filled in. Raises AnalysisInvalid for a secret that is not there."""
        secrets: dict[str, str] = {}
        for argument, (name, key) in wanted_secrets(run).items():
            try:
                value = await self._secrets.value(run.metadata.namespace, name, key)
            except NotFound:
                raise AnalysisInvalid(f"argument '{argument}': secret '{name}' is not there") from None
            if value is None:
                raise AnalysisInvalid(f"argument '{argument}': secret '{name}' has no key '{key}'")
            secrets[argument] = value.decode("utf-8", "replace")
        return filled(run.spec, secrets)

    async def _measure(self, run: AnalysisRun, asked: list[Due], now: datetime) -> Mapping[str, Measurement]:
        found = await asyncio.gather(*(self._one(run, each, now) for each in asked))
        return {each.metric.name: measurement for each, measurement in zip(asked, found, strict=True)}

    async def _one(self, run: AnalysisRun, each: Due, now: datetime) -> Measurement:
        began = each.started.started_at if each.started is not None else None
        try:
            provider = self._providers.of(each.metric)
            async with asyncio.timeout(_MEASURE_SECONDS):
                if each.started is not None and is_ending(run):
                    return await provider.end(run, each.metric, each.started, now)
                return await provider.measure(run, each.metric, each.started, now)
        except MetricError as error:
            return ended(ERROR, now, began, message=str(error))
        except TimeoutError:
            return ended(
                ERROR, now, began, message=f"metric '{each.metric.name}': nothing within {_MEASURE_SECONDS:g} s"
            )

    async def _keep(self, obj: AnalysisRun, status: AnalysisRunStatus, context: Context) -> None:
        known, now = self._known.get(obj.metadata.uid), context.clock.monotonic()
        known = known or _Known(obj.status, -_WRITE_SECONDS)
        quiet = _essence(known.status) == _essence(status) and now - known.written < _WRITE_SECONDS
        if not quiet:
            await context.patch(obj, MergePatch({"status": to_dict(status)}))
            known.written = now
        known.status = status
        self._known[obj.metadata.uid] = known
        if status.phase in COMPLETED:
            del self._known[obj.metadata.uid]
            _log.info("analysis run ended", run=str(context.request), phase=status.phase, message=status.message)

    async def _expire(self, obj: AnalysisRun, context: Context) -> Result | None:
        """Delete a run that is over for longer than its `ttlStrategy` says."""
        ttl, status = obj.spec.ttl_strategy, obj.status
        if ttl is None or not status.completed_at or obj.metadata.deletion_timestamp:
            return None
        good = status.phase == "Successful"
        chosen = ttl.seconds_after_success if good else ttl.seconds_after_failure
        chosen = ttl.seconds_after_completion if chosen is None else chosen
        if chosen is None:
            return None
        left = chosen - (context.clock.now() - times.parse(status.completed_at)).total_seconds()
        if left > 0:
            return Result(requeue_after=left)
        await context.delete(obj)
        return None


def _essence(status: AnalysisRunStatus) -> object:
    """Return what others act on: outcomes and counts, not how a measurement that goes on is now."""
    return status.phase, [
        (each.name, each.phase, each.count, each.error, len(each.measurements), each.measurements[-1].phase)
        if each.measurements
        else (each.name, each.phase)
        for each in status.metric_results
    ]


def _invalid(before: AnalysisRunStatus, why: str, now: datetime) -> AnalysisRunStatus:
    moment = times.format_micros(now)
    return replace(before, phase=ERROR, message=why, started_at=before.started_at or moment, completed_at=moment)


def add_analyses(manager: Manager, numbers: Numbers | None = None) -> AnalysisReconciler:
    """Run the controller of analysis runs in a manager. numbers: of the data plane, where it is in this process."""
    fetcher = Fetcher()
    known: dict[str, Provider] = {
        "web": WebProvider(fetcher),
        "prometheus": PrometheusProvider(fetcher),
        "job": JobProvider(manager.client),
    }
    if numbers is not None:
        known[f"plugin/{PLUGIN}"] = TrafficProvider(numbers)
    secrets = SecretValues(manager.client, manager.clock)
    manager.add_companion(secrets)
    reconciler = AnalysisReconciler(Providers(known), secrets)
    if AnalysisRun not in manager.scheme:
        manager.scheme.register(AnalysisRun)
    controller(manager, "analysisrun").for_(AnalysisRun).with_options(concurrency=_CONCURRENCY).build(reconciler)
    return reconciler
