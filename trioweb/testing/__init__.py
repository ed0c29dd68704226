"""A client for tests: an app run in memory, by ASGI messages, or behind the embedded server."""

from ._client import (
    Client as Client,
    ClientResponse as ClientResponse,
    ConnectedClient as ConnectedClient,
    IncompleteResponse as IncompleteResponse,
    RequestOptions as RequestOptions,
    client as client,
    connect as connect,
)

__all__ = [
    "Client",
    "ClientResponse",
    "ConnectedClient",
    "IncompleteResponse",
    "RequestOptions",
    "client",
    "connect",
]

for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
