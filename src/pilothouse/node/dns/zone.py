"""The index of names: records go in by owner, and which names changed comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from .records import Record, fixed_records

__all__ = ["Zone"]

_NOTHING: Final[Mapping[str, Sequence[str]]] = {}
_REVERSE: Final = (".in-addr.arpa", ".ip6.arpa")


class Zone:
    """All names of the cluster's domain, and addresses' names. A changed owner costs what it has.

    domain: in lower case without the last dot. A name that only has names below it exists too, without data.
    """

    def __init__(self, domain: str) -> None:
        self.domain: Final = domain
        self._suffix = f".{domain}"
        self._owned: dict[str, tuple[Record, ...]] = {}
        self._records: dict[str, dict[str, dict[str, int]]] = {}
        self._below: dict[str, int] = {}
        self.put("", fixed_records(domain))

    def __len__(self) -> int:
        return len(self._records)

    def put(self, owner: str, records: Iterable[Record]) -> set[str]:
        """Let an owner have these records, and return the names that answer otherwise now."""
        before, after = self._owned.get(owner, ()), tuple(records)
        changed: set[str] = set()
        old, new = set(before), set(after)
        for record in sorted(new - old):
            self._add(record, changed)
        for record in sorted(old - new):
            self._remove(record, changed)
        if changed:
            # Answers with SRV records have the addresses of their targets beside them.
            changed.update(record.name for record in after if record.kind == "SRV")
        if after:
            self._owned[owner] = after
        else:
            self._owned.pop(owner, None)
        return changed

    def is_within(self, name: str) -> bool:
        """Return whether this zone says all there is to say of a name."""
        return name.endswith(self._suffix) or name == self.domain

    def is_reverse(self, name: str) -> bool:
        """Return whether a name is an address's, of which others may know more."""
        return name.endswith(_REVERSE)

    def find(self, name: str) -> Mapping[str, Iterable[str]]:
        """Return the data of a name by type of record."""
        return self._records.get(name, _NOTHING)

    def exists(self, name: str) -> bool:
        """Return whether there is a name, or one below it."""
        return name in self._records or name in self._below or name == self.domain

    def _add(self, record: Record, changed: set[str]) -> None:
        if record.name not in self._records:
            self._count(record.name, 1, changed)
        owners = self._records.setdefault(record.name, {}).setdefault(record.kind, {})
        owners[record.data] = owners.get(record.data, 0) + 1
        changed.add(record.name)

    def _remove(self, record: Record, changed: set[str]) -> None:
        kinds = self._records[record.name]
        owners = kinds[record.kind]
        owners[record.data] -= 1
        if not owners[record.data]:
            del owners[record.data]
            if not owners:
                del kinds[record.kind]
            if not kinds:
                del self._records[record.name]
                self._count(record.name, -1, changed)
        changed.add(record.name)

    def _count(self, name: str, number: int, changed: set[str]) -> None:
        """Count a name with all above it, and note those that begin or cease to exist by that."""
        above = name.partition(".")[2]
        while above and above != self.domain:
            count = self._below.get(above, 0) + number
            if count:
                self._below[above] = count
            else:
                del self._below[above]
            if count == max(number, 0):
                changed.add(above)
            above = above.partition(".")[2]
