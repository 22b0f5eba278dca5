"""The git program, run so that nothing of a repository or of this machine's settings can steer it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pilothouse.foundation.logs import redact
from pilothouse.foundation.processes import Completed, ProcessFailed, ProcessNotStarted, ProcessTimeout, inherit, run

from .errors import RepositoryError, ToolError

__all__ = ["Access", "Git"]

_CONFIG: Final = """\
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tsymlinks = false
\taskPass =
\tbigFileThreshold = 32m
[pack]
\tthreads = 2
[credential]
\thelper =
[protocol]
\tallow = never
[protocol "https"]
\tallow = always
[protocol "http"]
\tallow = always
[protocol "ssh"]
\tallow = always
[protocol "file"]
\tallow = always
[http]
\tfollowRedirects = false
\tlowSpeedLimit = 1000
\tlowSpeedTime = 30
[transfer]
\tfsckObjects = true
\tbundleURI = false
[fetch]
\trecurseSubmodules = false
\tshowForcedUpdates = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[safe]
\tdirectory = *
[gpg "ssh"]
\tallowedSignersFile = /dev/null
"""
_MEMORY: Final = 2 << 30
_HINTS: Final = (
    (re.compile(r"error in libcrypto|invalid format"), "sshPrivateKey of the repository Secret is no private key"),
    (
        re.compile(r"No (\S+) host key is known for (\S+)"),
        "the {0} host key of {1} is not known; add it to ssh_known_hosts of ConfigMap argocd-ssh-known-hosts-cm",
    ),
    (
        re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED"),
        "the host key is not that of ssh_known_hosts of ConfigMap argocd-ssh-known-hosts-cm; is somebody between?",
    ),
    (
        re.compile(r"(\S+: Permission denied \([\w,-]+\))"),
        "{0}; give sshPrivateKey in a repository Secret, and its public key to the host",
    ),
    (
        re.compile(r"(?i)certificate verification failed|certificate problem|unable to get local issuer"),
        "its certificate is not trusted; add its CA, under the name of the host, to ConfigMap argocd-tls-certs-cm",
    ),
    (
        re.compile(r"returned error: 3\d\d"),
        "it leads elsewhere, where git does not follow; write the address that it leads to as repoURL",
    ),
    (
        re.compile(r"(?i)Out of memory|malloc failed|cannot allocate memory|mmap failed"),
        f"git wants more than {_MEMORY >> 20} MiB of memory for it",
    ),
)
"""What git and ssh say, and what is said of it to whoever has to do something."""
_ASKPASS: Final = """\
#!/bin/sh
case "$1" in
Username*) printf '%s\\n' "$PILOTHOUSE_GIT_USERNAME" ;;
*) printf '%s\\n' "$PILOTHOUSE_GIT_PASSWORD" ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a repository. It shows nothing of it.

    known_hosts: for ssh. proxy: for https. plain_http: a registry without TLS. scope: the project that alone may use
    it, none by default.
    """

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)
    ssh_key: str = field(default="", repr=False)
    tls_certificate: str = field(default="", repr=False)
    tls_key: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    known_hosts: str = field(default="", repr=False)
    insecure: bool = False
    plain_http: bool = False
    proxy: str = field(default="", repr=False)
    scope: str = ""


class Git:
    """Runs git. directory: of its settings, ours alone. seconds, max_output: limits of each run."""

    def __init__(self, directory: str, *, seconds: float = 120.0, max_output: int = 64 << 20) -> None:
        self._home = Path(directory)
        self._seconds = seconds
        self._max = max_output
        self.runs = 0
        """Processes started."""

    async def run(
        self,
        arguments: Sequence[str],
        *,
        access: Access | None = None,
        repository: str = "",
        stdin: bytes = b"",
        max_output: int = 0,
        config: Mapping[str, str] | None = None,
    ) -> bytes:
        """Run a command and return what it printed. repository: the bare one it is about.

        More than max_output bytes are an error.

        access: only for commands that go to the network. Raises RepositoryError, whose text has no credentials, and
        ToolError where there is no git.
        """
        self._prepare()
        command = ["git", *([f"--git-dir={repository}"] if repository else []), *arguments]
        self.runs += 1
        with _environment(self._home, access or Access(), config or {}) as env:
            try:
                done = await run(
                    command,
                    env=env,
                    timeout=self._seconds,
                    stdin=stdin,
                    cwd="/",
                    max_output=max_output or self._max,
                    memory=_MEMORY,
                    end_when_cut=True,
                )
            except ProcessNotStarted:
                raise ToolError("git is not there; install it, such as by: apt-get install git") from None
            except ProcessTimeout:
                raise RepositoryError(f"git {arguments[0]}: not done within {self._seconds:g} s") from None
            except ProcessFailed as error:
                raise RepositoryError(_reason(arguments[0], error.completed, access)) from None
        if done.stdout_cut:
            raise RepositoryError(f"git {arguments[0]}: it printed more than {max_output or self._max} bytes")
        return done.stdout

    def _prepare(self) -> None:
        config = self._home / "gitconfig"
        if config.exists():
            return
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        script = self._home / "askpass"
        script.write_text(_ASKPASS, encoding="utf-8")
        script.chmod(0o700)
        config.write_text(_CONFIG, encoding="utf-8")


def _reason(command: str, done: Completed, access: Access | None) -> str:
    said = done.stderr.decode(errors="replace")
    hint = next((text.format(*found.groups()) for sign, text in _HINTS if (found := sign.search(said))), "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ERROR:", "ssh:"))] or lines[-3:]
    text = hint or "; ".join(told)[:500] or f"exit status {done.status}"
    for secret in (access.password, access.bearer_token, access.username) if access else ():
        if len(secret) > 3:
            text = text.replace(secret, "***")
    return f"git {command}: {redact(text)}"


@contextlib.contextmanager
def _environment(home: Path, access: Access, config: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Give the whole environment of a run; files with secrets are there only while it lasts."""
    settings = dict(config)
    env = inherit(
        HOME=str(home),
        LC_ALL="C",
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL=str(home / "gitconfig"),
        GIT_ATTR_NOSYSTEM="1",
        GIT_TERMINAL_PROMPT="0",
        GIT_NO_LAZY_FETCH="1",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_ASKPASS=str(home / "askpass"),
        GIT_PROTOCOL_FROM_USER="0",
        PILOTHOUSE_GIT_USERNAME=access.username or ("x-access-token" if access.password else ""),
        PILOTHOUSE_GIT_PASSWORD=access.password,
    )
    if access.bearer_token:
        settings["http.extraHeader"] = f"Authorization: Bearer {access.bearer_token}"
    if access.insecure:
        settings["http.sslVerify"] = "false"
    if access.proxy:
        settings["http.proxy"] = access.proxy
    files = {"sslCert": access.tls_certificate, "sslKey": access.tls_key, "sslCAInfo": access.ca}
    with _private_directory(any((*files.values(), access.ssh_key, access.known_hosts))) as private:
        settings |= {f"http.{name}": _private(private, name, data) for name, data in files.items() if data}
        env["GIT_SSH_COMMAND"] = _ssh(private, access)
        # Not on the command line, where all of the machine's users could read it.
        env["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (key, value) in enumerate(settings.items()):
            env[f"GIT_CONFIG_KEY_{number}"], env[f"GIT_CONFIG_VALUE_{number}"] = key, value
        yield env


@contextlib.contextmanager
def _private_directory(wanted: bool) -> Iterator[str]:
    """Give a directory for files with secrets, where there are any."""
    if not wanted:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="pilothouse-git-") as place:
        yield place


def _ssh(directory: str, access: Access) -> str:
    options = ["BatchMode=yes", "ConnectTimeout=20", "ForwardAgent=no", "PermitLocalCommand=no", "IdentitiesOnly=yes"]
    if access.insecure:
        options += ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null"]
    elif access.known_hosts:
        hosts = _private(directory, "hosts", access.known_hosts.rstrip("\n") + "\n")
        options += ["StrictHostKeyChecking=yes", f'UserKnownHostsFile="{hosts}"', "GlobalKnownHostsFile=/dev/null"]
    else:
        options += ["StrictHostKeyChecking=yes", "UserKnownHostsFile=~/.ssh/known_hosts"]
    words = ["ssh", "-F", "/dev/null", *[f"-o{option}" for option in options]]
    if access.ssh_key:
        key = access.ssh_key.replace("\r\n", "\n").rstrip("\n") + "\n"
        words += ["-i", _private(directory, "key", key)]
    else:
        # Keys of whoever runs us are for them, not for all who may write an application.
        words += ["-oIdentityAgent=none", "-oIdentityFile=none"]
    return shlex.join(words)


def _private(directory: str, name: str, data: str) -> str:
    path = os.path.join(directory, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(data)
    return path
