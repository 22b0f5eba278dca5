"""`pilothouse keys`: keys are listed, exchanged and forgotten, and a running server takes the new ones up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pilothouse.apiserver.cli_keys import keys
from pilothouse.apiserver.http import InProcessTransport
from pilothouse.apiserver.local import APISERVER
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.program import Program, ProgramOptions
from pilothouse.foundation.clock import SystemClock
from pilothouse.store import RangeRequest, prefix_end


class Hasty(SystemClock):
    """A clock by which the looks at files come at once."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 200)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(keys, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def rows(directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("status", "--data-dir", str(directory), "-o", "json"))
    return found


async def secret_bytes(program: Program) -> list[bytes]:
    answer = await program.server.store.range(RangeRequest(b"/registry/secrets/", prefix_end(b"/registry/secrets/")))
    return [kv.value for kv in answer.kvs]


async def until(program: Program, prefix: bytes) -> None:
    for _ in range(400):
        if all(value.startswith(prefix) for value in await secret_bytes(program)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"no {prefix!r} in {[value[:40] for value in await secret_bytes(program)]}")


async def test_secrets_are_encrypted_with_the_new_key_and_the_old_one_is_forgotten(tmp_path: Path) -> None:
    options = ProgramOptions(data_dir=str(tmp_path / "d"), port=0, server=ServerOptions(clock=Hasty()))
    program = await Program.start(options)
    try:
        call = InProcessTransport(program.server.handle).request
        body = b'{"metadata":{"name":"s"},"stringData":{"password":"hunter2"}}'
        made = await call("POST", "/api/v1/namespaces/default/secrets", body=body, user=APISERVER)
        assert made.status == 201
        (first,) = [row["key"] for row in rows(tmp_path / "d") if row["what"] == "encrypts secrets"]
        (stored,) = await secret_bytes(program)
        assert stored.startswith(f"k8s:enc:aesgcm:v1:{first}:".encode())
        assert b"hunter2" not in stored
        assert "new key" in run("rotate", "secrets", "--data-dir", str(tmp_path / "d"))
        (second,) = {row["key"] for row in rows(tmp_path / "d") if row["what"] == "encrypts secrets"} - {first}
        await until(program, f"k8s:enc:aesgcm:v1:{second}:".encode())
        for _ in range(400):
            if [row["key"] for row in rows(tmp_path / "d") if row["what"] == "encrypts secrets"] == [second]:
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("the old key was not forgotten")
        answer = await call("GET", "/api/v1/namespaces/default/secrets/s", user=APISERVER)
        assert b"aHVudGVyMg==" in await answer.read()
    finally:
        await program.close()


async def test_the_ca_is_exchanged_in_steps(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    await (await Program.start(ProgramOptions(data_dir=str(directory), port=0))).close()
    assert [row["key"] for row in rows(directory)].count("ca") == 1
    assert "trusted beside" in run("rotate", "ca", "--data-dir", str(directory))
    assert [row["key"] for row in rows(directory)].count("ca") == 2
    assert "signs now" in run("rotate", "ca", "--data-dir", str(directory))
    assert "only the present key" in run("retire", "ca", "--data-dir", str(directory))
    assert [row["key"] for row in rows(directory)].count("ca") == 1
    program = await Program.start(ProgramOptions(data_dir=str(directory), port=0))
    assert program.server.health.failing().keys() <= {
        "poststarthook/rbac/bootstrap-roles",
        "poststarthook/priority-and-fairness-config-producer",
    }
    await program.close()


def test_a_directory_without_keys_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(keys, ["status", "--data-dir", str(tmp_path)])
    assert done.exit_code != 0
    assert "ca.crt: is missing" in done.output
