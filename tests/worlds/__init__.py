"""What the simulations share: how a world is planned, watched, run and cancelled from one seed.

Rules of this package:

* Nothing here knows what happens in a world: `tests.simulation` has worlds of requests and tasks,
  `tests.server_simulation` worlds of connections and bytes.
* Imports go one way: plans and world, runner, simulation and steps.
"""
