"""The figures of an informer, as Prometheus is shown them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pilothouse.client.metrics import Sample
from pilothouse.client.reflector import Reflector

__all__ = ["informer_samples"]


def informer_samples(
    labels: Mapping[str, str],
    reflector: Reflector[Any],
    *,
    cached: int,
    unpacked: int,
    pending: int,
    failures: Mapping[str, int],
) -> Iterable[Sample]:
    """Return the values now. failures: of handlers, of the cache's functions, and restarts of tasks."""
    core = reflector.core
    counts = core.counts
    for name, text, count in (
        ("lists_total", "Lists begun", counts.lists),
        ("watches_total", "Watches begun", counts.watches),
        ("watch_events_total", "Events of watches, bookmarks included", counts.events),
        ("skipped_events_total", "Events whose object does not fit the type", counts.skipped),
        ("reflector_failures_total", "Failed lists and watches that were followed by a wait", counts.failures),
        ("silent_watches_total", "Watches given up because nothing was heard", reflector.silences),
        ("unpacked_objects_total", "Packed objects that were read; many a second want more recent_bytes", unpacked),
        ("informer_restarts_total", "Tasks of informers that had ended and were begun anew", failures["restarts"]),
        ("handler_failures_total", "Handlers of informers that raised", failures["handler"]),
        ("cache_function_failures_total", "Transforms and index functions that raised", failures["cache_function"]),
    ):
        yield Sample("counter", f"pilothouse_client_{name}", text, labels, count)
    for name, text, value in (
        ("cached_objects", "Objects in the caches of informers", cached),
        ("pending_notifications", "Notifications that wait for handlers", pending),
        ("failing_reflectors", "Reflectors whose last list or watch failed", int(core.failing > 0)),
    ):
        yield Sample("gauge", f"pilothouse_client_{name}", text, labels, value)
    text = "From asking for a page to having it"
    yield Sample("histogram", "pilothouse_client_list_seconds", text, labels, reflector.list_time)
