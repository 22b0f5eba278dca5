"""What every room stands on: clock, ids, logging, metrics, tracing, retry, subprocess, TLS, files and gRPC."""
