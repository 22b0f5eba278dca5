"""How long an operation looks for a member that answers."""

from __future__ import annotations

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.grpc import GrpcCode, GrpcError
from pilothouse.store import errors
from pilothouse.store.etcd import balancer
from pilothouse.store.etcd.backend import EtcdStore
from pilothouse.store.etcd.settings import EtcdOptions
from pilothouse.store.model import PutRequest


async def test_looking_for_a_member_ends_with_the_request_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    waits: list[float] = []

    class Unanswered:
        """A channel to a machine that drops every packet: each attempt takes all the time it is given."""

        def __init__(self, host: str, port: int, *, connect_timeout: float, **_: object) -> None:
            self.connect_timeout = connect_timeout
            self.target = f"{host}:{port}"

        async def connect(self) -> None:
            waits.append(self.connect_timeout)
            clock.advance(self.connect_timeout)
            raise GrpcError(GrpcCode.UNAVAILABLE, f"{self.target}: not connected within {self.connect_timeout} s")

        async def close(self) -> None:
            return

    monkeypatch.setattr(balancer, "GrpcChannel", Unanswered)
    store = EtcdStore(
        EtcdOptions(
            endpoints=("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"),
            dial_timeout=2.0,
            request_timeout=3.0,
            clock=clock,
        )
    )
    with pytest.raises(errors.Unavailable, match="Put was not served within 3 s"):
        await store.put(PutRequest(b"a"))
    assert waits == [2.0, 1.0]
    await store.close()
