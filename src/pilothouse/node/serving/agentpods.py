"""The pods of an agent, for the node's server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.agent import Agent

__all__ = ["AgentPods"]


class AgentPods:
    """A `PodSource` over an agent, those included that ended before it began. agent: gives it; None before it is."""

    def __init__(self, agent: Callable[[], Agent | None]) -> None:
        self._agent = agent

    def pods(self) -> Sequence[Pod]:
        agent = self._agent()
        if agent is None:
            return []
        return [*(each.pod for each in agent.workers.values()), *agent.ended.values()]

    def find(self, namespace: str, name: str) -> Pod | None:
        for pod in self.pods():
            if pod.metadata.name == name and pod.metadata.namespace == namespace:
                return pod
        return None
