"""What `App(debug=True)` answers when a handler failed: the traceback, for people.

Rules of this module:

* The whole tree of an exception group is shown, and every cause.
* Everything is escaped: a traceback quotes what the client sent.
"""

from __future__ import annotations

import html
import traceback

from ._errors import leaves
from ._request import Request, describe
from ._response import HTMLResponse, JSONResponse, Response

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
        color-scheme: light dark }}
 h1 {{ font-size: 1.4rem; overflow-wrap: anywhere }}
 li {{ font-family: ui-monospace, monospace; overflow-wrap: anywhere }}
 pre {{ overflow-x: auto; padding: 1rem; border: 1px solid #8886; border-radius: .5rem }}
</style>
<h1>{title}</h1>
<p>{request}</p>
<ol>{errors}</ol>
<pre>{traceback}</pre>
<p>You see this page because the app runs with <code>debug=True</code>.</p>
</html>
"""


def debug_response(request: Request, exc: BaseException) -> Response:
    """A page where the client takes HTML, JSON with the same elsewhere."""
    text = "".join(traceback.format_exception(exc))
    errors = [_in_one_line(leaf) for leaf in leaves(exc)]
    if "text/html" not in request.headers.get("accept", ""):
        detail = {
            "detail": "Internal Server Error",
            "errors": errors,
            "traceback": text.split("\n"),
        }
        return JSONResponse(detail, 500)
    page = _PAGE.format(
        title=html.escape(_in_one_line(exc)),
        request=html.escape(describe(request.scope)),
        errors="".join(f"<li>{html.escape(error)}</li>" for error in errors),
        traceback=html.escape(text),
    )
    return HTMLResponse(page, 500)


def _in_one_line(exc: BaseException) -> str:
    return " ".join(traceback.format_exception_only(exc)[0].split())
