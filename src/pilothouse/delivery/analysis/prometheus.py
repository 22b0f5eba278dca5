"""The provider `prometheus`: instant and range queries; series are a list of numbers, a scalar is one number."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from pilothouse.delivery.resources.analyses import (
    AnalysisRun,
    AnalysisRunSpec,
    Header,
    Measurement,
    Metric,
    PrometheusMetric,
)
from pilothouse.kinds import durations
from pilothouse.kinds.structs import replace

from .expressions import ExpressionError, compiled
from .fetching import AtOnce, Fetch
from .providers import MetricError, measured

__all__ = ["ADDRESS", "PrometheusProvider", "resolved_queries"]

ADDRESS: Final = "ARGO_ROLLOUTS_PROMETHEUS_ADDRESS"
"""The environment variable with the address of metrics that name none."""
_SECONDS: Final = 30.0
_MOST_VALUES: Final = 20_000
_LONGEST_URL: Final = 2_000
"""Beyond it the query is sent as a form: servers and proxies refuse long addresses."""
_LONGEST_REASON: Final = 300
_FORM: Final = "application/x-www-form-urlencoded"


class PrometheusProvider(AtOnce):
    """Asks servers that speak Prometheus' HTTP API."""

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
        try:
            fetch = _fetch(asked, now)
        except ValueError as error:
            raise MetricError(f"metric '{metric.name}': prometheus.{error}") from None
        answer = await self._fetcher.json(fetch)
        found = measured(metric, _result(answer, metric.name), now)
        warnings = answer.get("warnings") or ()
        if not warnings:
            return found
        said = ", ".join(f'"{each}"' for each in warnings)
        return replace(found, metadata={"warnings": said[:_LONGEST_REASON]})


def resolved_queries(spec: AnalysisRunSpec) -> Mapping[str, Mapping[str, str]]:
    """Return what results of metrics say of their queries, by metric. spec: with arguments, and secrets masked."""
    asked = {metric.name: metric.provider.prometheus for metric in spec.metrics}
    return {name: {"ResolvedPrometheusQuery": each.query} for name, each in asked.items() if each and each.query}


def _fetch(asked: PrometheusMetric, now: datetime) -> Fetch:
    """Return the request of a metric. Raises ValueError, which begins with the field."""
    address = asked.address or os.environ.get(ADDRESS, "")
    if not address:
        raise ValueError(f"address: it is wanted, here or as the controller's {ADDRESS}")
    parts = urlsplit(address)
    if not parts.scheme or not parts.netloc:
        raise ValueError("address: want a URL such as http://prometheus.example:9090")
    if not asked.query:
        raise ValueError("query: it is wanted")
    if asked.timeout is not None and asked.timeout < 0:
        raise ValueError(f"timeout: {asked.timeout} s; want none or more")
    kind, form = "query", {"query": asked.query}
    if asked.range_query is not None:
        kind, form = "query_range", {**form, **_range(asked, now)}
    url, query = f"{address.rstrip('/')}/api/v1/{kind}", urlencode(form)
    is_long = len(url) + len(query) > _LONGEST_URL
    return Fetch(
        url=url if is_long else f"{url}?{query}",
        method="POST" if is_long else "GET",
        headers=[Header(key="Content-Type", value=_FORM), *asked.headers] if is_long else asked.headers,
        body=query.encode() if is_long else None,
        seconds=float(asked.timeout or _SECONDS),
        insecure=bool(asked.insecure),
        authentication=asked.authentication,
        reason=_reason,
    )


def _range(asked: PrometheusMetric, now: datetime) -> Mapping[str, str]:
    """Return begin, end and step of a range query, all in seconds."""
    wanted = asked.range_query
    assert wanted is not None  # noqa: S101  # that is why
    try:
        step = durations.parse(wanted.step or "") / durations.SECOND
    except ValueError as error:
        raise ValueError(f"rangeQuery.step: {error}; want a span such as 1m") from None
    if step <= 0:
        raise ValueError(f"rangeQuery.step: '{wanted.step}'; want more than nothing")
    start, end = _moment("start", wanted.start, now), _moment("end", wanted.end, now)
    if end < start:
        raise ValueError("rangeQuery.end: it is before start")
    return {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}


def _moment(field: str, source: str | None, now: datetime) -> float:
    """Return the time that an expression says, in seconds since 1970."""
    try:
        found = compiled(source or "")({"now()": now})
    except ExpressionError as error:
        raise ValueError(f"rangeQuery.{field}: {error}") from None
    if isinstance(found, datetime):
        return found.timestamp()
    raise ValueError(f"""rangeQuery.{field}: '{source}' is no time; want such as now() - duration("5m")""")


def _reason(body: bytes) -> str:
    """Return what the server says is wrong."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    if not isinstance(found, dict) or found.get("status") != "error":
        return ""
    return f"{found.get('errorType')}: {found.get('error')}"[:_LONGEST_REASON]


def _result(answer: Any, metric: str) -> Any:
    """Return a number for a scalar, else the numbers of all series one after another."""
    data = answer.get("data") if isinstance(answer, dict) and answer.get("status") == "success" else None
    found: Mapping[str, Any] = data if isinstance(data, dict) else {}
    try:
        kind, result = found["resultType"], found["result"]
        if kind == "scalar":
            return float(result[1])
        if kind in ("vector", "matrix"):
            values = [float(value) for each in result for _, value in _samples(each, kind)]
            if len(values) > _MOST_VALUES:
                raise MetricError(f"metric '{metric}': {len(values)} values; {_MOST_VALUES} are the most")
            return values
    except (KeyError, IndexError, TypeError, ValueError):
        kind = "nothing that can be read"
    raise MetricError(f"metric '{metric}': prometheus answers {kind}; want a vector, a matrix or a scalar")


def _samples(series: Mapping[str, Any], kind: str) -> list[Any]:
    # A native histogram has no values and says nothing that a condition could ask for.
    return series.get("values", []) if kind == "matrix" else [series["value"]] if "value" in series else []
