"""What the simulations share: how a world is planned, watched, run and cancelled from one seed.

Rules of this package:

* Nothing here knows what happens in a world: `tests.worlds.app` has worlds of requests and tasks,
  `tests.worlds.server` worlds of connections and bytes.
* Imports go one way: plans and world, runner, simulation and steps.
"""
