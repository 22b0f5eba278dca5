"""Names that stand for others (ExternalName), followed to their addresses, for the resolvers of pods do not follow."""

from __future__ import annotations

from typing import Any, Final

from .answers import Answers, library
from .forwarding import Forwarder, UpstreamFailed
from .wire import BadQuery, Query, Tail, parse, reply, tail_of

__all__ = ["follow"]

_LONGEST: Final = 8


async def follow(query: Query, answers: Answers, forwarder: Forwarder, ttl: int) -> Tail:
    """Return the answer to a question about an alias: the aliases on the way, and what the last one has."""
    dns = library()
    message = dns.message.Message(id=0)
    name = _name(query.name)
    message.question.append(dns.rrset.RRset(name, 1, query.kind))
    at = query.name
    for _ in range(_LONGEST):
        target = answers.alias(at)
        if not target:
            break
        message.answer.append(dns.rrset.from_text(_name(at), ttl, "IN", "CNAME", f"{target}."))
        at = target
    code = 0
    try:
        found = await _found(at, query, answers, forwarder)
        message.answer += found.answer
        code = found.rcode() & 0x0F
    except (UpstreamFailed, BadQuery, dns.exception.DNSException):
        code = 2
    wire = message.to_wire(max_size=65_535)
    return tail_of(wire, len(query.question), is_ours=True)._replace(code=code)


async def _found(target: str, query: Query, answers: Answers, forwarder: Forwarder) -> Any:
    dns = library()
    asked = parse(dns.message.make_query(_name(target), query.kind).to_wire())
    own = answers.answer(asked)
    if own is None:
        return dns.message.from_wire(await forwarder.ask(asked), ignore_trailing=True)
    return dns.message.from_wire(reply(asked, own, most=65_535))


def _name(name: str) -> Any:
    return library().name.Name([*(each.encode("latin-1") for each in name.split(".")), b""])
