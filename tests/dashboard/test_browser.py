"""What people see and do with the dashboard, in headless Chromium."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.browser import Page
from support.dashboardkit import ADMIN, VIEWER, Helm, helm, rollout_at

Late = pytest.importorskip("playwright.async_api").TimeoutError
NAMELESS = """
[...document.querySelectorAll("button, a, input")]
    .filter((each) => !each.innerText.trim() && !each.getAttribute("aria-label") && !each.labels?.length)
    .map((each) => each.outerHTML)
"""


@pytest.fixture
async def found() -> AsyncIterator[Helm]:
    async with helm() as made:
        yield made


async def is_dressed(page: Any) -> bool:
    """Whether its style sheets are there: they too may have been broken off."""
    return bool(await page.evaluate("document.styleSheets.length === 3"))


async def opened(browser: Page, url: str, wanted: str) -> Any:
    """Open an address until something is there: its scripts may have been broken off, see NETWORK_CHANGED."""
    for _ in range(10):
        assert await browser.goto(url) == 200
        with contextlib.suppress(Late):
            await browser.page.wait_for_selector(wanted, timeout=6_000)
            if await is_dressed(browser.page):
                return browser.page
    raise AssertionError(f"{url}: no {wanted}")


async def enter(browser: Page, found: Helm, token: str, path: str = "/") -> Any:
    """Log in on the page of a path, and return playwright's page."""
    page = await opened(browser, found.url + path, "#credentials")
    await page.fill("#credentials", token)
    await page.click("button:has-text('Log in')")
    await page.wait_for_selector("nav[aria-label=Pages]")
    return page


async def press(page: Any, button: str, said: str) -> None:
    """Press a button until the dashboard has answered; buttons ask once, so that nothing is done twice."""
    for _ in range(10):
        await page.click(button)
        answer = page.locator(f".toast:has-text('{said}')")
        await answer.or_(page.locator(".toast.bad")).first.wait_for()
        if await answer.count():
            return
        assert "does not answer" in await page.locator(".toast.bad").first.inner_text()
    raise AssertionError(f"{button}: no {said}")


def background(page: Any) -> Any:
    return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")


async def test_login_overview_keys_and_themes(browser: Page, found: Helm) -> None:
    page = browser.page
    await page.emulate_media(color_scheme="light")
    await opened(browser, found.url, "#credentials")
    await page.fill("#credentials", "wrong")
    await page.keyboard.press("Control+Enter")
    await page.wait_for_selector("[role=alert] .note:has-text('does not know these credentials')")
    assert [each for each in browser.errors if "401" not in each] == []
    browser.errors.clear()
    await enter(browser, found, ADMIN)

    # the worst first, and a tally of all
    await page.wait_for_selector(".tile >> text=checkout")
    await page.wait_for_selector(".tally .bad strong:has-text('1')")
    first = page.locator("[data-nav]").first
    assert "payments" in await first.inner_text()
    assert "Rolled back" in await first.inner_text()

    # everything by keys: help, filter, items, the tree
    await page.keyboard.press("?")
    assert "promote" in await browser.text("dialog[open]")
    await page.keyboard.press("Escape")
    await page.wait_for_selector("dialog[open]", state="detached")
    await page.keyboard.press("/")
    await page.keyboard.type("check")
    await page.locator("[data-nav]").nth(1).wait_for(state="detached")
    await page.keyboard.press("Escape")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("h1:has-text('checkout')")
    await page.wait_for_selector("[role=treeitem] >> text=checkout-7d9f8c6b5-xk2vq")
    await page.focus("[role=treeitem]")
    for key, name in (("ArrowDown", "ReplicaSet, checkout-5c4b8d7f9"), ("End", "Pod, checkout-7d9f8c6b5-xk2vq")):
        await page.keyboard.press(key)
        assert name in await page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert await page.evaluate("getComputedStyle(document.activeElement.firstElementChild).outlineStyle") == "solid"
    await page.keyboard.press("Home")
    await page.keyboard.press("ArrowLeft")
    assert await page.locator("[role=treeitem]").count() == 1

    # what has no name for those who do not see has no place
    assert await page.evaluate(NAMELESS) == []

    # light as the system says, dark by the switch, also after the page was loaded anew
    light = await background(page)
    await page.keyboard.press("t")
    dark = await background(page)
    assert light != dark
    await opened(browser, page.url, "h1:has-text('checkout')")
    assert await background(page) == dark
    assert browser.errors == []


