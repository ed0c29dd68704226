"""Workers that do what a test says: in memory, and as small processes."""

from __future__ import annotations

import signal
import sys

import trio

from trioweb._cli.processes import Worker
from trioweb._cli.signals import Order, Times


class FakeWorker(Worker):
    """A worker whose end is the test's to say; told to end it does, unless it is `stubborn`."""

    def __init__(self, pid: int, *, starts: bool = True, stubborn: bool = False) -> None:
        super().__init__(pid)
        self.heard: list[Order | str] = []
        self._ended = trio.Event()
        self._ended_with = 0
        self._stubborn = stubborn
        self.signs = 0  # of life; a test that looks for hangs says how many
        self.served = 0
        self.traced = False
        if starts:
            self.settle(Times(3.0, 2.0))

    def end(self, status: int) -> None:
        self._ended_with = status
        self._ended.set()

    def get_ready(self) -> None:
        self.settle(Times(3.0, 2.0))

    async def wait_ended(self) -> int:
        await self._ended.wait()
        return self._ended_with

    def send(self, order: Order) -> None:
        self.heard.append(order)
        if not self._stubborn:
            self.end(0)

    def last_sign(self) -> int:
        return self.signs

    def requests(self) -> int:
        return self.served

    def is_traced(self) -> bool:
        return self.traced

    def ask_where(self) -> None:
        self.heard.append("where")

    def abort(self) -> None:
        self.heard.append("abort")

    def kill(self) -> None:
        self.heard.append("kill")
        self.end(128 + signal.SIGKILL)


# `s` is the socket to the supervisor.
_SUPERVISOR = (
    "import socket, sys; s = socket.socket(fileno=int(sys.argv[1].split('=')[1].split(',')[1]));"
)


def worker_script(text: str) -> list[str]:
    return [sys.executable, "-c", _SUPERVISOR + text]
