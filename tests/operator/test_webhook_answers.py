"""Requests to webhooks as they are answered, without sockets: conversions that block, and threads that are used up."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.operator import AdmissionRequest, webhook_answers, webhook_calls
from pilothouse.operator.serving import HttpRequest
from pilothouse.operator.webhook_answers import Answerer
from pilothouse.operator.webhook_conversion import Conversions, converts
from pilothouse.operator.webhook_handlers import RawValidation
from pilothouse.operator.webhook_metrics import WebhookMetrics
from pilothouse.operator.webhook_options import Hook, HookOptions, Rule
from support.loglines import logged
from support.webhookkit import Page, PageV1, from_v1, review


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


def hook_of(function: Callable[[AdmissionRequest], Any], seconds: int = 10) -> Hook:
    rule = Rule(("",), ("v1",), ("pods",), ("CREATE",))
    options = HookOptions(timeout_seconds=seconds)
    return Hook("a.b.c", "/validate-a", mutating=False, rule=rule, options=options, handle=RawValidation(function))


def posted(path: str, body: bytes, query: str = "") -> HttpRequest:
    return HttpRequest("POST", path, query, {"content-type": "application/json; charset=utf-8"}, body)


def conversion(desired: str = "hooks.example.com/v1") -> bytes:
    obj = {"apiVersion": "hooks.example.com/v2", "kind": "Page", "metadata": {"name": "a"}}
    request = {"uid": "u", "desiredAPIVersion": desired, "objects": [obj]}
    return json.dumps(
        {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
    ).encode()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  a count, which nobody tells of
            await asyncio.sleep(0.001)


async def test_a_conversion_that_blocks_fails_in_time(gate: threading.Event) -> None:
    @converts(source=Page, target=PageV1)
    def blocks(new: Page) -> PageV1:
        gate.wait(30)
        return PageV1()

    clock, metrics = FakeClock(), WebhookMetrics()
    known = {("hooks.example.com", "Page"): Conversions(Page, [from_v1, blocks])}
    answerer = Answerer(clock, metrics, known, 10)
    answerer.add_conversion()
    answerer.add_conversion()
    with logged(webhook_answers) as lines:
        call = asyncio.ensure_future(answerer.answer(posted("/convert", conversion(), "timeout=20s")))
        await until(lambda: metrics.in_flight["/convert"] == 1)
        await asyncio.sleep(0.01)
        clock.advance(18.1)
        page = await call
    told = json.loads(page.body)["response"]
    assert (page.status, told["uid"], told["result"]["status"]) == (200, "u", "Failure")
    assert told["result"]["message"] == "conversion to hooks.example.com/v1 took over 18 s"
    assert lines[0]["event"] == "conversion timed out"
    assert metrics.failures["timeout"] == 1


async def test_threads_that_are_used_up_are_told(gate: threading.Event) -> None:
    metrics = WebhookMetrics()
    answerer = Answerer(FakeClock(), metrics, {}, 10)
    answerer._runner = webhook_calls.Runner(FakeClock(), threads=1)
    answerer.add(hook_of(lambda _: gate.wait(30) and None))
    answerer.add_conversion()
    first = asyncio.ensure_future(answerer.answer(posted("/validate-a", review())))
    await until(lambda: answerer._runner.busy == 1)
    with logged(webhook_answers):
        for path, body in (("/validate-a", review()), ("/convert", conversion())):
            page = await answerer.answer(posted(path, body))
            assert page.status == 503
            assert "1 plain functions of webhooks do not return" in json.loads(page.body)["message"]
    gate.set()
    assert (await first).status == 200
    assert metrics.failures == {"error": 0, "timeout": 0, "overload": 2}


async def test_a_conversion_that_raises_is_an_error_and_one_that_does_not_fit_is_none() -> None:
    @converts(source=Page, target=PageV1)
    def breaks(new: Page) -> PageV1:
        raise KeyError("size")

    metrics = WebhookMetrics()
    known = {("hooks.example.com", "Page"): Conversions(Page, [from_v1, breaks])}
    answerer = Answerer(FakeClock(), metrics, known, 10)
    answerer.add_conversion()
    with logged(webhook_answers) as lines:
        for desired, errors in (("hooks.example.com/v1", 1), ("hooks.example.com/v9", 1)):
            page = await answerer.answer(posted("/convert", conversion(desired)))
            assert json.loads(page.body)["response"]["result"]["status"] == "Failure"
            assert metrics.failures["error"] == errors
    assert [line["event"] for line in lines] == ["conversion failed"] * 2


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("timeout=5s", 4.5),
        ("timeout=30s", 9.0),
        ("", 9.0),
        ("timeout=x", 9.0),
        ("timeout=0s", 9.0),
        ("a=b&timeout=2s", 1.8),
    ],
)
async def test_a_handler_has_nine_tenths_of_what_the_server_waits(query: str, seconds: float) -> None:
    async def never(_: AdmissionRequest) -> None:
        await asyncio.Event().wait()

    clock = FakeClock()
    answerer = Answerer(clock, WebhookMetrics(), {}, 10)
    answerer.add(hook_of(never))
    with logged(webhook_answers):
        call = asyncio.ensure_future(answerer.answer(posted("/validate-a", review(), query)))
        await clock.run(seconds - 0.1)
        assert not call.done()
        await clock.run(0.2)
        page = await asyncio.wait_for(call, 5)
    assert (page.status, json.loads(page.body)["reason"]) == (504, "Timeout")