async def test_a_rollout_moves_and_is_steered(browser: Page, found: Helm) -> None:
    found.numbers.canary = {"cn-east": 1.0, "cn-north": 0.0, "eu-west": 0.0}
    found.remember(60)
    page = await enter(browser, found, ADMIN, "/rollouts/shop/checkout")
    await page.wait_for_selector(".stand:has-text('Waiting')")
    await page.wait_for_selector(".chart canvas")
    await page.wait_for_selector("td:has-text('cn-east') + td:has-text('2')")
    assert "of 1,420 canary requests failed" in await browser.text(".stand")
    assert await page.locator(".track .done").count() == 4
    assert "wait for promotion" in await browser.text("[aria-current=step]")

    # pushed: a status that changes, and numbers
    await found.show(rollout_at(5, 72))
    await page.wait_for_selector(".figure:has-text('72 %')")
    await page.wait_for_selector(".track .done >> nth=4")
    found.numbers.errors = 0.02
    await page.wait_for_selector(".chart:has-text('Errors') .over:has-text('canary')")

    await press(page, "[data-verb=promote]", "Promoted")
    assert "pauseConditions" not in (await found.rollout())["status"]

    # what cannot be taken back asks once more, and Escape is no
    await page.wait_for_selector("[data-verb=abort]:not([aria-disabled])")
    await page.keyboard.press("a")
    await page.wait_for_selector("dialog[open]:has-text('Abort this rollout?')")
    await page.keyboard.press("Escape")
    await page.wait_for_selector("dialog[open]", state="detached")
    assert (await found.rollout())["status"]["abort"] is False
    for _ in range(10):
        await page.wait_for_selector("[data-verb=abort]:not([aria-disabled])")
        await page.keyboard.press("a")
        with contextlib.suppress(Late):
            await page.click("dialog [data-confirm]", timeout=6_000)
            await page.wait_for_selector(".stand.bad:has-text('Rolled back')", timeout=6_000)
            break
    await page.wait_for_selector("[data-verb=retry]")
    assert await page.locator("[data-verb=abort]").count() == 0
    assert (await found.rollout())["status"]["abort"] is True
    assert browser.errors == []


async def test_a_viewer_sees_all_and_is_told_why_nothing_can_be_changed(browser: Page, found: Helm) -> None:
    page = await enter(browser, found, VIEWER, "/applications/argocd/shop")
    await page.wait_for_selector("[role=treeitem] [role=treeitem] >> text=checkout-settings")
    await page.wait_for_selector("[role=treeitem] >> text=checkout-5c4b8d7f9-mzt8d")
    assert await page.locator(".tree a[href^='/logs']").count() == 0
    await page.click(".tree a:text-is('checkout')")
    await page.wait_for_selector(".stand:has-text('Waiting')")
    await page.wait_for_selector(".why-not:has-text('you may not patch rollouts in shop')")
    assert await page.locator("[data-verb=abort]").get_attribute("aria-disabled") == "true"
    assert await page.locator("[data-verb]:not([aria-disabled])").count() == 0
    for key in "ap":
        await page.keyboard.press(key)
    await page.locator("[data-verb=abort]").focus()
    await page.keyboard.press("Enter")
    assert await page.locator("dialog, .toast").count() == 0

    # on a narrow screen nothing is cut off
    await page.set_viewport_size({"width": 390, "height": 800})
    for _ in range(400):  # charts take a moment to follow
        if (width := await page.evaluate("document.documentElement.scrollWidth")) == 390:
            break
        await asyncio.sleep(0.05)
    assert width == 390
    assert browser.errors == []


