"""What a worker tells of each second, at its end: whole seconds that are the same in all workers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pilothouse.traffic.config import Configuration
from pilothouse.traffic.numbers import Key
from pilothouse.traffic.plane.messages import MOST_BYTES, Numbers, Ready, decode_from_worker
from pilothouse.traffic.plane.process import Control
from support.planekit import configuration

KEY = Key("shop/web", "0", "b", "stable", "eu")


class Told:
    """A worker whose clock a test moves, and its parent's end."""

    def __init__(self) -> None:
        self.now = 1000.4
        self.parent, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.parent.setblocking(False)
        self.control = Control(worker, clock=lambda: self.now)
        self.worker = self.control.worker
        self.control.start()
        self.end = worker
        assert isinstance(decode_from_worker(self.parent.recv(MOST_BYTES)), Ready)

    def until(self, now: float) -> list[Numbers]:
        """Return what is told when it is `now`."""
        self.now = now
        self.worker.reactor.turn(0.0)
        came: list[Numbers] = []
        while True:
            try:
                message = decode_from_worker(self.parent.recv(MOST_BYTES))
            except BlockingIOError:
                return came
            assert isinstance(message, Numbers)
            came.append(message)

    def endpoints(self, now: float) -> list[tuple[str, int, int]]:
        rows = [row for numbers in self.until(now) for row in numbers.endpoints]
        return [(row.address, row.requests, row.failures) for row in rows]


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.worker.close()
    made.parent.close()
    made.end.close()


def test_a_second_is_told_of_at_its_end_whenever_the_worker_began(told: Told) -> None:
    told.worker.tally.add(KEY, 200, 0.01, 1, 2)
    assert told.until(1000.999) == []
    (numbers,) = told.until(1001.001)
    assert (numbers.at, [each.key for each in numbers.counted]) == (1000, [KEY])
    assert told.until(1001.9) == []
    (numbers,) = told.until(1002.0)
    assert (numbers.at, numbers.counted) == (1001, ())


def test_a_worker_that_was_held_up_goes_on_at_whole_seconds(told: Told) -> None:
    assert [numbers.at for numbers in told.until(1003.7)] == [1002]
    assert told.until(1003.9) == []
    assert [numbers.at for numbers in told.until(1004.0)] == [1003]


def test_endpoints_are_told_of_where_something_came_to_them(told: Told) -> None:
    config = configuration(1, 2)
    told.worker.take(Configuration(generation=1, backends=config.backends))
    first, second = told.worker.pools["b"].balancer.states
    first.total, first.failed, second.total = 5, 1, 2
    assert told.endpoints(1001.0) == [("127.0.0.1:1", 5, 1), ("127.0.0.1:2", 2, 0)]
    first.total, first.failed = 8, 2
    assert told.endpoints(1002.0) == [("127.0.0.1:1", 3, 1)]
    assert told.endpoints(1003.0) == []
    told.worker.take(Configuration(generation=2))
    told.worker.take(Configuration(generation=3, backends=config.backends))
    told.worker.pools["b"].balancer.states[0].total = 1
    assert told.endpoints(1004.0) == [("127.0.0.1:1", 1, 0)]


def test_many_keys_and_endpoints_go_in_several_messages(told: Told) -> None:
    backends = configuration(*range(1, 451)).backends
    told.worker.take(Configuration(generation=1, backends=backends))
    for state in told.worker.pools["b"].balancer.states:
        state.total = 1
    for number in range(250):
        told.worker.tally.add(KEY._replace(region=str(number)), 200, 0.01, 0, 0)
    told.worker.tally.refuse("smuggling")
    came = told.until(1001.0)
    assert [(len(each.counted), len(each.endpoints), each.at) for each in came] == [
        (200, 200, 1000),
        (50, 200, 1000),
        (0, 50, 1000),
    ]
    assert [each.refused for each in came] == [{"smuggling": 1}, {}, {}]
