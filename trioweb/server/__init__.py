"""An ASGI server for Trio: HTTP/1.0 and 1.1 over any Trio stream.

A wing of its own: it knows ASGI, and nothing of the framework.

    _server      serve: listeners, connections, the lifespan, their end
    _connection  one connection: requests in, answers out
    _exchange    one request: ASGI's receive and send      _listeners  _lifespan
    _heads       bytes -> what was asked                   _scope
    _parsers     h11, httptools
    _output      response messages -> bytes                _transport  _access
    _strict      what no parser may be left to judge
    _limits      _errors      _asgi
"""

from ._config import ServerConfig as ServerConfig, ServerOptions as ServerOptions
from ._errors import (
    ClientGone as ClientGone,
    LifespanFailed as LifespanFailed,
    ProtocolMisuse as ProtocolMisuse,
    StartupFailed as StartupFailed,
)
from ._limits import ServerLimits as ServerLimits
from ._parsers import ParserName as ParserName
from ._server import Server as Server, serve as serve, serve_config as serve_config

__all__ = [
    "ClientGone",
    "LifespanFailed",
    "ParserName",
    "ProtocolMisuse",
    "Server",
    "ServerConfig",
    "ServerLimits",
    "ServerOptions",
    "StartupFailed",
    "serve",
    "serve_config",
]

for _name in set(__all__) - {"ParserName"}:
    globals()[_name].__module__ = __name__
del _name
