"""Commands `pilothouse rollout`, `app` and `slo`: what they ask of a server, and what they say when it refuses."""
