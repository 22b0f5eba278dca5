"""What a gateway has counted: histograms that can be added up, windows over the last seconds, and metrics. Pure."""

from __future__ import annotations

from .histogram import WIDTH, Histogram, bounds_of, bucket_of
from .rates import Rates
from .samples import Sample, Samples
from .windows import LATENESS, Figures, Key, Second, Windows, last_whole

__all__ = [
    "LATENESS",
    "WIDTH",
    "Figures",
    "Histogram",
    "Key",
    "Rates",
    "Sample",
    "Samples",
    "Second",
    "Windows",
    "bounds_of",
    "bucket_of",
    "last_whole",
]
