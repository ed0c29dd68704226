"""An ASGI server for Trio: HTTP/1.0 and 1.1 over any Trio stream.

A wing of its own: it knows ASGI, and nothing of the framework.

    _server       serve: the lifespan, the end           _config
    _accepting    from listeners to connections          _listeners  _addresses  _peers
    _connections  all of them: time limits, counts       _binding  _lifespan
    _connection   one: requests in, answers out
    _receiving    one request: ASGI's receive            _bodies
    _sending      ASGI's send, and keep-alive            _output  _transport
    _service      what all of these have in common       _access  _scope  _forwarded
    _heads        bytes -> what is asked                 _parsers  _strict  _grammar
    _tls          TLS, over a socket                     _tls_extension  _system
    _limits       _errors
"""

from .._asgi import (
    ConnectionClosed as ConnectionClosed,
    ConnectionOpened as ConnectionOpened,
    LimitReached as LimitReached,
)
from ._config import ServerConfig as ServerConfig, ServerOptions as ServerOptions
from ._connections import ServerStatistics as ServerStatistics
from ._errors import (
    ClientGone as ClientGone,
    LifespanFailed as LifespanFailed,
    ProtocolMisuse as ProtocolMisuse,
    StartupFailed as StartupFailed,
)
from ._forwarded import ForwardedHeader as ForwardedHeader
from ._limits import ServerLimits as ServerLimits
from ._parsers import ParserName as ParserName
from ._server import Server as Server, serve as serve, serve_config as serve_config

__all__ = [
    "ClientGone",
    "ConnectionClosed",
    "ConnectionOpened",
    "ForwardedHeader",
    "LifespanFailed",
    "LimitReached",
    "ParserName",
    "ProtocolMisuse",
    "Server",
    "ServerConfig",
    "ServerLimits",
    "ServerOptions",
    "ServerStatistics",
    "StartupFailed",
    "serve",
    "serve_config",
]

for _name in set(__all__) - {"ForwardedHeader", "ParserName"}:
    globals()[_name].__module__ = __name__
del _name
