"""What carries requests to servers behind this one: pods, services, nodes, and aggregated APIs."""
