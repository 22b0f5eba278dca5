"""Samples of bad requests: what is taken of them and what is not, bounds, and their way to the gateway's parent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.traffic.numbers import Sample, Samples
from pilothouse.traffic.plane import sampling
from pilothouse.traffic.plane.fields import trace_of
from pilothouse.traffic.plane.messages import Sampled, decode_from_worker, encode
from pilothouse.traffic.plane.sampling import Sampler
from support.planekit import Origin, Plane, Raw, configuration, free_port, plane, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
BAD = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
ASK = (
    b"GET /cart/7?token=secret HTTP/1.1\r\nHost: shop.test\r\nauthorization: Bearer hush\r\n"
    b"traceparent: 00-" + TRACE.encode() + b"-b7ad6b7169203331-01\r\n\r\n"
)


def sample(at: float, **changes: Any) -> Sample:
    made = Sample(at, "default/shop", "canary", "cn-east", "GET", "/", 500, 0.1)
    return msgspec.structs.replace(made, **changes)


@contextlib.contextmanager
def asked(answer: bytes, request: bytes) -> Iterator[tuple[Plane, Origin]]:
    """Ask a worker, and wait until it has counted the request."""
    with Origin.answering(answer) as origin, plane(configuration(origin.port, port=free_port())) as made:
        client = Raw(made.port)
        with contextlib.closing(client.sock):
            client.send(request).head()
            until(lambda: made.do(lambda: made.worker.tally._lines), "a count")
            yield made, origin


def test_a_failing_request_leaves_a_sample_without_query_headers_or_body() -> None:
    with asked(BAD, ASK) as (made, _):
        (found,) = made.do(made.worker.sampler.take)
        assert made.do(made.worker.sampler.take) == []
    assert (found.route, found.version, found.method, found.path) == ("default/r", "stable", "GET", "/cart/7")
    assert (found.status, found.trace, found.is_failure) == (503, TRACE, True)
    assert found.at > 1e9
    assert not any(word in repr(found) for word in ("secret", "hush", "shop.test"))


def test_a_request_without_a_trace_has_the_one_it_was_given() -> None:
    with asked(BAD, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") as (made, origin):
        (found,) = made.do(made.worker.sampler.take)
    assert f"traceparent: 00-{found.trace}-".encode() in origin.heads[0].lower()


def test_what_goes_well_leaves_none() -> None:
    with asked(GOOD, ASK) as (made, _):
        assert made.do(made.worker.sampler.take) == []


# Bounds


@dataclass
class Asked:
    method: bytes = b"GET"
    path: str = "/"


@dataclass
class Went:
    status: int
    region: str = ""
    request: Asked = field(default_factory=Asked)
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)


@dataclass
class Decided:
    route: str
    version: str


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([200, 500, 503])), max_size=400))
def test_a_second_has_few_samples_whatever_comes(requests: list[tuple[int, int]]) -> None:
    sampler = Sampler()
    for number, status in requests:
        decision: Any = Decided(f"default/r{number}", "canary")
        sampler.add(Went(status, request=Asked(b"X" * 999, "/" + "a" * 9999)), decision, 1.0, 1e9)
    found = sampler.take()
    assert len(found) <= sampling._MOST
    assert all(len(each.path) <= 300 and len(each.method) <= 300 for each in found)
    for route in {each.route for each in found}:
        for is_failure in (True, False):
            assert sum(each.route == route and each.is_failure is is_failure for each in found) <= sampling._EACH
    assert len(encode(Sampled(found))) < 64 << 10


def test_what_no_route_had_is_no_sample() -> None:
    sampler = Sampler()
    sampler.add(Went(500), None, 0.1, 1e9)
    assert sampler.take() == []


def test_the_last_of_each_route_and_version_are_kept_failures_first() -> None:
    samples = Samples()
    samples.add([sample(float(number)) for number in range(50)])
    samples.add([sample(100.0, status=200, seconds=1.2), sample(99.0, version="stable")])
    found = samples.of("default/shop", "canary")
    assert [each.at for each in found] == [*map(float, range(49, 39, -1)), 100.0]
    assert [each.at for each in samples.of("default/shop", "canary", since=48.0)] == [49.0, 48.0, 100.0]
    assert samples.of("default/shop", "canary", since=200.0) == []
    assert samples.of("default/other", "canary") == []


def test_many_routes_do_not_pile_up() -> None:
    samples = Samples()
    samples.add([sample(1.0, route=f"default/r{number}") for number in range(3000)])
    assert len(samples._kept) == 1000
    assert samples.of("default/r2999", "canary")
    assert not samples.of("default/r0", "canary")


def test_a_sample_goes_over_the_control_socket() -> None:
    message = Sampled([sample(1.5, trace=TRACE)])
    assert decode_from_worker(encode(message)) == message


def test_only_a_valid_trace_has_an_id() -> None:
    assert trace_of([(b"traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode())]) == TRACE
    assert trace_of([(b"traceparent", b"00-zz")]) == ""
    assert trace_of([]) == ""
