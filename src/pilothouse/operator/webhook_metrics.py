"""Figures of webhooks, named as controller-runtime's are, and of their certificate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pilothouse.client.metrics import Distribution, Sample

__all__ = ["WebhookMetrics"]


class WebhookMetrics:
    """Plain counters by path, read when somebody asks."""

    def __init__(self) -> None:
        self.requests: Final[dict[str, dict[int, int]]] = {}
        self.in_flight: Final[dict[str, int]] = {}
        self.seconds: Final[dict[str, Distribution]] = {}
        self.failures: Final = {"error": 0, "timeout": 0, "overload": 0}
        """Handlers that raised or were late, and reviews that were refused for want of room."""
        self.certificate_errors = 0
        self.certificate_loads = 0
        self.corrections = 0
        """How often a configuration was written."""

    def add(self, path: str) -> None:
        """Count for a path, whose figures are there from the begin."""
        self.requests[path] = {200: 0, 500: 0}
        self.in_flight[path] = 0
        self.seconds[path] = Distribution()

    def begin(self, path: str) -> None:
        """Count a request that is being answered."""
        self.in_flight[path] += 1

    def end(self, path: str, status: int, seconds: float) -> None:
        """Count its answer."""
        self.in_flight[path] -= 1
        codes = self.requests[path]
        codes[status] = codes.get(status, 0) + 1
        self.seconds[path].observe(seconds)

    def samples(self, expiry: float | None, *, ready: bool) -> Iterable[Sample]:
        """Return the values now. expiry: of the certificate, in seconds since 1970; None without one."""
        for path, codes in self.requests.items():
            for code, count in codes.items():
                text = "Webhook requests by HTTP status"
                labels = {"webhook": path, "code": str(code)}
                yield Sample("counter", "controller_runtime_webhook_requests_total", text, labels, count)
            text = "Webhook requests that are being answered"
            labels = {"webhook": path}
            yield Sample("gauge", "controller_runtime_webhook_requests_in_flight", text, labels, self.in_flight[path])
            text = "From a webhook request to its answer"
            yield Sample("histogram", "controller_runtime_webhook_latency_seconds", text, labels, self.seconds[path])
        for how, count in self.failures.items():
            text = "Webhook requests that failed by how: the handler raised, was late, or there was no room"
            yield Sample("counter", "pilothouse_operator_webhook_failures_total", text, {"how": how}, count)
        for name, text, count in (
            ("errors", "Tries to get a certificate that failed", self.certificate_errors),
            ("loads", "Certificates that were taken up", self.certificate_loads),
        ):
            yield Sample("counter", f"pilothouse_operator_webhook_certificate_{name}_total", text, {}, count)
        text = "Webhook configurations that were written"
        yield Sample("counter", "pilothouse_operator_webhook_corrections_total", text, {}, self.corrections)
        text = "Whether webhooks can be called, 1, or not, 0"
        yield Sample("gauge", "pilothouse_operator_webhook_ready", text, {}, int(ready))
        if expiry is not None:
            text = "When the serving certificate expires, in seconds since 1970"
            yield Sample("gauge", "pilothouse_operator_webhook_certificate_expiry_timestamp_seconds", text, {}, expiry)
