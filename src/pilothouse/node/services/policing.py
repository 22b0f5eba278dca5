"""Network policies on a node: follows policies, pods and namespaces, and has nftables hold to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Final

from pilothouse.client.listener import Listener
from pilothouse.client.objects import DeletedFinalStateUnknown, key_of
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.kinds.structs import Namespace, NetworkPolicy, Pod
from pilothouse.operator import Manager

from .batches import Batches
from .nft import Nft, NftError, filter_bridges, why_not
from .nft import families as known_families
from .policies import PodFacts, PolicyPlan, looks_outside, plan_policy, pod_facts
from .policyrules import compile_groups, compile_policy, groups_of, new_policy_ruleset

__all__ = ["REASON", "NetworkPolicies", "PolicyState"]

REASON: Final = "NetworkPolicyNotEnforced"
_GROUPS: Final = "groups"
_CHECK_SECONDS: Final = 30.0
_log = get_logger("pilothouse.node.services")


class PolicyState:
    """Policies, pods and namespaces as they come by events, and the plans of those that changed."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._policies: dict[str, NetworkPolicy] = {}
        self._outward: set[str] = set()
        self._pods: dict[str, dict[str, PodFacts]] = {}
        self._namespaces: dict[str, dict[str, str]] = {}
        self._dirty: set[str] = set()
        self.plans: dict[str, PolicyPlan] = {}

    def set_policy(self, key: str, policy: NetworkPolicy | None) -> bool:
        """Take a policy, None when it is gone; return whether something may differ now."""
        before = self._policies.pop(key, None)
        self._outward.discard(key)
        if policy is not None:
            self._policies[key] = policy
            if looks_outside(policy):
                self._outward.add(key)
            if before is not None and before.spec == policy.spec:
                return False
        self._dirty.add(key)
        return True

    def set_pod(self, key: str, pod: Pod | None) -> bool:
        """Take a pod, None when it is gone; return whether something may differ now."""
        namespace = key.partition("/")[0]
        mine = self._pods.setdefault(namespace, {})
        before = mine.get(key)
        after = None if pod is None else pod_facts(pod, self._node)
        if after is not None and after.addresses:
            mine[key] = after
        else:
            after = None
            mine.pop(key, None)
            if not mine:
                del self._pods[namespace]
        if before == after:
            return False
        self._dirty.update(self._outward)
        self._dirty.update(each for each in self._policies if each.startswith(f"{namespace}/"))
        return bool(self._dirty)

    def set_namespace(self, name: str, labels: dict[str, str] | None) -> bool:
        """Take a namespace's labels, None when it is gone; return whether something may differ now."""
        before = self._namespaces.pop(name, None)
        if labels is not None:
            self._namespaces[name] = labels
        if before == labels:
            return False
        self._dirty.update(self._outward)
        return bool(self._outward)

    def changes(self) -> dict[str, PolicyPlan | None]:
        """Return the plans that changed since the last call, None for policies that are gone."""
        pods = {namespace: mine.values() for namespace, mine in self._pods.items()}
        found: dict[str, PolicyPlan | None] = {}
        for key in self._dirty:
            policy = self._policies.get(key)
            after = None if policy is None else plan_policy(policy, pods, self._namespaces)
            if after == self.plans.get(key):
                continue
            found[key] = after
            if after is None:
                self.plans.pop(key, None)
            else:
                self.plans[key] = after
        self._dirty.clear()
        return found


