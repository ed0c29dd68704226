"""Places for threads: each function's own, as many as Trio's limiter has at the time."""

from __future__ import annotations

import trio

from trioweb._concurrency.threads import places_of


def test_each_function_has_places_of_its_own_in_each_run() -> None:
    async def main() -> trio.CapacityLimiter:
        default = trio.to_thread.current_default_thread_limiter()
        places = places_of("f")
        assert places_of("f") is places
        assert len({id(places), id(places_of("g")), id(default)}) == 3
        assert places.total_tokens == default.total_tokens
        default.total_tokens = 3
        assert places_of("f").total_tokens == 3
        return places

    assert trio.run(main) is not trio.run(main)
