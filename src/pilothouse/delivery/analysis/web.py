"""The provider `web`: values from servers that answer JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from pilothouse.apiserver.tables.jsonpath import JsonPathError, compile_path
from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement, Metric
from pilothouse.kinds.structs import to_dict

from .fetching import AtOnce, Fetch
from .providers import MetricError, measured

__all__ = ["WebProvider"]

_WEB_SECONDS: Final = 10.0
_METHODS: Final = ("GET", "POST", "PUT")


class WebProvider(AtOnce):
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
