"""The dashboard of `pilothouse up` in a browser: a real application, a rollout under traffic, logs, rights."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pilothouse.dashboard.sessions import COOKIE
from support.browser import PROGRAM, Page
from support.dashboardlive import Shop, shop
from support.platformkit import eventually

Late = pytest.importorskip("playwright.async_api").TimeoutError
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PROGRAM is None, reason="wants Debian's chromium-headless-shell or chromium"),
    pytest.mark.skipif(shutil.which("git") is None, reason="wants git"),
]
SECONDS = 60_000


@pytest.fixture(scope="module")
def found() -> Iterator[Shop]:
    with shop() as made:
        yield made


@pytest.fixture
async def page(browser: Page) -> AsyncIterator[Any]:
    browser.page.set_default_timeout(SECONDS)
    yield browser.page
    # what a page was told not to do is said on its console; scripts that fail are not
    assert [each for each in browser.errors if "status of 4" not in each and "net::" not in each] == []


async def opened(page: Any, found: Shop, path: str, wanted: str) -> None:
    """Open an address until something is there: what other tests do to this machine's networks breaks requests off."""
    for _ in range(10):
        with contextlib.suppress(Exception):
            await page.goto(found.url + path)
            await page.wait_for_selector(wanted, timeout=8_000)
            if await page.evaluate("document.styleSheets.length === 3"):
                return
    raise AssertionError(f"{path}: no {wanted}: {found.platform.logged()}")


async def enter(page: Any, found: Shop, credentials: str, path: str, wanted: str) -> None:
    await opened(page, found, path, "#credentials")
    await page.fill("#credentials", credentials)
    await page.click("button:has-text('Log in')")
    await page.wait_for_selector("nav[aria-label=Pages]")
    await opened(page, found, path, wanted)


async def press(page: Any, button: str, said: str) -> None:
    """Press a button, confirm where it asks, and wait until the dashboard has answered."""
    for _ in range(10):
        await page.click(f"{button}:not([aria-disabled])")
        confirm = page.locator("dialog [data-confirm]")
        answer = page.locator(f".toast:has-text('{said}')")
        await confirm.or_(answer).or_(page.locator(".toast.bad")).first.wait_for()
        if await confirm.count():
            await confirm.click()
            await answer.or_(page.locator(".toast.bad")).first.wait_for()
        if await answer.count():
            return
        assert "does not answer" in await page.locator(".toast.bad").first.inner_text()
        await page.locator(".toast.bad").first.wait_for(state="detached")
    raise AssertionError(f"{button}: no {said}")


def admin(found: Shop) -> str:
    return found.platform.kubeconfig.read_text()


async def test_login_and_the_sync_button_make_the_first_version(page: Any, found: Shop) -> None:
    await opened(page, found, "/applications/argocd/shop", "#credentials")
    await page.fill("#credentials", "a-token-of-nobody")
    await page.click("button:has-text('Log in')")
    await page.wait_for_selector("[role=alert] .note:has-text('does not know these credentials')")
    await enter(page, found, admin(found), "/applications/argocd/shop", ".pill:has-text('Out of sync')")
    (cookie,) = [each for each in await page.context.cookies() if each["name"] == COOKIE]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
    await page.wait_for_selector(".differing li:has-text('Missing'):has-text('Rollout')")
    await press(page, "[data-verb=sync]", "A sync was asked for")
    await page.wait_for_selector(".pill:has-text('Synced')")
    await page.wait_for_selector(".pill:has-text('Healthy')")
    await page.wait_for_selector("[role=treeitem] >> text=/front-.*-/")
    await page.wait_for_selector(".history td:has-text('kubernetes-admin')")
    eventually(lambda: found.rollout()["status"]["phase"] == "Healthy", found.rollout)


async def test_a_pods_log_and_its_events_are_seen(page: Any, found: Shop) -> None:
    await enter(page, found, admin(found), "/applications/argocd/shop", ".tree a[href^='/logs/shop/front-']")
    await page.wait_for_selector(".event:has-text('Started container'), .event:has-text('Container started')")
    await page.click(".tree a[href^='/logs/shop/front-']")
    await page.wait_for_selector(".log .line:has-text('version 1 serves')")