class NetworkPolicies:
    """Enforces the network policies of a cluster for the pods of one node.

    manager: whose caches of NetworkPolicies, Pods and Namespaces are followed. node: the node's name. table: of its
    own in each of `families`, by default those of the kernel. Where rules cannot be made each policy gets a warning
    event that it is not enforced.
    """

    def __init__(  # all but two have a default
        self,
        manager: Manager,
        node: str,
        *,
        table: str = "pilothouse-policies",
        families: Iterable[int] | None = None,
        unable: str | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._state = PolicyState(node)
        self._families = known_families() if families is None else tuple(families)
        self._rulesets = {family: new_policy_ruleset(family, table) for family in self._families}
        self._nft = Nft()
        self._unable = why_not() if unable is None else unable
        self._clock = manager.clock
        self._recorder = manager.recorder("network-policy")
        self._policies = manager.informer(NetworkPolicy)
        self._pods = manager.informer(Pod)
        self._namespaces = manager.informer(Namespace)
        self._batches = Batches("network policies", self._sync, manager.clock)
        self._listeners: list[Listener[Any]] = []
        self._checking: asyncio.Task[None] | None = None
        self._synced = asyncio.Event()
        self._is_whole = False
        made = metrics or manager.metrics or PROGRAM
        self._sync_seconds = made.histogram(
            "pilothouse_node_policy_sync_seconds", "How long changes of network policies took to enforce, in seconds"
        )
        self._enforced = made.gauge(
            "pilothouse_node_policy_policies", "Network policies, by whether they are enforced", ("state",)
        )

    async def start(self) -> None:
        """Follow the caches and enforce what is there once they are filled."""
        if not self._unable:
            reasons = [why for family in self._families if (why := await filter_bridges(family))]
            self._unable = f"pods of one node reach each other past the rules: {reasons[0]}" if reasons else ""
        self._listeners = [
            self._policies.add_handler(
                on_add=lambda found, _: self._policy(found),
                on_update=lambda _, found: self._policy(found),
                on_delete=self._policy_gone,
                name="network policies",
            )
        ]
        if not self._unable:
            self._follow_pods()
        self._batches.start()
        self._batches.poke()
        self._checking = asyncio.get_running_loop().create_task(self._check(), name="network policy checks")

    async def wait_synced(self) -> None:
        """Wait until everything that the caches had at first is enforced."""
        await self._synced.wait()

    async def stop(self) -> None:
        """Let go of the caches and take all rules away. Raises `NftError`."""
        for listener in self._listeners:
            listener.remove()
        self._listeners = []
        await self._batches.stop()
        if self._checking is not None:
            self._checking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._checking
        if not self._unable:
            await self._nft.apply("".join(each.removal() for each in self._rulesets.values()))
            self._is_whole = False

    def problems(self) -> list[str]:
        """Return why policies are not enforced, if they are not."""
        found = [f"network policies are not enforced: {self._unable}"] if self._unable else []
        return [*found, *([f"network policies: {self._batches.problem}"] if self._batches.problem else [])]

    def _follow_pods(self) -> None:
        self._listeners += [
            self._pods.add_handler(
                on_add=lambda found, _: self._poke(self._state.set_pod(key_of(found), found)),
                on_update=lambda _, found: self._poke(self._state.set_pod(key_of(found), found)),
                on_delete=lambda found: self._poke(self._state.set_pod(key_of(found), None)),
                name="network policies",
            ),
            self._namespaces.add_handler(
                on_add=lambda found, _: self._namespace(found),
                on_update=lambda _, found: self._namespace(found),
                on_delete=lambda found: self._poke(self._state.set_namespace(key_of(found), None)),
                name="network policies",
            ),
        ]

    async def _sync(self) -> None:
        if not self._synced.is_set():
            # Everything at once: a policy whose peers are not known yet would let nobody in.
            for listener in self._listeners:
                await listener.wait_synced()
        started = self._clock.monotonic()
        changed = self._state.changes()
        total = len(self._state.plans)
        if self._unable:
            self._enforced.labels("unenforced").set(total)
            self._synced.set()
            return
        if not changed and self._synced.is_set() and await self._is_there():
            return
        self._put(changed)
        script = "".join(each.changes() if self._is_whole else each.full() for each in self._rulesets.values())
        if script:
            try:
                await self._nft.apply(script)
            except NftError:
                self._is_whole = False
                raise
        self._is_whole = True
        for ruleset in self._rulesets.values():
            ruleset.applied()
        self._synced.set()
        self._enforced.labels("enforced").set(total)
        self._sync_seconds.observe(self._clock.monotonic() - started)

    def _put(self, changed: dict[str, PolicyPlan | None]) -> None:
        plans = self._state.plans
        groups = groups_of(plans)
        for family, ruleset in self._rulesets.items():
            for key, plan in changed.items():
                ruleset.put(f"policy {key}", None if plan is None else compile_policy(key, plan, family))
            ruleset.put(_GROUPS, compile_groups(plans, groups, family))

    async def _is_there(self) -> bool:
        if self._is_whole:
            there = [await self._nft.has_table(each.family, each.name) for each in self._rulesets.values()]
            self._is_whole = all(there)
        return self._is_whole

    async def _check(self) -> None:
        """Look whether somebody took the rules away, as a firewall does when it is loaded anew."""
        while True:
            await self._clock.sleep(_CHECK_SECONDS)
            self._batches.poke()

    def _policy(self, found: NetworkPolicy) -> None:
        if not self._state.set_policy(key_of(found), found):
            return
        if self._unable:
            told = f"this policy is not enforced on this node, everything is let through: {self._unable}"
            self._recorder.warning(found, REASON, told)
        self._batches.poke()

    def _policy_gone(self, found: NetworkPolicy | DeletedFinalStateUnknown[NetworkPolicy]) -> None:
        self._poke(self._state.set_policy(key_of(found), None))

    def _namespace(self, found: Namespace) -> None:
        labels = {"kubernetes.io/metadata.name": found.metadata.name, **found.metadata.labels}
        self._poke(self._state.set_namespace(found.metadata.name, labels))

    def _poke(self, changed: bool) -> None:  # what the state says
        if changed:
            self._batches.poke()
