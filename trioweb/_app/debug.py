"""What `App(debug=True)` answers when a handler failed: the traceback, for people.

Rules of this module:

* The whole tree of an exception group is shown, and every cause.
* Everything is escaped: a traceback quotes what the client sent.
* It answers for any exception: one whose text can't be had, or can't be encoded,
  still gets its page.
"""

from __future__ import annotations

import html
import sys
import traceback

from .._errors import leaves
from .._http.exchange import Exchange
from .._http.response import HTMLResponse, JSONResponse, Response

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
 :root {{ color-scheme: light dark; --line: #8885; --mark: #d33 }}
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 2rem 1rem }}
 header {{ border-left: .3rem solid var(--mark); padding-left: 1rem }}
 h1 {{ font-size: 1.4rem; line-height: 1.3; margin: 0; overflow-wrap: anywhere }}
 h2 {{ font-size: 1rem; margin: 2rem 0 .5rem }}
 p {{ margin: .25rem 0; overflow-wrap: anywhere }}
 ol {{ margin: 0; padding-left: 2rem }}
 code, pre, li {{ font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere }}
 pre {{ overflow-x: auto; margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: .4rem;
       background: #8881; overflow-wrap: normal }}
 footer {{ margin-top: 2rem; font-size: .85rem; opacity: .75 }}
</style>
<header>
<h1>{title}</h1>
<p><code>{request}</code></p>
</header>
{errors}<h2>Traceback</h2>
<pre>{traceback}</pre>
<footer>You see this page because the app runs with <code>debug=True</code>.</footer>
</html>
"""  # noqa: E501


def debug_response(exchange: Exchange, exc: BaseException) -> Response:
    """A page where the client takes HTML, JSON with the same elsewhere."""
    errors = [_in_one_line(leaf) for leaf in leaves(exc)]
    text = _whole_traceback(exc)
    if "text/html" not in exchange.headers.get("accept", "").lower():
        detail = {
            "detail": "Internal Server Error",
            "errors": errors,
            "traceback": text.split("\n"),
        }
        return JSONResponse(detail, 500)
    page = _PAGE.format(
        title=html.escape(_in_one_line(exc)),
        request=html.escape(str(exchange.label)),
        errors=_list(errors) if len(errors) > 1 else "",
        traceback=html.escape(text),
    )
    return HTMLResponse(page, 500)


def _list(errors: list[str]) -> str:
    items = "".join(f"<li>{html.escape(error)}</li>\n" for error in errors)
    return f"<h2>{len(errors)} errors</h2>\n<ol>\n{items}</ol>\n"


def _whole_traceback(exc: BaseException) -> str:
    """As Python prints it, but with every member of every group."""
    try:
        whole = traceback.TracebackException.from_exception(
            exc, max_group_width=sys.maxsize, max_group_depth=sys.maxsize
        )
        return _encodable("".join(whole.format()).rstrip("\n"))
    except RecursionError:
        return "The groups are nested too deeply for Python to show them."


def _in_one_line(exc: BaseException) -> str:
    # Of a SyntaxError the place comes first, indented.
    lines = traceback.format_exception_only(exc)
    return _encodable(" ".join(next(line for line in lines if line[0] != " ").split()))


def _encodable(text: str) -> str:
    """Without lone surrogates, such as the name of a file may have."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
