"""Tokens of files and programs: when they are read, renewed, and what is said where there are none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client import ClientConfig, CredentialsError, ExecConfig, HttpTransport
from pilothouse.client.credentials import ExecCredentials, FixedCredentials, Shown, TokenFile, credentials_for
from pilothouse.client.execplugin import ExecCredential, read_credential, run_plugin
from pilothouse.foundation.clock import FakeClock
from support.wireserver import Conversation, answer_of, wire_server

V1 = "client.authentication.k8s.io/v1"


def printed(**status: Any) -> dict[str, Any]:
    return {"apiVersion": V1, "kind": "ExecCredential", "status": status}


def script(path: Path, text: str) -> ExecConfig:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return ExecConfig(api_version=V1, command=str(path), source='user "u" in FILE', install_hint="see the docs")


async def test_a_token_file_is_read_again_each_minute(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "token"
    path.write_text("one\n", encoding="utf-8")
    source = TokenFile(str(path), clock=clock)
    assert await source.shown() == Shown("Bearer one")
    path.write_text("two", encoding="utf-8")
    clock.advance(59)
    assert await source.shown() == Shown("Bearer one")
    clock.advance(2)
    assert await source.shown() == Shown("Bearer two")


async def test_a_refused_token_is_read_again_at_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one", encoding="utf-8")
    source = TokenFile(str(path), clock=FakeClock())
    shown = await source.shown()
    assert not source.refused(shown)  # it still holds what was refused
    path.write_text("two", encoding="utf-8")
    assert source.refused(shown)
    assert await source.shown() == Shown("Bearer two")


async def test_a_token_file_that_goes_leaves_the_last_token(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "token"
    path.write_text("one", encoding="utf-8")
    source = TokenFile(str(path), clock=clock)
    await source.shown()
    path.unlink()
    clock.advance(100)
    assert await source.shown() == Shown("Bearer one")


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"", "is empty"), (b"a b", "holds no token"), (b"\xff", "no token")]
)
async def test_a_token_file_without_a_token(content: bytes | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialsError, match=rf"CONTEXT: token file {path}: {why}"):
        await TokenFile(str(path), "CONTEXT", FakeClock()).shown()


@pytest.mark.parametrize(
    ("config", "kind", "authorization"),
    [
        (ClientConfig(server="https://x"), FixedCredentials, ""),
        (ClientConfig(server="https://x", token="t"), FixedCredentials, "Bearer t"),
        (ClientConfig(server="https://x", username="n", password="p"), FixedCredentials, "Basic bjpw"),
    ],
)
async def test_what_a_configuration_shows(config: ClientConfig, kind: type, authorization: str) -> None:
    found = credentials_for(config)
    assert isinstance(found, kind)
    assert (await found.shown()).authorization == authorization


def test_a_token_that_no_header_can_carry() -> None:
    with pytest.raises(CredentialsError, match="holds characters that no header can carry") as caught:
        credentials_for(ClientConfig(server="https://x", token="s3cret\nX: y"))
    assert "s3cret" not in str(caught.value)


async def test_a_program_is_run_once_for_many_and_again_when_its_token_expires() -> None:
    clock, runs = FakeClock(), 0

    async def run(config: ExecConfig) -> ExecCredential:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        return ExecCredential(f"t{runs}", expires=clock.now() + timedelta(seconds=100))

    source = ExecCredentials(ExecConfig(api_version=V1, command="x"), clock, run)
    assert await asyncio.gather(*(source.shown() for _ in range(10))) == [Shown("Bearer t1")] * 10
    clock.advance(80)
    assert await source.shown() == Shown("Bearer t1")
    clock.advance(15)  # ten seconds before the end
    assert await source.shown() == Shown("Bearer t2")
    assert source.refused(Shown("Bearer t1"))  # somebody's old one: what is new stays
    assert await source.shown() == Shown("Bearer t2")
    assert source.refused(Shown("Bearer t2"))
    assert await source.shown() == Shown("Bearer t3")
    assert not source.refused(Shown("Bearer t3"))  # that is not how to get a good one
    assert runs == 3
    clock.advance(11)
    assert source.refused(Shown("Bearer t3"))


async def test_a_real_program(tmp_path: Path) -> None:
    answer = json.dumps(printed(token="tok", expirationTimestamp="2030-01-01T00:00:00Z"))
    config = script(tmp_path / "login", f"echo \"$KUBERNETES_EXEC_INFO $A $*\" > {tmp_path}/told\necho '{answer}'")
    config = ExecConfig(
        api_version=V1, command=config.command, args=("x", "y"), env={"A": "b"}, cluster={"server": "https://s"}
    )
    found = await run_plugin(config)
    assert found.token == "tok"
    assert found.expires is not None
    assert found.expires.year == 2030
    told, rest = (tmp_path / "told").read_text(encoding="utf-8").strip().split("} ")
    assert rest == "b x y"
    assert json.loads(told + "}") == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"server": "https://s"}},
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo no such account >&2; exit 3", r"failed: .*exit status 3: no such account"),
        ("echo secret-token", "printed 13 bytes that are not JSON"),
        ("echo []", "printed no object of kind ExecCredential"),
        ("yes | head -c 2000000", "printed over"),
    ],
)
async def test_a_program_that_fails(text: str, why: str, tmp_path: Path) -> None:
    config = script(tmp_path / "login", text)
    with pytest.raises(CredentialsError, match=rf'user "u" in FILE: exec.command .*{why}.*') as caught:
        await run_plugin(config)
    assert "secret-token" not in str(caught.value)
    assert str(caught.value).endswith("see the docs") or "failed" in str(caught.value)


async def test_a_program_that_hangs_or_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"failed: .*not done after 0\.1 s"):
        await run_plugin(script(tmp_path / "login", "sleep 60"), seconds=0.1)
    with pytest.raises(CredentialsError, match=r"cannot be started.*install it or correct its path; see the docs"):
        await run_plugin(ExecConfig(api_version=V1, command="no-such-program-here", install_hint="see the docs"))
    with pytest.raises(CredentialsError, match="wants to talk to a person"):
        await run_plugin(ExecConfig(api_version=V1, command="x", interactive=True))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            {"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1beta1"},
            "set exec.apiVersion to what",
        ),
        ({"kind": "ExecCredential", "apiVersion": V1}, "without status"),
        (printed(), "neither token nor clientCertificateData"),
        (printed(token=1), "status.token: is no text"),
        (printed(clientCertificateData="x"), "belong together; one is missing"),
        (printed(token="x", expirationTimestamp="soon"), "status.expirationTimestamp: want a time"),
        (printed(token="x", expirationTimestamp=5), "status.expirationTimestamp: want a time"),
    ],
)
def test_what_a_program_prints_wrongly(answer: dict[str, Any], why: str) -> None:
    with pytest.raises(CredentialsError, match=why):
        read_credential(ExecConfig(api_version=V1, command="x"), json.dumps(answer).encode())


class Rotating:
    """Gives a new token after each refusal."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)

    async def shown(self) -> Shown:
        return Shown(f"Bearer {self.tokens[0]}")

    def refused(self, shown: Shown) -> bool:
        if len(self.tokens) > 1:
            del self.tokens[0]
        return True


