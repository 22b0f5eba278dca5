"""etcd's v3 API: its messages, their codec, and a store behind it."""
