"""What keeps a cluster's objects in order without anybody asking: garbage, namespaces, accounts, definitions."""