async def test_a_rollout_moves_under_traffic_and_is_aborted(page: Any, found: Shop) -> None:
    await enter(page, found, admin(found), "/applications/argocd/shop", "[data-verb=refresh]")
    with found.clients() as loads:
        found.commit("2")
        await press(page, "[data-verb=refresh]", "The repository is looked at")
        await page.wait_for_selector(".pill:has-text('Out of sync')")
        await page.click("[data-compare]:not([aria-disabled])")
        fields = page.locator(".fields dt:has-text('VERSION') + dd")
        await fields.wait_for()
        assert [each[1:].strip() for each in await fields.locator("pre").all_inner_texts()] == ["1", "2"]
        await press(page, "[data-verb=sync]", "A sync was asked for")

        await opened(page, found, "/rollouts/shop/front", ".track .here:has-text('wait for promotion')")
        await page.wait_for_selector("td:has-text('cn-east') ~ td:text-matches('^[3-6]. %$')")
        await page.wait_for_selector("td:has-text('eu-west') ~ td:text-is('0 %')")
        await page.wait_for_selector(".charts canvas")
        seen = await page.locator(".chart:has-text('Requests per second') .series").inner_text()
        assert all(word in seen for word in ("canary", "stable"))
        await page.wait_for_selector(".stand:has-text('0.00% errors')")
        await page.wait_for_selector(".run:has-text('Running')")
        first = await page.locator(".chart:has-text('Requests per second') .canvas").get_attribute("aria-label")
        await page.wait_for_function(
            "before => document.querySelector('.charts .canvas').getAttribute('aria-label') !== before", arg=first
        )

        await press(page, "[data-verb=abort]", "Aborted")
        await page.wait_for_selector(".stand.bad:has-text('Rolled back')")
        eventually(lambda: found.rollout()["status"].get("abort"))
        await page.wait_for_selector("td:has-text('cn-east') ~ td:text-is('0 %')")
        await page.wait_for_selector("[data-verb=retry]")
        for load in loads:
            load.forget()
        eventually(lambda: all(load.count >= 20 for load in loads))
        assert {each for load in loads for each in load.answers} == {"1"}


async def test_the_service_level_says_what_became_of_it(page: Any, found: Shop) -> None:
    await enter(page, found, admin(found), "/slo", ".level a.name")
    await page.wait_for_selector(".level:has-text('99.9 % good over 90 days')")
    await page.click(".level a.name")
    commit = found.head()[:8]
    await page.wait_for_selector(f".deploys tr:has-text('Rolled back'):has-text('{commit}')")
    await page.wait_for_selector(".deploys tr:has-text('Succeeded')")
    await page.wait_for_selector(".figures div:has-text('Success rate'):has-text('50.0 %')")
    await page.click("a:has-text('Application shop')")
    await page.wait_for_selector(".level-short:has-text('deploys 50.0 % good')")


async def test_who_may_only_view_has_disabled_buttons_and_is_refused(page: Any, found: Shop) -> None:
    token = found.token("wall", ("shop", "view"), ("argocd", "view"))
    await enter(page, found, token, "/rollouts/shop/front", ".why-not:has-text('you may not patch rollouts in shop')")
    assert await page.locator("[data-verb]:not([aria-disabled])").count() == 0
    assert await page.locator("[data-verb=retry][aria-disabled=true]").count() == 1
    refused = """
    async (path) => {
        const { csrf } = await (await fetch("/api/session")).json();
        const answer = await fetch(path, { method: "POST", headers: { "X-CSRF-Token": csrf } });
        return [answer.status, (await answer.json()).error];
    }
    """
    for path in ("rollouts/shop/front/retry", "rollouts/shop/front/undo", "applications/argocd/shop/sync"):
        status, text = await page.evaluate(refused, f"/api/{path}")
        assert status == 403
        assert "system:serviceaccount:shop:wall" in text
    assert found.rollout()["status"]["abort"]
    assert "operation" not in found.application()
    await opened(page, found, "/applications/argocd/shop", ".why-not:has-text('you may not patch applications')")
    await page.wait_for_selector(".level-short")
    assert await page.locator("[data-verb]:not([aria-disabled])").count() == 0


async def test_the_history_leads_back(page: Any, found: Shop) -> None:
    await enter(page, found, admin(found), "/applications/argocd/shop", ".history tr >> nth=1")
    await press(page, "[data-verb=rollback]", "A rollback to")
    await page.wait_for_selector(".history tr >> nth=2")

    def is_back() -> bool:
        rollout = found.rollout()
        variables = rollout["spec"]["template"]["spec"]["containers"][0]["env"]
        return {"name": "VERSION", "value": "1"} in variables and rollout["status"]["phase"] == "Healthy"

    eventually(is_back, found.rollout)
    await page.wait_for_selector(".pill:has-text('Out of sync')")