async def test_service_levels_by_navigation_and_from_an_application(browser: Page, found: Helm) -> None:
    page = await enter(browser, found, VIEWER)
    await page.keyboard.press("g")
    await page.keyboard.press("s")
    await page.wait_for_selector("h1:has-text('Service levels')")
    # the worst first
    await page.locator(".level").nth(2).wait_for()
    words = [(await each.inner_text()).split("\n")[0] for each in await page.locator(".level .pill").all()]
    assert words == ["Budget spent", "No requests yet", "Within budget"]
    assert "spent 2.7 times" in await page.locator(".level").first.inner_text()
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".deploys tr:has-text('Rolled back') >> text=2.1 % of 412 canary requests failed")
    assert "of the error budget is left" in str(await page.locator(".left svg").get_attribute("aria-label"))
    await page.click("a:has-text('Rollout payments')")
    await page.wait_for_selector(".evidence tr:has-text('Error ratio'):has-text('2.18%'):has-text('0.00%')")
    assert "Traffic back" in await page.locator(".timeline li").last.inner_text()
    assert "+1.0 s" in await page.locator(".timeline li").last.inner_text()
    await page.go_back()
    await page.click("a:has-text('Application shop')")
    await page.click(".level-short:has-text('checkout')")
    await page.wait_for_selector("h1:has-text('checkout') >> text=Within budget")
    assert await page.evaluate(NAMELESS) == []
    await page.set_viewport_size({"width": 390, "height": 800})
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert browser.errors == []


async def test_an_application_is_synced_and_its_differences_are_offered(browser: Page, found: Helm) -> None:
    page = await enter(browser, found, ADMIN, "/applications/argocd/shop")
    await page.wait_for_selector(".differing li:has-text('checkout-settings'):has-text('Differs')")
    assert "comparing is off here" in str(await page.locator("[data-compare]").get_attribute("title"))
    await page.wait_for_selector("[data-verb=sync]:not([aria-disabled])")
    await page.keyboard.press("s")
    await page.wait_for_selector("dialog[open]:has-text('Sync this application?')")
    await page.check("dialog >> text=Delete what git has no more")
    await press(page, "dialog [data-confirm]", "A sync was asked for")
    await page.wait_for_selector("[data-verb=sync][aria-disabled]:has-text('Syncing')")
    assert (await found.application())["operation"]["sync"] == {"prune": True}
    assert browser.errors == []


async def test_events_logs_and_the_end_of_a_session(browser: Page, found: Helm) -> None:
    page = await enter(browser, found, ADMIN, "/events")
    await page.wait_for_selector(".event:has-text('Readiness probe failed')")
    await page.check("text=Warnings only")
    assert await page.locator(".event").count() == 1

    await opened(browser, f"{found.url}/rollouts/shop/checkout", "a[href^='/logs']")
    await page.click("a:text-is('checkout-7d9f8c6b5-xk2vq')")
    await page.wait_for_selector(".log:has-text('Nothing written yet')")
    for text in ("hello <b>world</b>", "second"):
        found.log.write(text)
        await page.wait_for_selector(f".log .line:has-text('{text}')")
    assert await page.locator(".log b").count() == 0
    await page.fill("[data-filter]", "second")
    assert await page.locator(".log .line").count() == 1

    for session in found.dashboard.sessions:
        found.dashboard.sessions.remove(session)
    await opened(browser, f"{found.url}/deployments/shop/search", "#credentials")
    await page.fill("#credentials", ADMIN)
    await page.click("button:has-text('Log in')")
    await page.wait_for_selector("h1:has-text('search')")
    await page.click("text=Log out")
    await page.wait_for_selector("#credentials")
    assert browser.errors == []
