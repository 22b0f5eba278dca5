"""`/healthz`, `/livez` and `/readyz`: checks by name, each of which can be asked for alone or left out."""

from __future__ import annotations

from collections.abc import Callable

from pilothouse.apiserver.model import Request, Response
from pilothouse.kinds.fielderrors import quote

__all__ = ["Check", "Health"]

Check = Callable[[], str]
"""Returns what is wrong, empty where nothing is. Told in full to the log only, for anybody may ask."""

_TEXT = "text/plain; charset=utf-8"
_ROOTS = ("/healthz", "/livez", "/readyz")


class Health:
    """Answers the health endpoints. `ready` are checks that only `/readyz` makes, beside all others."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {"ping": lambda: ""}
        self.ready: dict[str, Check] = {}

    def is_ready(self) -> bool:
        """Whether every check passes."""
        return not any(check() for check in (*self.checks.values(), *self.ready.values()))

    def failing(self) -> dict[str, str]:
        """Return what fails now, and why."""
        found = {name: check() for name, check in {**self.checks, **self.ready}.items()}
        return {name: why for name, why in found.items() if why}

    def answer(self, request: Request) -> Response | None:
        """Answer a request for a health endpoint; None where it asks for something else."""
        path = request.path.rstrip("/")
        root = next((each for each in _ROOTS if path == each or path.startswith(f"{each}/")), "")
        if not root:
            return None
        checks = {**self.checks, **(self.ready if root == "/readyz" else {})}
        if path != root:
            return self._one(path.removeprefix(f"{root}/"), checks)
        return self._all(root[1:], checks, request)

    def _one(self, name: str, checks: dict[str, Check]) -> Response:
        check = checks.get(name)
        if check is None:
            return Response(404, b"404 page not found\n", content_type=_TEXT)
        if check():
            return Response(
                500, f"internal server error: {name} failed: reason withheld\n".encode(), content_type=_TEXT
            )
        return Response(200, b"ok", content_type=_TEXT)

    def _all(self, name: str, checks: dict[str, Check], request: Request) -> Response:
        left_out = set(request.query.get("exclude", ()))
        lines, failed = [], False
        for each, check in checks.items():
            if each in left_out:
                lines.append(f"[+]{each} excluded: ok")
                left_out.discard(each)
            elif check():
                failed = True
                lines.append(f"[-]{each} failed: reason withheld")
            else:
                lines.append(f"[+]{each} ok")
        if left_out:
            listed = ",".join(quote(each) for each in sorted(left_out))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {listed}")
        if failed:
            return Response(500, "\n".join([*lines, f"{name} check failed", ""]).encode(), content_type=_TEXT)
        if "verbose" in request.query:
            return Response(200, "\n".join([*lines, f"{name} check passed", ""]).encode(), content_type=_TEXT)
        return Response(200, b"ok", content_type=_TEXT)
