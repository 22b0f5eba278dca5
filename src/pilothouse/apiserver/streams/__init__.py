"""What carries commands, output and connections of pods to clients: exec, attach, port-forward and logs."""
