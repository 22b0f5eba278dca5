"""The shop's programs: what they sell, keep, refuse and break on purpose, and what the manifests hold."""

from __future__ import annotations

import ast
import contextlib
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.examples import EXAMPLES
from support.guestbook import Tier, tier

SHOP = EXAMPLES / "shop"
PRODUCTS = '[{"id": "tea", "name": "Tea <green>", "price": 990}]'


def service(program: str, **environment: str) -> Any:
    return tier(str(SHOP / "programs" / program), **environment)


@pytest.fixture
def products(tmp_path: Path) -> Path:
    file = tmp_path / "products.json"
    file.write_text(PRODUCTS)
    return file


def front(catalogue: Tier | int, orders: Tier | int = 1, **environment: str) -> Any:
    ports = [each if isinstance(each, int) else each.port for each in (catalogue, orders)]
    urls = {"CATALOGUE_URL": f"http://localhost:{ports[0]}", "ORDERS_URL": f"http://localhost:{ports[1]}"}
    return service("storefront.py", **(urls | {"VERSION": "7", "POD_NAME": "front-x"} | environment))


def test_an_order_goes_through_and_is_there_after_a_kill(tmp_path: Path, products: Path) -> None:
    with service("catalogue.py", PRODUCTS_FILE=str(products)) as catalogue:
        with service("orders.py", DATA_DIR=str(tmp_path)) as orders, front(catalogue, orders) as web:
            given = web.ask("POST", "/api/orders", {"product": "tea", "count": 2})
            assert (given.status, given.json()["number"], given.json()["count"]) == (201, 1, 2)
            assert web.ask("POST", "/api/orders", {"product": "gold"}).status == 422
            assert web.ask("POST", "/api/orders", {"product": "tea", "count": 0}).json()["error"].startswith("count:")
            assert web.ask("POST", "/api/orders", b"{").status == 400
            page = web.ask("GET", "/")
            assert (page.status, page.headers["X-Shop-Version"]) == (200, "7")
            assert "Tea &lt;green&gt;" in page.text
            assert "9.90" in page.text
            assert "Version 7, answered by front-x." in page.text
            assert web.ask("GET", "/nowhere").status == 404
            orders.end(signal.SIGKILL)
        with service("orders.py", DATA_DIR=str(tmp_path)) as orders, front(catalogue, orders) as web:
            kept = web.ask("GET", "/api/orders?limit=5").json()
            assert (kept["total"], [each["product"] for each in kept["orders"]]) == (1, ["tea"])
            assert web.ask("GET", "/api/orders?limit=x").status == 400


def test_asking_again_keeps_an_order_once(tmp_path: Path) -> None:
    with service("orders.py", DATA_DIR=str(tmp_path)) as orders:
        order = {"id": "a", "product": "tea", "count": 1}
        assert [orders.ask("POST", "/orders", order).status for _ in range(2)] == [201, 200]
        assert orders.ask("GET", "/orders").json()["total"] == 1
        assert orders.ask("POST", "/orders", order | {"id": 5}).json()["error"].startswith("id: want a text")


