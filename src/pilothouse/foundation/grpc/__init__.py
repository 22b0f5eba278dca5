"""gRPC over HTTP/2 at the level of bytes: callers encode and decode their own messages."""

from pilothouse.foundation.grpc.calls import ServerCall, ServerStream
from pilothouse.foundation.grpc.client import ClientStream, GrpcChannel
from pilothouse.foundation.grpc.server import GrpcServer
from pilothouse.foundation.grpc.status import GrpcCode, GrpcError, Metadata

__all__ = [
    "ClientStream",
    "GrpcChannel",
    "GrpcCode",
    "GrpcError",
    "GrpcServer",
    "Metadata",
    "ServerCall",
    "ServerStream",
]
