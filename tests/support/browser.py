"""A page in Debian's headless Chromium, for tests of what browsers see: the fixture `browser`.

    async def test_it(browser: Page) -> None:
        assert await browser.goto("https://a.example:8443/") == 200
        assert await browser.evaluate("document.title") == "It"
        assert browser.errors == []

Names below `.example` lead to 127.0.0.1, and any certificate is taken. Where there is no Chromium the test is skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

__all__ = ["NETWORK_CHANGED", "PROGRAM", "Page", "browser"]

PROGRAMS: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM: Final = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
_MILLISECONDS: Final = 30_000
_TRIES: Final = 20
NETWORK_CHANGED: Final = "net::ERR_NETWORK_CHANGED"
"""Chromium breaks off what is under way when an interface comes or goes, as other tests have it: no page's error."""
_ERROR_PAGE: Final = "chrome-error://"
"""Where it goes by itself then, which may be in the midst of the next try."""
_ARGUMENTS: Final = (
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
)


class Page:
    """One page. errors: what its console says of errors, and what its scripts did not catch. page: playwright's own."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(_MILLISECONDS)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _said(self, message: Any) -> None:
        if message.type == "error" and NETWORK_CHANGED not in message.text:
            self.errors.append(message.text)

    async def goto(self, url: str) -> int:
        """Open an address; return its status, 0 where it has none."""
        for _ in range(_TRIES):
            try:
                response = await self.page.goto(url)
            except Exception as error:
                if not any(text in str(error) for text in (NETWORK_CHANGED, _ERROR_PAGE)):
                    raise
                continue
            return int(response.status) if response is not None else 0
        raise AssertionError(f"{url}: networks of this machine changed {_TRIES} times while it was opened")

    async def evaluate(self, script: str, argument: object = None) -> Any:
        """Return what an expression, or a function of the argument, comes to; promises are waited for."""
        return await self.page.evaluate(script, argument)

    async def text(self, selector: str) -> str:
        """Return an element's text, once it is there."""
        return str(await self.page.locator(selector).inner_text())

    async def screenshot(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """Return the page as PNG, and write it to a path where one is given."""
        return bytes(await self.page.screenshot(path=path))


@pytest.fixture
async def browser() -> AsyncIterator[Page]:
    """Give an empty page of a browser that nothing else uses."""
    if PROGRAM is None:
        pytest.skip("wants Debian's chromium-headless-shell or chromium")
    from playwright.async_api import async_playwright

    arguments = [*_ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else [*_ARGUMENTS]
    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=PROGRAM, args=arguments, timeout=_MILLISECONDS)
        try:
            context = await chromium.new_context(ignore_https_errors=True)
            yield Page(await context.new_page())
        finally:
            await chromium.close()
