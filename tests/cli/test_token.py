"""`pilothouse token` against a platform in processes of its own, and a machine that joins with what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.cli import main
from pilothouse.client import Client
from pilothouse.client.kubeconfig import load_kubeconfig
from pilothouse.foundation.terminal import ExitCode
from pilothouse.kinds.structs import Secret, SelfSubjectReview
from pilothouse.platform.joining import JoinError, join
from pilothouse.platform.jointoken import JoinToken
from support.service import PILOTHOUSE

pytestmark = pytest.mark.slow

PATIENCE = 60.0
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the server and the controllers."""
    home = tmp_path_factory.mktemp("token") / "home"
    command = [*PILOTHOUSE, "up", "--role", "server", "--data-dir", str(home), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--without", "scheduler,dns,load-balancers"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while run("token", "list", "--data-dir", str(home)) != ExitCode.OK or not ready(home):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield home
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()


def ready(home: Path) -> bool:
    """Whether a token can be made, which wants what the server publishes a moment later than it serves."""
    return run("token", "create", "--data-dir", str(home), "--description", "first") == ExitCode.OK


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def told(capsys: Captured, *arguments: str, code: ExitCode = ExitCode.OK) -> tuple[str, str]:
    capsys.readouterr()
    assert run("token", *arguments) == code
    return capsys.readouterr()


def secrets(data: Path) -> dict[str, Secret]:
    async def asked() -> dict[str, Secret]:
        async with Client.from_config(load_kubeconfig(data / "admin.kubeconfig")) as client:
            found = await client.list_all(Secret, "kube-system", fields="type=bootstrap.kubernetes.io/token")
            return {each.metadata.name: each for each in found}

    return asyncio.run(asked())


def test_a_machine_joins_with_what_is_printed(data: Path, tmp_path: Path, capsys: Captured) -> None:
    where = ("--data-dir", str(data))
    shown, noted = told(capsys, "create", *where, "--ttl", "1h", "--print-join-command", "--description", "rack 1")
    words = shown.split()
    assert words[:5] == ["pilothouse", "up", "--role", "agent", "--join"]
    assert words[6] == "--token"
    assert "only this machine reaches https://127.0.0.1:" in noted
    token = JoinToken.parse(words[7])
    secret = secrets(data)[f"bootstrap-token-{token.identity}"]
    assert secret.data["token-secret"].decode() == token.secret
    assert secret.data["auth-extra-groups"] == b"system:bootstrappers:pilothouse:nodes"
    path = asyncio.run(join(words[5], words[7], "n1", str(tmp_path)))

    async def who() -> str:
        async with Client.from_config(load_kubeconfig(path)) as client:
            return (await client.create(SelfSubjectReview())).status.user_info.username

    assert asyncio.run(who()) == "system:node:n1"


def test_tokens_are_listed_without_their_secrets_and_deleted(data: Path, tmp_path: Path, capsys: Captured) -> None:
    where = ("--kubeconfig", str(data / "admin.kubeconfig"))
    text = told(capsys, "create", *where, "--ttl", "0", "--description", "for ever")[0].strip()
    token = JoinToken.parse(text)
    made = json.loads(told(capsys, "create", *where, "-o", "json")[0])
    assert JoinToken.parse(made["token"]).identity == made["id"]
    assert made["command"].endswith(made["token"])
    table = told(capsys, "list", *where)[0]
    assert table.splitlines()[0].split() == ["ID", "EXPIRES", "FOR"]
    (row,) = [line for line in table.splitlines() if line.startswith(token.identity)]
    assert row.split(maxsplit=2) == [token.identity, "never", "for ever"]
    listed = {each["id"]: each for each in json.loads(told(capsys, "list", *where, "-o", "json")[0])}
    assert listed[made["id"]] == {
        "id": made["id"],
        "expires": made["expires"],
        "expired": False,
        "usages": ["authentication", "signing"],
        "groups": ["system:bootstrappers:pilothouse:nodes"],
        "description": "",
    }
    everything = table + json.dumps(listed) + told(capsys, "list", *where, "-o", "yaml")[0]
    for each in (token, JoinToken.parse(made["token"])):
        assert each.secret not in everything
    assert told(capsys, "delete", *where, token.identity, made["token"])[0] == (
        f"deleted: {token.identity}, {made['id']}\n"
    )
    assert not {f"bootstrap-token-{token.identity}", f"bootstrap-token-{made['id']}"} & secrets(data).keys()
    missing = told(capsys, "delete", *where, token.identity, code=ExitCode.NOT_FOUND)[1]
    assert f"token {token.identity}: there is none of this id" in missing
    with pytest.raises(JoinError, match="does not know the token"):
        asyncio.run(join(load_kubeconfig(where[1]).server, made["token"], "n9", str(tmp_path)))


def test_an_expired_token_is_removed(data: Path, capsys: Captured) -> None:
    token = JoinToken.parse(told(capsys, "create", "--data-dir", str(data), "--ttl", "1s")[0])
    deadline = time.monotonic() + PATIENCE
    while f"bootstrap-token-{token.identity}" in secrets(data):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_is_wrong_is_one_sentence(tmp_path: Path, capsys: Captured) -> None:
    nowhere = ("--data-dir", str(tmp_path))
    said = told(capsys, "create", *nowhere, code=ExitCode.USAGE)[1]
    assert "there is no such file" in said
    assert "hint: start the platform there (pilothouse up)" in said
    assert "want a duration" in told(capsys, "create", *nowhere, "--ttl", "soon", code=ExitCode.USAGE)[1]
    both = ("--kubeconfig", str(tmp_path / "k"))
    assert "say the same in two ways" in told(capsys, "list", *nowhere, *both, code=ExitCode.USAGE)[1]


def test_a_server_that_is_no_platform_is_told(tmp_path: Path, capsys: Captured) -> None:
    command = [*PILOTHOUSE, "apiserver", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready: ")
            said = told(capsys, "create", "--data-dir", str(tmp_path), code=ExitCode.UNAVAILABLE)[1]
            assert "it is not of `pilothouse up`" in said
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=30)
    said = told(capsys, "list", "--data-dir", str(tmp_path), code=ExitCode.UNAVAILABLE)[1]
    assert "hint: is the platform running?" in said
