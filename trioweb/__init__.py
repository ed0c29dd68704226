"""trioweb: a Trio-native micro web framework whose background tasks are never lost.

The house, from the door down.  A module imports only from floors below its own;
a test holds the imports against this picture:

   15  __init__       the door: every public name, under its public name
       __main__       the door for a shell
   14  _cli           run, dev, routes: arguments -> what is done
   13  _workers       many processes on one socket  _reload    one, anew at each change
   12  _processes     a worker process, seen from its supervisor
   11  _run           one process that serves       _routes    the table of routes
   10  testing        an app in a test, in memory   _importing main:app -> the app
       _options       what a command takes          _survivors who still runs at the end
    9  _app           the app: who answers; ASGI's door
       _wire          an app behind the server, in memory
    8  _settings      the limits of app and server in one
    7  _registration  Router, Route                 _debug     the page of debug=True
    6  _inject        signature -> plan -> one call
    5  _lifetime      the app's nursery, the requests in it, what ends when
       _signature     what a function takes         _calls     how it is run
    4  _response      what goes out                 _departure clients that leave
       _report        how a shutdown went
    3  _request       what comes in
    2  _background    one task, its list, runner    _shapes    annotation -> decode, encode
       _exits         what is open, how it is left
    1  _routing       path -> route                 _explain   why a body doesn't fit
       _markers       what an author writes: Query  _tasks     what an author writes: @task
       _grace         time to clean up              _ending    how a process is told to end
       _logs          how the command line logs     _starter   calls that may be over at once
    0  _errors        every exception               _ledger    which task is in which state
       _headers  _limits  _callables  _context

   server/ is the other wing: an ASGI server that knows nothing of the framework.

Most records that only we see are `msgspec.Struct`s: to define a dataclass takes a millisecond,
which every import would pay.  Those that users see are dataclasses, for `dataclasses.replace`.
"""

from ._app import App as App
from ._background import BackgroundTask as BackgroundTask, BackgroundTasks as BackgroundTasks
from ._errors import (
    ClientDisconnect as ClientDisconnect,
    HTTPException as HTTPException,
    RegistrationError as RegistrationError,
    RequestValidationError as RequestValidationError,
)
from ._ledger import TaskStatistics as TaskStatistics
from ._markers import (
    Body as Body,
    Cookie as Cookie,
    Depends as Depends,
    Header as Header,
    Path as Path,
    Query as Query,
)
from ._registration import Router as Router
from ._request import Request as Request
from ._response import (
    HTMLResponse as HTMLResponse,
    JSONResponse as JSONResponse,
    PlainTextResponse as PlainTextResponse,
    RedirectResponse as RedirectResponse,
    Response as Response,
    StreamingResponse as StreamingResponse,
)
from ._settings import Limits as Limits
from ._tasks import Retry as Retry, TaskTimeout as TaskTimeout, task as task
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
