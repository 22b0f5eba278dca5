"""The runtime for an ordinary user: user namespaces where the kernel allows them, else plain sessions."""

from __future__ import annotations

import json
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.imagekit import Blobs, layer, shell_files, write_layout
from support.nodekit import Place, eventually, leftovers, place, user_python

PROGRAM = """
import asyncio, json, os, socket, sys
from pilothouse.node.config import *
from pilothouse.node.errors import *
from pilothouse.node.process.options import Options
from pilothouse.node.process.runtime import ProcessRuntime

root, mode, image = sys.argv[1:4]
found = {}

async def text_of(path):
    return [line.split(" ", 3)[3] for line in open(path).read().splitlines()]

async def run(runtime, pod, name, script, **fields):
    config = ContainerConfig(metadata=ContainerMetadata(name=name), command=("/bin/sh", "-c", script),
                             log_path=name + ".log", **({"image": "host"} | fields))
    made = await runtime.create_container(pod, config)
    await runtime.start_container(made)
    return made

async def ended(runtime, made):
    while (status := await runtime.container_status(made)).state != "Exited":
        await asyncio.sleep(0.01)
    return status

def sleepers(length):
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += open(f"/proc/{pid}/cmdline").read() == f"sleep\\0{length}\\0"
        except OSError:
            pass
    return found

async def main():
    options = Options(root=root + "/node", mode=mode or None, local_images=(root,))
    runtime = ProcessRuntime(options)
    await runtime.start()
    found["mode"] = runtime.machine.mode
    found["missing"] = (await runtime.status()).missing
    pod = await runtime.run_sandbox(SandboxConfig(metadata=SandboxMetadata(name="u", uid="u"), hostname="u",
                                                  log_directory=root + "/logs"))
    found["ip"] = (await runtime.sandbox_status(pod)).ip
    script = "id -u; hostname; set -- /proc/[0-9]*; echo $#; (setsid sleep 1234 &) ; exit 3"
    one = await run(runtime, pod, "one", script)
    status = await ended(runtime, one)
    found["one"] = [status.exit_code, await text_of(root + "/logs/one.log")]
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    server = ("python3 -c 'import socket; s = socket.create_server((\\"%s\\", %d)); c, _ = s.accept();"
              " c.sendall(b\\"hello\\")'")
    two = await run(runtime, pod, "two", server % (found["ip"], port))
    for _ in range(500):
        try:
            through = await runtime.port_forward(pod, port)
            break
        except ConnectionError:
            await asyncio.sleep(0.02)
    found["forwarded"] = (await through.reader.read()).decode()
    through.writer.close()
    three = await run(runtime, pod, "three", "sleep 1234")
    stats = await runtime.container_stats(three)
    found["stats"] = stats.pids
    found["exec"] = (await runtime.exec_sync(three, ["/bin/sh", "-c", "echo in; exit 4"])).exit_code
    await runtime.close()
    runtime = ProcessRuntime(options)
    await runtime.start()
    found["adopted"] = (await runtime.container_status(three)).state
    await runtime.stop_container(three, 0)
    found["killed"] = (await runtime.container_status(three)).exit_code
    try:
        await runtime.images.pull(image)
        four = await run(runtime, pod, "four", "id -u; cat /data; echo x > /new && cat /new", image=image,
                         security=SecurityContext(run_as_user=0))
        await ended(runtime, four)
        other = SecurityContext(run_as_user=77, run_as_group=88)
        five = await run(runtime, pod, "five", "id -u; id -g", image=image, security=other)
        await ended(runtime, five)
        found["five-exec"] = None
        found["image"] = [await text_of(root + "/logs/four.log"), await text_of(root + "/logs/five.log")]
    except CreateContainerError as error:
        found["image"] = str(error)
    length = f"98{os.getpid()}"
    six = await run(runtime, pod, "six", f"(setsid sleep {length} &); exec sleep {length}")
    while sleepers(length) < 2:
        await asyncio.sleep(0.02)
    os.kill((await runtime.sandbox_status(pod)).pid, 9)
    found["killed-keeper"] = (await ended(runtime, six)).reason
    for other in await runtime.list_sandboxes():
        await runtime.remove_sandbox(other.id)
    await runtime.close()
    for _ in range(500):
        if not sleepers(length):
            break
        await asyncio.sleep(0.02)
    found["sleepers"] = sleepers(length)
    print(json.dumps(found))

asyncio.run(main())
"""


def _run(made: Place, mode: str, tmp: Path) -> dict[str, object]:
    tmp.chmod(0o755)
    python = user_python(tmp)
    if python is None:
        pytest.skip("no Python that an ordinary user can run has this environment")
    blobs = Blobs()
    image = blobs.image(layer(*shell_files(), ("data", {"data": b"deep\n", "uid": 9})))
    place_of_images = write_layout(made.directory / "layout", blobs, v1=image)
    for path in (made.directory, made.logs):
        path.chmod(0o777)
    program = tmp / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [*python, str(program), str(made.directory), mode, f"oci:{place_of_images}:v1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd="/")
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


async def _place_of_user(mode: str, tmp: Path) -> dict[str, object]:
    async with place() as made:
        found = _run(made, mode, tmp)
        await eventually(lambda: not leftovers(made), lambda: str(leftovers(made)))
        return found


@pytest.fixture
def outside() -> Iterator[Path]:
    """Return a directory that an ordinary user reaches, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="phu") as name:
        yield Path(name)


async def test_an_ordinary_user_runs_pods(outside: Path) -> None:
    found = await _place_of_user("", outside)
    if found["mode"] != "userns":
        pytest.skip("the kernel allows this user no user namespaces")
    assert str(found["ip"]).startswith("127.")
    assert found["one"] == [3, ["0", "u", "1"]]
    assert found["forwarded"] == "hello"
    assert found["stats"] in (1, 2)
    assert (found["exec"], found["adopted"], found["killed"]) == (4, "Running", 137)
    assert (found["killed-keeper"], found["sleepers"]) == ("ContainerStatusUnknown", 0)
    assert found["image"] == [["0", "deep", "x"], ["77", "88"]]
    assert any("no network of their own" in text for text in found["missing"])  # type: ignore[attr-defined]


async def test_without_namespaces_only_the_machines_files_can_run(outside: Path) -> None:
    found = await _place_of_user("plain", outside)
    one: Any = found["one"]
    assert one[0] == 3
    assert one[1][0] != "0"
    assert found["forwarded"] == "hello"
    assert found["stats"] in (1, 2)
    assert (found["exec"], found["adopted"], found["killed"]) == (4, "Running", 137)
    assert (found["killed-keeper"], found["sleepers"]) == ("ContainerStatusUnknown", 0)
    assert found["image"] == "this machine allows no namespaces to this user: only image: host can run"
