"""The guestbook's programs: what they keep over kills, what they refuse, how they end, and what the manifests hold."""

from __future__ import annotations

import ast
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.guestbook import GUESTBOOK, Tier, tier

ROOT = GUESTBOOK.parent.parent


def storage(directory: Path) -> Any:
    return tier("storage.py", DATA_DIR=str(directory))


def front(store: Tier | int, **environment: str) -> Any:
    port = store if isinstance(store, int) else store.port
    given = {"STORE_URL": f"http://localhost:{port}", "VERSION": "7", "POD_NAME": "front-x", "DRAIN_SECONDS": "0"}
    return tier("front.py", **(given | environment))


def entry(number: int) -> dict[str, str]:
    return {"id": f"id-{number}", "name": "me", "text": f"line {number}"}


# -- the second tier


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    acknowledged: list[str] = []

    def write(store: Tier, first: int) -> None:
        for number in range(first, first + 10_000):
            try:
                if store.ask("POST", "/entries", entry(number)).status != 201:
                    return
            except OSError:
                return
            acknowledged.append(f"id-{number}")

    with storage(tmp_path) as store:
        writers = [threading.Thread(target=write, args=(store, first)) for first in (0, 10_000, 20_000)]
        for each in writers:
            each.start()
        while len(acknowledged) < 60:
            writers[0].join(0.01)
        store.end(signal.SIGKILL)
        for each in writers:
            each.join()
    with storage(tmp_path) as store:
        there: set[str] = set()
        before = 0
        while page := store.ask("GET", f"/entries?limit=50&before={before}").json()["entries"]:
            there |= {each["id"] for each in page}
            before = page[-1]["number"]
            if before == 1:
                break
        assert set(acknowledged) <= there
        assert store.end() == 0


def test_an_entry_that_was_cut_short_is_dropped_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with storage(tmp_path) as store:
        store.ask("POST", "/entries", entry(1))
    file = tmp_path / "entries.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"id": "id-2", "na')
    with storage(tmp_path) as store:
        assert store.ask("GET", "/entries").json()["total"] == 1
        assert store.ask("POST", "/entries", entry(3)).json()["number"] == 2
    file.write_bytes(b"not a line of ours\n" + whole)
    done = run("storage.py", DATA_DIR=str(tmp_path))
    assert done.returncode == 1
    assert f"{file}: line 1 is damaged" in done.stdout


def test_asking_again_keeps_an_entry_once(tmp_path: Path) -> None:
    with storage(tmp_path) as store:
        answers = [store.ask("POST", "/entries", entry(1)) for _ in range(2)]
        assert [each.status for each in answers] == [201, 200]
        assert answers[0].text == answers[1].text
        assert store.ask("GET", "/entries").json()["total"] == 1


def test_only_one_process_has_a_book(tmp_path: Path) -> None:
    with storage(tmp_path):
        done = run("storage.py", DATA_DIR=str(tmp_path))
        assert (done.returncode, "another process has the book" in done.stdout) == (1, True)


def test_a_full_disk_refuses_an_entry_and_keeps_the_others(tmp_path: Path) -> None:
    with storage(tmp_path) as store:
        store.ask("POST", "/entries", entry(1))
        size = (tmp_path / "entries.jsonl").stat().st_size
        resource.prlimit(store.process.pid, resource.RLIMIT_FSIZE, (size + 40, size + 40))
        refused = store.ask("POST", "/entries", entry(2))
        assert (refused.status, "could not be written" in refused.json()["error"]) == (507, True)
        assert (tmp_path / "entries.jsonl").stat().st_size == size
        assert store.ask("GET", "/entries").json()["total"] == 1


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "the body is not JSON"),
        ([], 400, "not a JSON object"),
        ({"id": "1", "name": "", "text": "x"}, 400, "name: want a text of 1 to 80 characters"),
        ({"id": "1", "name": "x", "text": 5}, 400, "text: want a text"),
        ({"name": "x", "text": "x"}, 400, "id: want a text"),
        (b"x" * 20_000, 413, "longer than 16384 bytes"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, body: Any, status: int, told: str) -> None:
    with storage(tmp_path) as store:
        answer = store.ask("POST", "/entries", body)
        assert (answer.status, told in answer.json()["error"]) == (status, True), answer


def test_pages_go_back_from_the_newest(tmp_path: Path) -> None:
    with storage(tmp_path) as store:
        for number in range(5):
            store.ask("POST", "/entries", entry(number))
        numbers = [
            [each["number"] for each in store.ask("GET", target).json()["entries"]]
            for target in ("/entries?limit=2", "/entries?limit=2&before=4", "/entries?before=1", "/entries?before=99")
        ]
        assert numbers == [[5, 4], [3, 2], [], [5, 4, 3, 2, 1]]
        assert store.ask("GET", "/entries?limit=1001").status == 400


