"""What carries commands, output and connections of pods to clients: exec, attach, port-forward and logs.

`remotecommand.connect_exec`, `portforward.connect_port_forward` and `logs.logs` answer requests; `kubelet` reaches pods
on nodes that run one. Imported one by one, so that an idle server does not load what nobody uses.
"""

__all__: list[str] = []