def test_the_front_sells_on_while_the_catalogue_is_away(products: Path) -> None:
    with (
        service("catalogue.py", PRODUCTS_FILE=str(products)) as catalogue,
        front(catalogue, PATIENCE_SECONDS="0.5") as web,
    ):
        assert web.ask("GET", "/api/products").json()["products"][0]["id"] == "tea"
        catalogue.end(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not any("Connect" in line for line in web.lines):  # that is said after a while of trying
            assert web.ask("GET", "/").status == 200
            assert time.monotonic() < deadline


def test_a_version_may_fail_or_be_slow(products: Path) -> None:
    with service("catalogue.py", PRODUCTS_FILE=str(products)) as catalogue:
        with front(catalogue, FAIL_PERCENT="100") as web:
            assert web.ask("GET", "/").status == 500
            assert web.ask("GET", "/readyz").status == 200
        with front(catalogue, SLOW_PERCENT="100", SLOW_SECONDS="0.3") as web:
            began = time.monotonic()
            assert web.ask("GET", "/").status == 200
            assert time.monotonic() - began >= 0.3
        with front(catalogue, FAIL_PERCENT="20") as web:
            statuses = {web.ask("GET", "/").status for _ in range(200)}
        assert statuses == {200, 500}


def test_it_finishes_what_is_under_way_and_is_not_ready_any_more(products: Path) -> None:
    with (
        service("catalogue.py", PRODUCTS_FILE=str(products)) as catalogue,
        front(catalogue, SLOW_PERCENT="100", SLOW_SECONDS="2", DRAIN_SECONDS="1.5") as web,
    ):
        kept = web.connect()
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n"
        answers: list[int] = []
        slow = threading.Thread(target=lambda: answers.append(web.ask("GET", "/").status))
        slow.start()
        time.sleep(0.2)
        web.process.send_signal(signal.SIGTERM)
        web.wait_line("stopping")
        assert web.ask("GET", "/readyz").status == 503
        kept.request("GET", "/healthz")
        last = kept.getresponse()
        assert (last.status, last.headers["Connection"]) == (200, "close")
        kept.close()
        slow.join()
        assert answers == [200]
        assert web.process.wait(30) == 0
        web.wait_line("^stopped$")


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"x" * 40_000]
)
def test_what_is_no_request_is_refused_and_others_go_on(products: Path, sent: bytes) -> None:
    with service("catalogue.py", PRODUCTS_FILE=str(products)) as catalogue:
        connection = catalogue.connect()
        connection.connect()
        connection.sock.sendall(sent)
        with contextlib.suppress(ConnectionResetError):  # not all that was sent was read
            assert connection.sock.recv(100).startswith(b"HTTP/1.1 400 ")
        connection.close()
        assert catalogue.ask("GET", "/products").status == 200
        assert catalogue.ask("GET", "/gold").status == 404


# -- the manifests


def objects() -> list[dict[str, Any]]:
    files = sorted((SHOP / "manifests").glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def test_the_config_map_has_the_programs_as_they_are() -> None:
    found = next(each for each in objects() if each["metadata"]["name"] == "shop-programs")
    assert found["data"] == {each.name: each.read_text(encoding="utf-8") for each in (SHOP / "programs").glob("*.py")}


def test_every_pod_has_probes_limits_and_few_rights() -> None:
    workloads = [each for each in objects() if each["kind"] in {"Deployment", "Rollout"}]
    assert len(workloads) == 3
    for each in workloads:
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe", "resources"} <= container.keys()
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert each["spec"]["selector"]["matchLabels"].items() <= each["spec"]["template"]["metadata"]["labels"].items()


def test_what_refers_to_something_names_what_is_there() -> None:
    there = {(each["kind"], each["metadata"]["name"]): each for each in objects()}
    rollout = there["Rollout", "front"]["spec"]["strategy"]["canary"]
    assert {("Service", rollout["stableService"]), ("Service", rollout["canaryService"])} <= there.keys()
    assert ("HTTPRoute", rollout["trafficRouting"]["plugins"]["argoproj-labs/gatewayAPI"]["httpRoute"]) in there
    (template,) = rollout["analysis"]["templates"]
    (metric,) = there["AnalysisTemplate", template["templateName"]]["spec"]["metrics"]
    judged = metric["provider"]["plugin"]["pilothouse.dev/traffic"]
    assert (judged["canary"], judged["stable"]) == (rollout["canaryService"], rollout["stableService"])
    assert ("HTTPRoute", judged["route"]) in there
    refs = there["HTTPRoute", "shop"]["spec"]["rules"][0]["backendRefs"]
    assert [each["name"] for each in refs] == [rollout["stableService"], rollout["canaryService"]]


def test_regions_come_in_order_and_each_step_has_time_to_be_judged() -> None:
    steps = next(each for each in objects() if each["kind"] == "Rollout")["spec"]["strategy"]["canary"]["steps"]
    shares = [(each["plugin"]["config"]["regions"], each["plugin"]["config"]["weight"]) for each in steps[::2]]
    assert shares == [(["cn-east"], 20), (["cn-east"], 100), (["*"], 100)]
    assert [[*each] for each in steps[1::2]] == [["pause"]] * 2  # after the last step the rollout watches on


def test_the_programs_need_nothing_but_the_standard_library() -> None:
    ours = {each.stem for each in (SHOP / "programs").glob("*.py")}
    for file in (SHOP / "programs").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            assert {name.partition(".")[0] for name in names} <= ours | sys.stdlib_module_names
