"""What delivery reads of the gateway in its process: samples of bad requests as lines."""

from __future__ import annotations

from pilothouse.platform.delivery import GatewaySamples
from pilothouse.traffic.numbers import Sample, Samples


def test_a_sample_is_a_line_with_when_what_and_by_whom() -> None:
    samples = Samples()
    samples.add([Sample(1.5, "default/shop", "shop-canary", "cn-east", "GET", "/cart", 503, 0.0123, "0af7")])
    samples.add([Sample(2.0, "default/shop", "shop-canary", "", "PUT", "/pay", 200, 1.2)])
    lines = GatewaySamples(samples)("default/shop", "shop-canary", 1.0)
    assert lines == [
        "1970-01-01T00:00:01.500000Z GET /cart: 503 in 12 ms by shop-canary, for cn-east, trace 0af7",
        "1970-01-01T00:00:02.000000Z PUT /pay: 200 in 1200 ms by shop-canary",
    ]
    assert GatewaySamples(samples)("default/shop", "shop-stable", 0.0) == []
