"""Bootstrap tokens: what their secrets hold, and that they are deleted when their time is over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ObjectMeta, Secret
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.bootstraptokens import GROUP, NAMESPACE, TOKEN_TYPE, expires_in, token_secret
from pilothouse.workloads.reconcilers.tokens import add_token_cleaning

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def test_a_tokens_secret_is_as_kubeadm_has_it() -> None:
    made = token_secret("abcdef", "0123456789abcdef", now=NOW, ttl_seconds=3600, description="for n1")
    assert (made.metadata.name, made.metadata.namespace, made.type) == (
        "bootstrap-token-abcdef",
        "kube-system",
        TOKEN_TYPE,
    )
    assert made.data == {
        "token-id": b"abcdef",
        "token-secret": b"0123456789abcdef",
        "usage-bootstrap-authentication": b"true",
        "usage-bootstrap-signing": b"true",
        "auth-extra-groups": GROUP.encode(),
        "expiration": b"2025-01-01T01:00:00Z",
        "description": b"for n1",
    }


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b"2025-01-01T01:00:00Z", 3600.0),
        (b"2025-01-01T02:00:00+01:00", 3600.0),
        (b"2024-12-31T23:59:59Z", 0.0),
        (b"soon", 0.0),
        (b"\xff", 0.0),
        (b"", None),
    ],
)
def test_when_a_token_is_over(text: bytes, left: float | None) -> None:
    assert expires_in({"expiration": text}, NOW) == left
    assert expires_in({}, NOW) is None


async def names(client: Client) -> set[str]:
    return {secret.metadata.name for secret in await client.list_all(Secret, NAMESPACE)}


async def test_tokens_go_when_their_time_is_over_and_nothing_else_does() -> None:
    clock = FakeClock()
    async with (
        ControlPlane(clock=clock, lifecycle=False) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        for name, seconds in (("aaaaaa", 60), ("bbbbbb", 600), ("cccccc", 0)):
            await client.create(token_secret(name, "0" * 16, now=clock.now(), ttl_seconds=seconds))
        other = {"expiration": b"2020-01-01T00:00:00Z"}
        metadata = ObjectMeta(name="other", namespace=NAMESPACE)
        await client.create(Secret(metadata=metadata, data=other))
        harness = Harness(client, clock=clock)
        add_token_cleaning(harness.manager)
        async with harness:
            await harness.converge()
            kept = {"bootstrap-token-bbbbbb", "bootstrap-token-cccccc", "other"}
            assert await names(client) == kept | {"bootstrap-token-aaaaaa"}
            await harness.advance(62)
            await harness.converge()
            assert await names(client) == kept
            await client.create(token_secret("dddddd", "0" * 16, now=clock.now(), ttl_seconds=10))
            await harness.settle()
            await harness.advance(12)
            await harness.converge()
            assert await names(client) == kept
            await harness.advance(600)
            await harness.converge()
            assert await names(client) == {"bootstrap-token-cccccc", "other"}
