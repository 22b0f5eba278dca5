from __future__ import annotations

import pytest

from pilothouse.testing import ControlPlane


@pytest.mark.parametrize("path", ["/nothing", "/apis/nothing.example.com/v1/things", "/version", "/readyz", "/metrics"])
async def test_answers_do_not_gather_the_headers_of_earlier_ones(path: str) -> None:
    async with ControlPlane() as plane:
        counts = {len((await plane.request("GET", path)).headers) for _ in range(3)}
    assert len(counts) == 1


async def test_what_nothing_serves_is_not_found_in_plain_text() -> None:
    async with ControlPlane() as plane:
        answer = await plane.request("GET", "/apis/nothing.example.com/v1/things")
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.header("content-type") == "text/plain; charset=utf-8"