async def only_good(talk: Conversation) -> None:
    while asked := await talk.request():
        await talk.send(answer_of(200 if asked.header("authorization") == "Bearer good" else 401))


async def test_after_a_401_one_more_try_with_new_credentials() -> None:
    async with wire_server(only_good) as server:
        transport = HttpTransport(ClientConfig(server=server.url), credentials=Rotating(["old", "good"]))
        assert (await transport.request("POST", "/", body=b"x")).status == 200
        assert [asked.header("authorization") for asked in server.requests] == ["Bearer old", "Bearer good"]
        assert [asked.body for asked in server.requests] == [b"x", b"x"]
        await transport.aclose()
        bad = HttpTransport(ClientConfig(server=server.url), credentials=Rotating(["a", "b", "c"]))
        assert (await bad.request("GET", "/")).status == 401
        await bad.aclose()
        fixed = HttpTransport(ClientConfig(server=server.url, token="bad"))
        assert (await fixed.request("GET", "/")).status == 401
        await fixed.aclose()
    assert len(server.requests) == 2 + 2 + 1


async def test_a_renewed_token_file_is_taken_up_after_a_401(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old", encoding="utf-8")
    async with wire_server(only_good) as server:
        transport = HttpTransport(ClientConfig(server=server.url, token_file=str(path)))
        assert (await transport.request("GET", "/")).status == 401
        path.write_text("good", encoding="utf-8")
        assert (await transport.request("GET", "/")).status == 200
        await transport.aclose()


async def test_an_exec_plugin_through_the_transport(tmp_path: Path) -> None:
    count = tmp_path / "count"
    config = script(
        tmp_path / "login",
        f"echo x >> {count}; [ $(wc -l < {count}) = 1 ] && token=old || token=good\n"
        f"cat <<EOF\n{json.dumps(printed(token='$token'))}\nEOF",
    )
    async with wire_server(only_good) as server:
        transport = HttpTransport(ClientConfig(server=server.url, exec=config))
        assert [(await transport.request("GET", "/")).status for _ in range(3)] == [200, 200, 200]
        await transport.aclose()
    assert count.read_text(encoding="utf-8").count("x") == 2
