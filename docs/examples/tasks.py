"""Tasks run after the response, one after another; one that fails doesn't stop the rest.

    $ curl -i --json '{"email":"ada@example.org"}' http://127.0.0.1:8000/signups
    HTTP/1.1 202
    content-type: application/json

    {"status":"accepted"}

The server's terminal then shows:

    mail to ada@example.org
    task update_search_index of POST /signups failed
    RuntimeError: the index is locked
    send_mail: done
    update_search_index: failed
"""

import trio
from msgspec import Struct

from trioweb import App, BackgroundTask, BackgroundTasks

app = App()


class Signup(Struct):
    email: str


async def send_mail(address: str) -> None:
    await trio.sleep(0.1)
    print(f"mail to {address}")


def update_search_index(address: str) -> None:  # a def: runs in a worker thread
    raise RuntimeError("the index is locked")


async def report(tasks: list[BackgroundTask]) -> None:
    for task in tasks:
        print(f"{task.name}: {task.state}")


@app.post("/signups", status_code=202)
async def sign_up(signup: Signup, tasks: BackgroundTasks):
    mail = tasks.add_task(send_mail, signup.email)
    index = tasks.add_task(update_search_index, signup.email)
    tasks.add_task(report, [mail, index])
    return {"status": "accepted"}
