"""Answers about the cluster's names, kept encoded by name until what they say changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from .records import pod_address
from .wire import NOERROR, NXDOMAIN, Query, Tail, rotated, tail_of
from .zone import Zone

__all__ = ["Answers", "library"]

_MOST_NAMES: Final = 20_000
_ADDITIONAL: Final = 32
_KINDS: Final = {1: "A", 28: "AAAA", 33: "SRV", 12: "PTR", 5: "CNAME", 16: "TXT", 6: "SOA", 2: "NS", 255: "ANY"}


class Answers:
    """Answers questions out of a zone. dnspython encodes each answer once; then its bytes are given again.

    ttl: of all records, in seconds. knows_namespace: whether there is one, for the names of pods; None: no pod has a
    name. None for an answer means that others have to be asked.
    """

    def __init__(self, zone: Zone, *, ttl: int = 5, knows_namespace: Callable[[str], bool] | None = None) -> None:
        self._zone = zone
        self._ttl = ttl
        self._knows_namespace = knows_namespace
        self._kept: dict[str, dict[int, Tail]] = {}
        self._turn = 0
        self.encoded = 0

    def changed(self, names: Iterable[str]) -> None:
        """Forget answers to these names."""
        for name in names:
            self._kept.pop(name, None)

    def forget_pods(self) -> None:
        """Forget answers to names of pods, as namespaces came or went."""
        suffix = f".pod.{self._zone.domain}"
        for name in [name for name in self._kept if name.endswith(suffix)]:
            del self._kept[name]

    def answer(self, query: Query) -> Tail | None:
        """Return the answer to a question, None where others are to be asked."""
        kinds = self._kept.get(query.name)
        tail = None if kinds is None else kinds.get(query.kind)
        if tail is None:
            if not self._is_ours(query):
                return None
            tail = self._encode(query)
            if len(self._kept) >= _MOST_NAMES:
                self._kept.clear()
            self._kept.setdefault(query.name, {})[query.kind] = tail
        self._turn += 1
        return rotated(tail, query.kind, self._turn)

    def alias(self, name: str) -> str:
        """Return what a name stands for (ExternalName), empty where it stands for itself."""
        found = self._zone.find(name).get("CNAME", ())
        return next(iter(found), "").rstrip(".")

    def _is_ours(self, query: Query) -> bool:
        if self._zone.is_within(query.name):
            return True
        return self._zone.is_reverse(query.name) and bool(self._zone.find(query.name))

    def _encode(self, query: Query) -> Tail:
        self.encoded += 1
        dns = library()
        name = dns.name.Name([*(each.encode("latin-1") for each in query.name.split(".")), b""])
        message = dns.message.Message(id=0)
        message.question.append(dns.rrset.RRset(name, 1, query.kind))
        found = self._found(query)
        for kind, data in found.items():
            message.answer.append(dns.rrset.from_text_list(name, self._ttl, "IN", kind, list(data)))
        code = NOERROR
        if not found:
            code = NOERROR if self._exists(query.name) else NXDOMAIN
            message.authority.append(self._soa(dns))
        elif "SRV" in found:
            message.additional += self._targets(dns, found["SRV"])
        wire = message.to_wire(max_size=65_535)
        return tail_of(wire, len(query.question), is_ours=True)._replace(code=code)

    def _found(self, query: Query) -> dict[str, Iterable[str]]:
        kind = _KINDS.get(query.kind, "")
        known = self._zone.find(query.name)
        if kind == "ANY":
            return dict(known) or self._pod(query.name, ("A", "AAAA"))
        if kind in known:
            return {kind: known[kind]}
        if "CNAME" in known:
            return {"CNAME": known["CNAME"]}
        if query.name == self._zone.domain and kind == "SOA":
            return {"SOA": [self._soa_text()]}
        if query.name == self._zone.domain and kind == "NS":
            return {"NS": [f"ns.dns.{self._zone.domain}."]}
        return self._pod(query.name, (kind,))

    def _pod(self, name: str, kinds: tuple[str, ...]) -> dict[str, Iterable[str]]:
        address = self._pod_address(name)
        kind = ("AAAA" if ":" in address else "A") if address else ""
        return {kind: [address]} if kind in kinds and kind else {}

    def _pod_address(self, name: str) -> str:
        rest = name.removesuffix(f".pod.{self._zone.domain}")
        label, _, namespace = rest.partition(".")
        if self._knows_namespace is None or rest == name or not namespace or not self._knows_namespace(namespace):
            return ""
        return pod_address(label)

    def _exists(self, name: str) -> bool:
        if self._zone.exists(name) or self._pod_address(name):
            return True
        pods = f"pod.{self._zone.domain}"
        if self._knows_namespace is None:
            return False
        rest = name.removesuffix(f".{pods}")
        return name == pods or (rest != name and "." not in rest and self._knows_namespace(rest))

    def _targets(self, dns: Any, services: Iterable[str]) -> list[Any]:
        found = []
        for target in dict.fromkeys(each.rpartition(" ")[2] for each in services):
            records = self._zone.find(target.rstrip("."))
            name = dns.name.from_text(target)
            found += [
                dns.rrset.from_text_list(name, self._ttl, "IN", kind, list(records[kind]))
                for kind in ("A", "AAAA")
                if kind in records
            ]
        return found[:_ADDITIONAL]

    def _soa(self, dns: Any) -> Any:
        return dns.rrset.from_text(f"{self._zone.domain}.", self._ttl, "IN", "SOA", self._soa_text())

    def _soa_text(self) -> str:
        domain = self._zone.domain
        return f"ns.dns.{domain}. hostmaster.{domain}. 1 7200 1800 86400 {self._ttl}"


@cache
def library() -> Any:
    """Return dnspython, which is loaded with the first answer."""
    import dns.exception  # noqa: PLC0415
    import dns.message  # noqa: PLC0415
    import dns.name  # noqa: PLC0415
    import dns.rrset  # noqa: PLC0415

    return dns
