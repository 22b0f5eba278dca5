"""HTTP for the API server: requests from sockets or from this process, to one handler."""

from pilothouse.apiserver.http.inprocess import InProcessAnswer, InProcessStream, InProcessTransport
from pilothouse.apiserver.http.limits import HttpLimits
from pilothouse.apiserver.http.server import HttpServer

__all__ = ["HttpLimits", "HttpServer", "InProcessAnswer", "InProcessStream", "InProcessTransport"]
