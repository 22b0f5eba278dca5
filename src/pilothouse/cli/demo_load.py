"""Load on the guestbook of the demo: people who read and sign all the time, and what they saw, phase by phase."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

if TYPE_CHECKING:
    from types import TracebackType

    import aiohttp

__all__ = ["Load", "Tally", "percentile"]

_WORKERS: Final = 8
_PAUSE_SECONDS: Final = 0.03
_TIMEOUT_SECONDS: Final = 10.0
_SIGNING: Final = 5
"""Each worker signs with every so manyth request; the others read the page."""
_MAX_REASONS: Final = 5
_PAGE: Final = 1_000


class Tally(msgspec.Struct):
    """What was seen in one phase. latencies: in seconds, of answered requests. versions: how many answers of each."""

    latencies: list[float] = []
    failures: int = 0
    reasons: list[str] = []
    versions: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """How many requests there were, failed ones included."""
        return len(self.latencies) + self.failures

    def failed(self, reason: str) -> None:
        """Count a request that got no answer, or not the right one."""
        self.failures += 1
        if len(self.reasons) < _MAX_REASONS:
            self.reasons.append(reason)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all are not above; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Load:
    """Keeps asking from its start to its end, each request on a connection of its own, and none is tried again.

    signed: ids of the entries that were acknowledged.
    """

    def __init__(self, url: str) -> None:
        self.signed: list[str] = []
        self._url = url
        self._tally = Tally()
        self._under_way: dict[int, Tally] = {}
        self._finished = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    async def phase(self) -> Tally:
        """Begin a phase and return its tally, when all requests of the former one, which count to that, are done."""
        former, self._tally = self._tally, Tally()
        while any(each is former for each in self._under_way.values()):
            self._finished.clear()
            await self._finished.wait()
        return self._tally

    async def __aenter__(self) -> Self:
        import aiohttp

        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._tasks = [asyncio.create_task(self._work(number, self._session)) for number in range(_WORKERS)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def entries(self) -> set[str]:
        """Return the ids of all entries in the book. Raises aiohttp's errors, OSError, ValueError."""
        found: set[str] = set()
        before = 0
        while before != 1:
            page = await self._get(f"/api/entries?limit={_PAGE}&before={before}")
            if not page["entries"]:
                break
            found |= {each["id"] for each in page["entries"]}
            before = page["entries"][-1]["number"]
        return found

    async def version(self) -> dict[str, str]:
        """Return what answers. Raises aiohttp's errors, OSError, ValueError."""
        return await self._get("/api/version")

    async def _get(self, path: str) -> dict[str, Any]:
        assert self._session is not None  # noqa: S101  # it has been entered
        async with self._session.get(self._url + path) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = msgspec.json.decode(await answer.read())
            return found

    async def _work(self, worker: int, session: aiohttp.ClientSession) -> None:
        count = 0
        while True:
            tally = self._under_way[worker] = self._tally
            started = time.perf_counter()
            try:
                if count % _SIGNING == worker % _SIGNING:
                    await self._sign(session, tally, f"visitor {worker}", f"line {count}")
                else:
                    await self._read(session, tally)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a failed request
                tally.failed(f"{type(error).__name__}: {error}")
            else:
                tally.latencies.append(time.perf_counter() - started)
            del self._under_way[worker]
            self._finished.set()
            count += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self, session: aiohttp.ClientSession, tally: Tally) -> None:
        async with session.get(self._url + "/") as answer:
            answer.raise_for_status()
            await answer.read()
            tally.versions[answer.headers["X-Guestbook-Version"]] += 1

    async def _sign(self, session: aiohttp.ClientSession, tally: Tally, name: str, text: str) -> None:
        async with session.post(self._url + "/api/entries", json={"name": name, "text": text}) as answer:
            answer.raise_for_status()
            self.signed.append(msgspec.json.decode(await answer.read())["id"])
            tally.versions[answer.headers["X-Guestbook-Version"]] += 1
