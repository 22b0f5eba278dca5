"""Requests of servers to webhooks, answered: found by path, bounded in number and time, and counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import parse_qs

import msgspec

from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, BadRequest, InternalError, ServiceUnavailable, Timeout, from_dict

from .serving import HttpRequest, Page
from .webhook_calls import Late, Overloaded, Runner
from .webhook_conversion import ConversionFailed, Conversions, convert_review, failure, read_conversion
from .webhook_metrics import WebhookMetrics
from .webhook_options import CONVERT_PATH, Hook
from .webhook_review import AdmissionRequest, ReviewError, Verdict, answer, read_review

__all__ = ["MAX_CONVERSION_BYTES", "MAX_REVIEW_BYTES", "Answerer"]

MAX_REVIEW_BYTES: Final = 7 << 20
"""Two objects of 3 MiB, which is the most that servers take, and what is said of the request."""
MAX_CONVERSION_BYTES: Final = 64 << 20
"""A review has all objects of a list that have to be converted."""
_CONVERSION_SECONDS: Final = 30.0
_SHARE: Final = 0.9
"""Of a webhook's timeout; the rest is for the answer's way, so that the server is told why."""
_JSON: Final = "application/json"

_log = get_logger("pilothouse.operator.webhooks")


class Answerer:
    """Answers requests by path. in_flight: how many at one time; more are refused and may be tried again."""

    def __init__(
        self,
        clock: Clock,
        metrics: WebhookMetrics,
        conversions: Mapping[tuple[str, str], Conversions],
        in_flight: int,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._conversions = conversions
        self._runner = Runner(clock)
        self._limit = in_flight
        self._now = 0
        self._routes: dict[str, tuple[float, Callable[[HttpRequest, float], Awaitable[Page]]]] = {}

    def add(self, hook: Hook) -> None:
        """Answer at the path of a webhook."""

        async def review(request: HttpRequest, seconds: float) -> Page:
            return await self._review(hook, request, seconds)

        self._routes[hook.path] = float(hook.options.timeout_seconds), review
        self._metrics.add(hook.path)

    def add_conversion(self) -> None:
        """Answer reviews of conversions too."""
        if CONVERT_PATH not in self._routes:
            self._routes[CONVERT_PATH] = _CONVERSION_SECONDS, self._convert
            self._metrics.add(CONVERT_PATH)

    async def answer(self, request: HttpRequest) -> Page:
        """Answer a request; never raises but when it is cancelled."""
        route = self._routes.get(request.path)
        if route is None:
            return _refusal(from_dict({"message": f"there are: {' '.join(self._routes)}", "code": 404}))
        begun, status = self._clock.monotonic(), 500
        self._metrics.begin(request.path)
        self._now += 1
        try:
            page = await self._answered(request, *route)
            status = page.status
        finally:
            self._now -= 1
            self._metrics.end(request.path, status, self._clock.monotonic() - begun)
        return page

    async def _answered(
        self,
        request: HttpRequest,
        seconds: float,
        route: Callable[[HttpRequest, float], Awaitable[Page]],
    ) -> Page:
        if request.method != "POST":
            return _refusal(from_dict({"message": "reviews are sent by POST", "code": 405}))
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
            return _refusal(from_dict({"message": f"want content-type {_JSON}", "code": 415}))
        if self._now > self._limit:
            self._metrics.failures["overload"] += 1
            return _refusal(ServiceUnavailable(f"{self._limit} reviews are being answered; ask again later"))
        try:
            return await route(request, min(seconds, _asked(request.query, seconds)) * _SHARE)
        except ReviewError as error:
            return _refusal(BadRequest(f"{request.path}: {error}"))

    async def _review(self, hook: Hook, request: HttpRequest, seconds: float) -> Page:
        review = read_review(request.body)
        try:
            verdict = await self._runner.within(seconds, _handled(hook, review, self._runner))
            return Page(200, answer(review, verdict), _JSON)
        except Late:
            self._metrics.failures["timeout"] += 1
            _log.error("webhook timed out", webhook=hook.name, request=str(review), seconds=seconds)
            return _refusal(Timeout(f"{hook.name}: {review}: its handler did not return within {seconds:g} s"))
        except Overloaded as error:
            self._metrics.failures["overload"] += 1
            _log.error("webhook overloaded", webhook=hook.name, request=str(review), error=str(error))
            return _refusal(ServiceUnavailable(f"{hook.name}: {review}: {error}"))
        except Exception as error:  # noqa: BLE001  told to the server, which goes by the failure policy
            self._metrics.failures["error"] += 1
            _log.exception("webhook failed", webhook=hook.name, request=str(review), error=repr(error))
            told = f"{type(error).__name__}: {error}"
            return _refusal(InternalError(f"{hook.name}: {review}: its handler raised {told}"))

    async def _convert(self, request: HttpRequest, seconds: float) -> Page:
        review = read_conversion(request.body)
        try:
            work = self._runner.call(convert_review, review, self._conversions)
            body, error = await self._runner.within(seconds, work)
        except Late:
            self._metrics.failures["timeout"] += 1
            _log.error("conversion timed out", desired=review.desired, seconds=seconds)
            return Page(200, failure(review, f"conversion to {review.desired} took over {seconds:g} s"), _JSON)
        except Overloaded as overloaded:
            self._metrics.failures["overload"] += 1
            return _refusal(ServiceUnavailable(str(overloaded)))
        if error is not None:
            self._metrics.failures["error"] += not isinstance(error, ConversionFailed)
            _log.error("conversion failed", desired=review.desired, error=repr(error))
        return Page(200, body, _JSON)


async def _handled(hook: Hook, review: AdmissionRequest, runner: Runner) -> Verdict:
    return await hook.handle(review, runner.call)


def _asked(query: str, default: float) -> float:
    """Return the seconds that the server waits, as it says with each call: `timeout=10s`."""
    found = parse_qs(query).get("timeout", [""])[-1]
    number = found.removesuffix("s")
    return float(number) if number.isdecimal() and int(number) > 0 else default


def _refusal(status: ApiStatus) -> Page:
    return Page(status.code, msgspec.json.encode(status.to_dict()), _JSON)
