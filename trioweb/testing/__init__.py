"""A client for tests: an app run in memory, by ASGI messages, or behind the embedded server."""

from ._client import (
    Client as Client,
    ConnectedClient as ConnectedClient,
    client as client,
    connect as connect,
)
from ._conversation import IncompleteResponse as IncompleteResponse
from ._requests import RequestOptions as RequestOptions
from ._responses import ClientResponse as ClientResponse

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
