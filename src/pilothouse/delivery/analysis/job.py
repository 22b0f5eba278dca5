"""The provider `job`: a Job measures; the measurement is what becomes of it."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.client.errors import ClientError
from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement, Metric
from pilothouse.kinds import times
from pilothouse.kinds.status import AlreadyExists, ApiStatus, NotFound
from pilothouse.kinds.structs import Job, from_dict

from .providers import MetricError, ended
from .runs import FAILED, RUNNING, SUCCESSFUL

__all__ = ["JobProvider"]

_LOOK: Final = timedelta(seconds=1)
_NAME: Final = "job-name"
_LONGEST: Final = 63
_DONE: Final = {"Complete": SUCCESSFUL, "SuccessCriteriaMet": SUCCESSFUL, "Failed": FAILED}


class JobProvider:
    """Makes the Job beside the run that owns it, so that it goes with the run."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def measure(
        self, run: AnalysisRun, metric: Metric, started: Measurement | None, now: datetime
    ) -> Measurement:
        """Make the Job, or look how it is; see `Provider`."""
        try:
            if started is None:
                name = await self._make(run, metric)
                return self._going(name, times.format_micros(now), now)
            name = started.metadata.get(_NAME, "")
            job = await self._client.get(Job, name, run.metadata.namespace)
        except NotFound:
            raise MetricError(f"metric '{metric.name}': job: it was deleted before it ended") from None
        except (ApiStatus, ClientError, OSError) as error:
            raise MetricError(f"metric '{metric.name}': job: {error}") from None
        for condition in job.status.conditions:
            if condition.status == "True" and condition.type in _DONE:
                return ended(_DONE[condition.type], now, started.started_at, message=condition.message or None)
        return self._going(name, started.started_at or times.format_micros(now), now)

    async def end(self, run: AnalysisRun, metric: Metric, started: Measurement, now: datetime) -> Measurement:
        """Delete the Job that nobody waits for any more."""
        try:
            await self._client.delete(
                Job, started.metadata.get(_NAME, ""), run.metadata.namespace, propagation="Background"
            )
        except NotFound:
            pass
        except (ApiStatus, ClientError, OSError) as error:
            return ended(SUCCESSFUL, now, started.started_at, message=f"its job could not be deleted: {error}")
        return ended(SUCCESSFUL, now, started.started_at, message="the measurement was ended")

    def _going(self, name: str, began: str, now: datetime) -> Measurement:
        return Measurement(
            phase=RUNNING, started_at=began, resume_at=times.format_micros(now + _LOOK), metadata={_NAME: name}
        )

    async def _make(self, run: AnalysisRun, metric: Metric) -> str:
        """Make the Job; one that was made before a crash is taken as it is."""
        asked: Any = metric.provider.job or {}
        result = next((each for each in run.status.metric_results if each.name == metric.name), None)
        number = 1 + (((result.count or 0) + (result.error or 0)) if result is not None else 0)
        name = f"{run.metadata.uid[:8]}.{metric.name}.{number}"[-_LONGEST:].strip(".-").replace(".", "-")
        owner = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "AnalysisRun",
            "name": run.metadata.name,
            "uid": run.metadata.uid,
            "controller": True,
        }
        metadata = dict(asked.get("metadata") or {})
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            "analysisrun.argoproj.io/metric-name": metric.name,
        }
        metadata["labels"] = {**(metadata.get("labels") or {}), "analysisrun.argoproj.io/uid": run.metadata.uid}
        metadata |= {"name": name, "namespace": run.metadata.namespace, "ownerReferences": [owner]}
        wanted = from_dict({"metadata": metadata, "spec": asked.get("spec") or {}}, Job)
        with contextlib.suppress(AlreadyExists):
            await self._client.create(wanted)
        return name
