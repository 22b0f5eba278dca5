"""The shop's catalogue: what there is to buy, out of a file that a config map brings.

GET /products answers {"products": [{"id", "name", "price"}]}; prices are in cents.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from serving import Answer, Refused, Request, json_answer, serve

__all__ = ["Catalogue"]


class Catalogue:
    """Products of a file, which is read at each request, so that a change shows without a restart."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    async def answer(self, request: Request) -> Answer:
        """Answer a request. Raises `Refused`."""
        if (request.method, request.path) != ("GET", "/products"):
            raise Refused(404, f"{request.method} {request.path}: there is only GET /products")
        return json_answer(200, {"products": json.loads(self._file.read_text(encoding="utf-8"))})


if __name__ == "__main__":
    sys.exit(serve(Catalogue(os.environ.get("PRODUCTS_FILE", "/etc/shop/products.json")).answer))
