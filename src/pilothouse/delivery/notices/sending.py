"""Sends messages: by HTTP, and mail by the standard library in a thread. Errors name hosts, never paths or secrets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import smtplib
import ssl
from typing import Final

import aiohttp
import msgspec

from pilothouse.delivery.errors import NoticeError

from .messages import Call, Mail, Message

__all__ = ["Sender"]

_SECONDS: Final = 15.0
_MOST_AT_ONCE: Final = 32
_MOST_BYTES: Final = 64 << 10
_SMTPS: Final = 465


class Sender:
    """Sends at most 32 messages at a time, each within `seconds`."""

    def __init__(self, *, seconds: float = _SECONDS) -> None:
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)
        self._seconds = seconds

    async def send(self, message: Message) -> None:
        """Send a message. Raises NoticeError where it was not taken."""
        async with self._turns:
            if isinstance(message, Call):
                await self._call(message)
            else:
                await self._mail(message)

    async def _call(self, call: Call) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await _ask(call)
        except TimeoutError:
            raise NoticeError(f"{call.host}: no answer within {self._seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoticeError(f"{call.host}: {type(error).__name__}") from None

    async def _mail(self, mail: Mail) -> None:
        where = f"{mail.host}:{mail.port}"
        try:
            await asyncio.to_thread(_hand_over, mail, self._seconds)
        except smtplib.SMTPResponseException as error:
            raise NoticeError(f"{where}: status {error.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused:
            raise NoticeError(f"{where}: the recipient is refused") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NoticeError(f"{where}: {type(error).__name__}") from None


async def _ask(call: Call) -> None:
    async with (
        aiohttp.ClientSession(trust_env=True) as session,
        session.request(
            call.method,
            call.url,
            headers=call.headers,
            data=call.body or None,
            ssl=not call.insecure,
            allow_redirects=False,
        ) as answer,
    ):
        if not 200 <= answer.status < 300:
            raise NoticeError(f"{call.host}: status {answer.status}")
        if call.slack:
            _check_slack(call, await answer.content.read(_MOST_BYTES))


def _check_slack(call: Call, body: bytes) -> None:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise NoticeError(f"{call.host}: the answer is no JSON") from None
    if not isinstance(found, dict) or found.get("ok") is not True:
        error = found.get("error") if isinstance(found, dict) else None
        raise NoticeError(f"{call.host}: {str(error)[:100] if error else 'it was not taken'}")


# Mail


def _hand_over(mail: Mail, seconds: float) -> None:
    context = ssl.create_default_context()
    if mail.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _connected(mail, seconds, context) as server:
        server.ehlo()
        is_safe = mail.port == _SMTPS
        if not is_safe and server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
            is_safe = True
        if mail.username and mail.password:
            if not is_safe and not _is_loopback(mail.host):
                raise NoticeError(f"{mail.host}:{mail.port}: it offers no TLS, so the password is not sent")
            server.login(mail.username, mail.password)
        server.send_message(mail.text, mail.sender, [mail.recipient])


def _connected(mail: Mail, seconds: float, context: ssl.SSLContext) -> smtplib.SMTP:
    if mail.port == _SMTPS:
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=seconds, context=context)
    return smtplib.SMTP(mail.host, mail.port, timeout=seconds)


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
