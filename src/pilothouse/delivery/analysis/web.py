"""The providers `web` and `prometheus`: values from servers that answer HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from pilothouse.apiserver.tables.jsonpath import JsonPathError, compile_path
from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement, Metric
from pilothouse.kinds.structs import to_dict

from .fetching import Fetch, Fetcher
from .providers import MetricError, ended, measured
from .runs import SUCCESSFUL

__all__ = ["PrometheusProvider", "WebProvider"]

_WEB_SECONDS: Final = 10.0
_PROMETHEUS_SECONDS: Final = 30.0
_MOST_SERIES: Final = 10_000
_METHODS: Final = ("GET", "POST", "PUT")


class _AtOnce:
    """What both share: a measurement is over when the answer is there."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def end(self, run: AnalysisRun, metric: Metric, started: Measurement, now: datetime) -> Measurement:
        """End what another provider began before the run was changed."""
        return ended(SUCCESSFUL, now, started.started_at, message="the measurement was ended")


class WebProvider(_AtOnce):
    """`web`: JSON from an address, and what a path finds in it."""

    async def measure(
        self,
        run: AnalysisRun,
        metric: Metric,
        started: Measurement | None,
        now: datetime,
    ) -> Measurement:
        """Ask once; see `Provider`."""
        web = metric.provider.web
        assert web is not None  # noqa: S101  # that is why this provider was chosen
        method = (web.method or "GET").upper()
        if method not in _METHODS:
            raise MetricError(f"metric '{metric.name}': web.method '{method}': want {', '.join(_METHODS)}")
        body = web.body.encode() if web.body else None
        if web.json_body is not None:
            body = msgspec.json.encode(to_dict(web)["jsonBody"])
        found = await self._fetcher.json(
            Fetch(
                url=web.url,
                method=method,
                headers=web.headers,
                body=body,
                seconds=float(web.timeout_seconds or _WEB_SECONDS),
                insecure=bool(web.insecure),
                authentication=web.authentication,
            )
        )
        return measured(metric, _at(web.json_path or "", found, metric.name), now)


def _at(path: str, value: Any, metric: str) -> Any:
    """Return what a JSONPath such as `{$.data.ok}` finds: one value, or a list of several."""
    bare = path.strip().removeprefix("{").removesuffix("}").strip().removeprefix("$")
    if not bare:
        return value
    try:
        found = list(compile_path(bare).find(value))
    except JsonPathError as error:
        raise MetricError(f"metric '{metric}': web.jsonPath '{path}': {error}") from None
    if not found:
        raise MetricError(f"metric '{metric}': web.jsonPath '{path}': the answer has no such field")
    return found[0] if len(found) == 1 else found


class PrometheusProvider(_AtOnce):
    """`prometheus`: an instant query; a vector is a list of numbers, a scalar one number."""

    async def measure(
        self,
        run: AnalysisRun,
        metric: Metric,
        started: Measurement | None,
        now: datetime,
    ) -> Measurement:
        """Ask once; see `Provider`."""
        asked = metric.provider.prometheus
        assert asked is not None  # noqa: S101  # that is why this provider was chosen
        if asked.range_query is not None:
            raise MetricError(f"metric '{metric.name}': prometheus.rangeQuery is not there; use `[5m]` in the query")
        if not asked.address or not asked.query:
            raise MetricError(f"metric '{metric.name}': prometheus: address and query are both wanted")
        answer = await self._fetcher.json(
            Fetch(
                url=f"{asked.address.rstrip('/')}/api/v1/query?{urlencode({'query': asked.query})}",
                headers=asked.headers,
                seconds=float(asked.timeout or _PROMETHEUS_SECONDS),
                insecure=bool(asked.insecure),
                authentication=asked.authentication,
            )
        )
        return measured(metric, _result(answer, metric.name), now)


def _result(answer: Any, metric: str) -> Any:
    data = answer.get("data") if isinstance(answer, dict) and answer.get("status") == "success" else None
    found: Mapping[str, Any] = data if isinstance(data, dict) else {}
    try:
        kind, result = found["resultType"], found["result"]
        if kind == "scalar":
            return float(result[1])
        if kind == "vector":
            return [float(each["value"][1]) for each in result[:_MOST_SERIES]]
    except (KeyError, IndexError, TypeError, ValueError):
        kind = "nothing that can be read"
    raise MetricError(f"metric '{metric}': prometheus answers {kind}; want a vector or a scalar")
