"""trioweb: a Trio-native micro web framework whose background tasks are never lost.

The map of the house.  A room is a folder; it stands on a floor, and imports only from floors below
its own.  Inside a room `a > b` says that a may import b, and never the other way round; what stands
side by side is independent of each other.  A test reads this map, and holds each import against it.

    floor   room            inside

    8       doors/          __init__  __main__
    7       testing/        __init__ > _client > _attached  _clock  _responses  _server  _wire
                            > _conversation > _nursery  _requests > _cookies
            _cli/           main > reloader  supervisor > processes  routes  run  watching
                            > importing  options  serving  survivors > others  table
                            > settings > conversions  env_files  frames  logs  notify
                            signals  tls  wrapped > handlers  statuses > systems
    6       _app/           app > failures  lifespan > debug  inner  pressure > limits
    4       _routing/       router  matcher > templates
    3       _inject/        compiler > classes  models  plan > parameters  signature
                            > calls  markers  sources
            _lifetime/      app > inline  life  report > delivery  departure  tasks
                            > endpoint  landing > events
    2       _http/          request  streaming > response > exchange
                            > cookies  inbox  url > headers  paths
    1       _tasks/         run > runner > list > task > ledger  options
    0       _shapes/        json  text > annotations  explain > lenient
                            > collisions  preparing > codecs  constraints  members
                            > encoding  generics  nodes > models  moments  multiples
                            > problems
            _concurrency/   exits > grace  starter > context  scopes  threads

    ground  ground/         _hints  _instead > _errors > _asgi  _callables  _fields
                            _imports  _limits  _loggers

    wing    server/         __init__ > _server > _accepting  _lifespan
                            > _connections  _listeners > _binding  _connection
                            > _receiving > _sending > _service
                            > _config  _heads  _access  _peers  _scope  _tls
                            > _forwarded  _output  _bodies  _parsers  _transport
                            > _system  _strict > _addresses  _errors  _grammar
                            _limits  _tls_extension

What each room promises stands in its `__init__`.  The doors show every public name.  The wing is an
ASGI server that runs any app: it knows `_asgi`, the words that it shares with the framework, and
nothing else of ours; rooms below the roof know nothing of it.

Most records that only we see are `msgspec.Struct`s: to define a dataclass takes a millisecond,
which every import would pay.  Those that users see are dataclasses, for `dataclasses.replace`.
"""

from typing import TYPE_CHECKING

from . import _imports, _loggers as _loggers
from ._app.app import App as App
from ._app.limits import Limits as Limits
from ._errors import (
    ClientDisconnect as ClientDisconnect,
    HTTPException as HTTPException,
    RegistrationError as RegistrationError,
    RequestValidationError as RequestValidationError,
)
from ._http.request import Request as Request
from ._http.response import (
    HTMLResponse as HTMLResponse,
    JSONResponse as JSONResponse,
    PlainTextResponse as PlainTextResponse,
    RedirectResponse as RedirectResponse,
    Response as Response,
)
from ._http.streaming import StreamingResponse as StreamingResponse
from ._inject.markers import Depends as Depends
from ._inject.sources import (
    Body as Body,
    Cookie as Cookie,
    Header as Header,
    Path as Path,
    Query as Query,
)
from ._routing.router import Router as Router
from ._tasks.ledger import TaskStatistics as TaskStatistics
from ._tasks.list import BackgroundTasks as BackgroundTasks
from ._tasks.options import Retry as Retry, TaskTimeout as TaskTimeout, task as task
from ._tasks.task import BackgroundTask as BackgroundTask
from .server import serve as serve

__all__ = [  # noqa: RUF022  in the order in which a reader of the docs meets them
    "App",
    "Router",
    "Request",
    "Response",
    "JSONResponse",
    "HTMLResponse",
    "PlainTextResponse",
    "RedirectResponse",
    "StreamingResponse",
    "BackgroundTasks",
    "BackgroundTask",
    "task",
    "Retry",
    "TaskTimeout",
    "TaskStatistics",
    "Depends",
    "Path",
    "Query",
    "Header",
    "Cookie",
    "Body",
    "HTTPException",
    "RequestValidationError",
    "ClientDisconnect",
    "RegistrationError",
    "Limits",
    "serve",
]


for _name in __all__:
    # Tracebacks and help() say trioweb.App, not trioweb._app.App.
    globals()[_name].__module__ = __name__
del _name

if not TYPE_CHECKING:  # a checker would take each name for one that is there
    __getattr__ = _imports.tells_imports(__name__)
del TYPE_CHECKING
