from __future__ import annotations

import pytest

from pilothouse.foundation.metrics import BYTES_BUCKETS, COUNT_BUCKETS, PROGRAM, SECONDS_BUCKETS, MetricError, Metrics


def test_what_is_counted_is_shown() -> None:
    metrics = Metrics()
    metrics.counter("pilothouse_store_puts_total", "Puts.", ["result"]).labels("ok").inc(3)
    metrics.gauge("pilothouse_store_open_watchers", "Watchers.").set(2)
    metrics.histogram("pilothouse_store_fsync_seconds", "Syncs.").observe(0.0003)
    text = metrics.exposition().decode()
    assert 'pilothouse_store_puts_total{result="ok"} 3.0' in text
    assert "pilothouse_store_open_watchers 2.0" in text
    assert 'pilothouse_store_fsync_seconds_bucket{le="0.0005"} 1.0' in text
    assert 'pilothouse_store_fsync_seconds_bucket{le="0.00025"} 0.0' in text


def test_buckets_follow_the_unit() -> None:
    metrics = Metrics()
    for unit, buckets in (("seconds", SECONDS_BUCKETS), ("bytes", BYTES_BUCKETS), ("entries", COUNT_BUCKETS)):
        name = f"pilothouse_store_batch_{unit}"
        metrics.histogram(name, "Sizes.")
        assert metrics.exposition().decode().count(f"{name}_bucket") == len(buckets) + 1


def test_the_same_metric_is_made_once_and_another_is_refused() -> None:
    metrics = Metrics()
    name = "pilothouse_store_puts_total"
    assert metrics.counter(name, "Puts.") is metrics.counter(name, "Puts.")
    with pytest.raises(MetricError, match=f"{name}: there already"):
        metrics.counter(name, "Puts.", ["result"])
    metrics.histogram("pilothouse_store_batch_bytes", "Sizes.", buckets=[1, 2])
    with pytest.raises(MetricError, match="there already"):
        metrics.histogram("pilothouse_store_batch_bytes", "Sizes.")
    assert Metrics().counter(name, "Other.") is not metrics.counter(name, "Puts.")


@pytest.mark.parametrize(
    "name", ["puts_total", "pilothouse_total", "pilothouse_store_total", "pilothouse_Store_x_total"]
)
def test_names_follow_the_rule(name: str) -> None:
    with pytest.raises(MetricError, match="want pilothouse_<room>_<thing>_<unit>"):
        Metrics().counter(name, "Wrong.")


def test_total_is_for_counters() -> None:
    with pytest.raises(MetricError, match="ends in _total"):
        Metrics().counter("pilothouse_store_put_seconds", "Wrong.")
    with pytest.raises(MetricError, match="_total is for counters"):
        Metrics().gauge("pilothouse_store_puts_total", "Wrong.")


def test_the_programs_registry_shows_the_process() -> None:
    assert b"process_resident_memory_bytes" in PROGRAM.exposition()
