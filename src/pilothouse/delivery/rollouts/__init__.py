"""Rollouts: a pure state machine that decides, and reconcilers that do what it says.

`deciding.decide` is the machine, `running.add_rollouts` adds the controllers, `verbs` has the patches of users' verbs.
"""

__all__: list[str] = []
