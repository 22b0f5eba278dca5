"""Keep bytes: a durable, revisioned key-value store with etcd v3 semantics."""
