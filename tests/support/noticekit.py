"""Servers that take notifications: HTTP for webhooks and Slack, and a small SMTP server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import default
from typing import Any

from pilothouse.apiserver.model import Answer, Request, Response
from support.httpkit import serving

__all__ = ["Inbox", "MailServer", "inbox", "mail_server"]


@dataclass
class Inbox:
    """Takes whatever is posted. status: what it answers; down: how many requests fail first."""

    url: str = ""
    status: int = 200
    answer: dict[str, Any] = field(default_factory=lambda: {"ok": True})
    down: int = 0
    asked: int = 0
    requests: list[Request] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, request: Request) -> Answer:
        self.asked += 1
        self.arrived.set()
        if self.down > 0:
            self.down -= 1
            return Response(503, b"later", content_type="text/plain")
        self.requests.append(request)
        return Response(self.status, json.dumps(self.answer).encode(), content_type="application/json")

    @property
    def bodies(self) -> list[Any]:
        """What was taken."""
        return [json.loads(each.body) for each in self.requests]

    @property
    def texts(self) -> list[str]:
        """The texts of what was taken, in order of the alphabet."""
        return sorted(each["text"] for each in self.bodies)


@contextlib.asynccontextmanager
async def inbox() -> AsyncIterator[Inbox]:
    """Run an HTTP server on a free port."""
    made = Inbox()
    async with serving(made) as (_, port):
        made.url = f"http://127.0.0.1:{port}"
        yield made


@dataclass
class MailServer:
    """Takes mail without TLS. refuse: recipients that it does not take."""

    port: int = 0
    refuse: str = ""
    recipients: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    mails: list[Message] = field(default_factory=list)

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak as much SMTP (RFC 5321) as a client needs."""
        with contextlib.suppress(ConnectionError):
            writer.write(b"220 mail.test\r\n")
            while line := (await reader.readline()).decode().strip():
                word = line.partition(" ")[0].upper()
                if word == "DATA":
                    writer.write(b"354 go on\r\n")
                    text = await reader.readuntil(b"\r\n.\r\n")
                    self.mails.append(message_from_bytes(text[:-5].replace(b"\r\n..", b"\r\n."), policy=default))
                elif word == "RCPT":
                    self.recipients.append(line.partition(":")[2].strip("<> "))
                elif word == "AUTH":
                    self.logins.append(line)
                writer.write(self._answer(word, line))
                if word == "QUIT":
                    break
        writer.close()

    def _answer(self, word: str, line: str) -> bytes:
        if word == "EHLO":
            return b"250-mail.test\r\n250 AUTH PLAIN\r\n"
        if word == "QUIT":
            return b"221 bye\r\n"
        if word == "AUTH":
            return b"235 fine\r\n"
        return b"550 no\r\n" if self.refuse and self.refuse in line else b"250 fine\r\n"


@contextlib.asynccontextmanager
async def mail_server() -> AsyncIterator[MailServer]:
    """Run a mail server on a free port."""
    made = MailServer()
    server = await asyncio.start_server(made.speak, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
