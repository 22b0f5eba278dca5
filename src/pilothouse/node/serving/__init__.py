"""A node's own HTTPS API, as a kubelet has it: logs, commands, attached streams, ports, pods, figures.

`server.NodeServer` serves it over any runtime.
"""

from __future__ import annotations

__all__: list[str] = []
