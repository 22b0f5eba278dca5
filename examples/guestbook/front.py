"""The guestbook's first tier: pages for people, JSON for programs; what is written goes to the second tier.

GET / and POST / are the page and its form. GET and POST /api/entries are the same for programs, and GET /api/version
says who answers. Title and greeting are read from files at each request, so a change shows without a restart.
"""

from __future__ import annotations

import html
import http.client
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from web import Answer, Refused, Request, json_answer, log, serve

__all__ = ["Front", "Store", "Unreachable"]

_PATIENCE = 5.0
_PAUSE = 0.1
_NAME_SECONDS = 1.0

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
  form {{ display: grid; gap: .5rem }} input, textarea, button {{ font: inherit; padding: .4rem }}
  article {{ border-top: 1px solid #ccc; padding: .5rem 0 }} footer {{ color: #666; font-size: .8rem }}
</style>
<h1>{title}</h1>
<p>{greeting}</p>
<form method="post">
  <input name="name" placeholder="your name" maxlength="80" required>
  <textarea name="text" placeholder="what you want to say" maxlength="2000" required></textarea>
  <button>Sign</button>
</form>
{entries}
<footer>{count} entries. Version {version}, answered by {pod}.</footer>
</html>
"""
_ENTRY = "<article><strong>{name}</strong><p>{text}</p></article>\n"


class Unreachable(Exception):
    """The second tier does not answer."""


class Store:
    """The second tier, at a URL. Where its name is not known, the variables of Services say where it is."""

    def __init__(self, url: str, patience: float = _PATIENCE) -> None:
        parts = urlsplit(url)
        self._name, self._port = parts.hostname or "", parts.port or 80
        self._patience = patience
        self._address = ""

    def call(self, method: str, target: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Return status and answer; what cannot be reached is tried again for some seconds. Raises `Unreachable`.

        Entries have their ids from here, so writing one twice keeps it once.
        """
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._once(method, target, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._address = ""
                if time.monotonic() + _PAUSE > deadline:
                    raise Unreachable(f"http://{self._name}:{self._port}: {error}") from error
            time.sleep(_PAUSE)

    def _once(self, method: str, target: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        self._address = self._address or self.find()[0]
        connection = http.client.HTTPConnection(self._address, self._port, timeout=self._patience)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, target, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def find(self) -> tuple[str, str]:
        """Return the address of the name, or of the Service's variable where nobody answers for names, and which it is.

        Raises OSError.
        """
        found: list[str] = []
        asking = threading.Thread(target=self._ask, args=(found,), daemon=True)
        asking.start()
        asking.join(_NAME_SECONDS)
        variable = f"{self._name.partition('.')[0].upper().replace('-', '_')}_SERVICE_HOST"
        address = found[0] if found else os.environ.get(variable, "")
        if not address:
            raise OSError(f"there is no name {self._name}, nor a variable {variable}")
        return address, "name" if found else "variable"

    def _ask(self, found: list[str]) -> None:
        try:
            found.append(str(socket.getaddrinfo(self._name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]))
        except OSError:
            return


class Front:
    """Pages and the API."""

    def __init__(self, store: Store, texts: str, *, page_size: int, version: str, pod: str) -> None:
        self.version = version
        self._store = store
        self._texts = Path(texts)
        self._page_size = page_size
        self._pod = pod

    def answer(self, request: Request) -> Answer:
        """Answer a request. Raises `Refused`."""
        try:
            match request.method, request.path:
                case "GET", "/":
                    return self._page()
                case "POST", "/":
                    self._sign(dict(parse_qsl(request.body.decode("utf-8", "replace"), max_num_fields=10)))
                    return Answer(303, headers=(("Location", "/"),))
                case "GET", "/api/entries":
                    return json_answer(200, self._entries(request.query))
                case "POST", "/api/entries":
                    return json_answer(201, self._sign(request.json()))
                case "GET", "/api/version":
                    return json_answer(200, self._about())
                case _:
                    raise Refused(404, f"{request.method} {request.path}: there is no such page")
        except Unreachable as error:
            log(f"error: {error}")
            raise Refused(503, "the book cannot be reached now; please try again") from None

    def _about(self) -> dict[str, str]:
        try:
            found_by = self._store.find()[1]
        except OSError:
            found_by = "nothing"
        return {"version": self.version, "pod": self._pod, "store_found_by": found_by, **self._words()}

    def _words(self) -> dict[str, str]:
        return {name: self._text(name, default) for name, default in (("title", "Guestbook"), ("greeting", ""))}

    def _text(self, name: str, default: str) -> str:
        try:
            return (self._texts / name).read_text(encoding="utf-8").strip() or default
        except OSError:
            return default

    def _entries(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = {"limit": str(self._page_size)} | {name: query[name] for name in ("limit", "before") if name in query}
        status, found = self._store.call("GET", f"/entries?{urlencode(wanted)}")
        return _checked(status, found)

    def _sign(self, fields: dict[str, Any]) -> dict[str, Any]:
        body = {"id": uuid.uuid4().hex, "name": fields.get("name"), "text": fields.get("text")}
        return _checked(*self._store.call("POST", "/entries", body))

    def _page(self) -> Answer:
        found, words = self._entries({}), self._words()
        entries = "".join(
            _ENTRY.format(name=html.escape(each["name"]), text=html.escape(each["text"])) for each in found["entries"]
        )
        page = _PAGE.format(
            title=html.escape(words["title"]),
            greeting=html.escape(words["greeting"]),
            entries=entries,
            count=found["total"],
            version=html.escape(self.version),
            pod=html.escape(self._pod),
        )
        return Answer(200, page.encode("utf-8", "replace"), "text/html; charset=utf-8")


def _checked(status: int, found: dict[str, Any]) -> dict[str, Any]:
    if status >= 400:
        raise Refused(status, str(found.get("error", "the book refused it")))
    return found


def main() -> int:
    """Run the tier; return the exit code."""
    environment = os.environ
    front = Front(
        Store(environment.get("STORE_URL", "http://store:8080")),
        environment.get("TEXTS_DIR", "/etc/guestbook"),
        page_size=int(environment.get("PAGE_SIZE", "20")),
        version=environment.get("VERSION", "0"),
        pod=environment.get("POD_NAME", ""),
    )
    return serve(front, drain_seconds=float(environment.get("DRAIN_SECONDS", "2")))


if __name__ == "__main__":
    sys.exit(main())
