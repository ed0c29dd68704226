"""Inputs that are guided by coverage, where atheris is installed (pip install atheris).

What was found worth keeping is kept in a folder, and the next run begins with it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .mutations import LONGEST, WORDS, cases

INSTRUMENTED = ["trioweb.server", "h11"]


def is_installed() -> bool:
    return importlib.util.find_spec("atheris") is not None


def fuzz(
    load: Callable[[], Callable[[bytes], None]],
    *,
    folder: Path,
    runs: int,
    seconds: int,
    seed: int,
) -> None:
    """Run what `load` imports on inputs until one fails.  atheris ends the process by itself."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        run = load()
    corpus, words = folder / "corpus", folder / "words"
    corpus.mkdir(parents=True, exist_ok=True)
    for n, data in enumerate(cases()):
        (corpus / f"case-{n}").write_bytes(data)
    words.write_text("".join(f'"{escaped(word)}"\n' for word in WORDS), "ascii")
    options = {"runs": runs, "max_total_time": seconds, "seed": seed, "max_len": LONGEST}
    flags = [f"-{name}={value}" for name, value in options.items()]
    paths = [f"-dict={words}", f"-artifact_prefix={folder}/", str(corpus)]
    atheris.Setup(["tests.server.fuzz", *flags, *paths], run)
    atheris.Fuzz()


def escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
