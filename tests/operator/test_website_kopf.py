"""The website operator, ours and the one written for kopf, through the same life over HTTPS: what each does, and how
much it asks of the server. The page that compares them has to say what is counted here.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pilothouse.apiserver.model import Response
from pilothouse.client import Client
from pilothouse.kinds.status import Forbidden
from pilothouse.operator import Manager, install
from pilothouse.operator.crds import definition
from pilothouse.testing import ControlPlane
from support.examples import EXAMPLES, example, lines_of
from support.proxy import Proxy, proxy_to

kopf = pytest.importorskip("kopf", reason="kopf is not installed: pip install kopf")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PAGE = EXAMPLES.parent / "docs" / "operator-examples.md"
SECONDS = 20.0
CORE, APPS = "/api/v1/namespaces/default", "/apis/apps/v1/namespaces/default"
SITES = "/apis/example.com/v1/namespaces/default/websites"
CONFIG, DEPLOYMENT, SERVICE = f"{CORE}/configmaps/web", f"{APPS}/deployments/web", f"{CORE}/services/web"
REFUSED_SECONDS = 3.0
QUIET_SECONDS = 0.5
STEPS = [
    "create",
    "ready",
    "child deleted",
    "refused once",
    "child changed",
    "update",
    "restart",
    "watch cut",
    "delete",
]

Operator = Callable[[str], AbstractAsyncContextManager[None]]


@dataclass
class Life:
    """One operator's life: which steps came about, and what it asked for by method."""

    plane: ControlPlane
    proxy: Proxy
    kubeconfig: str
    came_about: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    """Paths of which the next write is refused, as by a quota or an admission webhook that is down."""

    @property
    def writes(self) -> int:
        return sum(count for what, count in self.asked.items() if not what.startswith(("GET", "event")))

    async def step(self, name: str, *waits: Awaitable[Any], seconds: float = SECONDS) -> None:
        """Note whether what is waited for comes about."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*waits)
                self.came_about.append(name)

    async def quiet(self) -> None:
        """Wait until nothing was asked for a while, so that what comes next is not an echo of what was before."""
        before = -1
        while before != self.asked.total():
            before = self.asked.total()
            await asyncio.sleep(QUIET_SECONDS)

    async def rolled_out(self) -> None:
        """Say what the controller of deployments would."""
        found = await self.plane.call("GET", DEPLOYMENT)
        count = found["spec"]["replicas"]
        fields = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        status = {"observedGeneration": found["metadata"]["generation"], **dict.fromkeys(fields, count)}
        await self.plane.call("PATCH", f"{DEPLOYMENT}/status", {"status": status})


def page_is(text: str) -> Callable[[Any], bool]:
    return lambda found: bool(found) and found["data"] == {"index.html": text}


def has(replicas: int) -> Callable[[Any], bool]:
    return lambda found: bool(found) and found["spec"]["replicas"] == replicas


def there(found: Any) -> bool:
    return bool(found)


def gone(found: Any) -> bool:
    return found is None


def ready(found: Any) -> bool:
    listed = found.get("status", {}).get("conditions", ()) if found else ()
    return any((one["type"], one["status"]) == ("Ready", "True") for one in listed)


async def live(life: Life, operator: Operator) -> None:
    """Go through all steps."""
    plane, wait = life.plane, life.plane.wait_for
    async with operator(life.kubeconfig):
        spec = {"html": "1", "replicas": 2}
        await plane.call("POST", SITES, {"metadata": {"name": "web"}, "spec": spec})
        all_there = (wait(path, there) for path in (CONFIG, DEPLOYMENT, SERVICE))
        await life.step("create", *all_there, wait(f"{SITES}/web", lambda found: bool(found.get("status"))))
        await life.rolled_out()
        await life.step("ready", wait(f"{SITES}/web", ready))
        await plane.call("DELETE", SERVICE)
        await life.step("child deleted", wait(SERVICE, there))
        await life.quiet()
        life.refused.append(SERVICE)
        await plane.call("DELETE", SERVICE)
        await life.step("refused once", wait(SERVICE, there), seconds=REFUSED_SECONDS)
        await plane.call("PATCH", f"{SITES}/web", {"spec": {"image": "nginx:1.30"}})
        await wait(SERVICE, there)
        await plane.call("PATCH", DEPLOYMENT, {"spec": {"replicas": 0}})
        await plane.call("PATCH", CONFIG, {"data": {"index.html": "defaced"}})
        await life.step("child changed", wait(DEPLOYMENT, has(2)), wait(CONFIG, page_is("1")))
        await plane.call("PATCH", f"{SITES}/web", {"spec": {"html": "2"}})
        await life.rolled_out()
        await life.step("update", wait(CONFIG, page_is("2")), wait(f"{SITES}/web", ready))
    await plane.call("PATCH", f"{SITES}/web", {"spec": {"replicas": 3}})
    await plane.call("DELETE", CONFIG)
    async with operator(life.kubeconfig):
        await life.step("restart", wait(DEPLOYMENT, has(3)), wait(CONFIG, page_is("2")))
        await life.rolled_out()
        await wait(f"{SITES}/web", ready)
        life.proxy.cut()
        await plane.call("DELETE", SERVICE)
        await plane.call("PATCH", f"{SITES}/web", {"spec": {"html": "3"}})
        await life.proxy.mend()
        await life.step("watch cut", wait(SERVICE, there), wait(CONFIG, page_is("3")))
        await plane.call("DELETE", f"{SITES}/web")
        await life.step("delete", *(wait(path, gone) for path in (f"{SITES}/web", CONFIG, DEPLOYMENT, SERVICE)))


@asynccontextmanager
async def beginning(made: dict[str, Any], directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Life]:
    """Run a control plane behind a relay that can be cut; what comes over HTTPS is counted."""
    asked: Counter[str] = Counter()
    refused: list[str] = []
    async with ControlPlane() as plane:
        async with Client.for_transport(plane.transport, plane.user) as client:
            await install(client, made)
        handle = plane.server.handle

        def counted(request: Any) -> Any:
            asked["event" if "/events" in request.path else request.method] += 1
            if request.method == "PATCH" and request.path in refused:
                refused.remove(request.path)
                return Response(403, json.dumps(Forbidden("the quota is used up").to_dict()).encode())
            return handle(request)

        monkeypatch.setattr(plane.server, "handle", counted)
        text, port = await asyncio.to_thread(Path(plane.kubeconfig).read_text), plane.url.rpartition(":")[2]
        monkeypatch.undo()
        async with proxy_to(int(port)) as proxy:
            kubeconfig = directory / "kubeconfig"
            await asyncio.to_thread(kubeconfig.write_text, text.replace(f":{port}", f":{proxy.port}"))
            yield Life(plane, proxy, str(kubeconfig), asked=asked, refused=refused)


@pytest.fixture(scope="module")
def kopf_module() -> Iterator[tuple[ModuleType, Any]]:
    before, registry = kopf.get_default_registry(), kopf.OperatorRegistry()
    kopf.set_default_registry(registry)
    yield example("website_kopf"), registry
    kopf.set_default_registry(before)
    gc.collect()


@asynccontextmanager
async def ours(kubeconfig: str) -> AsyncIterator[None]:
    async with Client.from_kubeconfig(kubeconfig) as client:
        manager = Manager(client)
        example("website").build(manager)
        async with manager:
            yield


@asynccontextmanager
async def operated_by_kopf(registry: Any) -> AsyncIterator[None]:
    started, stop = asyncio.Event(), asyncio.Event()
    operator = kopf.operator(
        registry=registry, namespaces=["default"], standalone=True, ready_flag=started, stop_flag=stop
    )
    task = asyncio.create_task(operator)
    try:
        async with asyncio.timeout(SECONDS):
            await started.wait()
        yield
    finally:
        stop.set()
        await task


async def test_both_through_the_same_life(
    kopf_module: tuple[ModuleType, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, registry = kopf_module
    async with beginning(definition(example("website").Website), tmp_path, monkeypatch) as life:
        await live(life, ours)
        own = life

    def by_kopf(kubeconfig: str) -> AbstractAsyncContextManager[None]:
        monkeypatch.setenv("KUBECONFIG", kubeconfig)
        return operated_by_kopf(registry)

    async with beginning(module.DEFINITION, tmp_path, monkeypatch) as life:
        await live(life, by_kopf)
        other = life
    print("pilothouse", own.came_about, own.writes, dict(own.asked))
    print("kopf", other.came_about, other.writes, dict(other.asked))
    assert own.came_about == STEPS
    assert {*STEPS} - {*other.came_about} <= {"refused once"}  # what fails in kopf.on.event is not tried again
    for row, counted in (
        ("writes asked for in that life, about", (own.writes, other.writes)),
        ("reads asked for, about", (own.asked["GET"], other.asked["GET"])),
    ):
        for told, found in zip(figures_of(row), counted, strict=True):
            assert told / 2 <= found <= told * 2, (row, told, found)


def figures_of(row: str) -> tuple[float, float]:
    """Return both figures of a row of the page's table."""
    found = re.search(rf"^\| {row} \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{PAGE.name}: no row {row!r}"
    return float(found[1]), float(found[2])


@pytest.mark.parametrize(
    ("row", "own", "others"),
    [
        ("lines of code", {"main"}, {"main"}),
        (
            "lines without the definition of the kind",
            {"main", "WebsiteSpec", "WebsiteStatus", "Website"},
            {"main", "DEFINITION", "(TEXT, NUMBER)"},
        ),
    ],
    ids=["all", "without the kind"],
)
def test_the_page_says_what_is_counted(row: str, own: set[str], others: set[str]) -> None:
    assert figures_of(row) == (lines_of("website", own), lines_of("website_kopf", others))


def test_the_kind_is_the_same(kopf_module: tuple[ModuleType, Any]) -> None:
    made = definition(example("website").Website)["spec"]
    written = kopf_module[0].DEFINITION["spec"]
    schemas = [one["versions"][0]["schema"]["openAPIV3Schema"]["properties"] for one in (made, written)]
    for part in ("spec", "status"):
        assert fields_of(schemas[0][part]) == fields_of(schemas[1][part])
    assert made["names"] == written["names"]


def fields_of(schema: Any, path: str = "") -> dict[str, Any]:
    """Return type, default and whether it is required of all that a schema has."""
    found = {path: (schema["type"], schema.get("default"), sorted(schema.get("required", ())))}
    for name, below in schema.get("properties", {}).items():
        found |= fields_of(below, f"{path}.{name}")
    return found | (fields_of(schema["items"], f"{path}[]") if "items" in schema else {})
