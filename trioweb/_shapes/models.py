"""Models: pydantic's classes, recognised by what they can do.

Rules of this module:

* pydantic is never imported: whoever doesn't use it doesn't pay for it, and any class with the
  same methods is a model too.
* What a model takes is the model's to say, NaN included; we put only its errors into our shape.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .._errors import Problem
from .._limits import MAX_PROBLEMS
from .problems import make_problem

_PACKAGES = ("pydantic", "pydantic_core", "pydantic_extra_types")


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and callable(
        getattr(annotation, "model_validate_json", None)
    )


def checks_itself(func: Any) -> bool:
    """Whether calling this class checks its arguments: a pydantic model or dataclass."""
    return isinstance(func, type) and hasattr(func, "__pydantic_validator__")


def is_of_pydantic(kind: type[Any]) -> bool:
    """Whether it is a class of pydantic, such as `AnyUrl` or `SecretStr`, or built on one."""
    return any(base.__module__.partition(".")[0] in _PACKAGES for base in kind.__mro__)


def decode_model(model: Any, value: Any) -> Any:
    """A model inside of another type.  By way of JSON, so that its strict mode takes dates."""
    if isinstance(value, model):  # a class that is built from models which are decoded already
        return value
    return model.model_validate_json(msgspec.json.encode(value))


def model_problems(exc: BaseException | None) -> list[Problem]:
    """What a model found wrong, without its text of the input."""
    errors = getattr(exc, "errors", None)
    if not callable(errors):
        return [make_problem([], str(exc) or "Value error", "value_error")]
    found: Any = errors(include_url=False, include_context=False, include_input=False)
    return [make_problem(each["loc"], each["msg"], each["type"]) for each in found[:MAX_PROBLEMS]]
