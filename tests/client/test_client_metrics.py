"""Figures that are read only when somebody asks."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest

from pilothouse.client.metrics import Distribution, Sample, register
from pilothouse.foundation.metrics import PROGRAM, Metrics


class Source:
    def __init__(self, *samples: Sample) -> None:
        self._samples = samples

    def samples(self) -> Iterable[Sample]:
        return self._samples


def counted(value: float, **labels: str) -> Sample:
    return Sample("counter", "pilothouse_client_things_total", "Things", labels, value)


def test_sources_with_the_same_labels_are_added_up_as_long_as_they_live() -> None:
    metrics = Metrics()
    one, two, three = Source(counted(1, of="a")), Source(counted(2, of="a")), Source(counted(4, of="b"))
    for source in (one, two, three):
        register(source, metrics)
        register(source, metrics)
    text = metrics.exposition().decode()
    assert 'pilothouse_client_things_total{of="a"} 3.0' in text
    assert 'pilothouse_client_things_total{of="b"} 4.0' in text
    del one, source
    gc.collect()
    assert 'pilothouse_client_things_total{of="a"} 2.0' in metrics.exposition().decode()


def test_a_distribution_is_a_histogram() -> None:
    metrics = Metrics()
    times = Distribution()
    for seconds in (0.00005, 0.0001, 0.5, 5_000):
        times.observe(seconds)
    source = Source(Sample("histogram", "pilothouse_client_work_seconds", "Work", {}, times))
    again = Source(Sample("histogram", "pilothouse_client_work_seconds", "Work", {}, times))
    register(source, metrics)
    register(again, metrics)
    text = metrics.exposition().decode()
    assert 'pilothouse_client_work_seconds_bucket{le="0.0001"} 4.0' in text
    assert 'pilothouse_client_work_seconds_bucket{le="1.0"} 6.0' in text
    assert 'pilothouse_client_work_seconds_bucket{le="+Inf"} 8.0' in text
    assert "pilothouse_client_work_seconds_sum 10001.0" in text


def test_a_number_and_a_histogram_of_one_name_are_a_mistake() -> None:
    metrics = Metrics()
    keep = [
        Source(counted(1)),
        Source(Sample("counter", "pilothouse_client_things_total", "Things", {}, Distribution())),
    ]
    for source in keep:
        register(source, metrics)
    with pytest.raises(TypeError, match="same name"):
        metrics.exposition()


def test_without_a_registry_it_is_the_programs_own() -> None:
    source = Source(Sample("gauge", "pilothouse_client_test_things", "Things", {}, 1))
    register(source)
    assert "pilothouse_client_test_things 1.0" in PROGRAM.exposition().decode()
