"""Deterministic simulation of the server: worlds of clients, faults and endings from one seed.

Rules of this package:

* A world is planned before it runs, from its seed alone (`plans`), and then runs on a clock
  that jumps, with Trio's scheduling seeded too (`runner`): the same seed gives the same trace.
  What any simulation needs for that is `tests.worlds.common`.
* Bytes go over streams that are as nasty as TCP may be (`streams`): short, slow, bounded, and
  a reset takes with it what wasn't read.
* Nothing here knows how the server works: it is watched from both ends (`program`, `clients`),
  and compared with what it promises (`invariants`).  One exception: what its parser is given
  tells which heads were read.
* A seed that fails prints the one command that replays it:
  `python -m tests.worlds.server --start SEED --trace`.
"""
