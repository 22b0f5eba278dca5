"""What a pod's containers get of the cluster and the machine: environment variables and volumes.

`manager.Volumes` mounts and unmounts; `environment.environment_of` is pure.
"""

from __future__ import annotations

__all__: list[str] = []
