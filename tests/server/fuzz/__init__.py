"""Fuzzing what the server reads: the strict layer, both parsers, and all bodies.

Rules of this package:

* What is fuzzed is the server's own code in the order in which a connection calls it, without
  I/O (`reader`); a test compares that order with the real connection.
* Nothing may be raised but BadRequest; no verdict may depend on the split, nor on the parser; and
  what is accepted, h11 and llhttp must take for the same by themselves (`checks`).
* Inputs come from the cases in `tests/http_cases`: `guided` by coverage, where atheris is
  installed, or by `mutations` from a seed, which always run.
* An input that fails is made small, and printed with the command that replays it.
"""