# -- the first tier


def test_an_entry_goes_through_both_tiers_and_shows_on_the_page(tmp_path: Path) -> None:
    with storage(tmp_path) as store, front(store) as web:
        assert web.ask("POST", "/api/entries", {"name": "<b>", "text": "é\ud800"}).status == 201
        form = b"name=Ann&text=hello"
        answer = web.ask("POST", "/", form, "application/x-www-form-urlencoded")
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        page = web.ask("GET", "/")
        assert (page.status, page.headers["X-Guestbook-Version"]) == (200, "7")
        assert page.text.index("hello") < page.text.index("&lt;b&gt;")
        assert "2 entries. Version 7, answered by front-x." in page.text
        assert web.ask("GET", "/api/version").json()["store_found_by"] == "name"
        assert web.ask("GET", "/nowhere").status == 404
        assert web.ask("POST", "/api/entries", {"name": "x"}).json()["error"].startswith("text: want a text")


def test_a_change_of_the_texts_shows_at_the_next_request(tmp_path: Path) -> None:
    with front(1, TEXTS_DIR=str(tmp_path)) as web:
        assert web.ask("GET", "/api/version").json() == {
            "version": "7", "pod": "front-x", "store_found_by": "name", "title": "Guestbook", "greeting": ""
        }  # fmt: skip
        (tmp_path / "greeting").write_text("welcome\n")
        assert web.ask("GET", "/api/version").json()["greeting"] == "welcome"


def test_the_second_tier_may_be_away_for_a_while(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answers: list[int] = []
    with front(port) as web:
        asking = threading.Thread(target=lambda: answers.append(web.ask("GET", "/api/entries").status))
        asking.start()
        with tier("storage.py", DATA_DIR=str(tmp_path), PORT=str(port)):
            asking.join()
    assert answers == [200]


def test_a_name_that_nobody_knows_is_found_by_the_services_variable(tmp_path: Path) -> None:
    with (
        storage(tmp_path) as store,
        front(store, STORE_URL=f"http://store.invalid:{store.port}", STORE_SERVICE_HOST="127.0.0.1") as web,
    ):
        assert web.ask("GET", "/api/entries").status == 200
        assert web.ask("GET", "/api/version").json()["store_found_by"] == "variable"


def test_it_is_not_ready_when_told_to_stop_and_finishes_what_is_under_way(tmp_path: Path) -> None:
    with storage(tmp_path) as store, front(store, DRAIN_SECONDS="4") as web:
        assert web.ask("GET", "/readyz").status == 200
        kept = web.connect()
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n"
        store.process.send_signal(signal.SIGSTOP)
        answers: list[int] = []
        slow = threading.Thread(target=lambda: answers.append(web.ask("POST", "/api/entries", entry(1)).status))
        slow.start()
        web.process.send_signal(signal.SIGTERM)
        web.wait_line("stopping")
        assert web.ask("GET", "/readyz").status == 503
        kept.request("GET", "/api/version")
        last = kept.getresponse()
        assert (last.status, last.headers["Connection"]) == (200, "close")
        kept.close()
        store.process.send_signal(signal.SIGCONT)
        slow.join()
        assert answers == [201]
        assert web.process.wait(30) == 0
        web.wait_line("^stopped$")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("front.py", PORT=str(port))
    assert (done.returncode, done.stdout) == (1, f"error: cannot listen at 127.0.0.1:{port}: Address already in use\n")


# -- the manifests


def objects() -> list[dict[str, Any]]:
    files = sorted(GUESTBOOK.glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def test_the_config_map_has_the_programs_as_they_are() -> None:
    program = next(each for each in objects() if each["metadata"]["name"] == "guestbook-program")
    assert program["data"] == {each.name: each.read_text(encoding="utf-8") for each in GUESTBOOK.glob("*.py")}
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "generate-examples"), "--check"], check=False)
    assert done.returncode == 0


def test_every_pod_has_probes_limits_and_few_rights() -> None:
    workloads = [each for each in objects() if each["kind"] in {"Deployment", "StatefulSet"}]
    assert len(workloads) == 2
    for each in workloads:
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe", "resources"} <= container.keys()
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_programs_need_nothing_but_the_standard_library() -> None:
    ours = {each.stem for each in GUESTBOOK.glob("*.py")}
    for file in GUESTBOOK.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            assert {name.partition(".")[0] for name in names} <= ours | sys.stdlib_module_names


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "POD_IP": "127.0.0.1", "PORT": "0", **environment}
    command = [sys.executable, str(GUESTBOOK / program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=given, check=False)
