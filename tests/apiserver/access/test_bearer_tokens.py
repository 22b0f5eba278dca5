from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilothouse.apiserver.access import tokens as bearer
from pilothouse.apiserver.access.tokens import (
    BootstrapTokens,
    StaticTokens,
    TokenAnswer,
    TokenFileError,
    read_token_file,
)
from pilothouse.apiserver.model import User
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from support.accessview import MemoryView, secret
from support.loglines import logged

TOKEN = "abcdef.0123456789abcdef"


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    os.chmod(path, mode)
    return str(path)


def test_a_token_file_is_read_as_kube_apiserver_does(tmp_path: Path) -> None:
    text = 'tok1,alice,u1,"devs,ops"\n\ntok2,bob,u2\ntok3,"carol, the admin",u3,system:masters\ntok4,dan,\n'
    assert read_token_file(write(tmp_path / "tokens.csv", text)) == {
        "tok1": User("alice", "u1", ("devs", "ops")),
        "tok2": User("bob", "u2"),
        "tok3": User("carol, the admin", "u3", ("system:masters",)),
        "tok4": User("dan", ""),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b,c\nt,user\n", "line 2: must have at least 3 columns (token, user name, user uid), found 2"),
        ('a,b,c\nt,"user,u\n', "line 2: "),
        ('a,b,c\nt,"us"er,u\n', "line 2: "),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path / "tokens.csv", text)
    with pytest.raises(TokenFileError) as caught:
        read_token_file(path)
    assert str(caught.value).startswith(f"token file '{path}', {told}")


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match=r"gone.csv': No such file"):
        read_token_file(str(tmp_path / "gone.csv"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenFileError, match="is not UTF-8"):
        read_token_file(str(tmp_path / "binary"))


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.csv", "a,b,c\na,b,c\n,x,y\n", 0o644)
    with logged(bearer) as logs:
        assert list(read_token_file(path)) == ["a"]
    assert [entry["event"] for entry in logs] == [
        "others can read the tokens; run chmod 600",
        "the same token stands there twice; the last one counts",
        "an empty token is ignored",
    ]


def test_static_tokens_are_kept_as_digests() -> None:
    tokens = StaticTokens({"s3cret": User("alice")}, api_audiences=["api"])
    assert tokens.authenticate_token("s3cret") == TokenAnswer(User("alice"), ("api",))
    assert tokens.authenticate_token("s3cret", ("api", "x")) == TokenAnswer(User("alice"), ("api",))
    assert tokens.authenticate_token("s3cret", ("x",)) is None
    assert tokens.authenticate_token("S3cret") is None
    assert tokens.authenticate_token("") is None
    assert "s3cret" not in repr(vars(tokens))
    assert len(tokens) == 1


class Bootstrap:
    def __init__(self) -> None:
        self.view, self.clock = MemoryView(), FakeClock()
        self.tokens = BootstrapTokens(self.view, clock=self.clock)

    def keep(self, kind: str = "bootstrap.kubernetes.io/token", *, gone: bool = False, **data: str) -> None:
        values = {
            "token-id": "abcdef",
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            **{name.replace("_", "-"): value for name, value in data.items()},
        }
        fields = {"deletionTimestamp": "2025-01-01T00:00:00Z"} if gone else {}
        self.view.put("secrets", secret("bootstrap-token-abcdef", "kube-system", kind, values, **fields))


@pytest.fixture
def bootstrap() -> Bootstrap:
    return Bootstrap()


def test_a_bootstrap_token_stands_for_its_id(bootstrap: Bootstrap) -> None:
    assert bootstrap.tokens.authenticate_token(TOKEN) is None
    bootstrap.keep(auth_extra_groups="system:bootstrappers:kubeadm:default-node-token")
    answer = bootstrap.tokens.authenticate_token(TOKEN)
    assert answer is not None
    assert answer.user.name == "system:bootstrap:abcdef"
    assert answer.user.groups == ("system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token")
    assert answer.depends == (("secrets", "kube-system", "bootstrap-token-abcdef"),)


@pytest.mark.parametrize(
    "token", ["abcdef.0123456789abcdeX", "abcdef.0123456789abcdee", "abcdef", "ABCDEF.x", TOKEN + "\n"]
)
def test_other_tokens_are_not_good(bootstrap: Bootstrap, token: str) -> None:
    bootstrap.keep()
    assert bootstrap.tokens.authenticate_token(token) is None


def test_a_secret_must_be_meant_for_it(bootstrap: Bootstrap) -> None:
    wrong = [
        {"kind": "Opaque"},
        {"gone": True},
        {"token_id": "other1"},
        {"usage_bootstrap_authentication": "false"},
        {"auth_extra_groups": "system:masters"},
        {"auth_extra_groups": "system:bootstrappers:a,system:masters"},
        {"auth_extra_groups": "system:bootstrappers:a\n"},
        {"expiration": "2024-12-31T23:59:59Z"},
        {"expiration": "soon"},
    ]
    for data in wrong:
        bootstrap.keep(**data)  # type: ignore[arg-type]
        assert bootstrap.tokens.authenticate_token(TOKEN) is None, data
    bootstrap.keep()
    assert bootstrap.tokens.authenticate_token(TOKEN) is not None


def test_it_ends_when_it_says(bootstrap: Bootstrap) -> None:
    bootstrap.keep(expiration=times.format_seconds(bootstrap.clock.now()).replace("00:00:00", "00:01:00"))
    answer = bootstrap.tokens.authenticate_token(TOKEN)
    assert answer is not None
    assert answer.expires == bootstrap.clock.now().timestamp() + 60
    bootstrap.clock.advance(61)
    assert bootstrap.tokens.authenticate_token(TOKEN) is None
