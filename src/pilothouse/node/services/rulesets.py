"""A table of nftables as a model: fragments go in by owner, and the script that changes just what differs comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

__all__ = ["Chain", "Collection", "Fragment", "Ruleset", "chain_name"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_LINE_ELEMENTS: Final = 500
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order; `hook` is the declaration of a base chain, empty for a chain that others jump to."""

    rules: tuple[str, ...] = ()
    hook: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set or map: `spec` is its declaration, such as `type ipv4_addr; flags interval;`."""

    spec: str
    kind: str = "set"


@dataclass(frozen=True, slots=True)
class Fragment:
    """What one owner adds to a table: chains and sets of its own, and elements (key to value, "" in sets) by set."""

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Collection] = field(default_factory=dict)
    elements: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def places(self) -> Iterable[tuple[str, str]]:
        """Return the elements as pairs of set and key."""
        return ((name, key) for name, found in self.elements.items() for key in found)


_NOTHING: Final = Fragment()


class Ruleset:
    """A table: what it should be, what was applied, and the script between both.

    Chains and sets have one owner, elements may have several: the first in order gives the value. A changed owner costs
    what it has, never what the table has.
    """

    def __init__(self, family: str, name: str, skeleton: Fragment) -> None:
        self.family: Final = family
        self.name: Final = name
        self._fragments: dict[str, Fragment] = {}
        self._chains: dict[str, Chain] = {}
        self._sets: dict[str, Collection] = {}
        self._elements: dict[tuple[str, str], dict[str, str]] = {}
        self._applied_chains: dict[str, Chain] = {}
        self._applied_sets: dict[str, Collection] = {}
        self._applied_elements: dict[tuple[str, str], str] = {}
        self._dirty_chains: set[str] = set()
        self._dirty_sets: set[str] = set()
        self._dirty_elements: set[tuple[str, str]] = set()
        self.put("", skeleton)

    def __len__(self) -> int:
        return len(self._chains) + len(self._elements)

    @property
    def owners(self) -> list[str]:
        """Who has something in the table, but for the table's own skeleton."""
        return [owner for owner in self._fragments if owner]

    @property
    def chains(self) -> Mapping[str, Chain]:
        """The chains as they should be."""
        return self._chains

    def elements(self, name: str) -> dict[str, str]:
        """Return the elements of a set or map as they should be."""
        return {key: _value(owners) for (found, key), owners in self._elements.items() if found == name}

    def put(self, owner: str, fragment: Fragment | None) -> None:
        """Let a fragment be what an owner has in the table; None takes all of it away."""
        old, new = self._fragments.get(owner, _NOTHING), fragment or _NOTHING
        if old == new:
            return
        for name in old.chains.keys() - new.chains.keys():
            del self._chains[name]
            self._dirty_chains.add(name)
        for name in old.sets.keys() - new.sets.keys():
            del self._sets[name]
            self._dirty_sets.add(name)
        self._chains.update(new.chains)
        self._sets.update(new.sets)
        self._dirty_chains.update(name for name, chain in new.chains.items() if old.chains.get(name) != chain)
        self._dirty_sets.update(name for name, found in new.sets.items() if old.sets.get(name) != found)
        self._claim(owner, old, new)
        if fragment is None:
            self._fragments.pop(owner, None)
        else:
            self._fragments[owner] = fragment

    def _claim(self, owner: str, old: Fragment, new: Fragment) -> None:
        for place in old.places():
            name, key = place
            if key not in new.elements.get(name, ()):
                owners = self._elements[place]
                owners.pop(owner, None)
                if not owners:
                    del self._elements[place]
                self._dirty_elements.add(place)
        for place in new.places():
            name, key = place
            value = new.elements[name][key]
            owners = self._elements.setdefault(place, {})
            if owners.get(owner) != value:
                owners[owner] = value
                self._dirty_elements.add(place)

    def full(self) -> str:
        """Return the script that makes the table anew, whatever is there, in one transaction."""
        where = f"{self.family} {self.name}"
        lines = [f"add table {where}", f"delete table {where}", f"add table {where}"]
        lines += self._declared(self._sets, self._chains)
        lines += self._added({place: _value(owners) for place, owners in self._elements.items()})
        for name, chain in self._chains.items():
            lines += self._rules(name, chain)
        return "\n".join(lines) + "\n"

    def changes(self) -> str:
        """Return the script from what was applied last to what should be; empty where nothing differs."""
        chains = {name for name in self._dirty_chains if self._chains.get(name) != self._applied_chains.get(name)}
        sets = {name for name in self._dirty_sets if self._sets.get(name) != self._applied_sets.get(name)}
        gone, new = self._changed_elements(sets)
        born = {name: self._chains[name] for name in chains if name in self._chains}
        dead = [name for name in chains if name not in self._chains]
        where = f"{self.family} {self.name}"
        lines = self._declared(
            {name: self._sets[name] for name in sets if name in self._sets and name not in self._applied_sets},
            {name: chain for name, chain in born.items() if name not in self._applied_chains},
        )
        for name, chain in born.items():
            if name in self._applied_chains:
                lines.append(f"flush chain {where} {name}")
            lines += self._rules(name, chain)
        lines += [*self._removed(gone), *self._added(new)]
        lines += [f"flush chain {where} {name}" for name in dead]
        lines += [f"delete chain {where} {name}" for name in dead]
        lines += [f"delete {self._applied_sets[name].kind} {where} {name}" for name in sets if name not in self._sets]
        return "\n".join(lines) + "\n" if lines else ""

    def applied(self) -> None:
        """Note that the kernel has what should be."""
        for name in self._dirty_chains:
            _note(self._applied_chains, name, self._chains.get(name))
        for name in self._dirty_sets:
            _note(self._applied_sets, name, self._sets.get(name))
        for place in self._dirty_elements:
            owners = self._elements.get(place)
            _note(self._applied_elements, place, None if owners is None else _value(owners))
        self._dirty_chains.clear()
        self._dirty_sets.clear()
        self._dirty_elements.clear()

    def removal(self) -> str:
        """Return the script after which nothing of the table is left; a table that is not there is fine."""
        where = f"{self.family} {self.name}"
        return f"add table {where}\ndelete table {where}\n"

    def _changed_elements(self, sets: set[str]) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
        gone, new = {}, {}
        for place in self._dirty_elements:
            owners, before = self._elements.get(place), self._applied_elements.get(place)
            after = None if owners is None else _value(owners)
            if before == after:
                continue
            if before is not None and not (place[0] in sets and place[0] not in self._sets):
                gone[place] = before
            if after is not None:
                new[place] = after
        return gone, new

    def _declared(self, sets: Mapping[str, Collection], chains: Mapping[str, Chain]) -> list[str]:
        where = f"{self.family} {self.name}"
        lines = [f"add {found.kind} {where} {name} {{ {found.spec} }}" for name, found in sets.items()]
        for name, chain in chains.items():
            lines.append(f"add chain {where} {name}" + (f" {{ {chain.hook} }}" if chain.hook else ""))
        return lines

    def _rules(self, name: str, chain: Chain) -> list[str]:
        return [f"add rule {self.family} {self.name} {name} {rule}" for rule in chain.rules]

    def _added(self, elements: Mapping[tuple[str, str], str]) -> list[str]:
        return self._element_lines("add", elements)

    def _removed(self, elements: Mapping[tuple[str, str], str]) -> list[str]:
        return self._element_lines("delete", elements)

    def _element_lines(self, verb: str, elements: Mapping[tuple[str, str], str]) -> list[str]:
        by_set: dict[str, list[str]] = {}
        for (name, key), value in elements.items():
            by_set.setdefault(name, []).append(f"{key} : {value}" if value else key)
        return [
            f"{verb} element {self.family} {self.name} {name} {{ {', '.join(found[at : at + _LINE_ELEMENTS])} }}"
            for name, found in by_set.items()
            for at in range(0, len(found), _LINE_ELEMENTS)
        ]


def chain_name(prefix: str, digest: str, *parts: str) -> str:
    """Return a name that people recognise and that no other has, within what nftables takes."""
    shown = "-".join("".join(c if c.isalnum() else "_" for c in part) for part in parts if part)
    return f"{prefix}-{digest}-{shown}"[:_LONGEST_NAME].rstrip("-")


def _value(owners: Mapping[str, str]) -> str:
    return owners[min(owners)] if len(owners) > 1 else next(iter(owners.values()))


def _note(applied: dict[_K, _V], key: _K, value: _V | None) -> None:
    if value is None:
        applied.pop(key, None)
    else:
        applied[key] = value
