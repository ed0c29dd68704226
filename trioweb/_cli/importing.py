"""Import strings: from `main:app` to the app.

Rules of this module:

* The folder in which the command was typed comes first on `sys.path`, as for `python -m`; or the
  one that is named instead.
* Where a name can't be found, the message shows the names that are there.
* An exception inside the author's module is shown with its traceback, from the author's line on.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from .. import _callables
from .._app.app import App
from .._asgi import ASGIApp
from .._errors import CommandError
from .frames import is_the_authors

# The modules in which the app is looked for when none is named, in this order.
MODULES = ("main", "app")

_IMPORT_STRING = re.compile(r"(?P<module>\w+(\.\w+)*)(:(?P<name>\w+(\.\w+)*)(?P<call>\(\))?)?")


def load_app(import_string: str | None = None, folder: str | None = None) -> ASGIApp:
    """The app of `module:name`, of `module:factory()`, or of `module` where it has one.

    `folder` is where the module is looked for first; None for the current one.
    Raises CommandError.
    """
    here = os.path.abspath(folder or os.getcwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    import_string = import_string or _discovered(here)
    match = _IMPORT_STRING.fullmatch(import_string)
    if match is None or match["module"].endswith(".py"):
        raise _refusal(import_string)
    module = _module(match["module"], here)
    name = match["name"] or _only_app(module)
    found = _attribute(module, name)
    where = f"{match['module']}:{name}"
    if not match["call"]:
        return _checked(module, where, found)
    return _checked(module, f"{where}()", _called(where, found))


def _discovered(here: str) -> str:
    for module in MODULES:
        if Path(here, f"{module}.py").is_file():
            return module
    raise CommandError(
        f"no app is named, and {here} has none of {_listed(f'{m}.py' for m in MODULES)}",
        wrong="trioweb run",
        right="trioweb run MODULE:APP  # in the folder that MODULE is in, or with --app-dir FOLDER",
    )


def _refusal(wrong: str) -> CommandError:
    """What to write instead of something that isn't an import string; most often it is a path."""
    path, _, name = wrong.partition(":")
    parts = Path(path.removesuffix(".py")).parts
    module = ".".join(part for part in parts if part.isidentifier()) or "main"
    return CommandError(
        "an app is named as it is imported: its module, a colon, its name there",
        wrong=wrong,
        right=f"{module}:{name if name.isidentifier() else 'app'}",
    )


def _module(name: str, here: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise _failure(name, exc) from None
        raise _not_found(name, exc.name, here) from None
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # SystemExit too: the module's author didn't expect a server
        raise _failure(name, exc) from None


def _not_found(name: str, missing: str, here: str) -> CommandError:
    there = sorted(path.stem for path in Path(here).glob("*.py") if path.stem.isidentifier())
    close = get_close_matches(missing, there, 1) or there[:1]
    return CommandError(
        f"there is no module {missing!r} in {here}, nor is one installed;"
        f" the folder has {_listed(there) or 'no modules'}",
        wrong=name,
        right=f"{close[0]}:app" if close else "MODULE:APP, with --app-dir FOLDER if it isn't here",
    )


def _failure(what: str, exc: BaseException) -> CommandError:
    lines = traceback.format_exception(type(exc), exc, _from_the_author_on(exc.__traceback__))
    return CommandError(f"{what} can't be imported:\n\n{''.join(lines).rstrip()}")


def _from_the_author_on(tb: TracebackType | None) -> TracebackType | None:
    """Without the frames in front of the author's first one: trioweb's, and importlib's."""
    while tb is not None and not is_the_authors(tb.tb_frame):
        tb = tb.tb_next
    return tb


def _only_app(module: ModuleType) -> str:
    apps = list(_apps(module))
    if "app" in vars(module):
        return "app"
    if len(apps) == 1:
        return apps[0]
    raise CommandError(
        f"{module.__name__} has no app" if not apps else f"{module.__name__} has {len(apps)} apps",
        wrong=module.__name__,
        right=" or ".join(f"{module.__name__}:{name}" for name in apps)
        or f"{module.__name__}:app, with app = App() in {_file(module)}",
    )


def _apps(module: ModuleType) -> Iterator[str]:
    return (name for name, value in vars(module).items() if isinstance(value, App))


def _attribute(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise _no_attribute(module, name) from None
    return found


def _no_attribute(module: ModuleType, name: str) -> CommandError:
    apps = list(_apps(module))
    has = f"its apps: {_listed(apps)}" if apps else "nor any App"
    return CommandError(
        f"{module.__name__} has no {name!r}; {has}",
        wrong=f"{module.__name__}:{name}",
        right=f"{module.__name__}:{apps[0]}"
        if apps
        else f"{name} = App() in {_file(module)}, outside of any function",
    )


def _called(where: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as exc:
        raise _failure(f"{where}()", exc) from None


def _checked(module: ModuleType, where: str, found: Any) -> ASGIApp:
    """`found`, if a server can call it.  Raises CommandError."""
    is_class = inspect.isclass(found)
    if callable(found) and not is_class and _callables.takes(found, 3):
        app: ASGIApp = found
        return app
    if is_class or (
        callable(found) and _callables.takes(found, 0) and not _callables.is_async(found)
    ):
        kind = "class" if is_class else "function"
        raise CommandError(
            f"{where} is a {kind}, not an app; does it make one?", wrong=where, right=f"{where}()"
        )
    apps = [f"{module.__name__}:{name}" for name in _apps(module)]
    raise CommandError(
        f"{where} is a {type(found).__name__}, not an ASGI application",
        wrong=where,
        right=" or ".join(apps) or f"{module.__name__}:app, with app = App() in {_file(module)}",
    )


def _file(module: ModuleType) -> str:
    return Path(getattr(module, "__file__", None) or f"{module.__name__}.py").name


def _listed(names: Iterator[str] | list[str]) -> str:
    return ", ".join(names)
