"""The controller of analysis runs: measures what is due, side by side, and writes what came of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
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
from .prometheus import PrometheusProvider, resolved_queries
from .providers import MetricError, Provider, Providers, ended
from .runs import COMPLETED, ERROR, SUCCESSFUL, Due, due, is_ending, taken
from .secretvalues import SecretValues
from .traffic import COMMON, PLUGIN, Numbers, TrafficProvider
from .web import WebProvider

__all__ = ["AnalysisReconciler", "add_analyses"]

_CONCURRENCY: Final = 30
_WRITE_SECONDS: Final = 10.0
"""Between writes of what only goes on: a judge looks each second, which nobody has to store each time."""
_MEASURE_SECONDS: Final = 600.0
_AWAITED_SECONDS: Final = 0.25
"""For measurements, before the others of a run go on without one that takes longer: a judge looks each second."""
_MASK: Final = "*****"
_MOST_REMEMBERED: Final = 10_000
_log = get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """What is known of a run beyond what was written.

    written: at, by the monotonic clock; going: measurements under way, by metric; is_ending: they end what goes on.
    """

    status: AnalysisRunStatus
    written: float = -_WRITE_SECONDS
    going: dict[str, asyncio.Task[Measurement]] = field(default_factory=dict)
    is_ending: bool = False

    def forget(self) -> None:
        """End measurements that nobody waits for any more."""
        for task in self.going.values():
            task.cancel()
        self.going.clear()


class AnalysisReconciler(Reconciler[AnalysisRun]):
    """Keeps the newest status of runs that go on in memory; what changes their outcome is written at once."""

    def __init__(self, providers: Providers, secrets: SecretValues) -> None:
        self._providers = providers
        self._secrets = secrets
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def reconcile(self, obj: AnalysisRun, context: Context) -> Result | None:
        """Measure what is due; come again when the next is."""
        if obj.metadata.deletion_timestamp or obj.status.phase in COMPLETED:
            self._forget(obj.metadata.uid)
            return await self._expire(obj, context)
        known = self._known.setdefault(obj.metadata.uid, _Known(obj.status))
        run = replace(obj, status=known.status)
        now = context.clock.now()
        try:
            secrets = await self._wanted(run)
            run = replace(run, spec=filled(run.spec, secrets))
            status = taken(run, await self._measure(run, known, secrets.values(), context), context.clock.now())
            status = _with_queries(status, filled(obj.spec, dict.fromkeys(secrets, _MASK)))
        except (AnalysisInvalid, ValueError) as error:
            status = _invalid(run.status, str(error), now)
        await self._keep(obj, status, known, context)
        if status.phase in COMPLETED:
            return await self._expire(replace(obj, status=status), context)
        asked, wait = due(replace(run, status=status), context.clock.now())
        if {each.metric.name for each in asked} - known.going.keys():
            return Result(requeue_after=0.0)
        return Result(requeue_after=min(wait or _AWAITED_SECONDS, _AWAITED_SECONDS) if known.going else wait)

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Forget the oldest runs that nobody asks about any more."""
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)[1].forget()
        return None

    def _forget(self, uid: str) -> None:
        known = self._known.pop(uid, None)
        if known is not None:
            known.forget()

    async def _wanted(self, run: AnalysisRun) -> Mapping[str, str]:
        """Return the arguments that are in secrets. Raises AnalysisInvalid for one that is not there."""
        secrets: dict[str, str] = {}
        for argument, (name, key) in wanted_secrets(run).items():
            try:
                value = await self._secrets.value(run.metadata.namespace, name, key)
            except NotFound:
                raise AnalysisInvalid(f"argument '{argument}': secret '{name}' is not there") from None
            if value is None:
                raise AnalysisInvalid(f"argument '{argument}': secret '{name}' has no key '{key}'")
            secrets[argument] = value.decode("utf-8", "replace")
        return secrets

    async def _measure(
        self, run: AnalysisRun, known: _Known, secrets: Collection[str], context: Context
    ) -> Mapping[str, Measurement]:
        """Begin what is due and return what is over, be it begun before. What takes long makes no other wait."""
        if is_ending(run) and not known.is_ending:
            known.forget()  # what is under way was to go on; now it is to end
            known.is_ending = True
        for each in due(run, context.clock.now())[0]:
            if each.metric.name not in known.going:
                known.going[each.metric.name] = asyncio.ensure_future(self._one(run, each, secrets, context))
        if known.going:
            await asyncio.wait(known.going.values(), timeout=_AWAITED_SECONDS)
        over = [name for name, task in known.going.items() if task.done()]
        return {name: known.going.pop(name).result() for name in over}

    async def _one(self, run: AnalysisRun, each: Due, secrets: Collection[str], context: Context) -> Measurement:
        now = context.clock.now()
        began = each.started.started_at if each.started is not None else None
        try:
            provider = self._providers.of(each.metric)
            async with asyncio.timeout(_MEASURE_SECONDS):
                if each.started is not None and is_ending(run):
                    found = await provider.end(run, each.metric, each.started, now)
                else:
                    found = await provider.measure(run, each.metric, each.started, now)
        except MetricError as error:
            found = ended(ERROR, now, began, message=str(error))
        except TimeoutError:
            why = f"metric '{each.metric.name}': nothing within {_MEASURE_SECONDS:g} s"
            found = ended(ERROR, now, began, message=why)
        if found.phase in COMPLETED:
            found = replace(found, finished_at=times.format_micros(context.clock.now()))
        return replace(found, message=_masked(found.message, secrets)) if found.message else found

    async def _keep(self, obj: AnalysisRun, status: AnalysisRunStatus, known: _Known, context: Context) -> None:
        now = context.clock.monotonic()
        quiet = _essence(known.status) == _essence(status) and now - known.written < _WRITE_SECONDS
        if not quiet:
            await context.patch(obj, MergePatch({"status": to_dict(status)}))
            known.written = now
            self._tell(obj, known.status, status, context)
        known.status = status
        if status.phase in COMPLETED:
            self._forget(obj.metadata.uid)
            _log.info("analysis run ended", run=str(context.request), phase=status.phase, message=status.message)

    def _tell(self, obj: AnalysisRun, before: AnalysisRunStatus, status: AnalysisRunStatus, context: Context) -> None:
        """Say what users have to know, as events."""
        was = _in_common_outages(before)
        for name, message in _in_common_outages(status).items():
            if name not in was:
                context.recorder.warning(obj, "CommonOutage", f"Metric '{name}': {message}")
        if status.phase == SUCCESSFUL:
            context.recorder.normal(obj, "AnalysisRunSuccessful", status.message or "Analysis completed")
        elif status.phase in COMPLETED:
            context.recorder.warning(obj, f"AnalysisRun{status.phase}", status.message or "Analysis completed")

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
    return (
        status.phase,
        [
            (each.name, each.phase, each.count, each.error, len(each.measurements), each.measurements[-1].phase)
            if each.measurements
            else (each.name, each.phase)
            for each in status.metric_results
        ],
        _in_common_outages(status).keys(),
    )


def _in_common_outages(status: AnalysisRunStatus) -> Mapping[str, str]:
    """Return the metrics in which the stable version is as bad as the new one now, and what is said of it."""
    last = {each.name: each.measurements[-1] for each in status.metric_results if each.measurements}
    return {name: each.message or "" for name, each in last.items() if COMMON in each.metadata}


def _masked(text: str, secrets: Collection[str]) -> str:
    """Return a text without what is secret: servers repeat what they were asked."""
    for each in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(each, _MASK)
    return text


def _with_queries(status: AnalysisRunStatus, spec: AnalysisRunSpec) -> AnalysisRunStatus:
    """Return a status whose results say what is asked, as Argo's do."""
    said = resolved_queries(spec)
    results = [replace(each, metadata=said[each.name]) if each.name in said else each for each in status.metric_results]
    return replace(status, metric_results=results)


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
