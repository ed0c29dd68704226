"""Deterministic simulation: whole worlds of clients, requests, tasks and failures from one seed.

Rules of this package:

* A world is planned before it runs, from its seed alone (`plans`), and then runs
  on a clock that jumps, with Trio's scheduling seeded too (`runner`): the same
  seed gives the same trace.  What any simulation needs for that is `tests.worlds.common`.
* Nothing here knows how trioweb works: what it does is watched from outside, by
  ASGI messages, handles, statistics and log records (`world`), and compared with
  what it promises (`fates`, `invariants`).  Only `plants` knows, to break it.
* Imports go one way: plans, world, server and program, fates, invariants, runner,
  plants.
* A seed that fails prints the one command that replays it:
  `python -m tests.worlds.app --start SEED --trace`.
"""
