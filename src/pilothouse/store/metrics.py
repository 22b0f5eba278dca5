"""What the store tells monitoring of its own work. Recorded once a batch or a checkpoint, never for each command."""

from __future__ import annotations

from pilothouse.foundation.metrics import PROGRAM, Metrics

__all__ = ["StoreMetrics"]


class StoreMetrics:
    """The metrics of the write path; sizes and positions are read from `Store.status` when they are asked for."""

    def __init__(self, metrics: Metrics = PROGRAM) -> None:
        self.batch = metrics.histogram("pilothouse_store_batch_commands", "Commands that shared one sync.")
        self.sync = metrics.histogram("pilothouse_store_sync_seconds", "How long a sync of the log took.")
        self.applied = metrics.counter("pilothouse_store_commands_total", "Commands applied.")
        self.refused = metrics.counter(
            "pilothouse_store_refused_total", "Commands that the log refused: no room, or failed.", ("reason",)
        )
        self.checkpoint = metrics.histogram(
            "pilothouse_store_checkpoint_seconds", "How long a checkpoint took.", ("kind",)
        )
        self.checkpoint_failures = metrics.counter(
            "pilothouse_store_checkpoint_failures_total", "Checkpoints that could not be written."
        )
