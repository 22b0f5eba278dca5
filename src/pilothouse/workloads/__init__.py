"""The platform's own controllers: pods from workloads, endpoints from services, and the rest of a control plane."""
