"""From git to a safe canary: rollouts, their judgement, and applications out of repositories.

Each part is imported where it is used: `pilothouse.delivery.rollouts`, `pilothouse.delivery.resources`.
"""
