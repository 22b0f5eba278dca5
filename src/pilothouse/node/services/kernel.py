"""Services by rules of the kernel: nftables sends each connection on, and no byte of it comes by this program."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from typing import Final

from pilothouse.foundation import processes
from pilothouse.foundation.logs import get_logger

from .nft import Nft, NftError, filter_bridges, set_hairpin, set_sysctl
from .nft import families as known_families
from .proxying import Changes
from .selection import ServicePortRoute
from .servicerules import ProxyNetwork, compile_route, new_ruleset

__all__ = ["KernelBackend"]

_CONNTRACK_SECONDS: Final = 10.0
_MAX_FORGOTTEN: Final = 256

_log = get_logger("pilothouse.node.services")


class KernelBackend:
    """Keeps a table of its own in each family.

    table: its name. families: by default 4, and 6 where the kernel has it. network: see `ProxyNetwork`; whether
    bridges are filtered is found out by `start`.
    """

    name: Final = "nftables"

    def __init__(
        self,
        *,
        table: str = "pilothouse-services",
        network: ProxyNetwork | None = None,
        families: Iterable[int] | None = None,
        nft: Nft | None = None,
    ) -> None:
        self._table = table
        self._network = network or ProxyNetwork()
        self._nft = nft or Nft()
        self._families = known_families() if families is None else tuple(families)
        self._rulesets = {family: new_ruleset(family, table, self._network) for family in self._families}
        self._problems: list[str] = []
        self._is_whole = False
        self._conntrack = shutil.which("conntrack")

    async def start(self) -> None:
        """Prepare the kernel and take away what an earlier run left. Raises `NftError`."""
        self._problems = []
        # Without a bridge there is nothing whose answers could go past the node.
        if self._network.bridge:
            reasons = [why for family in self._families if (why := await filter_bridges(family))]
            if reasons:
                self._problems += reasons
                self._network = _unfiltered(self._network)
                self._rulesets = {each: new_ruleset(each, self._table, self._network) for each in self._families}
            if self._network.is_localhost:
                why = set_sysctl(f"net/ipv4/conf/{self._network.bridge}/route_localnet", "1")
                self._problems += [why] if why else []
        if self._conntrack is None:
            self._problems.append("no program conntrack: UDP clients of endpoints that are gone wait for a timeout")

    async def apply(self, changes: Changes) -> None:
        """Carry out changes, or everything where the kernel may have something else. Raises `NftError`."""
        for before, after in changes.values():
            self._put(before, after)
        if self._network.bridge:
            await asyncio.to_thread(set_hairpin, self._network.bridge)
        script = "".join(self._script())
        if script:
            try:
                await self._nft.apply(script)
            except NftError:
                self._is_whole = False
                raise
        self._is_whole = True
        for ruleset in self._rulesets.values():
            ruleset.applied()
        await self._forget(_gone(changes))

    async def check(self) -> bool:
        """Return whether the tables are still there; where not the next `apply` makes them anew."""
        there = [await self._nft.has_table(each.family, each.name) for each in self._rulesets.values()]
        self._is_whole = self._is_whole and all(there)
        return self._is_whole

    async def stop(self) -> None:
        """Take all rules away. Raises `NftError`."""
        await self._nft.apply("".join(ruleset.removal() for ruleset in self._rulesets.values()))
        self._is_whole = False

    def problems(self) -> list[str]:
        """Return what this machine does not allow."""
        return list(self._problems)

    def figures(self) -> Mapping[str, float]:
        """Return the size of the tables."""
        return {"rules": float(sum(len(each) for each in self._rulesets.values()))}

    def _put(self, before: Iterable[ServicePortRoute], after: Iterable[ServicePortRoute]) -> None:
        wanted = {route.key: route for route in after}
        for route in before:
            if route.key not in wanted and route.family in self._rulesets:
                self._rulesets[route.family].put(route.key, None)
        for key, route in wanted.items():
            if route.family in self._rulesets:
                self._rulesets[route.family].put(key, compile_route(route))

    def _script(self) -> list[str]:
        return [each.changes() if self._is_whole else each.full() for each in self._rulesets.values()]

    async def _forget(self, gone: list[tuple[str, int, str]]) -> None:
        """Have the kernel forget UDP flows to endpoints that are gone, whose clients would talk to nobody."""
        if self._conntrack is None:
            return
        if len(gone) > _MAX_FORGOTTEN:
            _log.warning("not all UDP flows to gone endpoints are forgotten", flows=len(gone), at_most=_MAX_FORGOTTEN)
        for address, port, endpoint in gone[:_MAX_FORGOTTEN]:
            where = ["--orig-dst", address, "--orig-port-dst", str(port)] if address else ["--orig-port-dst", str(port)]
            command = [self._conntrack, "-D", "-p", "udp", *where]
            command += ["--reply-src", endpoint] if endpoint else []
            # It ends with 1 where there was nothing to forget.
            try:
                await processes.run(command, env=processes.inherit(), timeout=_CONNTRACK_SECONDS, check=False)
            except processes.ProcessError as error:
                _log.warning("UDP flows are not forgotten", error=str(error))
                return


def _gone(changes: Changes) -> list[tuple[str, int, str]]:
    """Return address, port and endpoint of UDP flows that lead nowhere now.

    An empty endpoint stands for flows that began when there was none, and so were never sent on.
    """
    found = []
    for before, after in changes.values():
        now = {route.key: route for route in after}
        was = {route.key: route for route in before}
        for key in was.keys() | now.keys():
            old, new = was.get(key), now.get(key)
            route = old or new
            if route is None or route.protocol != "UDP":
                continue
            old_targets = {each.address for each in (*old.internal, *old.external)} if old else set()
            new_targets = {each.address for each in (*new.internal, *new.external)} if new else set()
            places = [(route.cluster_address, route.port)]
            places += [(each, route.port) for each in (*route.external_addresses, *route.balancer_addresses)]
            places += [("", route.node_port)] if route.node_port else []
            stale = sorted(old_targets - new_targets)
            if new_targets and not old_targets:
                stale = [""]
            found += [(address, port, each) for address, port in places for each in stale]
    return found


def _unfiltered(network: ProxyNetwork) -> ProxyNetwork:
    return ProxyNetwork(
        pod_cidrs=network.pod_cidrs,
        bridge=network.bridge,
        is_bridge_filtered=False,
        is_localhost=network.is_localhost,
    )
