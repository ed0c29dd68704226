"""A web front end beside other services, in one Trio program.

    $ curl -X POST http://127.0.0.1:8000/jobs/paint
    {"accepted":"paint"}

Start it with `python embedding.py`: then a worker takes the jobs, and a second service counts
them for whoever connects to port 8001. SIGINT or SIGTERM ends all of it, in this order: the web
server drains, the worker does the jobs that were accepted, the rest is cancelled.
"""

import logging
import signal
from collections.abc import AsyncIterator

import trio

import trioweb
from trioweb.server import Server

app = trioweb.App(drain_timeout=20, cleanup_timeout=5)
send_jobs, jobs = trio.open_memory_channel[str](100)
done: list[str] = []
all_done = trio.Event()


@app.post("/jobs/{name}", status_code=202)
async def accept(name: str):
    try:
        send_jobs.send_nowait(name)
    except trio.WouldBlock:
        raise trioweb.HTTPException(503, "Too many jobs wait", {"retry-after": "1"}) from None
    return {"accepted": name}


async def work() -> None:
    async for job in jobs:
        await trio.sleep(0.1)
        done.append(job)
    all_done.set()


async def tell_progress(stream: trio.SocketStream) -> None:
    await stream.send_all(f"{len(done)} done\n".encode())


async def hurry(signals: AsyncIterator[int], server: Server) -> None:
    async for _ in signals:
        server.cancel()


async def main() -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await nursery.start(trio.serve_tcp, tell_progress, 8001)
            server = await nursery.start(trioweb.serve, app)
            print("serving at", *server.urls, flush=True)
            await anext(signals)
            nursery.start_soon(hurry, signals, server)
            await server.shutdown()
            send_jobs.close()
            with trio.move_on_after(15):
                await all_done.wait()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    trio.run(main)
