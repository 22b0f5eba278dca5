"""Who may do what: authentication, RBAC, impersonation, the reviews, service-account tokens and the cluster's keys."""

__all__: list[str] = []
