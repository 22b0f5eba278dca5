"""The shop's front: a page for people, JSON for programs. It asks the catalogue what there is, and gives orders on.

GET / is the page, GET /api/products, GET and POST /api/orders are for programs, GET /api/version says who answers.
FAIL_PERCENT and SLOW_PERCENT make it a version with a fault, as programs have them one day: some requests fail, or take
SLOW_SECONDS longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import random
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from serving import Answer, Peer, Refused, Request, json_answer, serve

__all__ = ["Front"]

_FRESH_SECONDS = 1.0
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{headline}</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
  h1 {{ color: {colour}; border-bottom: .3rem solid {colour} }} li {{ display: flex; justify-content: space-between }}
  ul {{ padding: 0 }} footer {{ color: #666; font-size: .8rem }}
</style>
<h1>{headline}</h1>
<ul>
{products}</ul>
<footer>Version {version}, answered by {pod}.</footer>
</html>
"""
_PRODUCT = "<li><span>{name}</span><strong>{price}</strong></li>\n"


class Front:
    """The front, as variables of its environment want it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        patience = float(environment.get("PATIENCE_SECONDS", "5"))
        self._catalogue = Peer(environment.get("CATALOGUE_URL", "http://catalogue:8080"), patience)
        self._orders = Peer(environment.get("ORDERS_URL", "http://orders:8080"), patience)
        self._words = {
            "headline": environment.get("HEADLINE", "The harbour shop"),
            "colour": environment.get("COLOUR", "#0b6"),
            "version": environment.get("VERSION", "0"),
            "pod": environment.get("POD_NAME", ""),
        }
        self._fails = float(environment.get("FAIL_PERCENT", "0")) / 100
        self._slow = float(environment.get("SLOW_PERCENT", "0")) / 100
        self._slow_seconds = float(environment.get("SLOW_SECONDS", "0"))
        self._products: list[dict[str, Any]] = []
        self._page = b""
        self._fresh_until = 0.0
        self._fetching: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Answer:
        """Answer a request. Raises `Refused`."""
        if random.random() < self._slow:  # noqa: S311  # it has nothing to hide
            await asyncio.sleep(self._slow_seconds)
        if random.random() < self._fails:  # noqa: S311
            raise Refused(500, "the price of a product is not a number")
        match request.method, request.path:
            case "GET", "/":
                await self._refresh()
                return Answer(200, self._page, "text/html; charset=utf-8")
            case "GET", "/api/products":
                await self._refresh()
                return json_answer(200, {"products": self._products})
            case "GET", "/api/orders":
                return json_answer(200, await self._orders.call("GET", f"/orders?{urlencode(request.query)}"))
            case "POST", "/api/orders":
                return json_answer(201, await self._order(request.json()))
            case "GET", "/api/version":
                return json_answer(200, self._words)
            case _:
                raise Refused(404, f"{request.method} {request.path}: there is no such page")

    async def _order(self, body: dict[str, Any]) -> dict[str, Any]:
        await self._refresh()
        product = body.get("product")
        if not any(each["id"] == product for each in self._products):
            raise Refused(422, f"product: there is no {product!r} in this shop")
        order = {"id": uuid.uuid4().hex, "product": product, "count": body.get("count", 1)}
        return await self._orders.call("POST", "/orders", order)

    async def _refresh(self) -> None:
        """See to it that there are products, and that they are soon a second old at most. Raises `Refused`."""
        if not self._products:
            await self._fetch()
        elif time.monotonic() >= self._fresh_until and (self._fetching is None or self._fetching.done()):
            self._fetching = asyncio.create_task(self._fetch_quietly())  # meanwhile the old ones do

    async def _fetch_quietly(self) -> None:
        with contextlib.suppress(Refused):
            await self._fetch()

    async def _fetch(self) -> None:
        self._products = (await self._catalogue.call("GET", "/products"))["products"]
        self._page = self._written()
        self._fresh_until = time.monotonic() + _FRESH_SECONDS

    def _written(self) -> bytes:
        listed = "".join(
            _PRODUCT.format(name=html.escape(each["name"]), price=f"{each['price'] / 100:.2f}")
            for each in self._products
        )
        words = {name: html.escape(value) for name, value in self._words.items()}
        return _PAGE.format(products=listed, **words).encode()


if __name__ == "__main__":
    sys.exit(serve(Front(os.environ).answer))
